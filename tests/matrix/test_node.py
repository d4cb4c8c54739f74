"""The vendors' SDKs for Node, unmodified, against every vendor's wire: the rows of which the README speaks, as for Python."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.gateway._vendors import CUT
from tests.matrix._cell import Cell, answered_rightly
from tests.matrix._features import FEATURES, MESSAGE, Mode
from tests.matrix._node import NODE
from tests.matrix._node_sdk import ANSWERS, NodeFailure, NodeSdk, node_process
from tests.matrix._refused import refusal_of
from tests.matrix._world import MODEL, MatrixWorld, clients, provider, vendors

pytestmark = pytest.mark.slow

ROWS = (
    "text",
    "tool",
    "parallel tools",
    "tool result",
    "image, base64",
    "structured output",
    "reasoning",
    "stop sequence",
    "max tokens",
)
REFUSED = {"bedrock_converse": "ValidationException"}
"""What the SDK raises, where it is not called as OpenAI's and Anthropic's are."""

pairs = pytest.mark.parametrize(("sdk", "vendor"), [(sdk, vendor) for sdk in ANSWERS for vendor in vendors()])


@pytest.fixture(scope="module")
async def node(matrix: MatrixWorld) -> AsyncIterator[asyncio.subprocess.Process]:
    async with node_process(matrix) as process:
        yield process


def _cells() -> Iterator[Any]:
    for sdk in ANSWERS:
        for vendor in vendors():
            for name in ROWS:
                for mode in FEATURES[name].modes:
                    yield pytest.param(sdk, vendor, name, mode, id="-".join((sdk, vendor, name, mode)))


@pytest.mark.parametrize(("sdk", "vendor", "name", "mode"), list(_cells()))
async def test_a_feature_works(
    matrix: MatrixWorld, node: asyncio.subprocess.Process, sdk: str, vendor: str, name: str, mode: Mode
) -> None:
    cell = Cell(matrix, clients()[sdk], NodeSdk(sdk, node), vendor, FEATURES[name], mode)
    listed = refusal_of(sdk, vendor, name)
    if listed is None:
        await cell.holds()
        return
    with pytest.raises(NodeFailure, match=listed.says) as raised:
        await cell.holds()
    assert (raised.value.kind, raised.value.status) == (REFUSED.get(sdk, "BadRequestError"), 400)
    answered_rightly(matrix, sdk)


@pairs
async def test_a_refusal_comes_as_the_sdk_has_it(
    matrix: MatrixWorld, node: asyncio.subprocess.Process, sdk: str, vendor: str
) -> None:
    matrix.play(vendor, vendors()[vendor].fault("bad_request", MESSAGE, ""))
    with pytest.raises(NodeFailure) as raised:
        await clients()[sdk].ask(NodeSdk(sdk, node), f"{provider(vendor)}/{MODEL}", FEATURES["text"].ask)
    assert (raised.value.kind, raised.value.status) == (REFUSED.get(sdk, "BadRequestError"), 400)
    assert MESSAGE in raised.value.message


@pairs
@pytest.mark.parametrize("message", [None, "The model is overloaded."], ids=["cut", "error in the middle"])
async def test_a_broken_stream_ends_as_an_error(
    matrix: MatrixWorld, node: asyncio.subprocess.Process, sdk: str, vendor: str, message: str | None
) -> None:
    driver = vendors()[vendor]
    begun = driver.pieces(FEATURES["text"].answer)[:-2]
    matrix.play(vendor, driver.streamed([*begun, CUT if message is None else driver.fault_piece(message)]))
    ask = structs.replace(FEATURES["text"].ask, stream=True)
    with pytest.raises(NodeFailure):
        await clients()[sdk].ask(NodeSdk(sdk, node), f"{provider(vendor)}/{MODEL}", ask)


def test_no_lock_file_is_kept() -> None:
    """It would hold the address of whoever's registry it was made from."""
    assert sorted(path.name for path in Path(NODE).iterdir()) == ["cell.mjs", "package.json"]
