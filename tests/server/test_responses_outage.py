"""The database goes away under clients of OpenAI's Responses: what could not be kept is never told as if it were."""

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from tests._waiting import within
from tests.gateway._vendors import ANTHROPIC_STREAM, ANTHROPIC_TEXT, reply, stream
from tests.server._world import world
from tests.store._proxy import Proxy, proxied

pytestmark = pytest.mark.slow

CLAUDE = "anthropic/claude-sonnet-4-5"


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with proxied(database_url) as one:
        yield one


async def test_an_answer_that_cannot_be_kept_is_an_error_and_one_that_need_not_be_is_told(
    proxy: Proxy, tmp_path: Path
) -> None:
    async with world(proxy.url, tmp_path) as own:
        own.script("anthropic", reply(ANTHROPIC_TEXT))
        create = own.openai.responses.create
        await create(model=CLAUDE, input="Hi")
        proxy.cut()
        with pytest.raises(openai.InternalServerError, match="database"):
            await create(model=CLAUDE, input="Hi")
        assert (await create(model=CLAUDE, input="Hi", store=False)).output_text == "Hello there"
        own.script("anthropic", stream(*ANTHROPIC_STREAM))
        kinds: list[str] = []

        async def listen() -> None:
            async for event in await create(model=CLAUDE, input="Hi", stream=True):
                kinds.append(event.type)  # noqa: PERF401 - so that what came before the fault is there

        with pytest.raises(openai.APIError, match="database"):
            await listen()
        assert "response.output_text.delta" in kinds
        assert "response.completed" not in kinds
        proxy.heal()
        async with within("/healthz to be well"):
            while (await own.http.get("/healthz")).status_code != 200:
                pass
        again = [
            event async for event in await create(model=CLAUDE, input="Hi", background=True, stream=True)
        ]
        assert again[-1].type == "response.completed"
