"""The programs of docs/responses.md run as they stand, through OpenAI's SDK; only the address and the key are a test's."""

import asyncio
import re
from pathlib import Path

import msgspec
import pytest

from tests.gateway._vendors import ANTHROPIC_STREAM, ANTHROPIC_TEXT, reply, stream
from tests.server._world import World
from tests.server.test_responses import RESPONSE

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "responses.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


async def test_documented_programs_run(shared: World) -> None:
    told: list[str] = []
    names = {"print": lambda *words: told.append(" ".join(map(str, words)))}
    shared.script("openai", reply(msgspec.json.encode(RESPONSE)))
    text, streamed = reply(ANTHROPIC_TEXT), stream(*ANTHROPIC_STREAM)
    shared.script("anthropic", text, text, text, streamed)
    for program in PROGRAMS:
        mine = program.replace("http://127.0.0.1:8484", shared.url).replace("fh_...", shared.key)
        await asyncio.to_thread(exec, mine, names)
    items = ["message"] * 3 + ["message"] * 4
    assert told == ["Hello there", *items, "completed Hello there"]
    await asyncio.to_thread(exec, "client.close()", names)
