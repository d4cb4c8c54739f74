"""Every client's SDK against every vendor's wire, feature by feature: what the vendor heard, and what the SDK made of its answer.

Vendors check what they receive against the vendor's published types. A cell passes, or is refused aloud as `refused.toml` says.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import structs

from tests.gateway._vendors import CUT
from tests.matrix._cell import Cell, answered_rightly
from tests.matrix._features import ABOUT_THE_REQUEST, BOTH, BROKEN, CAUSES, FEATURES, MESSAGE, Mode
from tests.matrix._refused import refusal_of, refused
from tests.matrix._words import Cause
from tests.matrix._world import MODEL, MatrixWorld, clients, provider, vendors

PAIRS = [(client, vendor) for client in clients() for vendor in vendors()]
pairs = pytest.mark.parametrize(("client", "vendor"), PAIRS)


QUICK = {("text", "whole"), ("parallel tools", "stream")}
"""Those that find the most: a quick run has them for every pair, and a whole one everything."""
QUICK_AT_HOME = {("tool result", "whole"), ("reasoning, then another vendor", "stream"), ("usage", "stream")}
"""A quick run has them where client and vendor speak one wire."""


def _marks(client: str, vendor: str, name: str, mode: Mode) -> Any:
    quick = QUICK | QUICK_AT_HOME if client == vendor else QUICK
    return () if (name, mode) in quick else pytest.mark.slow


def _cells() -> Iterator[Any]:
    for client, vendor in PAIRS:
        for name, feature in FEATURES.items():
            for mode in () if name in clients()[client].CANNOT else feature.modes:
                marks = _marks(client, vendor, name, mode)
                yield pytest.param(
                    client, vendor, name, mode, id=f"{client}-{vendor}-{name}-{mode}", marks=marks
                )


@pytest.mark.parametrize(("client", "vendor", "name", "mode"), list(_cells()))
async def test_a_feature_works(matrix: MatrixWorld, client: str, vendor: str, name: str, mode: Mode) -> None:
    listed = refusal_of(client, vendor, name)
    if listed is None:
        await Cell(matrix, clients()[client], matrix.sdks[client], vendor, FEATURES[name], mode).holds()
        return
    with pytest.raises(clients()[client].ERROR) as raised:
        await Cell(matrix, clients()[client], matrix.sdks[client], vendor, FEATURES[name], mode).holds()
    answered_rightly(matrix, client)
    failure = clients()[client].failure(raised.value)
    assert failure.status == 400
    assert listed.says in failure.message


@pairs
@pytest.mark.parametrize(
    ("cause", "mode"),
    [
        pytest.param(
            cause, mode, marks=() if (cause, mode) == ("rate_limited", "stream") else pytest.mark.slow
        )
        for cause in CAUSES
        for mode in BOTH
    ],
)
async def test_a_refusal_comes_in_the_clients_dialect(
    matrix: MatrixWorld, client: str, vendor: str, cause: Cause, mode: Mode
) -> None:
    speaks = clients()[client]
    headers = "retry-after: 7\r\n" if cause == "rate_limited" else ""
    matrix.play(vendor, vendors()[vendor].fault(cause, MESSAGE, headers))
    ask = structs.replace(FEATURES["text"].ask, stream=mode == "stream")
    with pytest.raises(speaks.ERROR) as raised:
        await speaks.ask(matrix.sdks[client], f"{provider(vendor)}/{MODEL}", ask)
    answered_rightly(matrix, client)
    failure = speaks.failure(raised.value)
    assert (failure.kind, failure.status) == speaks.REFUSALS[cause]
    assert (MESSAGE in failure.message) == (cause in ABOUT_THE_REQUEST)
    if cause == "rate_limited":
        assert failure.retry_after == "7"


@pytest.mark.parametrize(
    ("client", "vendor"),
    [pytest.param(*pair, marks=() if pair[0] == pair[1] else pytest.mark.slow) for pair in PAIRS],
)
@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_stream_ends_as_an_error(
    matrix: MatrixWorld, client: str, vendor: str, name: str
) -> None:
    speaks, driver, message = clients()[client], vendors()[vendor], BROKEN[name].message
    begun = driver.pieces(FEATURES["text"].answer)[:-2]
    matrix.play(vendor, driver.streamed([*begun, CUT if message is None else driver.fault_piece(message)]))
    ask = structs.replace(FEATURES["text"].ask, stream=True)
    with pytest.raises(speaks.ERROR):
        await speaks.ask(matrix.sdks[client], f"{provider(vendor)}/{MODEL}", ask)
    answered_rightly(matrix, client)


def test_what_is_listed_as_refused_is_a_cell() -> None:
    cells = {(client, vendor, name) for client, vendor in PAIRS for name in FEATURES}
    assert {(one.client, one.vendor, one.feature) for one in refused()} <= cells
