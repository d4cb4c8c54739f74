"""Connections to PostgreSQL: a pool for short work, and connections of one's own for the log's writer and for LISTEN.

Not here: SQL (beside what it is about), the schema (migrations/), the embedded server (embedded.py), faults (_faults.py).
The pool heals by itself: a connection that broke is replaced when it is next needed, and whoever used it gets Unavailable.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg
from msgspec import Struct

from freehold.core.errors import Overloaded, Unavailable
from freehold.store._faults import TRANSIENT, translated
from freehold.store._pool import CLOSE_TIMEOUT_S, Pool

Connection: TypeAlias = Any
"""asyncpg's Connection, or its pool's proxy of one: asyncpg brings no types."""

Row: TypeAlias = Mapping[str, Any]
T = TypeVar("T")

SCHEMA: Final = "freehold"
POOL_SIZE_MAX: Final = 10
STATEMENT_CACHE_MAX: Final = 200
CONNECT_TIMEOUT_S: Final = 5.0
ACQUIRE_TIMEOUT_S: Final = 10.0
STATEMENT_TIMEOUT_S: Final = 30.0
IDLE_CONNECTION_S: Final = 300.0
ATTEMPTS_MAX: Final = 5

_SERVER_SETTINGS: Final = {
    "search_path": SCHEMA,
    "timezone": "UTC",
    "jit": "off",
    "statement_timeout": str(int(STATEMENT_TIMEOUT_S * 1000)),
    # A process that is frozen in the middle of a transaction must not hold its locks for longer than this.
    "idle_in_transaction_session_timeout": "30000",
    # A peer that vanished without a word (a cut cable) is noticed within half a minute.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}


class Health(Struct, frozen=True):
    server_version: str
    latency_ms: float
    connections: int
    connections_max: int


class Database:
    """One PostgreSQL database, as one process uses it. Opened with `open_database`."""

    def __init__(self, url: str, pool: Pool, process_id: str) -> None:
        self._url = url
        self._pool = pool
        self._process_id = process_id

    @asynccontextmanager
    async def connection(self, doing: str) -> AsyncIterator[Connection]:
        """One of the pool's, in autocommit. Raises Overloaded when none is free within ACQUIRE_TIMEOUT_S."""
        with translated(doing):
            try:
                connection = await self._pool.take(ACQUIRE_TIMEOUT_S)
            except TimeoutError as error:
                raise self._not_acquired(doing) from error
            try:
                yield connection
            except BaseException as error:
                self._pool.give_back(connection, error)
                raise
            self._pool.give_back(connection, None)

    def _not_acquired(self, doing: str) -> Overloaded | Unavailable:
        if self._pool.idle_count == 0 and self._pool.size >= POOL_SIZE_MAX:
            return Overloaded(f"{doing}: all {POOL_SIZE_MAX} database connections are busy: try again")
        return Unavailable(f"{doing}: the database did not answer within {ACQUIRE_TIMEOUT_S:g} s")

    @asynccontextmanager
    async def transaction(self, doing: str) -> AsyncIterator[Connection]:
        async with self.connection(doing) as connection, connection.transaction():
            yield connection

    async def fetch(self, doing: str, query: str, *arguments: object) -> Sequence[Row]:
        """One statement in a transaction of its own. A deadlock's victim runs again, at most ATTEMPTS_MAX times."""

        async def run(connection: Connection) -> Sequence[Row]:
            rows: Sequence[Row] = await connection.fetch(query, *arguments)
            return rows

        return await self._retried(doing, run)

    async def in_transaction(self, doing: str, work: Callable[[Connection], Awaitable[T]]) -> T:
        """`work` may run again from its beginning when the server rolled it back for a deadlock."""

        async def run(connection: Connection) -> T:
            async with connection.transaction():
                return await work(connection)

        return await self._retried(doing, run)

    async def _retried(self, doing: str, work: Callable[[Connection], Awaitable[T]]) -> T:
        for _ in range(ATTEMPTS_MAX - 1):
            async with self.connection(doing) as connection:
                try:
                    return await work(connection)
                except TRANSIENT:
                    pass
        async with self.connection(doing) as connection:
            return await work(connection)

    async def connect(self, purpose: str, settings: Mapping[str, str] | None = None) -> Connection:
        """A connection of one's own; the caller closes it. `purpose` shows in pg_stat_activity."""
        with translated(f"connecting to the database ({purpose})"):
            return await _connected(self._url, f"freehold {self._process_id} {purpose}", settings or {})

    async def check(self) -> Health:
        """Asks the database. Raises Unavailable."""
        started_s = asyncio.get_running_loop().time()
        rows = await self.fetch(
            "checking the database", "SELECT current_setting('server_version') AS version"
        )
        latency_ms = (asyncio.get_running_loop().time() - started_s) * 1000
        return Health(str(rows[0]["version"]), latency_ms, self._pool.size, POOL_SIZE_MAX)


@asynccontextmanager
async def open_database(url: str, *, process_id: str = "") -> AsyncIterator[Database]:
    """Raises Unavailable when the database is away, BadRequest when `url` is no address of one."""

    async def connect() -> Connection:
        return await _connected(url, f"freehold {process_id}", {})

    pool = Pool(connect, size_max=POOL_SIZE_MAX, idle_s=IDLE_CONNECTION_S)
    try:
        with translated("connecting to the database"):
            pool.give_back(await pool.take(ACQUIRE_TIMEOUT_S), None)
        yield Database(url, pool, process_id)
    finally:
        await pool.close(CLOSE_TIMEOUT_S)


async def _connected(url: str, name: str, settings: Mapping[str, str]) -> Connection:
    return await asyncpg.connect(
        url,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=STATEMENT_TIMEOUT_S,
        statement_cache_size=STATEMENT_CACHE_MAX,
        server_settings={**_SERVER_SETTINGS, **settings, "application_name": name[:63]},
    )
