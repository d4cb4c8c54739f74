"""Runtime: stops what runs in a turn when somebody cancels it, or when its time is up. What runs is turn.py's matter.

Most effects are over before anybody could want to stop them; looking out for cancels costs a subscription and a read, so it
begins only after WATCH_AFTER_S.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from freehold.runtime.alarms import Alarm, Alarms
from freehold.runtime.journal import Journal

WATCH_AFTER_S: Final = 0.02


class Watch:
    """A session's. Within it, all that runs in its `Stoppable`s stops together, once no time is left at the latest."""

    def __init__(self, journal: Journal, left_s: Callable[[], float], alarms: Alarms) -> None:
        self.scopes: set[Stoppable] = set()
        self._left_s = left_s
        self._journal = journal
        self._alarms = alarms
        self._alarm: Alarm | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._alarm = self._alarms.after(WATCH_AFTER_S, self._look)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises what went wrong with looking out, where nothing else did."""
        if self._alarm is not None:
            self._alarm.cancel()
        if (task := self._task) is not None:
            self._task = None
            task.cancel()
            await asyncio.wait([task])
            if error is None and not task.cancelled():
                task.result()

    def _look(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._look_out())

    async def _look_out(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._left_s()):
                await self._journal.cancelled()
        for scope in self.scopes:
            scope.stop()


class Stoppable:
    """A block that may be stopped: by its watch, where it has one, or by whoever else has it; `stopped` tells. Who cancels the task
    besides cancels it as ever.

    As `asyncio.timeout`, without a clock, and without a coroutine for each of its ends.
    """

    __slots__ = ("_asked", "_cancelling", "_task", "_watch", "stopped")

    def __init__(self, watch: Watch | None = None) -> None:
        self.stopped = False
        self._watch = watch
        self._asked = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("expected to run in a task, which can be cancelled")
        self._task = task
        self._cancelling = task.cancelling()
        if self._watch is not None:
            self._watch.scopes.add(self)
        return self

    def stop(self) -> None:
        if not self._asked:
            self._asked = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._watch is not None:
            self._watch.scopes.discard(self)
        if self._asked and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            self.stopped = True
        return self.stopped
