"""The vendors' SDKs for Node, unmodified, against every vendor's wire: a smaller set, since the wires are the same as for Python."""

import asyncio
import os
import shutil
from base64 import b64encode
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.matrix._features import CALLS, MESSAGE, ONE, PNG
from tests.matrix._node import NODE, node_folder
from tests.matrix._words import Answer, Image
from tests.matrix._world import MODEL, MatrixWorld, provider, vendors

pytestmark = pytest.mark.slow

PATIENCE_S = 30
ANSWERS = {"text": Answer(text="Grüße, 上海 🌍"), "tool": CALLS, "image": Answer(text="A pixel.")}
FEATURES = ["text", "text stream", "tool", "tool stream", "image"]
SDKS = ["openai", "anthropic"]
cells = pytest.mark.parametrize("vendor", list(vendors()))


async def _cell(matrix: MatrixWorld, sdk: str, feature: str, vendor: str) -> Any:
    folder = node_folder()
    program = folder / "cell.mjs"
    shutil.copyfile(NODE / "cell.mjs", program)  # Where Node looks for packages: beside the program.
    environment = {
        "PATH": os.environ["PATH"],
        "OPENAI_BASE_URL": f"{matrix.url}/v1",
        "OPENAI_API_KEY": matrix.key,
        "ANTHROPIC_BASE_URL": matrix.url,
        "ANTHROPIC_API_KEY": matrix.key,
    }
    process = await asyncio.create_subprocess_exec(
        "node", str(program), sdk, feature, f"{provider(vendor)}/{MODEL}", b64encode(PNG).decode(),
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE_S):
        said, wrong = await process.communicate()
    assert process.returncode == 0, wrong.decode()
    return msgspec.json.decode(said)


@cells
@pytest.mark.parametrize("sdk", SDKS)
@pytest.mark.parametrize("feature", FEATURES)
async def test_a_feature_works(matrix: MatrixWorld, sdk: str, feature: str, vendor: str) -> None:
    driver, answer = vendors()[vendor], ANSWERS[feature.split(maxsplit=1)[0]]
    streams = feature.endswith("stream")
    script = driver.streamed(driver.pieces(answer)) if streams else driver.whole(answer)
    played = matrix.play(vendor, script)
    said = await _cell(matrix, sdk, feature, vendor)
    assert said["text"] == answer.text
    assert said["calls"] == ([[ONE.id, "stock", {"sku": "4482"}]] if answer.calls else [])
    assert (said["stop"], said["usage"]) == (answer.stop, [answer.usage.input, answer.usage.output])
    assert driver.wrong(played.asked[0]) == []
    (turn,) = driver.heard(played.asked[0]).turns
    assert (Image(PNG) in turn.content) == (feature == "image")


@cells
@pytest.mark.parametrize(("sdk", "kind"), [("openai", "BadRequestError"), ("anthropic", "BadRequestError")])
async def test_a_refusal_comes_as_the_sdk_has_it(
    matrix: MatrixWorld, sdk: str, kind: str, vendor: str
) -> None:
    matrix.play(vendor, vendors()[vendor].fault("bad_request", MESSAGE, ""))
    said = await _cell(matrix, sdk, "text", vendor)
    assert (said["kind"], said["status"]) == (kind, 400)
    assert MESSAGE in said["message"]


def test_no_lock_file_is_kept() -> None:
    """It would hold the address of whoever's registry it was made from."""
    assert sorted(path.name for path in Path(NODE).iterdir()) == ["cell.mjs", "package.json"]
