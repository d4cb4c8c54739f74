"""Sums of calls, for bills: implements core.ports.Costs. Read from the sums by day, which are as small as a month is long.

Not here: how they are written (_record_statements.py), and what a bill makes of them (core/billing.py).
"""

from collections.abc import Sequence
from datetime import date
from typing import Final

from freehold.core.billing import Amounts, CostSum, Dimension
from freehold.core.errors import TooLarge
from freehold.core.ports import Costs
from freehold.store.database import Database, Row

GROUPS_MAX: Final = 50_000

_EXPRESSIONS: Final[dict[Dimension, str]] = {
    "day": "day::text",
    "organisation": "organisation",
    "team": "team",
    "user": "user_name",
    "principal": "principal",
    "agent": "agent",
    "route": "route",
    "provider": "provider",
    "model": "CASE WHEN model = '' THEN '' ELSE provider || '/' || model END",
    "region": "region",
    "outcome": "outcome",
    "cached": "cached",
    "price_source": "price_source",
}
_AMOUNTS: Final = """
    sum(calls)::bigint AS calls,
    coalesce(sum(calls) FILTER (WHERE NOT priced), 0)::bigint AS unpriced_calls,
    coalesce(sum(calls) FILTER (WHERE estimated), 0)::bigint AS estimated_calls,
    sum(cost_pico) AS cost_pico,
    sum(saved_pico) AS saved_pico,
    sum(input_tokens) AS input_tokens,
    sum(output_tokens) AS output_tokens,
    sum(cache_read_tokens) AS cache_read_tokens,
    sum(cache_write_tokens + cache_write_1h_tokens) AS cache_write_tokens,
    sum(reasoning_tokens) AS reasoning_tokens
"""
_DAYS: Final = "call_days WHERE tenant = $1 AND day >= $2 AND day < $3"
_RECORDS: Final = """
    (SELECT *, 1 AS calls FROM call_records
     WHERE tenant = $1 AND at >= $2::date::timestamp AT TIME ZONE 'UTC' AND at < $3::date::timestamp AT TIME ZONE 'UTC') AS every
"""


class PostgresCosts:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def sums(
        self, tenant: str, *, first: date, end: date, by: Sequence[Dimension]
    ) -> Sequence[CostSum]:
        group = ", ".join(_EXPRESSIONS[one] for one in by)
        return await self._sums(_DAYS, group, tenant, first, end)

    async def recounted(self, tenant: str, *, first: date, end: date) -> Sequence[CostSum]:
        return await self._sums(_RECORDS, "", tenant, first, end)

    async def _sums(self, source: str, group: str, tenant: str, first: date, end: date) -> list[CostSum]:
        keys = f"ARRAY[{group}]::text[], price_source, currency"
        rows = await self._database.fetch(
            "adding up calls",
            f"SELECT ARRAY[{group}]::text[] AS cut, price_source, currency, {_AMOUNTS} FROM {source} GROUP BY {keys} LIMIT $4",  # noqa: S608 - our own constants
            tenant,
            first,
            end,
            GROUPS_MAX + 1,
        )
        if len(rows) > GROUPS_MAX:
            raise TooLarge(
                f"more than {GROUPS_MAX} groups (GROUPS_MAX): cut the bill by fewer things", field="by"
            )
        return [_sum(row) for row in rows]


def _sum(row: Row) -> CostSum:
    amounts = Amounts(**{name: int(row[name]) for name in Amounts.__struct_fields__})
    return CostSum(tuple(row["cut"]), row["price_source"], row["currency"], amounts)


_IMPLEMENTS: type[Costs] = PostgresCosts
