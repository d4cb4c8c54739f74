"""Tool kind `sql`: questions to a PostgreSQL database, read-only. Values are `_values.py`, the schema's text `_schema_text.py`.

Three things keep it to reading: the role (a database that Freehold keeps is opened as its reader), a READ ONLY
transaction that is always rolled back, and one statement a run (the extended protocol takes no second one). The first
word is looked at only to say early and clearly what the others would say late. Anything that the role may call
(`pg_read_file`, `dblink`) a query may call too: give an external database's address with a role that may only read.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, ClassVar, Final

import asyncpg
from msgspec import Meta, Struct

from freehold.core.errors import BadRequest, FreeholdError, Unavailable
from freehold.core.ports import OpenTool, ToolHost, ToolKind, ToolOutcome, ToolRun
from freehold.core.resources import Tool
from freehold.tools._functions import Function, Functions, answer, check_reach, described, function
from freehold.tools.sql._schema_text import Schema, read_schema
from freehold.tools.sql._values import bound, cell, prepare_connection

SQL_CHARS_MAX: Final = 20_000
ROWS_MAX: Final = 1_000
COUNTED_MAX: Final = 10_000
"""Rows beyond those that are given are counted up to here, to say how many are missing."""

BYTES_MAX: Final = 60_000
"""Of values in one answer."""

PARAMETERS_MAX: Final = 50
CONNECTIONS_MAX: Final = 4
CONNECT_TIMEOUT_S: Final = 10.0
LOCK_TIMEOUT_MS: Final = 2_000
DESCRIPTION_CHARS_MAX: Final = 6_000
"""A schema that is told in fewer characters stands in the description of `query`; a longer one is asked for table by table."""

READS: Final = frozenset({"select", "with", "values", "table", "explain", "show"})

_AWAY: Final = frozenset({"08", "28", "3D", "53", "57"})
"""Classes of SQLSTATE that speak of the connection, the role or the server, and not of the query."""

_COMMENT: Final = re.compile(r"\A(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/|\()+", re.DOTALL)
_WORD: Final = re.compile(r"[A-Za-z]+")


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Either `database`, a name that Freehold keeps, or `url`, a reference to a PostgreSQL address (`env:`, `file:`).

    `tables` shows only these (`schema.table`, or `table` in any of `schemas`); it hides, it does not forbid.
    """

    database: str | None = None
    url: str | None = None
    schemas: tuple[str, ...] = ("public",)
    tables: tuple[str, ...] = ()
    rows_max: Annotated[int, Meta(ge=1, le=ROWS_MAX)] = 200
    statement_timeout_s: Annotated[float, Meta(gt=0, le=600)] = 15.0


class Query(Struct, frozen=True, forbid_unknown_fields=True):
    sql: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=SQL_CHARS_MAX,
            description="One PostgreSQL statement that reads; $1, $2 ... are parameters.",
        ),
    ]
    parameters: Annotated[
        list[str | int | float | bool | None],
        Meta(max_length=PARAMETERS_MAX, description="Values for $1, $2 ...; dates as ISO text."),
    ] = []


class Describe(Struct, frozen=True, forbid_unknown_fields=True):
    tables: Annotated[
        list[str], Meta(max_length=50, description="Names of tables; empty for a list of all.")
    ] = []


class SqlTool:
    name: ClassVar[str] = "sql"
    config: ClassVar[type[Struct]] = Config

    @asynccontextmanager
    async def open(self, tool: Tool, config: Config, host: ToolHost) -> AsyncIterator[OpenTool]:
        url = await _url(tool, config, host)
        async with AsyncExitStack() as stack:
            pool = await _connected(tool, url, stack)
            schema = await _read(tool, config, pool)
            yield Functions(tool, _functions(tool, config, pool, schema))


async def _url(tool: Tool, config: Config, host: ToolHost) -> str:
    if (config.database is None) == (config.url is None):
        raise BadRequest(f"tool {tool.name}: expected exactly one of `database` and `url`", field="config")
    if config.database is not None:
        return await host.database_url(config.database)
    return host.secret(config.url or "")


async def _connected(tool: Tool, url: str, stack: AsyncExitStack) -> "asyncpg.Pool[asyncpg.Record]":
    """Connects only when there is something to ask."""
    return await stack.enter_async_context(
        asyncpg.create_pool(
            url,
            min_size=0,
            max_size=CONNECTIONS_MAX,
            timeout=CONNECT_TIMEOUT_S,
            init=prepare_connection,
            server_settings={"application_name": f"freehold tool {tool.name}"[:63]},
        )
    )


async def _read(tool: Tool, config: Config, pool: "asyncpg.Pool[asyncpg.Record]") -> Schema:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S), pool.acquire() as connection:
            return await read_schema(connection, schemas=config.schemas, tables=config.tables)
    except asyncpg.ClientConfigurationError as error:
        raise BadRequest(
            f"tool {tool.name}: the database's address is not a PostgreSQL one; expected postgresql://user@host/name",
            field="config.url",
            detail=type(error).__name__,
        ) from None
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise _away(tool, error) from error


def _away(tool: Tool, error: BaseException) -> FreeholdError:
    return Unavailable(
        f"tool {tool.name}: its database cannot be reached ({type(error).__name__}); "
        "check that it runs and that the tool's `database` or `url` names it",
        detail=str(error),
    )


def _functions(
    tool: Tool, config: Config, pool: "asyncpg.Pool[asyncpg.Record]", schema: Schema
) -> list[Function]:
    async def query(asked: Query, run: ToolRun) -> ToolOutcome:
        if config.database is None:
            # Its address may name several hosts, and be another tomorrow.
            check_reach(tool.name, run, None)
        if refusal := _refusal(asked.sql):
            return answer({"error": refusal}, failed=True)
        try:
            return await _query(pool, config, asked)
        except asyncpg.PostgresError as error:
            if str(error.sqlstate)[:2] in _AWAY and not isinstance(error, asyncpg.QueryCanceledError):
                raise _away(tool, error) from error
            return answer({"error": _explained(error, config)}, failed=True)
        except (
            OSError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
        ) as error:  # The last: cut in mid-statement.
            raise _away(tool, error) from error

    async def describe(asked: Describe, _: ToolRun) -> ToolOutcome:
        return (
            answer({"schema": schema.told(asked.tables)})
            if asked.tables
            else answer({"tables": schema.listed()})
        )

    does = f"Ask the database with one SQL statement (PostgreSQL, read-only; at most {config.rows_max} rows come back)."
    whole = schema.told(())
    if len(whole) <= DESCRIPTION_CHARS_MAX:
        text = f"{described(tool, does)}\nTables:\n{whole}"
        return [function("query", Query, query, description=text, effect="pure")]
    text = f"{described(tool, does)}\nTables: {schema.listed_within(DESCRIPTION_CHARS_MAX)}"
    tells = described(tool, "Columns, types, comments and estimated rows of tables.")
    return [
        function("query", Query, query, description=text, effect="pure"),
        function("describe", Describe, describe, description=tells, effect="pure"),
    ]


def _refusal(sql: str) -> str | None:
    found = _WORD.match(_COMMENT.sub("", sql))
    word = found[0].lower() if found else ""
    if word in READS:
        return None
    return f"this tool only reads: expected SELECT, WITH, VALUES, TABLE, SHOW or EXPLAIN, got {word.upper() or sql[:40]!r}"


async def _query(pool: "asyncpg.Pool[asyncpg.Record]", config: Config, asked: Query) -> ToolOutcome:
    async with pool.acquire() as connection:
        transaction = connection.transaction(readonly=True)
        await transaction.start()
        try:
            timeout_ms = int(config.statement_timeout_s * 1000)
            await connection.execute(
                f"SET LOCAL statement_timeout = {timeout_ms}; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"
            )
            statement = await connection.prepare(asked.sql)
            try:
                values = bound(asked.parameters, statement.get_parameters())
            except BadRequest as error:
                return answer({"error": str(error)}, failed=True)
            cursor = await statement.cursor(*values)
            return await _rows(cursor, [one.name for one in statement.get_attributes()], config.rows_max)
        finally:
            if not connection.is_closed():
                await transaction.rollback()


async def _rows(cursor: Any, columns: list[str], rows_max: int) -> ToolOutcome:
    """Gives rows up to the caps, then counts the rest without keeping it."""
    rows: list[list[Any]] = []
    size = count = 0
    full = False
    while count < COUNTED_MAX:
        batch = await cursor.fetch(100)
        if not batch:
            break
        for record in batch:
            count += 1
            full = full or len(rows) >= rows_max
            if full:
                continue
            row = [cell(value) for value in record.values()]
            size += sum(len(str(value)) for value in row)
            full = size > BYTES_MAX and bool(rows)
            if not full:
                rows.append(row)
    result: dict[str, Any] = {"columns": columns, "rows": rows, "row_count": count}
    if len(rows) < count:
        total = f"more than {count}" if count >= COUNTED_MAX else str(count)
        result["cut"] = (
            f"{len(rows)} of {total} rows are here; aggregate, filter or use LIMIT and OFFSET for the others"
        )
    return answer(result)


def _explained(error: asyncpg.PostgresError, config: Config) -> dict[str, Any]:
    """What PostgreSQL said, without what it read: message, place and hint are about the query."""
    said: dict[str, Any] = {"message": error.args[0] if error.args else type(error).__name__}
    if isinstance(error, asyncpg.QueryCanceledError):
        said["message"] = f"the query took longer than {config.statement_timeout_s:g} s; ask for less at once"
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        said["message"] = f"this tool only reads: {said['message']}"
    for name in ("sqlstate", "position", "hint"):
        if value := getattr(error, name, None):
            said[name] = value
    if isinstance(error, asyncpg.PostgresSyntaxError) and "multiple commands" in said["message"]:
        said["hint"] = "send one statement a run"
    return said


KIND: ToolKind = SqlTool()
