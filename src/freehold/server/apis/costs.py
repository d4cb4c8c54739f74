"""What a month cost: `GET /v1/costs`. Action `costs:Get` on `costs/MONTH`. Amounts are exact decimal text in their currency."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from msgspec import Struct, structs

from freehold.core.billing import DIMENSIONS, Amounts, Bill, CostSum, Dimension, Month, bill
from freehold.core.contracts import Capacity, PriceBook
from freehold.core.errors import BadRequest, Internal
from freehold.core.policy import authorize
from freehold.core.ports import CallRecords, Clock, Costs, Resources
from freehold.core.pricing import decimal
from freehold.core.resources import Kind
from freehold.core.validation import near
from freehold.server.operations import Call, Operation

FLUSH_S_MAX: Final = 5.0
"""A bill waits so long for this process's own records to arrive; those that don't are told as `waiting_calls`."""

Agreed = TypeVar("Agreed", PriceBook, Capacity)


class CostsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`by`: what to cut by, joined by commas. `month`: of UTC, `2026-11`; this one where none is given.

    `recount`: add up every record again and compare; takes seconds where there are millions.
    """

    by: str = "model"
    month: str | None = None
    recount: bool = False


class LineShown(Struct, frozen=True):
    """`saved` is what calls would have cost that an earlier answer was given to."""

    group: dict[str, str]
    currency: str
    amount: str
    saved: str
    calls: int
    unpriced_calls: int
    estimated_calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int


class AdjustmentShown(Struct, frozen=True):
    reason: str
    name: str
    currency: str
    amount: str
    note: str
    hours: int | None
    tokens_served: int | None
    tokens_bought: int | None


class BillShown(Struct, frozen=True):
    """`totals`, by currency, are the sums of all lines and adjustments. `unpriced_calls` used tokens that nobody has a price for:
    they are in no amount. `waiting_calls` of this server are not counted yet.
    """

    month: str
    by: tuple[str, ...]
    lines: tuple[LineShown, ...]
    adjustments: tuple[AdjustmentShown, ...]
    totals: dict[str, str]
    calls: int
    unpriced_calls: int
    waiting_calls: int
    recounted: bool


class CostsApi:
    def __init__(self, costs: Costs, records: CallRecords, resources: Resources, clock: Clock) -> None:
        self._costs = costs
        self._records = records
        self._resources = resources
        self._clock = clock

    async def get(self, call: Call) -> BillShown:
        query: CostsQuery = call.query
        now = self._clock.now()
        month = Month.of(f"{now:%Y-%m}" if query.month is None else query.month)
        by = _dimensions(query.by)
        tenant = call.principal.tenant
        authorize(call.principal, "costs:Get", f"costs/{month}")
        await self._arrive()
        sums = await self._costs.sums(tenant, first=month.first, end=month.end, by=by)
        made = bill(
            month,
            by,
            sums,
            books=await self._agreed(tenant, "price_book", PriceBook),
            capacities=await self._agreed(tenant, "capacity", Capacity),
            now=now,
        )
        if query.recount:
            await self._recount(tenant, month)
        return _shown(made, waiting_count=self._records.waiting_count, recounted=query.recount)

    async def _arrive(self) -> None:
        """Raises Unavailable where the database is away."""
        try:
            async with asyncio.timeout(FLUSH_S_MAX):
                await self._records.flush()
        except TimeoutError:
            return

    async def _agreed(self, tenant: str, kind: Kind, shape: type[Agreed]) -> list[Agreed]:
        """What was taken out of use held until then."""
        return [
            _until(one.resource, one.updated_at) if one.archived else one.resource
            for one in await self._resources.list(tenant, kind, archived=True)
            if isinstance(one.resource, shape)
        ]

    async def _recount(self, tenant: str, month: Month) -> None:
        """Raises Internal where the sums by day are not those of the records: they are written together, so none may differ."""
        span = {"first": month.first, "end": month.end}
        for _ in range(3):  # Records that arrive between the two looks are in one alone.
            days = await self._costs.sums(tenant, **span, by=())
            records = await self._costs.recounted(tenant, **span)
            if _plain(days) == _plain(records):
                return
        raise Internal(f"the sums of {month} are not those of its records: report this")


def _plain(sums: Sequence[CostSum]) -> dict[tuple[str, str], Amounts]:
    return {(one.price_source, one.currency): one.amounts for one in sums}


def _until(agreed: Agreed, moment: datetime) -> Agreed:
    """A book to the day on which it was taken out of use, capacity to the moment."""
    if isinstance(agreed, PriceBook):
        day = moment.astimezone(UTC).date()
        return structs.replace(agreed, valid_until=min(agreed.valid_until or day, day))
    return structs.replace(agreed, valid_until=min(agreed.valid_until or moment, moment))


def _dimensions(text: str) -> tuple[Dimension, ...]:
    found: list[Dimension] = []
    for name in (one.strip() for one in text.split(",") if one.strip()):
        known = next((one for one in DIMENSIONS if one == name), None)
        if known is None:
            raise BadRequest(
                f"expected some of {', '.join(DIMENSIONS)}; got {name[:40]!r}{near(name, DIMENSIONS)}",
                field="by",
            )
        if known not in found:
            found.append(known)
    return tuple(found)


def _shown(made: Bill, *, waiting_count: int, recounted: bool) -> BillShown:
    return BillShown(
        month=made.month,
        by=made.by,
        lines=tuple(
            LineShown(
                group=dict(zip(made.by, line.group, strict=True)),
                currency=line.currency,
                amount=decimal(line.amounts.cost_pico),
                saved=decimal(line.amounts.saved_pico),
                **{
                    name: value
                    for name, value in structs.asdict(line.amounts).items()
                    if not name.endswith("_pico")
                },
            )
            for line in made.lines
        ),
        adjustments=tuple(
            AdjustmentShown(
                one.reason, one.name, one.currency, decimal(one.amount_pico), one.note, one.hours,
                one.tokens_served, one.tokens_bought,
            )
            for one in made.adjustments
        ),
        totals={currency: decimal(pico) for currency, pico in made.totals.items()},
        calls=made.usage.calls,
        unpriced_calls=made.usage.unpriced_calls,
        waiting_calls=waiting_count,
        recounted=recounted,
    )  # fmt: skip


def operations(costs: Costs, records: CallRecords, resources: Resources, clock: Clock) -> list[Operation]:
    api = CostsApi(costs, records, resources, clock)
    return [
        Operation(method="GET", path="/v1/costs", id="getCosts", tag="costs",
                  summary="What a month cost, cut by team, model, agent ...; exact, with discounts and capacity.",
                  handler=api.get, query=CostsQuery, answer=BillShown),
    ]  # fmt: skip
