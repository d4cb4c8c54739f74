"""What tables there are, told compactly: one line a table, `name(column type, ...)`, with comments and estimated rows.

This is what models read best for its size: about a third of the same as DDL or JSON.
"""

from collections.abc import Sequence
from typing import Final

import asyncpg
from msgspec import Struct

TABLES_MAX: Final = 500
COLUMNS_MAX: Final = 5_000

_TABLES: Final = """
SELECT n.nspname AS schema, c.relname AS name, c.reltuples::bigint AS estimate,
       obj_description(c.oid, 'pg_class') AS comment, a.attname AS column,
       format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS filled,
       col_description(c.oid, a.attnum) AS column_comment,
       COALESCE(a.attnum = ANY (k.indkey), false) AS in_key
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_index k ON k.indrelid = c.oid AND k.indisprimary
 WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
   AND (cardinality($2::text[]) = 0 OR c.relname = ANY ($2) OR n.nspname || '.' || c.relname = ANY ($2))
   AND has_table_privilege(c.oid, 'SELECT')
 ORDER BY n.nspname, c.relname, a.attnum
 LIMIT $3
"""

_SHORT: Final = {
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "character varying": "varchar",
    "double precision": "float8",
}


class Table(Struct, frozen=True):
    name: str
    estimate: int
    comment: str
    columns: tuple[str, ...]

    def told(self) -> str:
        rows = f"  ~{self.estimate} rows" if self.estimate >= 0 else ""
        comment = f"  -- {self.comment}" if self.comment else ""
        return f"{self.name}({', '.join(self.columns)}){rows}{comment}"


class Schema(Struct, frozen=True):
    tables: tuple[Table, ...]

    def told(self, names: Sequence[str]) -> str:
        """One line a table; all of them for no names. Names that nothing has are said."""
        known = {table.name: table for table in self.tables}
        chosen = [known[name] for name in names if name in known] if names else list(self.tables)
        lines = [table.told() for table in chosen[:TABLES_MAX]]
        lines += [f"{name}: there is no such table" for name in names if name not in known]
        return "\n".join(lines) or "(no tables that this tool's role may read)"

    def listed(self) -> list[str]:
        return [table.name for table in self.tables]

    def listed_within(self, chars_max: int) -> str:
        names = ", ".join(self.listed())
        return (
            names
            if len(names) <= chars_max
            else f"{names[:chars_max].rpartition(', ')[0]}, … (describe lists all)"
        )


async def read_schema(
    connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]",
    *,
    schemas: Sequence[str],
    tables: Sequence[str],
) -> Schema:
    """Tables of the first of `schemas` go by their name alone."""
    rows = await connection.fetch(_TABLES, list(schemas), list(tables), COLUMNS_MAX)
    grouped: dict[str, list[asyncpg.Record]] = {}
    for row in rows:
        name = row["name"] if schemas and row["schema"] == schemas[0] else f"{row['schema']}.{row['name']}"
        grouped.setdefault(name, []).append(row)
    return Schema(tuple(_table(name, columns) for name, columns in grouped.items()))


def _table(name: str, rows: list[asyncpg.Record]) -> Table:
    return Table(name, rows[0]["estimate"], rows[0]["comment"] or "", tuple(_column(row) for row in rows))


def _column(row: asyncpg.Record) -> str:
    type_ = row["type"]
    for long, short in _SHORT.items():
        type_ = type_.replace(long, short)
    key = " key" if row["in_key"] else ""
    comment = f" /* {row['column_comment']} */" if row["column_comment"] else ""
    return f"{row['column']} {type_}{key}{comment}"
