"""Gateway: slices are leased behind the back of calls: more before one is used up, back when it is idle or others need it.

A call waits only where its slice has not enough and more may be had: for others WAIT_S at most, for a slow database
ANSWER_S. Then it is refused, and told for what. While the database is away nothing is asked for and nobody waits: money that was
leased may be spent, minutes and places count for LEASE_S.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Final

from freehold.background import background
from freehold.core.allowances import AllowanceLeases, Ask, BudgetNews
from freehold.core.errors import FreeholdError, Overloaded
from freehold.core.ports import Clock
from freehold.gateway.allowance import MINUTE_MS, MONEY, Rule, Slice, refusal

WAIT_S: Final = 1.0
"""How long others are waited for who hold what is wanted."""

ANSWER_S: Final = 5.0
"""How long the database is waited for before what is not known counts as not there."""

RECALL_S: Final = 0.05
"""How long others are given to give back before they are asked for again."""

LEASE_S: Final = 90.0
RENEW_S: Final = 15.0
SWEEP_S: Final = 2.0
IDLE_S: Final = 20.0
DRY_S: Final = 0.5
"""For so long an allowance of which nothing more was to be had is not asked for more in advance."""

REFUSED_S: Final = 0.1
GROWS_S: Final = 3.0
"""A slice that is refilled twice within this is made twice as large the next time, up to a quarter of all."""

END_EVERY_S: Final = 10.0
END_SOON_S: Final = 1.0
RETRY_S: Final = 0.5
CLOSE_S: Final = 3.0
ASKS_MAX: Final = 500
SLICES_MAX: Final = 100_000
FORGET_S: Final = 3600.0
"""How long a slice of a window that is over is kept: for calls that began in it."""

log = logging.getLogger(__name__)


class Leasing:
    """One a process. `running` for as long as it is used."""

    def __init__(self, leases: AllowanceLeases, clock: Clock) -> None:
        self._leases = leases
        self._clock = clock
        self.slices: dict[str, Slice] = {}
        self._wanting: dict[str, Slice] = {}
        self._news: dict[tuple[str, BudgetNews], Slice] = {}
        self._some = asyncio.Event()
        self._turns = count(clock.now_ms())
        self.away = False
        leases.on_recall(self._recalled)

    # For calls.

    def add(self, one: Slice) -> Slice:
        """Raises Overloaded where there are too many."""
        if len(self.slices) >= SLICES_MAX:
            raise Overloaded(f"more than {SLICES_MAX} limits and budgets are in use here (SLICES_MAX)")
        self.slices[one.id] = one
        return one

    def resize(self, one: Slice, rule: Rule) -> None:
        """After a declaration has changed. All is given back first where it is less now."""
        if rule.size < one.rule.size:
            one.recalled = True
            self._want(one)
        if rule.size != one.rule.size:
            one.warned = one.exhausted = False
        one.rule = rule
        one.dry_until_s = one.refused_until_s = 0.0

    def look_after(self, slices: Sequence[Slice], now_s: float) -> None:
        """After every taking: what runs low is asked for in advance."""
        for one in slices:
            if one.granted - one.used < one.target // 2 and now_s >= one.dry_until_s:
                self._want(one)

    async def obtain(self, one: Slice, amount: int, until_s: float) -> None:
        """Returns when it may be worth trying again. Raises why there is not so much."""
        now_s = self._clock.monotonic_s()
        if amount > one.rule.size or now_s < one.refused_until_s or self.away:
            raise self._refused(one, amount)
        if now_s >= until_s:
            one.refused_until_s = now_s + REFUSED_S
            raise self._refused(one, amount)
        one.need = max(one.need, amount)
        answered = one.changed = one.changed or asyncio.Event()
        self._want(one)
        try:
            async with asyncio.timeout(ANSWER_S):
                await answered.wait()
        except TimeoutError:
            raise self._refused(one, amount, silent=True) from None
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic_s()
        if one.left(now_ms // MINUTE_MS, now_s) >= amount:
            return
        if self._is_away() or one.others <= 0:
            one.refused_until_s = now_s + REFUSED_S
            raise self._refused(one, amount)
        await asyncio.sleep(min(RECALL_S, max(0.0, until_s - now_s)))

    def _refused(self, one: Slice, amount: int, *, silent: bool = False) -> FreeholdError:
        database = "is away" if self.away else f"has not answered for {ANSWER_S:g} s" if silent else None
        if one.place == MONEY and not one.exhausted and database is None and amount <= one.rule.size:
            one.exhausted = True
            self._tell_soon(one, "exhausted")
        return refusal(one, amount, now_ms=self._clock.now_ms(), database=database)

    def _is_away(self) -> bool:
        return self.away

    def _want(self, one: Slice) -> None:
        if one.id not in self._wanting:
            self._wanting[one.id] = one
            self._some.set()

    def _recalled(self, allowance_id: str) -> None:
        one = self.slices.get(allowance_id)
        if one is not None and one.granted > one.used:
            one.recalled = True
            self._want(one)

    # Behind them.

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Leaving gives back what is not used."""
        try:
            async with background(self._run(), "allowances"), background(self._end_left(), "allowances left"):
                yield
        finally:
            await self._close()

    async def _run(self) -> None:
        """For ever."""
        swept_s = self._clock.monotonic_s()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S):
                    await self._some.wait()
            self._some.clear()
            now_s = self._clock.monotonic_s()
            if now_s - swept_s >= SWEEP_S:
                swept_s = now_s
                self._sweep(now_s)
            await self._tell()
            while self._wanting:
                wanting = list(self._wanting.values())[:ASKS_MAX]
                for one in wanting:
                    del self._wanting[one.id]
                if not await self._ask(wanting):
                    break

    async def _ask(self, wanting: Sequence[Slice]) -> bool:
        """Whether the database answered. What it did not answer is asked again."""
        now_s = self._clock.monotonic_s()
        minute = self._clock.now_ms() // MINUTE_MS
        asks = [self._ask_of(one, minute, now_s) for one in wanting]
        waiting = [_waiting_for(one) for one in wanting]
        try:
            grants = await self._leases.lease(asks, lease_s=LEASE_S)
        except FreeholdError as error:
            if not self.away:
                log.warning("allowances.away", extra={"detail": error.detail or error.message})
            self.away = True
            for one, answered in zip(wanting, waiting, strict=True):
                _answer(answered)
                self._wanting[one.id] = one
            await asyncio.sleep(RETRY_S)
            self._some.set()
            return False
        if self.away:
            log.warning("allowances.back", extra={"count": len(self.slices)})
        self.away = False
        for one, ask, grant, answered in zip(wanting, asks, grants, waiting, strict=True):
            given = grant.granted - ask.granted
            one.granted = grant.granted
            one.free, one.others = grant.free, grant.others
            if one.place != MONEY:
                one.expires_s = now_s + LEASE_S
            if ask.extra and given <= ask.need:
                one.dry_until_s = self._clock.monotonic_s() + DRY_S
            self._warn(one)
            _answer(answered)
        return True

    def _ask_of(self, one: Slice, minute: int, now_s: float) -> Ask:
        one.left(minute, now_s)
        if now_s >= one.expires_s:
            one.granted = 0  # Others may have it by now.
        left, waited_for = one.granted - one.used, one.need
        need, extra = max(0, waited_for - left) if waited_for else 0, 0
        if one.recalled or (now_s - one.touched_s > IDLE_S and not waited_for):
            one.give_back(keep=waited_for)
        elif waited_for or left < one.target // 2:
            if now_s - one.refilled_s < GROWS_S:
                one.target = min(one.target * 2, max(1, one.rule.size // 4))
            one.refilled_s = now_s
            one.target = max(one.target, min(8 * waited_for, max(1, one.rule.size // 16)))
            extra = max(0, one.target - max(0, left - waited_for))
        one.recalled = False
        one.need = 0
        return Ask(
            allowance=one.allowance,
            size=one.rule.size,
            granted=one.granted,
            need=need,
            extra=extra,
            turn=next(self._turns),
            waiting=waited_for > 0,
        )

    def _tell_soon(self, one: Slice, news: BudgetNews) -> None:
        self._news[one.id, news] = one
        self._some.set()

    async def _tell(self) -> None:
        """What the database does not take now, it is told with the next sweep."""
        for (id_, news), one in list(self._news.items()):
            try:
                await self._leases.tell(one.allowance, one.rule.size, news)
            except FreeholdError as error:
                log.debug("allowances.not_told", extra={"detail": error.detail})
                return
            del self._news[id_, news]

    def _warn(self, one: Slice) -> None:
        at = one.rule.warn_at
        if at is not None and not one.warned and one.others + one.used >= at:
            one.warned = True
            extra = {
                "budget": one.rule.name,
                "tenant": one.allowance.tenant,
                "label": one.allowance.window.label,
            }
            log.warning("budget.warned", extra=extra)
            self._tell_soon(one, "threshold_reached")

    def _sweep(self, now_s: float) -> None:
        """What is idle is given back, what would end is renewed, what is over is forgotten."""
        now = self._clock.now()
        minute = self._clock.now_ms() // MINUTE_MS
        for one in list(self.slices.values()):
            one.left(minute, now_s)
            end = one.allowance.window.end
            idle = now_s - one.touched_s > IDLE_S
            if (one.place == MONEY and end is not None and (now - end).total_seconds() > FORGET_S) or (
                one.place != MONEY and idle and one.granted <= 0 and one.used <= 0
            ):
                del self.slices[one.id]
            elif (idle and one.granted > one.used) or one.expires_s - now_s < LEASE_S - RENEW_S:
                self._want(one)

    async def _end_left(self) -> None:
        """For ever. Soon after the start, and from then on now and then: what earlier processes here held."""
        pause_s = 0.0
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(END_EVERY_S, 2 * pause_s + END_SOON_S)
            try:
                if count_ended := await self._leases.end_left():
                    log.info("allowances.ended", extra={"count": count_ended})
            except FreeholdError as error:
                log.debug("allowances.not_ended", extra={"detail": error.detail})

    async def _close(self) -> None:
        held = [one for one in self.slices.values() if one.granted]
        if not held or self.away:
            return
        minute, now_s = self._clock.now_ms() // MINUTE_MS, self._clock.monotonic_s()
        for one in held:
            one.left(minute, now_s)
            one.recalled, one.need = True, 0
        try:
            async with asyncio.timeout(CLOSE_S):
                for start in range(0, len(held), ASKS_MAX):
                    await self._leases.lease(
                        [self._ask_of(one, minute, now_s) for one in held[start : start + ASKS_MAX]],
                        lease_s=LEASE_S,
                    )
        except (TimeoutError, FreeholdError) as error:
            log.warning("allowances.not_given_back", extra={"count": len(held), "detail": str(error)})


def _waiting_for(one: Slice) -> asyncio.Event | None:
    """Those who wait for what is asked now. Who comes later wants more than that, and waits for the next ask."""
    answered, one.changed = one.changed, None
    return answered


def _answer(answered: asyncio.Event | None) -> None:
    if answered is not None:
        answered.set()
