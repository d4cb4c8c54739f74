"""What is left of limits and budgets: `GET /v1/limits` and `GET /v1/budgets`. Actions `limit:List` and `budget:List`.

Amounts are exact decimal text in US dollars. What calls under way may still cost is held, not used.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from freehold.core.allowances import (
    ALWAYS,
    EACH,
    SIZES,
    Allowance,
    AllowanceLeases,
    AllowanceState,
    window_of,
)
from freehold.core.policy import authorize
from freehold.core.ports import CallRecords, Clock
from freehold.core.pricing import decimal
from freehold.gateway.allowance import Rule
from freehold.gateway.limiting import Limiting
from freehold.server.operations import Call, Operation

FLUSH_S_MAX: Final = 5.0
_FIELDS: Final = {measure: field for field, measure in SIZES.items()}


class BudgetShown(Struct, frozen=True):
    """`used` is what records say, `held` what servers have leased beyond it (for calls under way, and in advance), `left` neither.

    `subject` is the team, key or user that it is for. `warned`: what is used has reached `warn_at`.
    """

    name: str
    scope: str
    subject: str
    models: str | None
    period: str
    window: str
    amount_usd: str
    used_usd: str
    held_usd: str
    left_usd: str
    warned: bool
    ends_at: datetime | None


class LimitShown(Struct, frozen=True):
    """`held` is what servers have leased, used or not; `left` is nobody's yet."""

    name: str
    scope: str
    subject: str
    models: str | None
    measure: str
    size: int
    held: int
    left: int


class BudgetList(Struct, frozen=True):
    """`waiting_calls` of this server are held, and not in `used` yet."""

    data: tuple[BudgetShown, ...]
    waiting_calls: int


class LimitList(Struct, frozen=True):
    data: tuple[LimitShown, ...]


class AllowancesApi:
    def __init__(
        self, limiting: Limiting, leases: AllowanceLeases, records: CallRecords, clock: Clock
    ) -> None:
        self._limiting = limiting
        self._leases = leases
        self._records = records
        self._clock = clock

    async def budgets(self, call: Call) -> BudgetList:
        authorize(call.principal, "budget:List", "budget/*")
        try:
            async with asyncio.timeout(FLUSH_S_MAX):
                await self._records.flush()
        except TimeoutError:
            pass  # They are told as waiting.
        found = await self._states(call.principal.tenant, budgets=True)
        shown = tuple(_budget(rule, one, state) for rule, one, state in found)
        return BudgetList(shown, self._records.waiting_count)

    async def limits(self, call: Call) -> LimitList:
        authorize(call.principal, "limit:List", "limit/*")
        found = await self._states(call.principal.tenant, budgets=False)
        return LimitList(tuple(_limit(rule, one, state) for rule, one, state in found))

    async def _states(self, tenant: str, *, budgets: bool) -> list[tuple[Rule, Allowance, AllowanceState]]:
        rules = [rule for rule in await self._limiting.rules(tenant) if (rule.measure == "money") == budgets]
        subjects: Mapping[tuple[str, str], set[str]] = {}
        if any(rule.scope.name == EACH for rule in rules):
            subjects = await self._subjects(tenant)
        now = self._clock.now()
        found = [
            (rule, allowance_of(rule, tenant, subject, now))
            for rule in rules
            for subject in (
                sorted(subjects.get((rule.measure, rule.name), ())) or [""]
                if rule.scope.name == EACH
                else [rule.scope.name]
            )
        ]
        states = await self._leases.states([one for _, one in found])
        return [(rule, one, state) for (rule, one), state in zip(found, states, strict=True)]

    async def _subjects(self, tenant: str) -> dict[tuple[str, str], set[str]]:
        found: dict[tuple[str, str], set[str]] = defaultdict(set)
        for measure, name, subject in await self._leases.subjects(tenant):
            if subject:
                found[measure, name].add(subject)
        return found


def allowance_of(rule: Rule, tenant: str, subject: str, now: datetime) -> Allowance:
    return Allowance(
        tenant=tenant,
        measure=rule.measure,
        name=rule.name,
        scope=rule.scope_text,
        subject=subject,
        models=rule.models,
        window=ALWAYS if rule.period is None else window_of(rule.period, now),
    )


def _budget(rule: Rule, one: Allowance, state: AllowanceState) -> BudgetShown:
    return BudgetShown(
        name=rule.name,
        scope=rule.scope_text,
        subject=one.subject,
        models=rule.models,
        period=rule.period or "",
        window=one.window.label,
        amount_usd=decimal(rule.size),
        used_usd=decimal(state.used),
        held_usd=decimal(state.held),
        left_usd=decimal(max(0, rule.size - state.used - state.held)),
        warned=rule.warn_at is not None and state.used >= rule.warn_at,
        ends_at=one.window.end,
    )


def _limit(rule: Rule, one: Allowance, state: AllowanceState) -> LimitShown:
    held = state.used + state.held
    return LimitShown(
        name=rule.name,
        scope=rule.scope_text,
        subject=one.subject,
        models=rule.models,
        measure=_FIELDS[rule.measure],
        size=rule.size,
        held=held,
        left=max(0, rule.size - held),
    )


def operations(
    limiting: Limiting, leases: AllowanceLeases, records: CallRecords, clock: Clock
) -> Sequence[Operation]:
    api = AllowancesApi(limiting, leases, records, clock)
    return [
        Operation(method="GET", path="/v1/limits", id="listLimits", tag="limits",
                  summary="What servers hold of each limit, and what is left.", handler=api.limits, answer=LimitList),
        Operation(method="GET", path="/v1/budgets", id="listBudgets", tag="limits",
                  summary="What is used, held and left of each budget, exact.", handler=api.budgets, answer=BudgetList),
    ]  # fmt: skip
