"""One month's bill: sums of records, and what contracts add to them: volume discounts, commitments, hours of capacity. Pure.

Everything is whole pico-units of a currency, and nothing is converted. The lines are the records' own sums, so they add up to
them exactly; discounts and charges stand beside them, each with its reason, and the total is the sum of all. Only discounts (one
product a tier) and a commitment for part of a month are rounded, half to even, to a pico-unit.

Terms are taken as they are declared when the bill is made. Not here: where sums come from (store/costs.py).
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from freehold.core.contracts import PPM, Capacity, PriceBook, Volume, money, ppm, tiers
from freehold.core.errors import BadRequest
from freehold.core.pricing import share

Dimension: TypeAlias = Literal[
    "day", "organisation", "team", "user", "principal", "agent", "route", "provider", "model", "region", "outcome",
    "cached", "price_source",
]  # fmt: skip
DIMENSIONS: Final[tuple[Dimension, ...]] = (
    "day", "organisation", "team", "user", "principal", "agent", "route", "provider", "model", "region", "outcome",
    "cached", "price_source",
)  # fmt: skip
_HOUR: Final = timedelta(hours=1)
_MONTH: Final = re.compile(r"[1-8][0-9]{3}-(0[1-9]|1[0-2])")


class Month(Struct, frozen=True):
    """A calendar month of UTC."""

    first: date

    @classmethod
    def of(cls, text: str) -> "Month":
        """Raises BadRequest for anything but `2026-11`."""
        if _MONTH.fullmatch(text) is None:
            raise BadRequest(f"expected a month like 2026-11, got {text[:20]!r}", field="month")
        return cls(date.fromisoformat(f"{text}-01"))

    @property
    def end(self) -> date:
        """The first day of the next."""
        return (self.first.replace(day=28) + timedelta(days=4)).replace(day=1)

    @property
    def days(self) -> int:
        return (self.end - self.first).days

    def __str__(self) -> str:
        return f"{self.first:%Y-%m}"


class Amounts(Struct, frozen=True, kw_only=True):
    """`unpriced_calls` used tokens that nobody has a price for: they are not in `cost_pico`. `saved_pico` is what earlier
    answers that were given again would have cost. Tokens as in core.messages.Usage.
    """

    calls: int = 0
    unpriced_calls: int = 0
    estimated_calls: int = 0
    cost_pico: int = 0
    saved_pico: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def plus(self, other: "Amounts") -> "Amounts":
        return Amounts(**{
            name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__
        })


class CostSum(Struct, frozen=True):
    """What is kept of one group of calls. `group` has the values of the dimensions asked for, in their order; empty is none."""

    group: tuple[str, ...]
    price_source: str
    currency: str
    amounts: Amounts


class Line(Struct, frozen=True):
    group: tuple[str, ...]
    currency: str
    amounts: Amounts


Reason: TypeAlias = Literal["volume_discount", "commitment_discount", "commitment_shortfall", "capacity"]


class Adjustment(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `name`, a price book or a capacity, adds (or takes: negative). `note` is for people.

    Of a capacity: the hours begun, and the tokens that it served of those that it could have.
    """

    reason: Reason
    name: str
    currency: str
    amount_pico: int
    note: str
    hours: int | None = None
    tokens_served: int | None = None
    tokens_bought: int | None = None


class Bill(Struct, frozen=True, kw_only=True):
    """`totals` are by currency: lines and adjustments together. `usage` are the lines alone, and `unpriced` of these without a price."""

    month: str
    by: tuple[Dimension, ...]
    lines: tuple[Line, ...]
    adjustments: tuple[Adjustment, ...]
    usage: Amounts
    totals: Mapping[str, int]


def bill(
    month: Month,
    by: Sequence[Dimension],
    sums: Sequence[CostSum],
    *,
    books: Sequence[PriceBook],
    capacities: Sequence[Capacity],
    now: datetime,
) -> Bill:
    """`now` bounds the hours of a month that is not over. Dearest lines first."""
    lines: dict[tuple[tuple[str, ...], str], Amounts] = defaultdict(Amounts)
    sources: dict[str, Amounts] = defaultdict(Amounts)
    for one in sums:
        lines[one.group, one.currency] = lines[one.group, one.currency].plus(one.amounts)
        sources[one.price_source] = sources[one.price_source].plus(one.amounts)
    adjustments: list[Adjustment] = []
    for book in sorted(books, key=lambda book: book.name):
        adjustments += _of_book(book, sources[f"book:{book.name}"], month)
    for capacity in sorted(capacities, key=lambda capacity: capacity.name):
        adjustments += _of_capacity(capacity, sources[f"provisioned:{capacity.name}"], month, now)
    totals: dict[str, int] = defaultdict(int)
    usage = Amounts()
    for (_, currency), amounts in lines.items():
        totals[currency] += amounts.cost_pico
        usage = usage.plus(amounts)
    for adjustment in adjustments:
        totals[adjustment.currency] += adjustment.amount_pico
    ordered = sorted(lines.items(), key=lambda item: (-item[1].cost_pico, item[0]))
    return Bill(
        month=str(month),
        by=tuple(by),
        lines=tuple(Line(group, currency, amounts) for (group, currency), amounts in ordered),
        adjustments=tuple(adjustments),
        usage=usage,
        totals=dict(sorted(totals.items())),
    )


def _of_book(book: PriceBook, used: Amounts, month: Month) -> list[Adjustment]:
    found: list[Adjustment] = []
    spend = used.cost_pico
    if book.volume is not None and (discount := volume_discount(book.volume, used)):
        measured = "spend" if book.volume.of == "spend" else "tokens"
        note = f"by the month's {measured}, {book.volume.applies.replace('_', ' ')}"
        found.append(_adjustment(book, "volume_discount", -discount, note))
        spend -= discount
    days = _days_held(book, month)
    if book.commitment is None or not days:
        return found
    off = share(spend, ppm(book.commitment.percent, "commitment.percent"), PPM)
    if off:
        note = f"{book.commitment.percent} % less for the commitment"
        found.append(_adjustment(book, "commitment_discount", -off, note))
    committed = share(money(book.commitment.spend_per_month, "commitment.spend_per_month"), days, month.days)
    if (missing := committed - (spend - off)) > 0:
        note = f"up to the committed {book.commitment.spend_per_month} a month"
        if days < month.days:
            note += f", for {days} of {month.days} days"
        found.append(_adjustment(book, "commitment_shortfall", missing, note))
    return found


def _adjustment(book: PriceBook, reason: Reason, amount_pico: int, note: str) -> Adjustment:
    return Adjustment(
        reason=reason, name=book.name, currency=book.currency, amount_pico=amount_pico, note=note
    )


def volume_discount(volume: Volume, used: Amounts) -> int:
    """Not negative, and never more than was spent. `above`, measured in tokens, takes every token as costing the same."""
    reached = used.cost_pico if volume.of == "spend" else used.input_tokens + used.output_tokens
    steps = [(at, percent) for at, percent in tiers(volume) if at <= reached]
    if not steps or not reached:
        return 0
    if volume.applies == "to_all":
        return share(used.cost_pico, steps[-1][1], PPM)
    ends = [at for at, _ in steps[1:]] + [reached]
    return sum(
        share(used.cost_pico * (end - at), percent, PPM * reached)
        for (at, percent), end in zip(steps, ends, strict=True)
    )


def _days_held(book: PriceBook, month: Month) -> int:
    first = max(month.first, book.valid_from or month.first)
    end = min(month.end, book.valid_until or month.end)
    return max(0, (end - first).days)


def _of_capacity(capacity: Capacity, used: Amounts, month: Month, now: datetime) -> list[Adjustment]:
    start = max(_midnight(month.first), capacity.valid_from)
    end = min(_midnight(month.end), capacity.valid_until or _midnight(month.end), max(start, now))
    hours = -(-(end - start) // _HOUR) if end > start else 0
    served = used.input_tokens + used.output_tokens
    if not hours and not served:
        return []
    bought = capacity.tokens_per_minute * 60 * hours
    used_part = f"{100 * served / bought:.1f} % used" if bought else "not bought then"
    return [
        Adjustment(
            reason="capacity",
            name=capacity.name,
            currency=capacity.currency,
            amount_pico=hours * money(capacity.hourly, "hourly"),
            note=f"{hours} h at {capacity.hourly}, {used_part}",
            hours=hours,
            tokens_served=served,
            tokens_bought=bought,
        )
    ]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
