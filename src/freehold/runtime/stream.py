"""Runtime: one session's facts and live deltas as one stream, for the server's event streams.

Every fact comes once and in order. Deltas come only where they belong: after the fact that their call had seen, before the
fact that ends it; those that come too late are left out.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

from freehold.core.errors import FreeholdError, Internal
from freehold.core.session import ModelAnswered, ModelFailed, Recorded, TurnFinished
from freehold.core.session_log import SessionLog
from freehold.runtime.live import Live, LiveEvent, LiveReader

logger = logging.getLogger(__name__)

Item: TypeAlias = Recorded | LiveEvent

BATCHES_AHEAD: Final = 1
"""A slow reader holds so many batches of facts in memory; the rest stays in the database."""


@asynccontextmanager
async def merged(
    log: SessionLog, live: Live, session_id: str, *, after: int
) -> AsyncIterator[AsyncIterator[Item]]:
    """Facts after `after`, then on and on. Never ends by itself; raises what following the log raises."""
    wake = asyncio.Event()
    with live.reading(session_id, wake) as reader:
        stream = _Merged(reader, wake, after)
        pump = asyncio.create_task(stream.pump(log, session_id), name=f"stream:{session_id}")
        try:
            yield stream
        finally:
            pump.cancel()
            await asyncio.wait([pump])


class _Merged:
    def __init__(self, reader: LiveReader, wake: asyncio.Event, after: int) -> None:
        self._reader = reader
        self._wake = wake
        self._batches: asyncio.Queue[Sequence[Recorded]] = asyncio.Queue(BATCHES_AHEAD)
        self._batch: Sequence[Recorded] = ()
        self._place = 0
        self._seq = after
        self._ended_seq = 0
        self._fault: FreeholdError | None = None

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        while True:
            item = self._delta() or self._fact()
            if item is not None:
                return item
            if self._fault is not None:
                raise self._fault
            self._wake.clear()
            if self._batches.empty():
                await self._wake.wait()

    async def pump(self, log: SessionLog, session_id: str) -> None:
        try:
            async with log.follow(session_id, after=self._seq) as batches:
                async for batch in batches:
                    await self._batches.put(batch)
                    self._wake.set()
        except FreeholdError as error:
            self._fault = error
        except Exception:
            logger.exception("stream.crashed", extra={"session": session_id})
            self._fault = Internal("the event stream failed inside Freehold; its log has the details")
        self._wake.set()

    def _delta(self) -> LiveEvent | None:
        """The next one, where it belongs here: not while its facts are still to come, not once its call has ended."""
        while (event := self._reader.first()) is not None and event.seen_seq <= self._seq:
            self._reader.drop_first()
            if event.seen_seq >= self._ended_seq:
                return event
        return None

    def _fact(self) -> Recorded | None:
        if self._place == len(self._batch):
            if self._batches.empty():
                return None
            self._batch, self._place = self._batches.get_nowait(), 0
            if not self._batch:
                return None
        recorded = self._batch[self._place]
        self._place += 1
        self._seq = recorded.seq
        if isinstance(recorded.event, ModelAnswered | ModelFailed | TurnFinished):
            self._ended_seq = recorded.seq
        return recorded
