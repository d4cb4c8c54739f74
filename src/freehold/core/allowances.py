"""Limits and budgets as they are declared, whom they hold for, and how a process asks for its part of one. Pure.

What may be used of one limit by one subject in one window is an *allowance*: PostgreSQL keeps how much of it is spoken for, and
each process leases a slice of it (gateway/allowance.py), so that a call needs no database. Money is in pico-units of US dollars.

Not here: how slices are kept (store/allowances.py), what a call can cost (gateway/bounds.py).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final, Literal, Protocol, TypeAlias

import msgspec
from msgspec import Struct

from freehold.core.contracts import money, pattern_of, ppm
from freehold.core.errors import BadRequest
from freehold.core.records import Account

ORGANISATION: Final = "organisation"
EACH: Final = "*"
SUBJECT_CHARS_MAX: Final = 256
CURRENCY: Final = "USD"

Measure: TypeAlias = Literal["money", "requests", "tokens", "calls"]
"""`requests` and `tokens` are by the minute, `calls` at a time."""

Period: TypeAlias = Literal["day", "month", "total"]


class Limit(
    Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, tag="limit", tag_field="kind"
):  # fmt: skip
    """`scope`: `organisation`, `team/NAME`, `key/NAME-OR-ID` or `user/NAME`; with `*` for NAME, each for itself.

    `models` narrows it to `provider/name`, where `*` and `?` stand for any. Minutes are those of the clock (UTC).
    """

    name: str
    description: str = ""
    scope: str = ORGANISATION
    models: str | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_calls_max: int | None = None


class Budget(
    Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, tag="budget", tag_field="kind"
):  # fmt: skip
    """Scope and models as of a Limit. `amount_usd` is decimal text; days and months are UTC's. `warn_at`: percent, as text."""

    name: str
    description: str = ""
    scope: str = ORGANISATION
    models: str | None = None
    amount_usd: str
    period: Period = "month"
    warn_at: str | None = None


class Scope(Struct, frozen=True):
    """`name` is empty for the organisation."""

    kind: Literal["organisation", "team", "key", "user"]
    name: str = ""

    def subject(self, account: Account, key_name: str | None) -> str | None:
        """For whom it counts, where it holds for this account; else None."""
        match self.kind:
            case "organisation":
                return ""
            case "team":
                return _one(self.name, account.team)
            case "user":
                return _one(self.name, account.user)
            case "key":
                if self.name == EACH or self.name == account.key_id:
                    return account.key_id
                return self.name if self.name == key_name else None


def _one(name: str, given: str | None) -> str | None:
    return given if given and name in {EACH, given} else None


def scope_of(text: str) -> Scope:
    """Raises BadRequest."""
    if text == ORGANISATION:
        return Scope("organisation")
    kind, slash, name = text.partition("/")
    if (
        kind in {"team", "key", "user"}
        and slash
        and 0 < len(name) <= SUBJECT_CHARS_MAX
        and name.isprintable()
    ):
        return Scope(kind, name)  # type: ignore[arg-type]  # one of the three, as was just looked at
    raise BadRequest(
        f"expected organisation, team/NAME, key/NAME or user/NAME (* for each), got {text[:80]!r}",
        field="scope",
    )


def check(declared: Limit | Budget) -> None:
    """Raises BadRequest with the path of what is wrong."""
    scope_of(declared.scope)
    if declared.models is not None:
        pattern_of(declared.models, "models")
    if isinstance(declared, Budget):
        money(declared.amount_usd, "amount_usd")
        if declared.warn_at is not None:
            ppm(declared.warn_at, "warn_at")
        return
    sizes = {name: getattr(declared, name) for name in SIZES}
    if all(size is None for size in sizes.values()):
        raise BadRequest(f"expected at least one of {', '.join(sizes)}")
    for name, size in sizes.items():
        if size is not None and not 0 <= size < 2**63:
            raise BadRequest(f"expected 0 or more, got {size}", field=name)


SIZES: Final[Mapping[str, Measure]] = {
    "requests_per_minute": "requests",
    "tokens_per_minute": "tokens",
    "concurrent_calls_max": "calls",
}


class Window(Struct, frozen=True):
    """A span in which a budget is spent. `first` and `end` are None where it has no such end."""

    label: str
    first: datetime | None = None
    end: datetime | None = None


ALWAYS: Final = Window("")


def window_of(period: Period, at: datetime) -> Window:
    """The one that `at` lies in. UTC."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case "day":
            return Window(f"{day:%Y-%m-%d}", day, day + timedelta(days=1))
        case "month":
            first = day.replace(day=1)
            return Window(f"{first:%Y-%m}", first, (first + timedelta(days=32)).replace(day=1))
        case "total":
            return Window("total")


class Allowance(Struct, frozen=True, kw_only=True):
    """What one subject may use of one declared size in one window. `scope` and `models` are as they were declared."""

    tenant: str
    measure: Measure
    name: str
    scope: str
    subject: str
    models: str | None
    window: Window

    @property
    def id(self) -> str:
        parts = (
            self.tenant,
            self.measure,
            self.name,
            self.scope,
            self.subject,
            self.models,
            self.window.label,
        )
        return blake2b(msgspec.msgpack.encode(parts), digest_size=16).hexdigest()


class Ask(Struct, frozen=True, kw_only=True):
    """`granted` is what the asker holds by its own count, with what it has used of it; `turn` grows with each of its asks.

    `need` is wanted whole or not at all, `extra` as far as it goes. `waiting`: a call waits for it, so others shall give back.
    """

    allowance: Allowance
    size: int
    granted: int
    need: int
    extra: int
    turn: int
    waiting: bool = False


class Grant(Struct, frozen=True):
    """`granted` is what the asker holds now. `free` is held by nobody, `others` by other processes, what they spent included."""

    granted: int
    free: int
    others: int


class AllowanceState(Struct, frozen=True):
    """`used` is what records say; `held` what processes have leased beyond it."""

    used: int
    held: int


BudgetNews: TypeAlias = Literal["threshold_reached", "exhausted"]
"""What webhooks are told of a budget: `warn_at` was reached; a call was refused since too little is left."""


class AllowanceLeases(Protocol):
    """Slices of limits and budgets, of this process. All times are the database's."""

    def lease_id(self, allowance_id: str) -> str:
        """What records name, so that what they cost is taken out of the lease in the statement that writes them."""
        ...

    async def lease(self, asks: Sequence[Ask], *, lease_s: float) -> Sequence[Grant]:
        """Answers in the order of the asks, no two of one allowance. Leases of money have no end but their owner's; the others
        end after `lease_s`. Who waits for what others hold has them called (`on_recall`). Raises Unavailable.
        """
        ...

    async def end_left(self) -> int:
        """Ends leases of processes that are gone and whose records have all arrived; how many. Raises Unavailable."""
        ...

    async def tell(self, allowance: Allowance, size: int, news: BudgetNews) -> None:
        """Webhooks hear it, once for each window and size, however often and by whomever it is told. Raises Unavailable."""
        ...

    async def states(self, allowances: Sequence[Allowance]) -> Sequence[AllowanceState]: ...

    async def subjects(self, tenant: str) -> Sequence[tuple[str, str, str]]:
        """(measure, name, subject) of allowances that are in use."""
        ...

    def on_recall(self, hear: Callable[[str], None]) -> None:
        """`hear` is called with the id of an allowance of which another process needs some. Before leases are asked for."""
        ...


def granted(ask: Ask, *, spoken_for: int, others: int) -> Grant:
    """The one decision on a slice. `spoken_for`: by leases that ended; `others`: by those of other processes.

    Extra is half of what is free at most: so that it is not all with whoever asked first.
    """
    free = ask.size - spoken_for - others - ask.granted
    given = 0
    if ask.need <= free:
        given = ask.need + max(0, min(ask.extra, (free - ask.need) // 2))
    return Grant(ask.granted + given, free - given, others)


LIKE: Final = re.compile(r"[\\%_]")


def like(models: str | None) -> str | None:
    """The same pattern in SQL's words."""
    if models is None:
        return None
    return LIKE.sub(r"\\\g<0>", models).replace("*", "%").replace("?", "_")
