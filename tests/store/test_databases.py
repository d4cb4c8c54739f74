"""Databases for applications' own data: an owner who may do everything there, a reader who may only look, and walls around both."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from tests._postgres import fresh_database

from freehold.core.errors import BadRequest, Conflict, Forbidden, Unavailable
from freehold.store._passwords import Passwords
from freehold.store.databases import Databases, DatabaseUrls
from freehold.store.embedded import EmbeddedServer


@pytest.fixture(scope="module")
async def retail(postgres_server: EmbeddedServer) -> AsyncIterator[DatabaseUrls]:
    urls = await postgres_server.ensure_database("retail")
    async with connected(urls.owner) as owner:
        await owner.execute(
            "CREATE TABLE sales (sku text, sold int); INSERT INTO sales VALUES ('SKU-4482', 7)"
        )
        await owner.execute("CREATE SCHEMA later; CREATE TABLE later.shipments (n int)")
    yield urls
    async with connected(postgres_server.dsn()) as connection:
        await connection.execute("DROP DATABASE retail WITH (FORCE)")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def test_the_same_urls_come_at_every_call(postgres_server: EmbeddedServer, retail: DatabaseUrls):
    assert await postgres_server.ensure_database("retail") == retail


async def test_urls_are_not_shown_with_their_passwords(retail: DatabaseUrls):
    assert "retail" not in repr(retail)


async def test_the_reader_sees_tables_made_after_it(retail: DatabaseUrls):
    async with connected(retail.reader) as reader:
        assert await reader.fetchval("SELECT sold FROM sales") == 7
        assert await reader.fetchval("SELECT count(*) FROM later.shipments") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO sales VALUES ('x', 1)",
        "UPDATE sales SET sold = 0",
        "DELETE FROM sales",
        "TRUNCATE sales",
        "DROP TABLE sales",
        "ALTER TABLE sales ADD COLUMN more int",
        "CREATE TABLE mine (n int)",
        "CREATE TEMP TABLE mine (n int)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "CREATE DATABASE mine",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT lo_creat(-1)",
        "SET ROLE retail_owner",
        "COPY sales TO PROGRAM 'true'",
        "SELECT pg_read_file('PG_VERSION')",
    ],
)
async def test_the_reader_changes_nothing_even_when_it_lifts_its_own_read_only_default(
    retail: DatabaseUrls, statement: str
):
    async with connected(retail.reader) as reader:
        assert await reader.fetchval("SHOW default_transaction_read_only") == "on"
        await reader.execute("SET default_transaction_read_only = off")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute(statement)


async def test_the_reader_has_a_time_limit(retail: DatabaseUrls):
    async with connected(retail.reader) as reader:
        assert await reader.fetchval("SHOW statement_timeout") == "30s"


@pytest.mark.parametrize("database", ["freehold", "postgres", "template1", "wholesale"])
async def test_neither_role_enters_another_database(
    postgres_server: EmbeddedServer, retail: DatabaseUrls, database: str
):
    await postgres_server.ensure_database("wholesale")
    for url in (retail.owner, retail.reader):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
            await asyncpg.connect(url.replace("/retail?", f"/{database}?"))


@pytest.mark.parametrize(
    "name", ["", "Retail", "9lives", "a-b", 'x"; DROP DATABASE freehold; --', "é", "a" * 49]
)
async def test_a_name_that_cannot_be_one_is_refused_with_the_rule(postgres_server: EmbeddedServer, name: str):
    with pytest.raises(BadRequest, match="small letter"):
        await postgres_server.ensure_database(name)


@pytest.mark.parametrize("name", ["freehold", "postgres", "template1"])
async def test_a_name_that_is_in_use_by_the_house_is_refused(postgres_server: EmbeddedServer, name: str):
    with pytest.raises(BadRequest, match="not for applications"):
        await postgres_server.ensure_database(name)


async def test_a_database_that_belongs_to_somebody_else_is_left_alone(postgres_server: EmbeddedServer):
    async with connected(postgres_server.dsn()) as connection:
        await connection.execute("CREATE DATABASE theirs")
        try:
            with pytest.raises(Conflict, match="belongs to freehold"):
                await postgres_server.ensure_database("theirs")
        finally:
            await connection.execute("DROP DATABASE theirs")


class TestOnAServerOfYours:
    """The embedded server stands in for one that is reached by URL: another role, another password file."""

    async def test_a_role_that_may_not_create_databases_is_told_what_to_run(
        self, postgres_server: EmbeddedServer, tmp_path: Path
    ):
        async with plain_role(postgres_server, "NOCREATEDB") as url:
            with pytest.raises(Forbidden, match='ALTER ROLE "plain" CREATEDB CREATEROLE'):
                await Databases(url, Passwords(tmp_path / "passwords.json")).ensure("shop")

    async def test_an_own_database_that_is_open_to_all_is_closed_by_its_owner(
        self, postgres_server: EmbeddedServer, tmp_path: Path
    ):
        async with plain_role(postgres_server, "CREATEDB CREATEROLE") as url:
            urls = await Databases(url, Passwords(tmp_path / "passwords.json")).ensure("shop")
            here = url.partition("?")[0].rpartition("/")[2]
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await asyncpg.connect(urls.reader.replace("/shop?", f"/{here}?"))
            async with connected(url) as connection:
                await connection.execute("DROP DATABASE shop WITH (FORCE)")
                await connection.execute("DROP ROLE shop_owner")
                await connection.execute("DROP ROLE shop_reader")

    async def test_an_own_database_that_cannot_be_closed_is_named(
        self, postgres_server: EmbeddedServer, tmp_path: Path
    ):
        async with plain_role(postgres_server, "CREATEDB CREATEROLE", owns=False) as url:
            with pytest.raises(Forbidden, match="REVOKE CONNECT ON DATABASE"):
                await Databases(url, Passwords(tmp_path / "passwords.json")).ensure("shop")

    async def test_roles_that_another_installation_made_are_not_taken_over(
        self, postgres_server: EmbeddedServer, retail: DatabaseUrls, tmp_path: Path
    ):
        elsewhere = Databases(postgres_server.dsn(), Passwords(tmp_path / "passwords.json"))
        with pytest.raises(Conflict, match="Copy that file"):
            await elsewhere.ensure("retail")
        async with connected(retail.owner) as owner:
            assert await owner.fetchval("SELECT 1") == 1

    async def test_a_refused_password_of_ours_is_told_from_one_of_theirs(
        self, postgres_server: EmbeddedServer, tmp_path: Path
    ):
        wrong = postgres_server.dsn().replace("@/", "x@/")
        with pytest.raises(Unavailable, match="DATABASE_URL"):
            await Databases(wrong, Passwords(tmp_path / "passwords.json")).ensure("retail")

    async def test_a_server_that_is_away_is_called_so(self, tmp_path: Path):
        url = f"postgresql://freehold:x@/freehold?host={tmp_path}&port=5432"
        with pytest.raises(Unavailable, match="cannot be reached"):
            await Databases(url, Passwords(tmp_path / "passwords.json")).ensure("retail")


@asynccontextmanager
async def plain_role(server: EmbeddedServer, rights: str, *, owns: bool = True) -> AsyncIterator[str]:
    """A URL of a role `plain`, in a database that is open to all."""
    async with fresh_database(server) as url, connected(server.dsn()) as connection:
        database = url.partition("?")[0].rpartition("/")[2]
        place = url.partition("?")[2]
        await connection.execute(f"CREATE ROLE plain LOGIN PASSWORD 'plain' {rights}")
        try:
            if owns:
                await connection.execute("GRANT plain TO freehold")
                await connection.execute(f"ALTER DATABASE {database} OWNER TO plain")
            yield f"postgresql://plain:plain@/{database}?{place}"
        finally:
            if owns:
                await connection.execute(f"ALTER DATABASE {database} OWNER TO freehold")
            await connection.execute("DROP ROLE plain")
