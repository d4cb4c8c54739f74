"""The schema: from nothing to the latest, once; what is newer or was tampered with is refused in clear words."""

import asyncio

import pytest

from freehold.core.errors import Conflict
from freehold.store.database import Database, open_database
from freehold.store.migrations import Migration, known, migrate, pending


async def tables(database: Database) -> set[str]:
    rows = await database.fetch("looking", "SELECT tablename FROM pg_tables WHERE schemaname = 'freehold'")
    return {row["tablename"] for row in rows}


async def test_an_empty_database_is_brought_to_the_latest_version_once(empty_url: str) -> None:
    async with open_database(empty_url) as database:
        assert list(await pending(database)) == list(known())
        assert list(await migrate(database)) == list(known())
        assert {"sessions", "events", "migrations"} <= await tables(database)
        assert await pending(database) == []
        assert await migrate(database) == []


async def test_looking_changes_nothing(empty_url: str) -> None:
    async with open_database(empty_url) as database:
        await pending(database)
        assert await tables(database) == set()


@pytest.mark.slow
async def test_eight_processes_at_once_migrate_once(empty_url: str) -> None:
    async def start() -> int:
        async with open_database(empty_url) as database:
            return len(await migrate(database))

    assert sorted(await asyncio.gather(*(start() for _ in range(8)))) == [0] * 7 + [len(known())]


async def test_a_later_version_is_applied_on_top(empty_url: str) -> None:
    later = (*known(), Migration(known()[-1].version + 1, "9999_more.sql", "CREATE TABLE more (id int)"))
    async with open_database(empty_url) as database:
        await migrate(database)
        assert await migrate(database, later) == [later[-1]]
        assert "more" in await tables(database)


async def test_a_database_newer_than_the_code_is_refused(empty_url: str) -> None:
    latest = known()[-1].version
    later = (*known(), Migration(latest + 1, "9999_more.sql", "SELECT 1"))
    async with open_database(empty_url) as database:
        await migrate(database, later)
        for refused in (migrate, pending):
            with pytest.raises(
                Conflict, match=f"version {latest + 1}, this Freehold knows versions up to {latest}"
            ):
                await refused(database)


async def test_a_migration_whose_file_changed_is_refused(empty_url: str) -> None:
    first = known()[0]
    tampered = (Migration(first.version, first.name, first.sql + "\n-- harmless"), *known()[1:])
    async with open_database(empty_url) as database:
        await migrate(database)
        with pytest.raises(Conflict, match=f"{first.name} is not the one that was applied"):
            await migrate(database, tampered)


async def test_a_migration_that_fails_leaves_nothing_behind(empty_url: str) -> None:
    broken = (
        *known(),
        Migration(known()[-1].version + 1, "9999_broken.sql", "CREATE TABLE half (id int); SELECT 1/0"),
    )
    async with open_database(empty_url) as database:
        with pytest.raises(Exception, match="migrating"):
            await migrate(database, broken)
        assert await tables(database) == set()
        await migrate(database)


def test_no_two_files_have_one_number() -> None:
    versions = [migration.version for migration in known()]
    assert versions == sorted(set(versions))


PARTS = {
    "fork_segments": "sessions",
}
"""Tables that hold parts of rows of others, which say whose they are."""


async def test_every_table_says_what_it_is_for_and_whose_it_is(empty_url: str) -> None:
    async with open_database(empty_url) as database:
        await migrate(database)
        rows = await database.fetch(
            "looking",
            """
            SELECT c.relname, obj_description(c.oid) AS comment,
                   EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant') AS has_tenant
            FROM pg_class c WHERE c.relnamespace = 'freehold'::regnamespace AND c.relkind = 'r'
            """,
        )
    assert [row["relname"] for row in rows if not row["comment"]] == []
    owned = {row["relname"] for row in rows if row["has_tenant"]}
    assert {row["relname"] for row in rows} - owned == {"migrations", *PARTS}
    assert owned >= {*PARTS.values()}
