"""Gateway: how good a route's models are, by what people's scores say of their answers (`POST /v1/feedback`).

Looked up in the database now and then, off the path of calls, for tenants whose routes are called; a mean of enough scores goes before
the quality that the route declares. Not here: what is done with it (routing.py), and comparing arms (server/apis/experiments.py).
"""

from collections.abc import Collection, Iterator
from datetime import timedelta
from typing import Final, Protocol

from msgspec import structs

from freehold.core.experiments import ModelScores
from freehold.core.ports import Clock
from freehold.gateway.routing import Traits

LOOK_S: Final = 60.0
SCORED_FOR: Final = timedelta(days=30)
SCORES_MIN: Final = 30
"""Of one model; fewer say nothing."""


class Scores:
    """Of the models of one route, by the scores of one name. Outlives the route's declarations."""

    __slots__ = ("by_model", "look_at_s", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.by_model: dict[str, float] = {}
        self.look_at_s = 0.0

    def seen(self, traits: Traits) -> Traits:
        quality = self.by_model.get(traits.model)
        return traits if quality is None else structs.replace(traits, quality=quality)


class Scoring(Protocol):
    """Where routes are: gateway/models.py."""

    def scored(self) -> Iterator[tuple[str, Scores]]: ...


class Qualities:
    def __init__(self, kept: ModelScores, scoring: Scoring, clock: Clock) -> None:
        self._kept = kept
        self._scoring = scoring
        self._clock = clock

    async def look(self, tenants: Collection[str], now_s: float) -> None:
        """At each route whose time it is. Raises Unavailable."""
        for tenant, scores in list(self._scoring.scored()):
            if tenant not in tenants or now_s < scores.look_at_s:
                continue
            scores.look_at_s = now_s + LOOK_S
            found = await self._kept.scores(tenant, scores.name, since=self._clock.now() - SCORED_FOR)
            scores.by_model = {model: sums.mean for model, sums in found.items() if sums.count >= SCORES_MIN}
