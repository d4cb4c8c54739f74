"""A real PostgreSQL for every test that wants one: `database_url` is a database of the test's own, with Freehold's tables; `empty_url` one without.

One cluster a process, so one a worker of pytest-xdist. It forgets everything in the end and so need not sync to disk, nor be on
one; what depends on durability starts its own. The first test that asks waits about a second, each one after that about 0.02 s.
"""

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from freehold.store.database import open_database
from freehold.store.embedded import EmbeddedServer, embedded
from freehold.store.migrations import migrate
from tests._waiting import eventually

FORGETFUL = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}
QUICK = {"scram_iterations": "1"}
"""Each of two thousand connections would else derive its key from the password for 4 ms, in Python."""
MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 2 * 2**30
"""A database is a thousand files: made and dropped on ext4 it costs 110 ms of CPU, in memory 20. A cluster has some 300 MB."""
EMPTY = "template1"
MIGRATED = "migrated"
"""Of `postgres_server` alone."""

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
async def postgres_server() -> AsyncIterator[EmbeddedServer]:
    with tempfile.TemporaryDirectory(prefix="freehold-tests-", dir=_roomy_memory()) as folder:
        async with embedded(Path(folder) / "data", settings=FORGETFUL | QUICK) as server:
            connection = await asyncpg.connect(server.dsn())
            await connection.execute(f"CREATE DATABASE {MIGRATED}")
            await connection.close()
            async with open_database(server.dsn(MIGRATED)) as database:
                await migrate(database)
            yield server


def _roomy_memory() -> Path | None:
    return MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN else None


@pytest.fixture
async def database_url(postgres_server: EmbeddedServer) -> AsyncIterator[str]:
    async with fresh_database(postgres_server, template=MIGRATED) as url:
        yield url


@pytest.fixture
async def empty_url(postgres_server: EmbeddedServer) -> AsyncIterator[str]:
    async with fresh_database(postgres_server) as url:
        yield url


async def disconnect_all(url: str) -> None:
    """Ends every connection of ours to that database, as an administrator does, and waits until all of them are gone.

    Not with `pg_terminate_backend(pid, timeout)`: it waits for one after the other, and says nothing where it waits in vain.
    """
    connection = await asyncpg.connect(url)
    try:
        there = await connection.fetch(
            "SELECT pid, backend_start FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'freehold%'"
        )
        pids, since = [row["pid"] for row in there], [row["backend_start"] for row in there]

        async def gone() -> bool:
            left = await connection.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " JOIN unnest($1::int[], $2::timestamptz[]) AS them (pid, backend_start) USING (pid, backend_start)",
                pids,
                since,
            )
            return not left

        await eventually(gone, f"connections {pids} to be gone")
    finally:
        await connection.close()


@asynccontextmanager
async def fresh_database(server: EmbeddedServer, *, template: str = EMPTY) -> AsyncIterator[str]:
    """The URL of a new database, a copy of `template` (to which nobody may be connected); dropped in the end, whoever uses it."""
    name = f"test_{next(_numbers)}"
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute(f'CREATE DATABASE {name} TEMPLATE "{template}" STRATEGY FILE_COPY')
        try:
            yield server.dsn(name)
        finally:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()
