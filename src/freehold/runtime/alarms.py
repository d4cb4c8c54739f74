"""Runtime: many times that something may take, kept by one timer of the event loop's. What is done when one is over is its asker's matter.

A timer of the loop's takes some 4 us to set and to take back, and nearly all of ours are taken back: what they guard is over in time. So
the loop is only asked for the earliest, and not more often than each TICK_S, by which an alarm may ring late.
"""

import asyncio
from collections.abc import Callable
from typing import Final

TICK_S: Final = 0.01


class Alarm:
    """Rings once, unless it is cancelled before."""

    __slots__ = ("_set", "due_s", "ring")

    def __init__(self, due_s: float, ring: Callable[[], object], set_: "set[Alarm]") -> None:
        self.due_s = due_s
        self.ring = ring
        self._set = set_

    def cancel(self) -> None:
        """Harmless where it has rung."""
        self._set.discard(self)


class Alarms:
    """Of one event loop."""

    def __init__(self) -> None:
        self._set: set[Alarm] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._next_s = 0.0

    def after(self, delay_s: float, ring: Callable[[], object]) -> Alarm:
        loop = asyncio.get_running_loop()
        alarm = Alarm(loop.time() + delay_s, ring, self._set)
        self._set.add(alarm)
        if self._timer is None or alarm.due_s + TICK_S < self._next_s:
            self._look_at(alarm.due_s, loop)
        return alarm

    def _look_at(self, due_s: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_s = max(due_s, loop.time() + TICK_S)
        self._timer = loop.call_at(self._next_s, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now_s = loop.time()
        for alarm in [alarm for alarm in self._set if alarm.due_s <= now_s]:
            if alarm in self._set:  # One that rang before it may have cancelled it.
                self._set.discard(alarm)
                alarm.ring()
        if self._set:
            self._look_at(min(alarm.due_s for alarm in self._set), loop)
