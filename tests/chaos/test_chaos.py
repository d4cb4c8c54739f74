"""Workers and the database killed, frozen and cut off while sessions run: all reach their end, and nothing happened twice.

The long form is `scripts/chaos --minutes N`.
"""

import pytest

from tests.chaos._namespaces import why_not
from tests.chaos._run import FAULTS_MIN, SESSIONS_MIN, Report, chaos


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_sessions_reach_their_end_with_effects_as_promised_while_everything_fails():
    _enough(await chaos(20, seed=1))


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_sessions_reach_their_end_while_networks_are_cut_by_the_kernel():
    """Each worker in a network namespace, joined to the database's by a cable that is pulled for longer than a lease."""
    if missing := why_not():
        pytest.skip(f"network namespaces: {missing}")
    report = await chaos(12, seed=2, apart=True)
    _enough(report)
    assert report.faults["network cut"] + report.faults["network stalled"]


def _enough(report: Report) -> None:
    print(report)
    assert sum(report.faults.values()) >= FAULTS_MIN
    assert report.deaths
    assert report.found["sessions"] >= SESSIONS_MIN
