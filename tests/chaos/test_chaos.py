"""Workers and the database killed, frozen and cut off while sessions run: all reach their end, and nothing happened twice.

The long form is `scripts/chaos --minutes N`.
"""

import pytest

from tests.chaos._run import chaos

FAULTS_MIN = 10
SESSIONS_MIN = 5


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_sessions_reach_their_end_with_effects_as_promised_while_everything_fails():
    report = await chaos(20, seed=1)
    print(report)
    assert sum(report.faults.values()) >= FAULTS_MIN
    assert report.deaths
    assert report.found["sessions"] >= SESSIONS_MIN
