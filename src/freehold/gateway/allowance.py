"""Gateway: what a call may use of the limits and budgets that hold for it: integers in memory, taken before and settled after.

This process holds a slice of each allowance that it uses (core/allowances.py), leased behind its back (leasing.py). Taking from
slices never waits, so no two calls can both take what is left. Before a call the most that it can use is taken (bounds.py),
after it what it did not use comes back. A limit of tokens or requests is one of minutes: its slice is what may be used in each.

Not here: which limits hold for whom (limiting.py), how large slices are, and PostgreSQL.
"""

from asyncio import Event
from collections.abc import Sequence
from re import Pattern
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from freehold.core.allowances import SIZES, Allowance, Budget, Limit, Measure, Period, Scope, scope_of
from freehold.core.contracts import PPM, money, pattern_of, ppm
from freehold.core.errors import LimitReached, RateLimited
from freehold.core.ports import Clock
from freehold.core.pricing import show
from freehold.core.records import CallRecord
from freehold.core.standing import Standing

MINUTE_MS: Final = 60_000
PLACES: Final[dict[Measure, int]] = {"money": 0, "requests": 1, "tokens": 2, "calls": 3}
"""Where each measure stands in a call's amounts."""

MONEY, REQUESTS, TOKENS, CALLS = PLACES["money"], PLACES["requests"], PLACES["tokens"], PLACES["calls"]
CALL_RETRY_S: Final = 1.0
_LESS: Final = "ask for fewer output tokens, or send less"
_BY_MINUTE: Final[tuple[tuple[int, Literal["requests", "tokens"]], ...]] = (
    (REQUESTS, "requests"),
    (TOKENS, "tokens"),
)

Amounts: TypeAlias = tuple[int, int, int, int]


class Rule(Struct, frozen=True, eq=False):
    """One size that was declared. `pattern` is of models, None for all. `period` and `warn_at` are a budget's."""

    name: str
    measure: Measure
    size: int
    scope: Scope
    scope_text: str
    models: str | None
    pattern: Pattern[str] | None
    period: Period | None = None
    warn_at: int | None = None

    def holds_for(self, model: str) -> bool:
        """`model` is `provider/name`."""
        return self.pattern is None or self.pattern.fullmatch(model) is not None


def rules_of(declared: Limit | Budget) -> list[Rule]:
    """Raises BadRequest for what core.allowances.check would refuse."""
    scope = scope_of(declared.scope)
    pattern = None if declared.models is None else pattern_of(declared.models, "models")
    shared = (scope, declared.scope, declared.models, pattern)
    if isinstance(declared, Budget):
        size = money(declared.amount_usd, "amount_usd")
        warn_at = None if declared.warn_at is None else size * ppm(declared.warn_at, "warn_at") // PPM
        return [Rule(declared.name, "money", size, *shared, declared.period, warn_at)]
    sizes = {measure: getattr(declared, field) for field, measure in SIZES.items()}
    return [
        Rule(declared.name, measure, size, *shared) for measure, size in sizes.items() if size is not None
    ]


class Slice:
    """What this process holds of one allowance. `used` includes what is taken for calls under way.

    Money: `granted` and `used` are of the whole window. By the minute: `granted` may be used in each, `used` is of `minute`.
    Calls: `granted` places, of which `used` are taken. From `expires_s` on (monotonic) `granted` counts no longer.
    `free` and `others` are as the last grant said. What stands after `touched_s` is leasing.py's.
    """

    __slots__ = (
        "allowance",
        "by_minute",
        "changed",
        "dry_until_s",
        "exhausted",
        "expires_s",
        "free",
        "granted",
        "id",
        "lease_id",
        "minute",
        "need",
        "others",
        "place",
        "recalled",
        "refilled_s",
        "refused_until_s",
        "rule",
        "target",
        "touched_s",
        "used",
        "warned",
    )  # fmt: skip

    def __init__(self, rule: Rule, allowance: Allowance, lease_id: str) -> None:
        self.rule = rule
        self.allowance = allowance
        self.id = allowance.id
        self.lease_id = lease_id
        self.place = PLACES[rule.measure]
        self.by_minute = self.place in {REQUESTS, TOKENS}
        self.granted = self.used = self.minute = 0
        self.free = self.others = 0
        self.expires_s = float("inf") if self.place == MONEY else 0.0
        self.touched_s = 0.0
        self.changed: Event | None = None
        self.dry_until_s = self.refilled_s = self.refused_until_s = 0.0
        self.need = 0
        self.target = max(1, rule.size // 64)
        self.recalled = self.warned = self.exhausted = False

    def left(self, minute: int, now_s: float) -> int:
        if self.by_minute and minute != self.minute:
            # What calls used beyond what was taken for them is owed.
            self.used = max(0, self.used - self.granted) if minute > self.minute else self.used
            self.minute = max(minute, self.minute)
        return self.granted - self.used if now_s < self.expires_s else 0

    def give_back(self, keep: int = 0) -> None:
        """All that is neither used nor taken, but for `keep`. It is given back by the next ask, which says what is left."""
        self.granted = min(self.granted, max(self.used, 0) + keep)


class Taken(Struct, frozen=True):
    """What was taken for one call, in which minute."""

    slices: tuple[Slice, ...]
    amounts: Amounts
    minute: int

    def lease_ids(self, resource: str) -> str | None:
        """Of the budgets that pay for a call which the model of this resource name answered, as records have them."""
        model = resource.removeprefix("model/")
        ids = [one.lease_id for one in self.slices if one.place == MONEY and one.rule.holds_for(model)]
        return ",".join(ids) or None

    def settle(self, record: CallRecord, resource: str) -> None:
        """Once, with what the call came to, by the model of this resource name."""
        model = resource.removeprefix("model/")
        tokens = record.usage.input_tokens + record.usage.output_tokens
        for one in self.slices:
            place = one.place
            if place == CALLS:
                one.used -= 1
            elif place == MONEY:
                spent = record.cost_pico if one.rule.holds_for(model) else 0
                one.used += spent - self.amounts[MONEY]
            elif place == TOKENS:
                used = tokens if one.rule.holds_for(model) else 0
                over = used - self.amounts[TOKENS]
                # What was taken in a minute that is over does not come back; what is owed is owed now.
                if over > 0 or one.minute == self.minute:
                    one.used += over

    def add(self, record: CallRecord, resource: str) -> None:
        """What an attempt came to that stands beside the call's own record: of this model, and any number of times."""
        model = resource.removeprefix("model/")
        tokens = record.usage.input_tokens + record.usage.output_tokens
        for one in self.slices:
            if one.place in {MONEY, TOKENS} and one.rule.holds_for(model):
                one.used += record.cost_pico if one.place == MONEY else tokens


def take(slices: Sequence[Slice], amounts: Amounts, *, minute: int, now_s: float) -> Slice | None:
    """From all or from none; the one that has not enough is what comes back."""
    for one in slices:
        one.touched_s = now_s
        if one.left(minute, now_s) < amounts[one.place]:
            return one
    for one in slices:
        one.used += amounts[one.place]
    return None


def standings_of(slices: Sequence[Slice], clock: Clock) -> list[Standing]:
    """Of each measure by the minute the limit of which least is left. One that was never leased from is not known yet."""
    minute, now_s = clock.now_ms() // MINUTE_MS, clock.monotonic_s()
    told: list[Standing] = []
    for place, measure in _BY_MINUTE:
        known = [
            (min(one.rule.size, max(0, one.free) + max(0, one.left(minute, now_s))), one.rule.size)
            for one in slices
            if one.place == place and one.expires_s
        ]
        if known:
            left, size = min(known)
            told.append(Standing(measure, size, left, (minute + 1) * MINUTE_MS))
    return told


def refusal(
    one: Slice, amount: int, *, now_ms: int, database: str | None = None
) -> LimitReached | RateLimited:
    """Why a call cannot be made that could use so much. `database`: what is with it, where it cannot be asked for more."""
    rule, left = one.rule, max(0, one.free) + max(0, one.granted - one.used)
    whom = (
        rule.scope_text
        if rule.scope_text.partition("/")[2] != "*"
        else f"{rule.scope.kind}/{one.allowance.subject}"
    )
    if one.place == MONEY:
        label = one.allowance.window.label
        size = f"{show(rule.size)} for {whom}, {'in total' if label == 'total' else label}"
        if database is not None:
            said = f"the database that keeps it {database}, and what this server has leased of it is used up"
            return LimitReached(f"budget {rule.name} ({size}): {said}; this call could cost {show(amount)}")
        if amount > rule.size:
            said = f"this call could cost {show(amount)}, which is more than all of it"
            return LimitReached(f"budget {rule.name} ({size}): {said}: {_LESS}")
        return LimitReached(
            f"budget {rule.name} ({size}): {show(min(left, rule.size))} is left,"
            f" and this call could cost {show(amount)}; calls under way may give some back"
        )
    what = {REQUESTS: "requests a minute", TOKENS: "tokens a minute", CALLS: "calls at a time"}[one.place]
    size = f"{rule.size:,} {what} for {whom}"
    if amount > rule.size:
        wish = f": {_LESS}" if one.place == TOKENS else ""
        return LimitReached(f"limit {rule.name} ({size}): this call could use {amount:,}{wish}")
    retry_s = CALL_RETRY_S if one.place == CALLS else (MINUTE_MS - now_ms % MINUTE_MS) / 1000
    why = "it is used up" if database is None else f"the database that keeps it {database}"
    return RateLimited(f"limit {rule.name} ({size}): {why}", retry_after_s=retry_s)
