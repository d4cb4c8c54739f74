"""The schema: forward-only SQL files beside this one, `0001_initial.sql` and so on, applied in the order of their numbers, each once.

All that is pending is applied in one transaction under an advisory lock, so two processes may start at once and a failed
migration leaves nothing behind. A file that was released never changes: its checksum is kept and compared at every start.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Final

from msgspec import Struct

from freehold.core.errors import Conflict, Internal
from freehold.store.database import SCHEMA, Connection, Database

LOCK_KEY: Final = 0x46524545484F4C44
"""`FREEHOLD` in ASCII: the key of the advisory lock, in the whole database."""

LOCK_TIMEOUT_S: Final = 120
MIGRATION_TIMEOUT_S: Final = 3600
_FILE: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

_TABLE: Final = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE TABLE IF NOT EXISTS {SCHEMA}.migrations (
    version     integer PRIMARY KEY,
    name        text NOT NULL,
    checksum    text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE {SCHEMA}.migrations IS 'Which migrations were applied here, with the SHA-256 of each.';
"""
_APPLIED: Final = f"SELECT version, name, checksum FROM {SCHEMA}.migrations ORDER BY version"  # noqa: S608 - our own constant


class Migration(Struct, frozen=True):
    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


@cache
def known() -> tuple[Migration, ...]:
    """This code's migrations, in order."""
    found = []
    for file in resources.files(__package__).iterdir():
        match = _FILE.fullmatch(file.name)
        if match:
            found.append(Migration(int(match[1]), file.name, file.read_text("utf-8").replace("\r\n", "\n")))
    found.sort(key=lambda migration: migration.version)
    if len({migration.version for migration in found}) != len(found):
        raise Internal(f"two migrations have one number: {[migration.name for migration in found]}")
    return tuple(found)


async def pending(database: Database, migrations: Sequence[Migration] | None = None) -> Sequence[Migration]:
    """What `migrate` would apply. Raises Conflict as it does; changes nothing."""
    doing = "reading the database's schema version"
    async with database.connection(doing) as connection:
        return await _pending(connection, known() if migrations is None else migrations)


async def migrate(database: Database, migrations: Sequence[Migration] | None = None) -> Sequence[Migration]:
    """Brings the schema to this code's version and returns what it applied: nothing, on a database that is there already.

    Raises Conflict when the database is newer than this code, or when an applied migration's file has changed since.
    """
    async with database.transaction("migrating the database's schema") as connection:
        await connection.execute(
            f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'"
        )
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK_KEY, timeout=LOCK_TIMEOUT_S)
        todo = await _pending(connection, known() if migrations is None else migrations)
        if todo:
            await connection.execute(_TABLE)
        for migration in todo:
            await connection.execute(migration.sql, timeout=MIGRATION_TIMEOUT_S)
            await connection.execute(
                f"INSERT INTO {SCHEMA}.migrations (version, name, checksum) VALUES ($1, $2, $3)",  # noqa: S608 - our own constant
                migration.version,
                migration.name,
                migration.checksum,
            )
        return todo


async def _pending(connection: Connection, migrations: Sequence[Migration]) -> Sequence[Migration]:
    applied = {}
    if await connection.fetchval("SELECT to_regclass($1)", f"{SCHEMA}.migrations") is not None:
        rows = await connection.fetch(_APPLIED)
        applied = {row["version"]: row for row in rows}
    latest = max(migration.version for migration in migrations)
    if applied and max(applied) > latest:
        raise Conflict(
            f"the database is at schema version {max(applied)}, this Freehold knows versions up to {latest}: "
            "start the newer Freehold that migrated it, or restore a backup from before"
        )
    for migration in migrations:
        row = applied.get(migration.version)
        if row is not None and row["checksum"] != migration.checksum:
            raise Conflict(
                f"migration {migration.name} is not the one that was applied to the database (as {row['name']}): "
                "a released migration never changes; install the released Freehold again"
            )
    return [migration for migration in migrations if migration.version not in applied]
