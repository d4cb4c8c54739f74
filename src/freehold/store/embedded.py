"""Store: Freehold's own PostgreSQL, started in the data folder when no DATABASE_URL names another. Not here: what is in it.

    async with embedded(folder) as server:
        pool = await asyncpg.create_pool(server.dsn())

Only this process can connect: over a socket in a folder that nobody else can enter, with a password that lies in the data
folder. Freehold itself works as a role that is no superuser; the superuser is used at start only, for what needs one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import quote, urlencode

import asyncpg

from freehold.core.errors import Unavailable
from freehold.store._embedded_cluster import CLUSTER_NAME, SUPERUSER, prepare
from freehold.store._embedded_process import LOG_NAME, POLL_S, PORT, Process, socket_folder_of
from freehold.store._passwords import Passwords
from freehold.store.data_folder import data_folder, locked
from freehold.store.databases import Databases, DatabaseUrls

ROLE = "freehold"
DATABASE = "freehold"
PASSWORDS_NAME = "postgres-passwords.json"
START_S_MAX = 300.0
"""After a crash PostgreSQL first replays what it had promised; that can take minutes on a slow disk."""
CONNECT_S_MAX = 30.0

_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
_Result = TypeVar("_Result")

_LARGE_OBJECTS = (
    "lo_creat(integer)",
    "lo_create(oid)",
    "lo_from_bytea(oid, bytea)",
)
"""Every role may call these, which would let a reader fill the disk; tables hold whatever these could."""


class EmbeddedServer:
    """A running PostgreSQL. It lives as long as its `embedded` block."""

    def __init__(self, process: Process, passwords: Passwords) -> None:
        self.socket_folder = process.socket_folder
        self.log_path = process.cluster.folder / LOG_NAME
        self._passwords = passwords
        self._databases = Databases(self.dsn(), passwords)

    def dsn(self, database: str = DATABASE) -> str:
        """A URL for asyncpg, as the role that owns Freehold's database and may create others. Holds the password."""
        return self._url(ROLE, database)

    async def ensure_database(self, name: str) -> DatabaseUrls:
        """A database for an application's own data; see `Databases.ensure`."""
        return await self._databases.ensure(name)

    def _url(self, role: str, database: str) -> str:
        place = urlencode({"host": str(self.socket_folder), "port": PORT})
        return f"postgresql://{role}:{self._passwords.ensure(role)}@/{quote(database, safe='')}?{place}"

    async def _provide(self) -> None:
        """Our role and our database. Whatever a crash left undone is done at the next start."""
        connection = await asyncpg.connect(self._url(SUPERUSER, "postgres"), timeout=CONNECT_S_MAX)
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", ROLE):
                password = self._passwords.ensure(ROLE)
                await connection.execute(
                    f"CREATE ROLE {ROLE} LOGIN CREATEDB CREATEROLE PASSWORD '{password}'"
                )
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await self._furnish_template()
                await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
            open_to_all = await connection.fetch(
                "SELECT datname FROM pg_database WHERE datname = ANY($1) AND has_database_privilege('public', oid, 'CONNECT')",
                [DATABASE, "postgres", "template1"],
            )
            for row in open_to_all:
                await connection.execute(f"REVOKE ALL ON DATABASE {row['datname']} FROM PUBLIC")
        finally:
            await connection.close()

    async def _furnish_template(self) -> None:
        """What every later database is born with. Vectors are a superuser's to add."""
        connection = await asyncpg.connect(self._url(SUPERUSER, "template1"), timeout=CONNECT_S_MAX)
        try:
            await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            for function in _LARGE_OBJECTS:
                await connection.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
        finally:
            await connection.close()


def running_server(folder: Path) -> tuple[str, Path]:
    """The URL of the PostgreSQL that another process keeps in the data folder, and its socket, which is gone once it has stopped.

    Raises Unavailable where none runs there.
    """
    socket_folder = socket_folder_of(folder / CLUSTER_NAME)
    password = Passwords(folder / PASSWORDS_NAME).get(ROLE)
    if socket_folder is None or password is None:
        raise Unavailable(
            f"No server runs on the data folder {folder}. Start one there (freehold serve), or set DATABASE_URL to the database "
            "that the servers use."
        )
    place = urlencode({"host": str(socket_folder), "port": PORT})
    return f"postgresql://{ROLE}:{password}@/{DATABASE}?{place}", socket_folder / f".s.PGSQL.{PORT}"


@asynccontextmanager
async def embedded(
    folder: Path, *, settings: Mapping[str, str] = _NO_SETTINGS
) -> AsyncIterator[EmbeddedServer]:
    """PostgreSQL over the data folder, ready for connections; shut down at the end, and also when this process is killed.

    `settings` are PostgreSQL's, for this run only, and override ours. Raises Conflict when another Freehold server has the
    folder or the data is of another PostgreSQL version; Unavailable when it cannot start; Unsupported where it never can.
    """
    folder = data_folder(folder)
    passwords = Passwords(folder / PASSWORDS_NAME)
    with locked(folder):
        cluster = await _finished(lambda: prepare(folder, passwords))
        process = cluster.start(settings)
        try:
            await _ready(process)
            server = EmbeddedServer(process, passwords)
            await _provided(server)
            yield server
        finally:
            await _finished(process.stop)


async def _ready(process: Process) -> None:
    try:
        async with asyncio.timeout(START_S_MAX):
            # The status is a line in a file, and PostgreSQL tells nobody when it writes it.
            while not process.ready():  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        log_path = process.cluster.folder / LOG_NAME
        raise Unavailable(
            f"The embedded PostgreSQL was not ready within {START_S_MAX:.0f} s. See {log_path}."
        ) from error


async def _provided(server: EmbeddedServer) -> None:
    try:
        await server._provide()  # noqa: SLF001
    except asyncpg.InvalidPasswordError as error:
        raise Unavailable(
            "The database does not accept the password that Freehold kept for it. Restore the file "
            f"{server.log_path.with_name(PASSWORDS_NAME)} that belongs to this database.",
            detail=str(error),
        ) from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Unavailable(
            f"The embedded PostgreSQL started, and then failed. Is its disk full? See {server.log_path}.",
            detail=str(error),
        ) from error


async def _finished(work: Callable[[], _Result]) -> _Result:
    """Runs blocking work in a thread, to its end even when the caller is cancelled: half of it must not outlive the lock."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
