"""The statement that writes records of calls: a whole batch, and what it adds to the sums by day, all or nothing.

Only records that are new are added up, also to the leases of budgets that they name, so a batch that comes twice counts once. Bills are read from the sums (costs.py).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import structs

from freehold.core.messages import Usage
from freehold.core.records import CallRecord
from freehold.store._statements import USAGE_COLUMNS
from freehold.store.database import Row

_COLUMNS: Final = {
    "id": "text",
    "at": "timestamptz",
    "tenant": "text",
    "principal": "text",
    "wire": "text",
    "model_requested": "text",
    "provider": "text",
    "model": "text",
    "outcome": "text",
    "cost_pico": "bigint",
    "currency": "text",
    "priced": "boolean",
    "duration_ms": "double precision",
    "first_event_ms": "double precision",
    "streamed": "boolean",
    "session_id": "text",
    "agent": "text",
    "key_id": "text",
    "organisation": "text",
    "team": "text",
    "user": "text",
    "labels": "jsonb",
    "route": "text",
    "reason": "text",
    "attempts": "integer",
    "region": "text",
    "cached": "text",
    "price_source": "text",
    "leases": "text",
    "arm": "text",
    "saved_pico": "bigint",
}
_USAGE: Final = {**dict.fromkeys(USAGE_COLUMNS, "bigint"), "estimated": "boolean"}
_MAY_BE_NULL: Final = {
    "first_event_ms", "session_id", "agent", "key_id", "organisation", "team", "user", "route", "reason", "region",
    "cached", "leases", "arm",
}  # fmt: skip
_NAMED: Final = {"user": "user_name"}
"""`user` is a word of SQL's own."""

_TYPES: Final = {_NAMED.get(name, name): kind for name, kind in {**_COLUMNS, **_USAGE}.items()}
_NULLABLE: Final = {_NAMED.get(name, name) for name in _MAY_BE_NULL}
_ARRAYS: Final = [f"${place}::text::{kind}[] AS a{place}" for place, kind in enumerate(_TYPES.values(), 1)]
_COLUMN_ARRAYS: Final = {name: f"a{place}" for place, name in enumerate(_TYPES, 1)}
_GIVEN: Final = [
    name if name in _NULLABLE else f"coalesce({name}, {array}[1])" for name, array in _COLUMN_ARRAYS.items()
]

DIMENSIONS: Final = (
    "organisation", "team", "user_name", "principal", "agent", "route", "provider", "model", "region", "outcome",
    "cached", "price_source", "currency", "priced", "estimated",
)  # fmt: skip
AMOUNTS: Final = ("cost_pico", "saved_pico", *USAGE_COLUMNS)
_CUT: Final = ", ".join(f"coalesce({name}, '')" if name in _NULLABLE else name for name in DIMENSIONS)
_SUMS: Final = ", ".join(f"sum({name}) AS {name}" for name in AMOUNTS)
_ADDED: Final = ", ".join(f"{name} = d.{name} + excluded.{name}" for name in ("calls", *AMOUNTS))

INSERT: Final = f"""
WITH sent AS MATERIALIZED (
    SELECT {", ".join(_ARRAYS)}
), kept AS (
    INSERT INTO call_records ({", ".join(_TYPES)})
    SELECT {", ".join(_GIVEN)}
    FROM sent, unnest({", ".join(_COLUMN_ARRAYS.values())}) AS given ({", ".join(_TYPES)})
    ON CONFLICT (id) DO NOTHING
    RETURNING *
), summed ({", ".join(("tenant", "day", *DIMENSIONS, "calls", *AMOUNTS))}) AS (
    SELECT tenant, (at AT TIME ZONE 'UTC')::date, {_CUT}, count(*), {_SUMS}
    FROM kept GROUP BY tenant, (at AT TIME ZONE 'UTC')::date, {_CUT}
), keyed AS (
    SELECT *, sha256(convert_to(ROW({", ".join(DIMENSIONS)})::text, 'UTF8')) AS key FROM summed
), paid AS (
    SELECT lease, sum(cost_pico) AS cost_pico FROM kept, unnest(string_to_array(leases, ',')) AS lease
    WHERE leases IS NOT NULL GROUP BY lease
), locked AS (
    SELECT id FROM allowance_leases WHERE id IN (SELECT lease FROM paid) ORDER BY id FOR UPDATE
), settled AS (
    UPDATE allowance_leases AS l SET recorded = l.recorded + paid.cost_pico
    FROM paid JOIN locked ON locked.id = paid.lease WHERE l.id = paid.lease
)
INSERT INTO call_days AS d (tenant, day, key, {", ".join(DIMENSIONS)}, calls, {", ".join(AMOUNTS)})
SELECT tenant, day, key, {", ".join(DIMENSIONS)}, calls, {", ".join(AMOUNTS)} FROM keyed ORDER BY tenant, day, key
ON CONFLICT (tenant, day, key) DO UPDATE SET {_ADDED}
"""  # noqa: S608 - built from our own constants alone
"""`unnest` fills the shorter arrays with NULL; see `_shortened`. Days are locked in one order everywhere."""

LIST: Final = f"""
SELECT {", ".join(_TYPES)} FROM call_records
WHERE tenant = $1 AND ($2::text IS NULL OR session_id = $2)
ORDER BY id DESC LIMIT $3
"""  # noqa: S608 - built from our own constants alone


def arrays(batch: Sequence[CallRecord]) -> list[str]:
    """The arguments of INSERT: arrays as text, which the driver has no look at. Raises UnicodeError, OverflowError.

    https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
    """
    own = dict(zip(CallRecord.__struct_fields__, zip(*map(structs.astuple, batch), strict=True), strict=True))
    usage = zip(Usage.__struct_fields__, zip(*map(structs.astuple, own["usage"]), strict=True), strict=True)
    own["labels"] = tuple(map(_json, own["labels"]))
    columns = own | dict(usage)
    return [_literal(_shortened(name, columns[name])) for name in (*_COLUMNS, *_USAGE)]


def _json(labels: Mapping[str, str]) -> str:
    return msgspec.json.encode(labels).decode() if labels else "{}"


def _shortened(name: str, values: tuple[object, ...]) -> tuple[object, ...]:
    """What all records of a batch share, as most do most columns, is sent once: encoding it is most of a record's cost."""
    first = values[0]
    if values.count(first) < len(values):
        return values
    if name in _MAY_BE_NULL:
        return () if first is None else values
    return values[:1]


def _literal(values: tuple[object, ...]) -> str:
    """JSON and PostgreSQL write lists alike, but for the brackets, and for what a backslash means in texts."""
    written = msgspec.json.encode(values).decode()
    if "\\" not in written:
        return f"{{{written[1:-1]}}}"
    return f"{{{','.join(_quoted(one) for one in values)}}}"


def _quoted(value: object) -> str:
    if value is None:
        return "null"
    escaped = str(value).replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'


def record_of(row: Row) -> CallRecord:
    own = {name: row[_NAMED.get(name, name)] for name in _COLUMNS if name != "labels"}
    labels = msgspec.json.decode(row["labels"], type=dict[str, str])
    return CallRecord(**own, labels=labels, usage=Usage(**{name: row[name] for name in _USAGE}))
