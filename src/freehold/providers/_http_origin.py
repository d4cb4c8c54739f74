"""Providers: the connections to one origin: reused, counted, waited for in order, closed when idle too long.

A place is either promised (being dialled, or handed to a waiter that will dial) or held by a connection; the sum never
exceeds `connections_max`, and whoever gives one up hands it to the first in the queue. Not here: what is said over them.
"""

import asyncio
from collections import deque
from contextlib import suppress
from math import inf

from freehold.core.errors import Overloaded, TimedOut, Unavailable
from freehold.providers._http_connection import Connection, Timeouts
from freehold.providers._http_dial import TlsContexts, dial
from freehold.providers._http_target import Target

CLOSE_S = 1.0
"""After hanging up: how long the event loop may take to close the sockets."""


class Origin:
    __slots__ = ("_closing", "_connections", "_connections_max", "_idle", "_idle_timeout_s", "_loop",
                 "_promised_count", "_queue", "_queue_max", "_settled", "_sockets", "_sweeper", "_target", "_tls")  # fmt: skip

    def __init__(
        self, target: Target, tls: TlsContexts, *, connections_max: int, queue_max: int, idle_timeout_s: float
    ) -> None:
        self._target = target
        self._tls = tls
        self._connections_max = connections_max
        self._queue_max = queue_max
        self._idle_timeout_s = idle_timeout_s
        self._loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        self._sockets: set[Connection] = set()
        self._idle: deque[Connection] = deque()
        self._queue: deque[asyncio.Future[Connection | None]] = deque()
        self._promised_count = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._closing = False
        self._settled = asyncio.Event()

    @property
    def open_count(self) -> int:
        return len(self._connections) + self._promised_count

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    @property
    def queue_count(self) -> int:
        return len(self._queue)

    def take(self, now: float) -> Connection | None:
        """The idle connection that was used last, if there is one."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if now < connection.expires_at:
                return connection
            connection.abort()
        return None

    async def acquire(self, timeouts: Timeouts, *, total_at: float) -> Connection:
        """A connection fresh from the dial, or one that comes free while waiting; an idle one makes room at the limit.

        Raises Overloaded, TimedOut, Unavailable.
        """
        if self._closing:
            raise self._closed_error()
        if self.open_count >= self._connections_max and self._idle:
            self._idle.popleft().abort()
        if self.open_count < self._connections_max:
            self._promised_count += 1
        elif (given := await self._wait_turn(timeouts, total_at)) is not None:
            return given
        try:
            connection = await self._dial(timeouts, total_at)
        except BaseException:
            self._give_back(None)
            raise
        self._admit(connection)
        return connection

    async def aclose(self, drain_s: float) -> None:
        """Refuses the queue, lets answers end for `drain_s` seconds, then hangs up."""
        self._closing = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._idle):
            connection.abort()
        while self._queue:
            self._hand_on()
        self._settle()
        for grace_s in (drain_s, CLOSE_S):
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._settled.wait()
            for connection in list(self._connections):
                connection.abort()

    # What connections call.

    def release(self, connection: Connection) -> None:
        if self._closing:
            connection.abort()
            return
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        idle_s, idle_s_max = self._idle_timeout_s, connection.idle_s_max
        connection.expires_at = self._loop.time() + (idle_s if idle_s < idle_s_max else idle_s_max)
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._idle_timeout_s, self._sweep)

    def freed(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            with suppress(ValueError):
                self._idle.remove(connection)
            self._hand_on()

    def closed(self, connection: Connection) -> None:
        self._sockets.discard(connection)
        self._settle()

    # Places.

    async def _dial(self, timeouts: Timeouts, total_at: float) -> Connection:
        name = self._target.name
        limit = _sooner(self._loop.time(), timeouts.connect_s, total_at)
        try:
            async with asyncio.timeout_at(limit):
                return await dial(self._target, self._tls, lambda: Connection(self, name))
        except TimeoutError as error:
            which = "total_s" if limit == total_at else "connect_s"
            raise TimedOut(
                f"no connection to {name} within {which} = {getattr(timeouts, which)} s"
            ) from error

    def _admit(self, connection: Connection) -> None:
        """A promised place becomes a connection's."""
        if self._closing or not connection.usable:
            connection.abort()
            self._give_back(None)
            raise Unavailable(f"{self._target.name} closed the connection at once")
        self._promised_count -= 1
        self._connections.add(connection)
        self._sockets.add(connection)

    async def _wait_turn(self, timeouts: Timeouts, total_at: float) -> Connection | None:
        """In the order of arrival. None: the caller was given a place, and dials."""
        busy = f"all connections_max = {self._connections_max} connections to {self._target.name} are busy"
        if len(self._queue) >= self._queue_max:
            raise Overloaded(f"{busy} and queue_max = {self._queue_max} requests wait already")
        turn: asyncio.Future[Connection | None] = self._loop.create_future()
        self._queue.append(turn)
        limit = _sooner(self._loop.time(), timeouts.queue_s, total_at)
        try:
            async with asyncio.timeout_at(limit):
                given = await turn
        except BaseException as error:
            if not turn.cancelled() and turn.done():
                self._give_back(turn.result())
            with suppress(ValueError):
                self._queue.remove(turn)
            if not isinstance(error, TimeoutError):
                raise
            if limit == total_at:
                raise TimedOut(f"{busy}, and none came free within total_s = {timeouts.total_s} s") from error
            raise Overloaded(f"{busy}, and none came free within queue_s = {timeouts.queue_s} s") from error
        if self._closing:
            self._give_back(given)
            raise self._closed_error()
        return given

    def _give_back(self, given: Connection | None) -> None:
        """What was given to somebody who does not want it any more."""
        if given is None:
            self._promised_count -= 1
            self._hand_on()
        elif given.usable:
            self.release(given)
        else:
            given.abort()

    def _hand_on(self) -> None:
        """A place is free: the first in the queue gets it."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                self._promised_count += 1
                turn.set_result(None)
                return
        self._settle()

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._loop.time()
        for connection in [c for c in self._idle if c.expires_at <= now]:
            connection.abort()
        if self._idle:
            self._sweeper = self._loop.call_later(self._idle_timeout_s, self._sweep)

    def _settle(self) -> None:
        if self._closing and not self._sockets and not self._promised_count:
            self._settled.set()

    def _closed_error(self) -> Unavailable:
        return Unavailable("the HTTP client is closed: the process is shutting down")


def _sooner(now: float, limit_s: float | None, total_at: float) -> float | None:
    at = total_at if limit_s is None else min(now + limit_s, total_at)
    return None if at == inf else at
