"""LISTEN: one connection a process hears all channels. What comes through it is a hint to look, never the news itself.

Whoever subscribes is called with each payload and, after every (re)connection, once with None: notifications may have been
missed, so look at everything. Losing the connection therefore costs time, never an event.
Source: https://www.postgresql.org/docs/current/sql-notify.html
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeAlias

from freehold.background import background
from freehold.core.errors import FreeholdError, Unavailable
from freehold.core.jitter import jittered
from freehold.store._faults import translated
from freehold.store.database import Connection, Database

HEARTBEAT_S: Final = 10.0
HEARTBEAT_TIMEOUT_S: Final = 5.0
BACKOFF_MIN_S: Final = 0.05
BACKOFF_MAX_S: Final = 5.0

Hear: TypeAlias = Callable[[str | None, int], None]
"""Payload, and the process id of the server's backend that sent it: a sender knows its own news already."""

log = logging.getLogger(__name__)


class Listener:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._heard: dict[str, list[Hear]] = {}

    def on(self, channel: str, hear: Hear) -> None:
        """Before the listener runs. `hear` must not wait; None means: anything may have happened."""
        self._heard.setdefault(channel, []).append(hear)

    async def _run(self, first: Connection) -> None:
        connection: Connection | None = first
        pause_s = BACKOFF_MIN_S
        while True:
            try:
                connection = connection or await self._database.connect("listener")
                pause_s = BACKOFF_MIN_S
                await self._listen(connection)
            except FreeholdError as error:
                log.warning("store.listen.lost", extra={"detail": error.detail, "pause_s": pause_s})
            connection = None
            await asyncio.sleep(jittered(pause_s))
            pause_s = min(pause_s * 2, BACKOFF_MAX_S)

    async def _listen(self, connection: Connection) -> None:
        """Until the connection is lost. Raises Unavailable when it stays silent."""
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            with translated("listening to the database"):
                for channel in self._heard:
                    await connection.add_listener(channel, self._hear)
                for hearers in self._heard.values():
                    for hear in hearers:
                        hear(None, 0)
                while not lost.is_set():
                    try:
                        async with asyncio.timeout(HEARTBEAT_S):
                            await lost.wait()
                    except TimeoutError:
                        await connection.execute("SELECT 1", timeout=HEARTBEAT_TIMEOUT_S)
        finally:
            connection.terminate()

    def _hear(self, _connection: Connection, server_pid: int, channel: str, payload: str) -> None:
        for hear in self._heard.get(channel, ()):
            hear(payload, server_pid)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Raises Unavailable when the first connection fails; later ones are tried again and again."""
        connection = await self._database.connect("listener")
        async with background(self._run(connection), "listener"):
            yield


class Changes:
    """Whether anything may have changed since one looked last. Payloads don't matter. Before the listener runs."""

    def __init__(self, listener: Listener, channel: str) -> None:
        self._some = asyncio.Event()
        listener.on(channel, self._hear)

    def _hear(self, _payload: str | None, _server_pid: int) -> None:
        self._some.set()

    async def wait(
        self, timeout_s: float, due_in: Callable[[], Awaitable[float | None]] | None = None
    ) -> None:
        """What came since the last return is not lost: then this returns at once. `due_in`: seconds until something is due without a
        change, None: never. A database that is away does not say: then `timeout_s` alone holds."""
        if due_in is not None and not self._some.is_set():
            with suppress(Unavailable):
                if (due_in_s := await due_in()) is not None:
                    timeout_s = min(timeout_s, max(due_in_s, 0.0))
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._some.wait()
        self._some.clear()
