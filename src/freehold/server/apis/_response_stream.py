"""The stream of a response in the background, for whoever reads it, from any event on and in any process.

Only what is in its log is told, so every event that somebody saw can be read again. Not here: who makes it
(responses_background.py).
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

from freehold.core.errors import FreeholdError, NotFound
from freehold.core.response_facts import ResponseEnded, ResponseTold
from freehold.core.responses import Responses
from freehold.core.session import Recorded
from freehold.server.apis._response_answers import split

LOOK_S: Final = 5.0
"""Between looks whether it is still there: a log that is deleted says nothing."""

LOOKS_SILENT_MAX: Final = 3
"""After so many looks at nothing a comment goes out, so that proxies keep the connection."""

_Read: TypeAlias = Sequence[Recorded] | FreeholdError


@asynccontextmanager
async def followed(
    responses: Responses, tenant: str, response_id: str, *, after: int = -1
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Events numbered above `after`, those that are there and then as they come, until the response has ended."""
    async with responses.follow(response_id) as batches:
        queue: asyncio.Queue[_Read] = asyncio.Queue(1)
        reading = asyncio.create_task(_read(batches, queue), name=f"stream:{response_id}")
        try:
            yield _pieces(responses, tenant, response_id, after, queue)
        finally:
            reading.cancel()
            await asyncio.wait([reading])


async def _read(batches: AsyncIterator[Sequence[Recorded]], queue: "asyncio.Queue[_Read]") -> None:
    try:
        async for batch in batches:
            await queue.put(batch)
    except FreeholdError as error:
        await queue.put(error)


async def _pieces(
    responses: Responses, tenant: str, response_id: str, after: int, queue: "asyncio.Queue[_Read]"
) -> AsyncIterator[bytes]:
    silent_count = 0
    while True:
        try:
            async with asyncio.timeout(LOOK_S):
                batch = await queue.get()
        except TimeoutError:
            try:
                await responses.get(tenant, response_id)
            except NotFound:
                return
            silent_count += 1
            if silent_count % LOOKS_SILENT_MAX == 0:
                yield b": waiting\n\n"
            continue
        if isinstance(batch, FreeholdError):
            raise batch
        silent_count = 0
        for recorded in batch:
            match recorded.event:
                case ResponseTold() as told if told.first + told.count - 1 > after:
                    yield _behind(told, after)
                case ResponseEnded():
                    return
                case _:
                    pass


def _behind(told: ResponseTold, after: int) -> bytes:
    """The events of a run that come after that one."""
    body, seen_count = told.body.encode(), after + 1 - told.first
    return body if seen_count <= 0 else b"".join(split(body)[seen_count:])
