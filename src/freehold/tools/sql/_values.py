"""Values of PostgreSQL as JSON, and JSON's as parameters.

Decimals become JSON numbers with all their digits, dates and times ISO 8601 text, bytes a note of their size.
"""

import math
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from freehold.core.errors import BadRequest

CELL_CHARS_MAX: Final = 4_000
"""A longer text is cut, and says so."""

_PARSED: Final[dict[str, type]] = {
    "date": date,
    "timestamp": datetime,
    "timestamptz": datetime,
    "time": time,
    "timetz": time,
    "interval": timedelta,
    "numeric": Decimal,
    "uuid": UUID,
    "int2": int,
    "int4": int,
    "int8": int,
    "float4": float,
    "float8": float,
    "bool": bool,
}


async def prepare_connection(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=lambda text: text, decoder=msgspec.json.decode
        )


def cell(value: Any) -> Any:
    """As msgspec encodes it faithfully."""
    match value:
        case str():
            if len(value) > CELL_CHARS_MAX:
                return f"{value[:CELL_CHARS_MAX]}… ({len(value)} characters in all)"
            return value
        case None | bool() | int() | date() | time() | UUID():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal():
            return value if value.is_finite() else str(value)
        case bytes():
            return f"({len(value)} bytes)"
        case timedelta():
            return str(value)
        case asyncpg.Record():
            return {name: cell(one) for name, one in value.items()}
        case list() | tuple():
            return [cell(one) for one in value]
        case dict():
            return {str(name): cell(one) for name, one in value.items()}
        case _:
            return str(value)


def bound(values: Sequence[Any], types: Sequence[Any]) -> list[Any]:
    """JSON's values as what the statement's parameters want. Raises BadRequest naming the parameter."""
    if len(values) != len(types):
        raise BadRequest(f"the statement has {len(types)} parameters, got {len(values)}", field="parameters")
    return [
        _bound(value, one.name, index) for index, (value, one) in enumerate(zip(values, types, strict=True))
    ]


def _bound(value: Any, name: str, index: int) -> Any:
    wanted = _PARSED.get(name)
    if value is None:
        return None
    if wanted is None:
        return value if not isinstance(value, (int, float)) or isinstance(value, bool) else str(value)
    try:
        return msgspec.convert(str(value) if wanted is Decimal else value, wanted, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(
            f"expected a value for PostgreSQL's {name}, got {str(value)[:80]!r}", field=f"parameters[{index}]"
        ) from error
