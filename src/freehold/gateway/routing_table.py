"""Gateway: what a tenant's routes and drains amount to, and how the models of a route look at the moment that a call comes.

Not here: how a model's name is resolved (models.py), the choice (routing.py), and what a call then does (routing_course.py).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TypeAlias

from msgspec import structs

from freehold.core.contracts import pattern_of
from freehold.core.errors import BadRequest, NotFound
from freehold.core.messages import Usage
from freehold.core.pricing import cost_pico
from freehold.core.records import Choice
from freehold.core.routes import PREFIX, CallTimeouts, Drain, Route, RouteModel
from freehold.gateway.figures import Shared
from freehold.gateway.health import Health
from freehold.gateway.qualities import Scores
from freehold.gateway.routing import UNMEASURED, Candidate, Figures, Traits, Wanted, rule_of
from freehold.gateway.routing_places import UNLIMITED
from freehold.gateway.routing_share import Share
from freehold.gateway.slo import Objectives
from freehold.gateway.targets import Member, Routed, Target

Find: TypeAlias = Callable[[str, CallTimeouts | None], Target | None]
"""A model's name to whom to ask, with these timeouts where some are given. Raises NotFound, or gives None, where nobody has it."""

WhyNot: TypeAlias = Callable[[Member], str | None]
"""Why a model cannot be asked for one request, whatever its figures: not able, or not allowed."""


class Routes:
    """Of one tenant. `before` hands on how models have gone, and what was saved up."""

    def __init__(
        self, routes: Sequence[Route] = (), drains: Sequence[Drain] = (), before: "Routes | None" = None
    ) -> None:
        self._by_name = {route.name: route for route in routes}
        self._drains = [(pattern_of(drain.models, "models"), drain) for drain in drains]
        health: Mapping[str, Health] = before.health if before else {}
        shares: Mapping[str, tuple[Share, Share]] = before.shares if before else {}
        named = {one.model for route in routes for one in route.members()}
        self.health: dict[str, Health] = {model: health.get(model) or Health() for model in named}
        self.shares: dict[str, tuple[Share, Share]] = {
            route.name: _shares(route, shares.get(route.name)) for route in routes
        }
        objectives: Mapping[str, Objectives] = before.objectives if before else {}
        self.objectives: dict[str, Objectives] = {
            route.name: Objectives(route.slo, objectives.get(route.name))
            for route in routes
            if route.slo is not None
        }
        scores: Mapping[str, Scores] = before.scores if before else {}
        self.scores: dict[str, Scores] = {
            route.name: _scores(route.quality_by, scores.get(route.name))
            for route in routes
            if route.quality_by is not None
        }
        limits = _limits(routes)
        for model, one in self.health.items():
            one.places.resize(limits.get(model, UNLIMITED))

    def named(self, model: str) -> Route | None:
        """Raises NotFound for `route/NAME` that is not declared."""
        found = self._by_name.get(model)
        if found is not None or not model.startswith(f"{PREFIX}/"):
            return found
        name = model.removeprefix(f"{PREFIX}/")
        if name not in self._by_name:
            known = ", ".join(sorted(self._by_name)) or "none"
            raise NotFound(f"no route is declared as {name[:80]!r}; declared: {known}", field="model")
        return self._by_name[name]

    @property
    def names(self) -> Sequence[str]:
        return sorted(self._by_name)

    def shared(self) -> Iterator[tuple[str, Shared]]:
        """What processes tell each other of, by its name."""
        yield from ((f"model/{model}", one) for model, one in self.health.items())
        for name, objectives in self.objectives.items():
            yield f"{PREFIX}/{name}", objectives.route
            for member in self._by_name[name].members():
                yield f"{PREFIX}/{name}/{member.model}", objectives.of(member.model)

    def drained(self, model: str) -> str | None:
        """Why it takes no new calls. `model` is `provider/name`."""
        for pattern, drain in self._drains:
            if pattern.fullmatch(model):
                return f"drained{f': {drain.reason}' if drain.reason else ''}"
        return None

    def target(self, route: Route, find: Find) -> Target:
        """Raises NotFound where none of its models can be asked here."""
        members: list[Member] = []
        missing: list[tuple[str, str]] = []
        for declared in route.members():
            try:
                timeouts = merged(declared.timeouts, route.timeouts)
                target = find(declared.model, timeouts)
            except (NotFound, BadRequest) as error:
                missing.append((declared.model, error.message))
                continue
            if target is None:
                missing.append((declared.model, "no usable provider is called that"))
                continue
            members.append(self._member(declared, _placed(declared, target), timeouts))
        if not members:
            why = "; ".join(f"{model}: {said}" for model, said in missing)
            raise NotFound(f"no model of the route {route.name} can be asked here: {why}", field="model")
        retries, hedges = self.shares[route.name]
        arms = dict(self._arms(route, find))
        chances = any(arm.rule.needs_draw for arm in arms.values())
        rule = rule_of(route)
        routed = Routed(
            route=route, rule=structs.replace(rule, needs_draw=rule.needs_draw or chances), members=tuple(members), missing=tuple(missing), retries=retries,
            hedges=hedges, unasked=Choice(route=route.name, attempts=0), objectives=self.objectives.get(route.name),
            shadows=tuple(self._shadows(route, find)), arms=arms, scores=self.scores.get(route.name),
        )  # fmt: skip
        first = members[0].target
        return structs.replace(first, resource=routed.resource, route=routed, health=None)

    def _arms(self, route: Route, find: Find) -> Iterator[tuple[str, Routed]]:
        """One of which no model can be asked here is left out: calls are then in no arm."""
        for _, name in route.experiment.routes() if route.experiment else ():
            declared = self._by_name.get(name)
            if declared is None:
                continue
            with suppress(NotFound):
                routed = self.target(structs.replace(declared, experiment=None), find).route
                if routed is not None:
                    yield f"{PREFIX}/{name}", routed

    def _shadows(self, route: Route, find: Find) -> Iterator[tuple[Target, float]]:
        """One that cannot be asked here, or takes no calls, is left out: nobody waits for it."""
        for one in route.experiment.shadows if route.experiment else ():
            with suppress(NotFound, BadRequest):
                target = None if self.drained(one.model) else find(one.model, route.timeouts)
                if target is not None:
                    yield target, one.percent

    def _member(self, declared: RouteModel, target: Target, timeouts: CallTimeouts | None) -> Member:
        traits = Traits(
            model=declared.model,
            weight=declared.weight,
            quality=declared.quality,
            regions=declared.regions or target.regions,
            labels={**target.labels, **declared.labels},
            context_tokens=None if target.facts is None else target.facts.context_tokens,
        )
        return Member(
            target=target,
            health=self.health[declared.model],
            traits=traits,
            drained="drained by its route" if declared.drained else self.drained(declared.model),
            first_event_s=timeouts.first_event_s if timeouts else None,
        )


def _placed(declared: RouteModel, target: Target) -> Target:
    """The regions and labels that a route declares go before its provider's."""
    if not declared.regions and not declared.labels:
        return target
    regions, labels = declared.regions or target.regions, {**target.labels, **declared.labels}
    return structs.replace(target, regions=regions, labels=labels)


def merged(first: CallTimeouts | None, otherwise: CallTimeouts | None) -> CallTimeouts | None:
    """What `first` leaves open is as it is in `otherwise`."""
    if first is None or otherwise is None:
        return first or otherwise
    given = {name: value for name, value in structs.asdict(first).items() if value is not None}
    return structs.replace(otherwise, **given)


def _shares(route: Route, before: tuple[Share, Share] | None) -> tuple[Share, Share]:
    wanted = (route.retries.share_max, route.hedge.share_max if route.hedge else 0.0)
    if before is not None and (before[0].share_max, before[1].share_max) == wanted:
        return before
    return Share(wanted[0]), Share(wanted[1])


def _scores(name: str, before: Scores | None) -> Scores:
    return before if before is not None and before.name == name else Scores(name)


def _limits(routes: Sequence[Route]) -> Mapping[str, int]:
    """Where several routes limit a model, the least of them holds."""
    found: dict[str, int] = {}
    for one in (one for route in routes for one in route.members()):
        if one.concurrent_max is not None:
            found[one.model] = min(found.get(one.model, one.concurrent_max), one.concurrent_max)
    return found


# ---------------------------------------------------------------------------------- as they look at the moment


def seen(
    routed: Routed, wanted: Wanted, why_not: WhyNot, *, now_s: float, at: datetime, measured: bool = False
) -> Sequence[Candidate]:
    """The route's members in their order; figures where the route needs them, or `measured`. Raises what is wrong with the request
    for everybody.
    """
    rule, scores, candidates = routed.rule, routed.scores, []
    for one in routed.members:
        health, places = one.health, one.health.places
        candidates.append(
            Candidate(
                one.traits if scores is None else scores.seen(one.traits),
                one.drained or health.barred(now_s) or why_not(one),
                places.full,
                places.taken_count,
                _expected_pico(routed, one, wanted, at) if rule.needs_price or measured else None,
                _figures(health, now_s, measured) if rule.needs_figures or measured else UNMEASURED,
            )
        )
    return candidates


def _figures(health: Health, now_s: float, whole: bool) -> Figures:  # noqa: FBT001
    return Figures(
        health.first.at(0.5, now_s),
        health.first.at(0.95, now_s),
        health.whole.at(0.5, now_s),
        health.tokens_per_s(now_s),
        health.tokens_per_s(now_s, 0.95) if whole else None,
    )


def _expected_pico(routed: Routed, one: Member, wanted: Wanted, at: datetime) -> int | None:
    """For so many tokens of input and an answer of the typical length, or the longest allowed; None without a price in the currency."""
    price = one.target.price(at)
    if price is None:
        return None
    typical = one.health.typical_output_tokens or routed.route.output_tokens
    most = wanted.output_tokens_max
    output = int(typical if most is None else min(typical, most))
    cost = cost_pico(Usage(input_tokens=wanted.input_tokens, output_tokens=output), price)
    return cost if price.currency == routed.route.currency or cost == 0 else None


def unasked(routed: Routed, left: Mapping[int, str]) -> Iterator[str]:
    """Every model of the route, with why it is not asked."""
    yield from (f"{routed.members[place].model}: {why}" for place, why in sorted(left.items()))
    yield from (f"{model}: {why}" for model, why in routed.missing)
