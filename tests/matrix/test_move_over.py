"""docs/move-over.md, and the README's section, as one would follow them: each example in a process of its own, with nothing but what
the page exports.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from freehold.store.embedded import EmbeddedServer
from tests._postgres import MIGRATED, fresh_database
from tests._waiting import PATIENCE_S
from tests.gateway._vendors import ANTHROPIC_STREAM, ANTHROPIC_TEXT, reply, stream
from tests.matrix._documents import Example, examples
from tests.matrix._node import node_folder
from tests.matrix._words import Answer, Usage
from tests.matrix.vendors import openai_responses
from tests.server._world import World, world

ROOT = Path(__file__).parent.parent.parent
SECTION = "Move your application over in one line"
EXAMPLES = [
    *examples(ROOT / "docs" / "move-over.md"),
    *(one for one in examples(ROOT / "README.md") if one.title.startswith(SECTION)),
]
QUICK = EXAMPLES[:1]
HERE = "http://127.0.0.1:8484"


@pytest.fixture(scope="module")
async def moved(
    postgres_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    async with (
        fresh_database(postgres_server, template=MIGRATED) as url,
        world(url, tmp_path_factory.mktemp("moved")) as opened,
    ):
        yield opened


def _case(example: Example) -> object:
    marks = [] if example.language == "python" and example in QUICK else [pytest.mark.slow]
    return pytest.param(example, id=example.title, marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize("example", [_case(example) for example in EXAMPLES])
async def test_an_example_runs_as_it_stands(moved: World, example: Example, tmp_path: Path) -> None:
    streams = "stream" in example.code
    # Towards OpenAI all are translated, and its reasoning models are asked by Responses.
    hello = Answer(text="Hello there", usage=Usage(9, 2))
    told = (
        openai_responses.streamed(openai_responses.pieces(hello))
        if streams
        else openai_responses.whole(hello)
    )
    moved.script("openai", told)
    moved.script("anthropic", stream(*ANTHROPIC_STREAM) if streams else reply(ANTHROPIC_TEXT))
    if example.language == "python":
        command, folder = [sys.executable, "-W", "error", "-c", example.code], tmp_path
    else:
        folder = node_folder()
        command = ["node", "--input-type=module", "-e", example.code]
    environment = {**_inherited(), **await _exported(moved, example)}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE_S):
        said, wrong = await process.communicate()
    assert process.returncode == 0, wrong.decode()
    assert said.decode().strip() == "Hello there"


def _inherited() -> dict[str, str]:
    """Not what the person who runs the tests has exported for the same SDKs."""
    known = ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT")
    return {name: os.environ[name] for name in known if name in os.environ}


async def _exported(moved: World, example: Example) -> dict[str, str]:
    made = await moved.json("POST", "/v1/keys", {"name": "moved"})
    secrets = {"AWS_ACCESS_KEY_ID": made["access_key_id"], "AWS_SECRET_ACCESS_KEY": made["secret_access_key"]}
    told = {
        name: value.replace(HERE, moved.url).replace("fh_...", made["key"])
        for name, value in example.exported.items()
    }
    return {name: secrets.get(name, value) for name, value in told.items()}


def test_every_sdk_has_its_example() -> None:
    titles = {example.title.rpartition(" ")[0] for example in EXAMPLES}
    assert {"OpenAI's SDK", "Anthropic's SDK", "AWS's SDK, for Bedrock", "Google's SDK"} <= titles


def test_the_readme_moves_every_sdk_by_its_variable() -> None:
    exported = {name for one in EXAMPLES if one.title.startswith(SECTION) for name in one.exported}
    assert exported >= {
        "OPENAI_BASE_URL",
        "ANTHROPIC_BASE_URL",
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
        "GOOGLE_GEMINI_BASE_URL",
    }
