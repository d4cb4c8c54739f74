"""Runtime: stops what runs in a turn when somebody cancels it, or when its time is up. What runs is turn.py's matter.

Most effects are over before anybody could want to stop them; looking out for cancels costs a subscription and a read, so it
begins only after WATCH_AFTER_S. One timer does for all effects of a session: it is not set anew for one that is over sooner.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from freehold.runtime.journal import Journal

WATCH_AFTER_S: Final = 0.02


class Watch:
    """A session's. Within `watching()`, all that runs in its `Stoppable`s stops together, once no time is left at the latest."""

    def __init__(self, journal: Journal, left_s: Callable[[], float]) -> None:
        self._left_s = left_s
        self._journal = journal
        self._scopes: set[Stoppable] = set()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._begins_at_s: float | None = None
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def watching(self) -> "_Watching":
        return _Watching(self)

    def begin(self) -> None:
        self._begins_at_s = self._loop.time() + WATCH_AFTER_S
        if self._timer is None:
            self._timer = self._loop.call_later(WATCH_AFTER_S, self._look)

    def end(self) -> "asyncio.Task[None] | None":
        """What looked out, where it had begun: it is to be ended, and says what went wrong with it."""
        self._begins_at_s = None
        task, self._task = self._task, None
        return task

    def add(self, scope: "Stoppable") -> None:
        self._scopes.add(scope)

    def discard(self, scope: "Stoppable") -> None:
        self._scopes.discard(scope)

    def _look(self) -> None:
        """Whether what runs now has run for long enough."""
        self._timer = None
        if self._begins_at_s is None or self._task is not None:
            return
        left_s = self._begins_at_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._task = self._loop.create_task(self._look_out())

    async def _look_out(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._left_s()):
                await self._journal.cancelled()
        for scope in self._scopes:
            scope.stop()


class _Watching:
    """What runs within is watched."""

    __slots__ = ("_watch",)

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    async def __aenter__(self) -> None:
        self._watch.begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (task := self._watch.end()) is not None:
            task.cancel()
            await asyncio.wait([task])
            if error is None and not task.cancelled():
                task.result()


class Stoppable:
    """A block that its watch may stop; `stopped` tells. Whoever else cancels the task cancels it as ever.

    As `asyncio.timeout`, without a clock, and without a coroutine for each of its ends.
    """

    __slots__ = ("_asked", "_cancelling", "_task", "_watch", "stopped")

    def __init__(self, watch: Watch) -> None:
        self.stopped = False
        self._watch = watch
        self._asked = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("expected to run in a task, which can be cancelled")
        self._task = task
        self._cancelling = task.cancelling()
        self._watch.add(self)
        return self

    def stop(self) -> None:
        if not self._asked:
            self._asked = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._watch.discard(self)
        if self._asked and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            self.stopped = True
        return self.stopped
