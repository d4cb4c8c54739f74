"""The stream of a response in the background, for whoever reads it, from any event on and in any process.

Only what is kept is told, so every event that somebody saw can be read again. Not here: who makes it
(responses_background.py).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from freehold.core.errors import NotFound
from freehold.core.responses import Hint, ResponseEvents, Responses
from freehold.server.apis._response_answers import ENDED, split

LOOK_S: Final = 5.0
"""Between looks without being told to: a notification may be lost with its connection."""

LOOKS_SILENT_MAX: Final = 3
"""After so many looks at nothing a comment goes out, so that proxies keep the connection."""


@asynccontextmanager
async def followed(
    responses: Responses, tenant: str, response_id: str, *, after: int = -1
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Events numbered above `after`, those that are there and then as they come, until the response has ended."""
    async with responses.watched(response_id) as hint:
        yield _pieces(responses, tenant, response_id, after, hint)


async def _pieces(
    responses: Responses, tenant: str, response_id: str, after: int, hint: Hint
) -> AsyncIterator[bytes]:
    silent_count = 0
    while True:
        hint.clear()
        try:
            status = (await responses.get(tenant, response_id)).status  # Before its events: they end with it.
        except NotFound:
            return
        runs = await responses.events(response_id, after=after)
        for run in runs:
            yield _behind(run, after)
            after = run.seq + run.count - 1
        if runs:
            silent_count = 0
            continue
        if status in ENDED:
            return
        try:
            await asyncio.wait_for(hint.wait(), LOOK_S)
        except TimeoutError:
            silent_count += 1
            if silent_count % LOOKS_SILENT_MAX == 0:
                yield b": waiting\n\n"


def _behind(run: ResponseEvents, after: int) -> bytes:
    """The events of a run that come after that one."""
    seen_count = after + 1 - run.seq
    return run.body if seen_count <= 0 else b"".join(split(run.body)[seen_count:])
