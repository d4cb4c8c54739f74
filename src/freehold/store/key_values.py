"""Applications' tables of JSON values by key: implements core.ports.KeyValues. Keys sort as the bytes of their UTF-8."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from freehold.core.errors import BadRequest, TooLarge
from freehold.core.ports import KeyValuePage, KeyValues
from freehold.core.validation import check_limit
from freehold.store.database import Database

TABLE_CHARS_MAX: Final = 255
KEY_BYTES_MAX: Final = 1024
VALUE_BYTES_MAX: Final = 1024 * 1024
PUT_BYTES_MAX: Final = 32 * 1024 * 1024
ITEMS_MAX: Final = 10_000
SCAN_MAX: Final = 1000
TABLES_MAX: Final = 1000
SURROGATES: Final = range(0xD800, 0xE000)

_GET: Final = (
    "SELECT key, value FROM key_values WHERE tenant = $1 AND table_name = $2 AND key = ANY($3::text[])"
)
_SCAN: Final = """
SELECT key, value FROM key_values
WHERE tenant = $1 AND table_name = $2 AND key >= $3 AND ($4::text IS NULL OR key < $4) AND ($5::text IS NULL OR key > $5)
ORDER BY key LIMIT $6
"""
_PUT: Final = """
INSERT INTO key_values (tenant, table_name, key, value)
SELECT $1, $2, key, value FROM unnest($3::text[], $4::json[]) AS given (key, value)
ON CONFLICT (tenant, table_name, key) DO UPDATE SET value = excluded.value, updated_at = now()
"""
_DELETE: Final = """
DELETE FROM key_values WHERE tenant = $1 AND table_name = $2 AND key = ANY($3::text[]) RETURNING key
"""
_TABLES: Final = """
SELECT table_name, count(*) AS count FROM key_values WHERE tenant = $1 GROUP BY table_name ORDER BY table_name LIMIT $2
"""


class PostgresKeyValues:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant: str, table: str, keys: Sequence[str]) -> Mapping[str, Any]:
        """What there is of `keys`, in their order; others are absent."""
        _check_table(table)
        _check_keys(keys)
        rows = await self._database.fetch(f"reading from table {table}", _GET, tenant, table, list(keys))
        found = {row["key"]: row["value"] for row in rows}
        return {key: msgspec.json.decode(found[key]) for key in keys if key in found}

    async def scan(
        self, tenant: str, table: str, *, prefix: str = "", limit: int = 100, cursor: str | None = None
    ) -> KeyValuePage:
        """`cursor` is the last key of the page before."""
        _check_table(table)
        check_limit(limit, SCAN_MAX)
        if prefix:
            _check_key(prefix, "prefix")
        if cursor is not None:
            _check_key(cursor, "cursor")
        rows = await self._database.fetch(
            f"scanning table {table}", _SCAN, tenant, table, prefix, _beyond(prefix), cursor, limit + 1
        )
        items = tuple((row["key"], msgspec.json.decode(row["value"])) for row in rows[:limit])
        return KeyValuePage(items, items[-1][0] if len(rows) > limit else None)

    async def put(self, tenant: str, table: str, items: Mapping[str, Any]) -> int:
        """All or nothing. Returns how many."""
        _check_table(table)
        _check_keys(list(items))
        values = [_encoded(key, value) for key, value in items.items()]
        size_bytes = sum(map(len, values))
        if size_bytes > PUT_BYTES_MAX:
            raise TooLarge(f"a put holds at most {PUT_BYTES_MAX} bytes, this one has {size_bytes}: split it")
        in_order = sorted(
            zip(items, values, strict=True)
        )  # So that two puts of the same keys wait, and don't deadlock.
        await self._database.fetch(
            f"writing to table {table}",
            _PUT,
            tenant,
            table,
            [key for key, _ in in_order],
            [value for _, value in in_order],
        )
        return len(items)

    async def delete(self, tenant: str, table: str, keys: Sequence[str]) -> int:
        """How many there were."""
        _check_table(table)
        _check_keys(keys)
        return len(
            await self._database.fetch(f"deleting from table {table}", _DELETE, tenant, table, list(keys))
        )

    async def tables(self, tenant: str) -> Mapping[str, int]:
        """Each table with how many keys it has. An empty table is none."""
        rows = await self._database.fetch("listing tables", _TABLES, tenant, TABLES_MAX)
        return {row["table_name"]: row["count"] for row in rows}


def _check_table(table: str) -> None:
    if not 1 <= len(table) <= TABLE_CHARS_MAX or not table.isprintable():
        raise BadRequest(f"expected a name of 1 to {TABLE_CHARS_MAX} printable characters", field="table")


def _check_keys(keys: Sequence[str]) -> None:
    if len(keys) > ITEMS_MAX:
        raise BadRequest(f"expected at most {ITEMS_MAX} keys at once, got {len(keys)}", field="keys")
    for key in keys:
        _check_key(key, "key")


def _check_key(key: str, field: str) -> None:
    if "\x00" in key:
        raise BadRequest("expected text without NUL characters", field=field)
    try:
        size_bytes = len(key.encode())
    except UnicodeEncodeError as error:
        raise BadRequest("expected text in Unicode, got a lone surrogate", field=field) from error
    if not 1 <= size_bytes <= KEY_BYTES_MAX:
        raise BadRequest(f"expected 1 to {KEY_BYTES_MAX} bytes, got {size_bytes}", field=field)


def _beyond(prefix: str) -> str | None:
    """The first text after all those that begin with `prefix`, in the order of UTF-8's bytes; None where there is no end."""
    for length in range(len(prefix), 0, -1):
        following = ord(prefix[length - 1]) + 1
        if following == SURROGATES.start:
            following = SURROGATES.stop
        if following <= sys.maxunicode:
            return prefix[: length - 1] + chr(following)
    return None


def _encoded(key: str, value: Any) -> str:
    try:
        text = msgspec.json.encode(value)
    except (TypeError, ValueError) as error:
        raise BadRequest("expected a JSON value", field=key[:80], detail=str(error)) from error
    if len(text) > VALUE_BYTES_MAX:
        raise TooLarge(f"the value of {key[:80]!r} has {len(text)} bytes, at most {VALUE_BYTES_MAX} are kept")
    return text.decode()


_IMPLEMENTS: type[KeyValues] = PostgresKeyValues
