"""Gateway: which limits and budgets hold for a call, and taking from them before it is made.

What is declared is read anew after a declaration has changed, as models are. For whom which rules hold is looked up once for each
key, team, user and model; then it is one dict look-up. Not here: the arithmetic (allowance.py), slices' coming and going (leasing.py).
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

from msgspec import Struct

from freehold.catalog.models import ModelFacts
from freehold.core.allowances import ALWAYS, CURRENCY, Allowance, AllowanceLeases, Budget, Limit, window_of
from freehold.core.errors import FreeholdError, LimitReached, Unavailable
from freehold.core.ports import Clock, Resources
from freehold.core.resources import Kind
from freehold.gateway.allowance import (
    MINUTE_MS,
    MONEY,
    TOKENS,
    Amounts,
    Rule,
    Slice,
    Taken,
    rules_of,
    standings_of,
    take,
)
from freehold.gateway.bounds import Most, most_pico
from freehold.gateway.leasing import WAIT_S, Leasing
from freehold.gateway.metering import Meter
from freehold.gateway.targets import Target

KNOWN_MAX: Final = 20_000
"""Of one tenant: keys, teams, users and models for which it is known what holds. When full, it starts anew."""

log = logging.getLogger(__name__)

_Who: TypeAlias = tuple[str | None, str | None, str | None, str | None, tuple[str, ...]]


class Bounded(Protocol):
    """A request, whichever shape it has."""

    def most(self, facts: ModelFacts | None) -> Most: ...


class _Held(Struct, frozen=True):
    """Slices that calls take from that begin in all of their windows (Unix time)."""

    slices: tuple[Slice, ...]
    measures: frozenset[int]
    first_s: float
    end_s: float


class _Tenant:
    __slots__ = ("generation", "held", "rules")

    def __init__(self, generation: int, rules: Sequence[Rule]) -> None:
        self.generation = generation
        self.rules = tuple(rules)
        self.held: dict[_Who, _Held] = {}


class Limiting:
    """`leasing` must be running."""

    def __init__(self, resources: Resources, leases: AllowanceLeases, leasing: Leasing, clock: Clock) -> None:
        self._resources = resources
        self._leases = leases
        self._leasing = leasing
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}
        self._loading = asyncio.Lock()

    def is_free(self, tenant: str) -> bool:
        """Nothing is declared there, so nothing need be taken."""
        known = self._current(tenant)
        return known is not None and not known.rules

    def take_now(self, meter: Meter, asked: Bounded, targets: Sequence[Target]) -> bool:
        """As `take`, of a call for which one of the targets is asked once, into `meter.taken`. False where it has to be waited for:
        nothing was taken then. Raises LimitReached where no waiting helps.
        """
        known = self._current(meter.principal.tenant)
        if known is None:
            return False
        if not known.rules:
            return True
        held = self._held_of(known, meter, targets)
        slices = held.slices
        if not slices:
            return True
        amounts = self._amounts(held, meter, asked, targets, 1)
        minute, now_s = self._clock.now_ms() // MINUTE_MS, self._clock.monotonic_s()
        if take(slices, amounts, minute=minute, now_s=now_s) is not None:
            return False
        self._leasing.look_after(slices, now_s)
        meter.taken = Taken(slices, amounts, minute)
        return True

    async def take(
        self, meter: Meter, asked: Bounded, targets: Sequence[Target], *, asks_max: int = 1
    ) -> Taken | None:
        """The most that the call can use, whichever target answers, asked so often. Waits only as leasing.py says.

        Raises LimitReached and RateLimited in words for the caller.
        """
        held = await self._held(meter, targets)
        if not held.slices:
            return None
        amounts = self._amounts(held, meter, asked, targets, asks_max)
        slices, until_s = held.slices, 0.0
        while True:
            minute, now_s = self._clock.now_ms() // MINUTE_MS, self._clock.monotonic_s()
            short = take(slices, amounts, minute=minute, now_s=now_s)
            if short is None:
                self._leasing.look_after(slices, now_s)
                return Taken(slices, amounts, minute)
            until_s = until_s or now_s + WAIT_S
            try:
                await self._leasing.obtain(short, amounts[short.place], until_s)
            except FreeholdError as error:
                error.standings = standings_of(slices, self._clock)
                raise

    async def rules(self, tenant: str) -> Sequence[Rule]:
        return (await self._tenant(tenant)).rules

    async def _held(self, meter: Meter, targets: Sequence[Target]) -> _Held:
        tenant = meter.principal.tenant
        return self._held_of(self._current(tenant) or await self._tenant(tenant), meter, targets)

    def _current(self, tenant: str) -> _Tenant | None:
        """What is declared there, unless it is to be read first."""
        known = self._tenants.get(tenant)
        return known if known is not None and known.generation == self._resources.generation() else None

    def _held_of(self, known: _Tenant, meter: Meter, targets: Sequence[Target]) -> _Held:
        principal, account = meter.principal, meter.account
        models = tuple([target.resource for target in targets])
        who = (account.key_id, principal.key_name, account.team, account.user, models)
        held, at_s = known.held.get(who), meter.at.timestamp()
        if held is None or not held.first_s <= at_s < held.end_s:
            held = self._look_up(known, meter, models)
            if len(known.held) >= KNOWN_MAX:
                known.held.clear()
            known.held[who] = held
        return held

    def _look_up(self, known: _Tenant, meter: Meter, models: Sequence[str]) -> _Held:
        """A call belongs to the windows in which it began, as its record does."""
        first_s, end_s = float("-inf"), float("inf")
        names = [model.removeprefix("model/") for model in models]
        found: dict[str, Slice] = {}
        for rule in known.rules:
            subject = rule.scope.subject(meter.account, meter.principal.key_name)
            if subject is None or not any(rule.holds_for(name) for name in names):
                continue
            window = ALWAYS if rule.period is None else window_of(rule.period, meter.at)
            if window.first is not None and window.end is not None:
                first_s = max(first_s, window.first.timestamp())
                end_s = min(end_s, window.end.timestamp())
            allowance = Allowance(
                tenant=meter.principal.tenant,
                measure=rule.measure,
                name=rule.name,
                scope=rule.scope_text,
                subject=subject,
                models=rule.models,
                window=window,
            )
            found[allowance.id] = self._slice(rule, allowance)
        slices = tuple(found.values())
        return _Held(slices, frozenset(one.place for one in slices), first_s, end_s)

    def _slice(self, rule: Rule, allowance: Allowance) -> Slice:
        one = self._leasing.slices.get(allowance.id)
        if one is None:
            return self._leasing.add(Slice(rule, allowance, self._leases.lease_id(allowance.id)))
        self._leasing.resize(one, rule)
        return one

    def _amounts(
        self, held: _Held, meter: Meter, asked: Bounded, targets: Sequence[Target], asks_max: int
    ) -> Amounts:
        measures = held.measures
        if MONEY not in measures and TOKENS not in measures:
            return 0, 1, 0, 1
        cost, tokens, most = 0, 0, None
        for target in targets:
            if most is None or len(targets) > 1:
                most = asked.most(target.facts)
            tokens = max(tokens, most.likely_tokens)
            if MONEY in measures:
                cost = max(cost, self._cost(held, meter, target, most))
        return cost * asks_max, 1, tokens * asks_max, 1

    def _cost(self, held: _Held, meter: Meter, target: Target, most: Most) -> int:
        """Raises LimitReached where a budget cannot say what the model costs: it could not hold then."""
        price = target.price(meter.at)
        if price is not None and (price.currency == CURRENCY or most_pico(price, most) == 0):
            return most_pico(price, most)
        name = f"{target.provider.name}/{target.name}"
        paying = [one.rule.name for one in held.slices if one.place == MONEY and one.rule.holds_for(name)]
        if not paying:
            return 0
        why = (
            "nobody has a price for it: declare a price_book"
            if price is None
            else f"its price is in {price.currency}"
        )
        raise LimitReached(f"budget {paying[0]} is in US dollars and cannot hold for {name}: {why}")

    async def _tenant(self, tenant: str) -> _Tenant:
        async with self._loading:
            known = self._tenants.get(tenant)
            generation = self._resources.generation()
            if known is not None and known.generation == generation:
                return known
            try:
                rules = await self._declared(tenant)
            except Unavailable:
                if known is None:
                    raise
                log.warning("limits.not_reloaded", extra={"tenant": tenant})  # What was declared last holds.
                return known
            self._tenants[tenant] = known = _Tenant(generation, rules)
            return known

    async def _declared(self, tenant: str) -> list[Rule]:
        found: list[Rule] = []
        kinds: tuple[Kind, ...] = ("limit", "budget")
        for kind in kinds:
            for versioned in await self._resources.list(tenant, kind):
                if isinstance(versioned.resource, Limit | Budget) and not versioned.archived:
                    found += rules_of(versioned.resource)
        return found
