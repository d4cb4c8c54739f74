"""Providers: the outgoing HTTP/1.1 client of the model path, pooled per origin; `_http_*.py` are its parts.

Written by hand because the client decides what a gateway costs (bench/http_client.py). What it does not do, on purpose:
follow redirects (a model API that redirects is misconfigured; the 3xx is handed up), read the environment, keep cookies,
HTTP/2, or retry, but for the one case that `Stale` describes.
"""

import asyncio
from collections.abc import Sequence
from math import inf
from types import TracebackType
from typing import Self

import msgspec

from freehold.core.errors import Internal
from freehold.providers._http_connection import WRITE_BYTES_MAX, Connection, Stale, Timeouts, Told
from freehold.providers._http_dial import TlsContexts
from freehold.providers._http_origin import Origin
from freehold.providers._http_reply import Reply
from freehold.providers._http_target import NO_HEADERS, HeaderBlock, Target, header_block

__all__ = ["HeaderBlock", "HttpPool", "PoolUse", "Reply", "Target", "Timeouts", "header_block"]

DEFAULT_TIMEOUTS = Timeouts()


class PoolUse(msgspec.Struct, frozen=True):
    """Connections to one origin (idle ones are open too), and requests that wait for one."""

    open_count: int
    idle_count: int
    queue_count: int


class HttpPool:
    """One per process, opened as a context manager in the event loop that uses it. Limits are per origin.

    Leaving lets running answers end for `drain_s` seconds, then hangs up. `idle_timeout_s` should be shorter than the
    servers' (a server that states its own in `keep-alive` is believed).
    """

    def __init__(
        self,
        *,
        connections_max: int = 4096,
        queue_max: int = 4096,
        idle_timeout_s: float = 30.0,
        drain_s: float = 10.0,
    ) -> None:
        self._connections_max = connections_max
        self._queue_max = queue_max
        self._idle_timeout_s = idle_timeout_s
        self._drain_s = drain_s
        self._origins: dict[str, Origin] = {}
        self._tls = TlsContexts()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop = None
        async with asyncio.TaskGroup() as group:
            for origin in self._origins.values():
                group.create_task(origin.aclose(self._drain_s))

    async def request(
        self,
        target: Target,
        body: bytes = b"",
        *,
        path: str,
        headers: HeaderBlock | Sequence[tuple[bytes, bytes]] = NO_HEADERS,
        method: str = "POST",
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        fresh: bool = False,
    ) -> Reply:
        """Returns once the answer's head is there, whatever its status; read or close the reply. `fresh`: no idle connection will do.

        Raises BadRequest (path, headers), Overloaded, TimedOut, Unavailable. A reply raises BrokenOff or TimedOut.
        """
        loop = self._loop
        if loop is None:
            raise Internal("the HTTP pool is not open")
        block = headers if isinstance(headers, bytes) else header_block(headers)
        if body or method not in {"GET", "HEAD"}:
            head = b"%b%bcontent-length: %d\r\n\r\n" % (target.head(method, path), block, len(body))
        else:
            head = b"%b%b\r\n" % (target.head(method, path), block)
        now = loop.time()
        total_at = inf if timeouts.total_s is None else now + timeouts.total_s
        bodiless = method == "HEAD"

        origin = self._origins.get(target.key) or self._open_origin(target)
        connection = None if fresh else origin.take(now)
        if connection is None:
            connection = await origin.acquire(timeouts, total_at=total_at)
        try:
            return await connection.exchange(head, body, timeouts, bodiless=bodiless, total_at=total_at)
        except Stale:
            connection = await origin.acquire(timeouts, total_at=total_at)
            return await connection.exchange(head, body, timeouts, bodiless=bodiless, total_at=total_at)

    def begin(
        self, target: Target, data: bytes, timeouts: Timeouts, told: Told, *, early: bool
    ) -> Connection | None:
        """A request that is whole (`Target.post`), over an idle connection, which `abort` hangs up. `told` and `early` are as in `Connection.begin`.

        None where something would have to be waited for: nothing was done then. A Stale that is told of was not tried again.
        """
        loop, origin = self._loop, self._origins.get(target.key)
        if loop is None or origin is None or len(data) > WRITE_BYTES_MAX:
            return None
        now = loop.time()
        connection = origin.take(now)
        if connection is not None:
            connection.begin(data, timeouts, now, told, early=early)
        return connection

    def use(self, target: Target) -> PoolUse:
        """For gauges and limits; another target of the same origin gives the same figures."""
        origin = self._origins.get(target.key)
        if origin is None:
            return PoolUse(0, 0, 0)
        return PoolUse(origin.open_count, origin.idle_count, origin.queue_count)

    def _open_origin(self, target: Target) -> Origin:
        origin = self._origins[target.key] = Origin(
            target,
            self._tls,
            connections_max=self._connections_max,
            queue_max=self._queue_max,
            idle_timeout_s=self._idle_timeout_s,
        )
        return origin
