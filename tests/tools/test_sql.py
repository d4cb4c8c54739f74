"""The `sql` kind against a real PostgreSQL: reads, refuses, cuts, times out, and says why in words for a model."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from freehold.core.errors import BadRequest, TimedOut, Unavailable
from freehold.store.embedded import EmbeddedServer
from freehold.tools.sql import KIND
from tests._postgres import fresh_database
from tests._waiting import within
from tests.tools._host import Host, data, opened, read, run

TABLES = """
CREATE TABLE sales (day date, sku text NOT NULL, units integer, price numeric(12,4), at timestamptz, more jsonb,
                    blob bytea, ratio float8, PRIMARY KEY (sku, day));
COMMENT ON TABLE sales IS 'One row a day.';
COMMENT ON COLUMN sales.sku IS 'Like SKU-4482.';
INSERT INTO sales VALUES ('2026-11-14', 'SKU-4482', 7, 39.9000, '2026-11-14 05:30+00', '{"a": [1, null]}', '\\x0001', 'NaN');
INSERT INTO sales SELECT date '2020-01-01' + n, 'SKU-1', n FROM generate_series(1, 3000) n;
CREATE SCHEMA other; CREATE TABLE other.hidden (x int);
ANALYZE sales;
"""


@pytest.fixture(scope="module")
async def url(postgres_server: EmbeddedServer) -> AsyncIterator[str]:
    async with fresh_database(postgres_server) as url:
        connection = await asyncpg.connect(url)
        await connection.execute(TABLES)
        await connection.close()
        yield url


@pytest.fixture
async def tool(url: str):
    async with opened(
        KIND, Host(databases={"sales": url}), {"database": "sales"}, description="Sales."
    ) as tool:
        yield tool


async def test_rows_come_with_dates_exact_decimals_json_and_notes_of_bytes(tool):
    got = await data(tool, "query", sql="SELECT * FROM sales WHERE sku = $1", parameters=["SKU-4482"])
    assert got["columns"] == ["day", "sku", "units", "price", "at", "more", "blob", "ratio"]
    assert got["rows"] == [
        ["2026-11-14", "SKU-4482", 7, 39.9, "2026-11-14T05:30:00Z", {"a": [1, None]}, "(2 bytes)", "nan"]
    ]
    assert got["row_count"] == 1
    outcome = await run(tool, "query", sql="SELECT 12345678901234567890.1234567890 AS n")
    assert "12345678901234567890.1234567890" in outcome.content[0].text


async def test_parameters_are_taken_as_the_statement_wants_them(tool):
    sql = "SELECT count(*) FROM sales WHERE day BETWEEN $1 AND $2 AND units < $3 AND sku = ANY (ARRAY[$4])"
    got = await data(tool, "query", sql=sql, parameters=["2020-01-02", "2020-01-11", 6, "SKU-1"])
    assert got["rows"] == [[5]]
    outcome = await run(tool, "query", sql=sql, parameters=["2020-01-02", "soon", 6, "SKU-1"])
    assert outcome.failed
    assert "parameters[1]" in read(outcome)["error"]
    outcome = await run(tool, "query", sql=sql, parameters=[])
    assert "has 4 parameters, got 0" in read(outcome)["error"]


async def test_the_schema_stands_in_the_description(tool):
    (function,) = tool.functions
    assert function.effect == "pure"
    text = function.spec.description
    assert "Sales." in text
    assert "sales(day date key, sku text key /* Like SKU-4482. */, units integer" in text
    assert "~3001 rows  -- One row a day." in text
    assert "hidden" not in text


async def test_a_large_schema_is_asked_for_table_by_table(postgres_server: EmbeddedServer):
    async with fresh_database(postgres_server) as url:
        connection = await asyncpg.connect(url)
        for number in range(40):
            columns = ", ".join(f"a_rather_long_name_{n} text" for n in range(12))
            await connection.execute(f"CREATE TABLE wide_{number:02d} ({columns})")
        await connection.close()
        async with opened(KIND, Host(databases={"sales": url}), {"database": "sales"}) as tool:
            assert [one.spec.name for one in tool.functions] == ["query", "describe"]
            assert len(tool.functions[0].spec.description) < 6_500
            assert len((await data(tool, "describe"))["tables"]) == 40
            told = (await data(tool, "describe", tables=["wide_07", "nope"]))["schema"]
            assert told.startswith("wide_07(a_rather_long_name_0 text")
            assert told.endswith("nope: there is no such table")


async def test_more_rows_than_allowed_are_cut_and_counted(url: str):
    async with opened(KIND, Host(databases={"sales": url}), {"database": "sales", "rows_max": 10}) as tool:
        got = await data(tool, "query", sql="SELECT * FROM sales")
        assert len(got["rows"]) == 10
        assert got["row_count"] == 3001
        assert got["cut"].startswith("10 of 3001 rows")
        got = await data(tool, "query", sql="SELECT generate_series(1, 10000000)")
        assert got["cut"].startswith("10 of more than 10000 rows")
        got = await data(tool, "query", sql="SELECT repeat('x', 3000) FROM generate_series(1, 100)")
        assert len(got["rows"]) == 10
    async with opened(KIND, Host(databases={"sales": url}), {"database": "sales"}) as tool:
        got = await data(tool, "query", sql="SELECT repeat('x', 3000) FROM generate_series(1, 100)")
        assert got["cut"].startswith("20 of 100 rows")
        got = await data(tool, "query", sql="SELECT repeat('x', 100000)")
        assert got["rows"][0][0].endswith("… (100000 characters in all)")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("INSERT INTO sales VALUES ('2026-01-01', 'X', 1)", "only reads"),
        ("/* hi */ -- there\n DELETE FROM sales", "only reads"),
        ("DROP TABLE sales", "only reads"),
        ("COMMIT", "only reads"),
        ("BEGIN", "only reads"),
        ("SET statement_timeout = 0", "only reads"),
        ("COPY sales TO '/tmp/x'", "only reads"),
        ("DO $$ BEGIN PERFORM 1; END $$", "only reads"),
        ("?", "only reads"),
        ("WITH gone AS (DELETE FROM sales RETURNING *) SELECT * FROM gone", "only reads"),
        ("EXPLAIN ANALYZE DELETE FROM sales", "only reads"),
        ("SELECT 1; DROP TABLE sales", "multiple commands"),
        ("SELECT set_config('transaction_read_only', 'off', true)", "read-write mode"),
    ],
)
async def test_writing_is_refused_and_nothing_happens(tool, url: str, sql: str, said: str):
    outcome = await run(tool, "query", sql=sql)
    assert outcome.failed
    assert said in outcome.content[0].text
    got = await data(
        tool, "query", sql="SELECT count(*), current_setting('transaction_read_only') FROM sales"
    )
    assert got["rows"] == [[3001, "on"]]


async def test_a_session_cannot_be_changed_for_the_next_run(tool):
    for setting in ("statement_timeout", "default_transaction_read_only"):
        await run(tool, "query", sql=f"SELECT set_config('{setting}', '0', false)")
        got = await data(
            tool,
            "query",
            sql="SELECT current_setting('statement_timeout'), current_setting('transaction_read_only')",
        )
        assert got["rows"] == [["15s", "on"]]


async def test_an_sql_error_is_an_answer_with_its_place_and_hint(tool):
    outcome = await run(tool, "query", sql="SELECT skuu FROM sales")
    assert outcome.failed
    error = read(outcome)["error"]
    assert error["message"] == 'column "skuu" does not exist'
    assert error["position"] == "8"
    assert "sales.sku" in error["hint"]
    assert read(await run(tool, "query", sql="SELECT 1/0"))["error"]["message"] == "division by zero"


async def test_a_slow_statement_ends_in_time(url: str):
    config = {"database": "sales", "statement_timeout_s": 0.2}
    async with opened(KIND, Host(databases={"sales": url}), config) as tool:
        outcome = await run(tool, "query", sql="SELECT pg_sleep(60)")
        assert outcome.failed
        assert "longer than 0.2 s" in read(outcome)["error"]["message"]
    async with opened(KIND, Host(databases={"sales": url}), {"database": "sales"}) as tool:
        with pytest.raises(TimedOut):
            await run(tool, "query", timeout_s=0.2, sql="SELECT pg_sleep(60)")
        assert (await data(tool, "query", sql="SELECT 1"))["rows"] == [[1]]


async def test_questions_at_once_share_a_small_pool(tool):
    got = await asyncio.gather(*(data(tool, "query", sql=f"SELECT {n}, pg_sleep(0.01)") for n in range(12)))
    assert [one["rows"][0][0] for one in got] == list(range(12))


async def test_a_database_that_is_away_is_named(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWAY", "postgresql://reader:s3cret@127.0.0.1:9/sales")
    with pytest.raises(Unavailable, match="tool thing: its database cannot be reached") as caught:
        async with opened(KIND, Host(), {"url": "env:AWAY"}):
            pass
    assert "s3cret" not in f"{caught.value} {caught.value.detail}"


async def test_a_database_that_goes_away_in_the_middle_is_unavailable_and_comes_back(tool, url: str):
    await data(tool, "query", sql="SELECT 1")
    asking = asyncio.create_task(run(tool, "query", sql="SELECT pg_sleep(60)"))
    connection = await asyncpg.connect(url)
    terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%'"
    async with within("the query to run"):
        while not await connection.fetchval(terminate):  # noqa: ASYNC110 - another session's query
            await asyncio.sleep(0.01)
    await connection.close()
    with pytest.raises(Unavailable, match="tool thing"):
        await asking
    assert (await data(tool, "query", sql="SELECT 2"))["rows"] == [[2]]


@pytest.mark.parametrize(
    "config", [{}, {"database": "sales", "url": "env:X"}, {"database": "sales", "rows_max": 0}]
)
async def test_a_config_that_cannot_be_is_refused(url: str, config):
    with pytest.raises(BadRequest, match="config"):
        async with opened(KIND, Host(databases={"sales": url}), config):
            pass


async def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ODD", "mysql://root:s3cret@here/x")
    with pytest.raises(BadRequest, match="not a PostgreSQL one") as caught:
        async with opened(KIND, Host(), {"url": "env:ODD"}):
            pass
    assert "s3cret" not in f"{caught.value} {caught.value.detail}"
