"""Runtime: stops what runs in a turn when somebody cancels it, or when its time is up. What runs is turn.py's matter.

Most effects are over before anybody could want to stop them; looking out for cancels costs a subscription and a read, so it
begins only after WATCH_AFTER_S.
"""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from freehold.runtime.journal import Journal

WATCH_AFTER_S: Final = 0.02


class Watch:
    """While it is open, all that runs within its `Stoppable`s stops together, after `left_s` at the latest."""

    def __init__(self, journal: Journal, left_s: float) -> None:
        self._left_s = left_s
        self._journal = journal
        self._scopes: set[asyncio.Timeout] = set()
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        self._timer = self._loop.call_later(min(WATCH_AFTER_S, self._left_s), self._begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if error is None and not self._task.cancelled():
                self._task.result()

    def add(self, scope: asyncio.Timeout) -> None:
        self._scopes.add(scope)

    def discard(self, scope: asyncio.Timeout) -> None:
        self._scopes.discard(scope)

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._look_out())

    async def _look_out(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._left_s - WATCH_AFTER_S):
                await self._journal.cancelled()
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(self._loop.time())


class Stoppable:
    """A block that its watch may stop; `stopped` tells. Whoever else cancels the task cancels it as ever."""

    def __init__(self, watch: Watch) -> None:
        self.stopped = False
        self._watch = watch
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._watch.add(self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._watch.discard(self._timeout)
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            self.stopped = True
        return self.stopped
