"""Gateway: how many calls each canary gets now, as this process knows it, and the looks that let it take its steps.

Every process looks; whoever finds first that a step is due takes it, for all. Only canaries whose route is called are looked at.
While the database is away, each keeps its share. A route's objectives hold for its canary too. Not here: when a step is due (core/experiments.py).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

from msgspec import structs

from freehold.background import background
from freehold.core.errors import FreeholdError
from freehold.core.experiments import Canary, CanaryState, judged
from freehold.core.ports import Clock, Experiments
from freehold.core.routes import Route
from freehold.core.serving import Slo

TICK_S: Final = 1.0
LOOK_S_MIN: Final = 0.5
LOOK_S_MAX: Final = 60.0
LOOKS_A_STEP: Final = 100
WATCHED_MAX: Final = 10_000
"""When there are more, this process learns anew where they are."""

Percentages: TypeAlias = Callable[[str, Route], float]
"""(tenant, route): how many of a hundred calls its canary gets."""

log = logging.getLogger(__name__)


def none_yet(_tenant: str, _route: Route) -> float:
    return 0.0


def held(canary: Canary, slo: Slo | None) -> Canary:
    """To its own limits and to its route's objectives: whichever is stricter."""
    if slo is None:
        return canary
    return structs.replace(
        canary,
        error_rate_max=_least(canary.error_rate_max, slo.error_share_max),
        first_token_p95_s_max=_least(canary.first_token_p95_s_max, slo.first_token_p95_s),
    )


def _least(*limits: float | None) -> float | None:
    return min((one for one in limits if one is not None), default=None)


class _Watched:
    __slots__ = ("canary", "look_at_s", "percent", "route", "wanted")

    def __init__(self, canary: Canary, route: Route) -> None:
        self.canary = canary
        self.route = route
        self.percent = 0.0
        self.wanted = True
        self.look_at_s = 0.0


class Canaries:
    """One a process. `running` for as long as it is used."""

    def __init__(self, kept: Experiments, clock: Clock) -> None:
        self._kept = kept
        self._clock = clock
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._some = asyncio.Event()

    def percent(self, tenant: str, route: Route) -> float:
        """0 until it is known, which is soon."""
        if route.experiment is None or (canary := route.experiment.canary) is None:
            return 0.0
        one = self._watched.get((tenant, route.name))
        if one is None or one.route is not route:
            one = self._seen_anew(tenant, route, held(canary, route.slo), one)
        one.wanted = True
        return one.percent

    def _seen_anew(self, tenant: str, route: Route, canary: Canary, one: _Watched | None) -> _Watched:
        """What was declared again as it was goes on."""
        if one is not None and one.canary == canary:
            one.route = route
            return one
        if len(self._watched) >= WATCHED_MAX:
            self._watched.clear()
        self._watched[tenant, route.name] = one = _Watched(canary, route)
        self._some.set()
        return one

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with background(self._run(), "canaries"):
            yield

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await self._some.wait()
            except TimeoutError:
                pass
            self._some.clear()
            await self.look()

    async def look(self) -> None:
        """At each whose time it is. Raises nothing that a database says."""
        now_s = self._clock.monotonic_s()
        for (tenant, route), one in list(self._watched.items()):
            if not one.wanted or now_s < one.look_at_s:
                continue
            one.wanted = False
            one.look_at_s = now_s + min(max(one.canary.step_s / LOOKS_A_STEP, LOOK_S_MIN), LOOK_S_MAX)
            try:
                one.percent = (await self._looked(tenant, route, one.canary)).percent(one.canary)
            except FreeholdError as error:
                log.warning("canary.not_looked_at", extra={"route": route, "detail": error.detail})

    async def _looked(self, tenant: str, route: str, canary: Canary) -> CanaryState:
        now = self._clock.now()
        state = await self._kept.state(tenant, route, canary, now)
        if state.status != "running":
            return state
        step = judged(canary, state, await self._kept.seen(tenant, route, canary, state.since), now)
        if step is None:
            return state
        if await self._kept.take(tenant, route, canary, state, step, now):
            log.info(
                "canary.stepped",
                extra={"tenant": tenant, "route": route, "status": step.status, "reason": step.reason},
            )
        return await self._kept.state(tenant, route, canary, now)
