"""Store: the connections that are shared for short work. Taking one that is free, and giving it back, waits for nothing.

asyncpg's own pool starts two tasks and asks the server to forget everything at each use: 130 us, five times what our statements cost. Here
nothing is left behind that would have to be forgotten, and a connection of which that is not certain (its use was cancelled or
broke off, or a transaction is still open) is closed and replaced.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg

CLOSE_TIMEOUT_S: Final = 10.0
"""A connection whose use was cancelled has to hear first from the server that it has stopped."""

_LEFT_WHOLE: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, GeneratorExit)
"""What ends a statement with the connection ready for the next."""


class Pool:
    """At most `size_max` connections; those that were idle for `idle_s` are closed. Whoever waits is served in order."""

    def __init__(self, connect: Callable[[], Awaitable[Any]], *, size_max: int, idle_s: float) -> None:
        self.size = 0
        self._connect = connect
        self._size_max = size_max
        self._idle_s = idle_s
        self._idle: deque[tuple[float, Any]] = deque()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._closing: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._reaping = self._loop.call_later(idle_s, self._reap)
        self._over = False

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    async def take(self, timeout_s: float) -> Any:
        """The connection that was used last, so that those that are not needed grow idle. Raises TimeoutError where all are in use for
        so long, and what connecting raises."""
        if self._over:
            raise asyncpg.InterfaceError("the pool is closed")
        while self._idle:
            connection = self._idle.pop()[1]
            if not connection.is_closed():
                return connection
            self.size -= 1
        if self.size < self._size_max:
            self.size += 1
            return await self._opened()
        return await self._next(timeout_s)

    def give_back(self, connection: Any, error: BaseException | None) -> None:
        """`error`: how its use ended, if badly."""
        whole = (
            (error is None or isinstance(error, _LEFT_WHOLE))
            and not connection.is_closed()
            and not connection.is_in_transaction()
            and not self._over
        )
        if not whole:
            self._close(connection)
            self._make_room()
        elif (waiting := self._first_waiting()) is not None:
            waiting.set_result(connection)
        else:
            self._idle.append((self._loop.time(), connection))

    async def close(self, timeout_s: float) -> None:
        """Waits for what is being closed, but not for long; what is still in use is closed when it is given back."""
        self._over = True
        self._reaping.cancel()
        while self._idle:
            self._close(self._idle.pop()[1])
        if self._closing:
            await asyncio.wait(self._closing, timeout=timeout_s)

    async def _opened(self) -> Any:
        """A new one, for which there is room already."""
        try:
            return await self._connect()
        except BaseException:
            self._make_room()
            raise

    async def _next(self, timeout_s: float) -> Any:
        """One that is given back, or a new one in place of one that broke."""
        waiting: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(timeout_s):
                connection = await waiting
        except BaseException:
            if waiting.done() and not waiting.cancelled():  # Given to who had just stopped waiting.
                self._hand_on(waiting.result())
            raise
        return await self._opened() if connection is None else connection

    def _hand_on(self, connection: Any | None) -> None:
        if connection is None:
            self._make_room()
        else:
            self.give_back(connection, None)

    def _make_room(self) -> None:
        """There is one less, or one that waits may open another."""
        if (waiting := self._first_waiting()) is not None:
            waiting.set_result(None)
        else:
            self.size -= 1

    def _first_waiting(self) -> "asyncio.Future[Any] | None":
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                return waiting
        return None

    def _close(self, connection: Any) -> None:
        task = self._loop.create_task(_closed(connection), name="closing a connection")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _reap(self) -> None:
        now_s = self._loop.time()
        while self._idle and now_s - self._idle[0][0] >= self._idle_s:
            self._close(self._idle.popleft()[1])
            self.size -= 1
        self._reaping = self._loop.call_later(self._idle_s, self._reap)


async def _closed(connection: Any) -> None:
    try:
        await connection.close(timeout=CLOSE_TIMEOUT_S)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
