"""Gateway: how many calls a model may have under way at once, and who comes next where it has them all.

Tenants take turns, whatever each of them has waiting; of one tenant's calls, the more urgent goes first. Each process counts for
itself. Not here: which model is asked (routing.py).
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Literal, TypeAlias

from freehold.core.errors import Overloaded

Priority: TypeAlias = Literal["high", "normal", "low"]
_RANK: Final[Mapping[Priority, int]] = {"high": 0, "normal": 1, "low": 2}
RETRY_AFTER_S_MIN: Final = 1.0
UNLIMITED: Final = 1 << 62

_Turn: TypeAlias = "asyncio.Future[None]"
_Line: TypeAlias = tuple[deque[_Turn], deque[_Turn], deque[_Turn]]


class Places:
    """Of one model, for the calls of routes. Whoever took one gives it back, once."""

    __slots__ = ("_lines", "_taken", "_waiting", "count_max")

    def __init__(self, count_max: int = UNLIMITED) -> None:
        self.count_max = count_max
        self._taken = 0
        self._waiting = 0
        self._lines: dict[str, _Line] = {}
        """By tenant, the one whose turn is next first. No line is empty."""

    @property
    def full(self) -> bool:
        return self._taken >= self.count_max

    @property
    def taken_count(self) -> int:
        return self._taken

    @property
    def waiting_count(self) -> int:
        return self._waiting

    def take_now(self) -> bool:
        if self._taken >= self.count_max:
            return False
        self._taken += 1
        return True

    async def take(
        self, name: str, tenant: str, priority: Priority, *, waiting_max: int, wait_s: float
    ) -> None:
        """Waits for its turn. Raises Overloaded where too many wait already, or its turn did not come in time."""
        if self.take_now():
            return
        busy = f"{name} has all its concurrent_max = {self.count_max} calls under way"
        retry_after_s = max(wait_s, RETRY_AFTER_S_MIN)
        if self._waiting >= waiting_max:
            said = f"{busy}, and queue.waiting_max = {waiting_max} wait already"
            raise Overloaded(said, retry_after_s=retry_after_s)
        turn: _Turn = asyncio.get_running_loop().create_future()
        self._line_of(tenant)[_RANK[priority]].append(turn)
        self._waiting += 1
        try:
            async with asyncio.timeout(wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give_back()  # It was given just as nobody wanted it any more.
            else:
                self._forget(tenant, turn, priority)
            if not isinstance(error, TimeoutError):
                raise
            said = f"{busy}, and none ended within queue.wait_s = {wait_s:g}"
            raise Overloaded(said, retry_after_s=retry_after_s) from error

    def give_back(self) -> None:
        """To the next in turn, where somebody waits."""
        if self._taken <= self.count_max and (turn := self._next()) is not None:
            turn.set_result(None)
            return
        self._taken -= 1

    def resize(self, count_max: int) -> None:
        """What is under way stays."""
        self.count_max = count_max
        while not self.full and (turn := self._next()) is not None:
            self._taken += 1
            turn.set_result(None)

    def _line_of(self, tenant: str) -> _Line:
        line = self._lines.get(tenant)
        if line is None:
            line = self._lines[tenant] = (deque(), deque(), deque())
        return line

    def _next(self) -> "_Turn | None":
        while self._lines:
            tenant = next(iter(self._lines))
            line = self._lines.pop(tenant)
            turn = next(queue for queue in line if queue).popleft()
            if any(line):
                self._lines[tenant] = line  # Behind all others.
            self._waiting -= 1
            if not turn.done():
                return turn
        return None

    def _forget(self, tenant: str, turn: "_Turn", priority: Priority) -> None:
        line = self._lines.get(tenant)
        if line is None:
            return
        with suppress(ValueError):
            line[_RANK[priority]].remove(turn)
            self._waiting -= 1
        if not any(line):
            del self._lines[tenant]
