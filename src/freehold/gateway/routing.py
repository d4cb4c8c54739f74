"""Gateway: the choice that a route makes. Pure: the same candidates, request and draw give the same order.

A candidate is left where it cannot be asked (drained, resting, not able, too dear ...), and the others are put in the order of the
route's strategy. Those at their limit of calls come last: only where all are does a call wait. Not here: where the figures come from
(health.py), what a route's names stand for (routing_table.py), and what happens where one fails (routing_course.py).
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from math import log
from typing import Final, TypeAlias

from msgspec import Struct, structs

from freehold.core.contracts import money
from freehold.core.pricing import show
from freehold.core.routes import Constraints, Route, Strategy
from freehold.gateway.routing_places import Priority

EXPLORED: Final = 0.05
"""Of a `fastest` route's calls, the part that goes to a model that was not measured lately: else it never would be again."""

_UNKNOWN: Final = float("inf")
_HASH_BYTES: Final = 8
_HASH_SPAN: Final = float(1 << (8 * _HASH_BYTES))


class Traits(Struct, frozen=True, kw_only=True):
    """What stays the same of a model, as a route has declared it. `regions` are all to which what is sent there may go."""

    model: str
    weight: float = 1.0
    quality: float | None = None
    regions: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    context_tokens: int | None = None


class Figures(Struct, frozen=True):
    """How quick it was of late: seconds, and tokens per second (the median; and what 95 % of answers came up to, for people). None where it was not
    measured.
    """

    first_p50_s: float | None = None
    first_p95_s: float | None = None
    whole_p50_s: float | None = None
    tokens_per_s: float | None = None
    tokens_per_s_p95: float | None = None


UNMEASURED: Final = Figures()


class Candidate(Struct, frozen=True):
    """A model as a route sees it now. `barred` is why it cannot be asked for this request, or not now.

    `full`: at its limit of calls, so that one more would wait. `price_pico` is what the call is expected to cost there, in the
    route's currency; None is not known.
    """

    traits: Traits
    barred: str | None = None
    full: bool = False
    busy_count: int = 0
    price_pico: int | None = None
    figures: Figures = UNMEASURED

    @property
    def model(self) -> str:
        return self.traits.model


class Wanted(Struct, frozen=True, kw_only=True):
    """What the choice knows of a request. `affinity` is what a sticky route holds on to; empty: whoever asks.

    `input_tokens` is a guess, good enough to compare prices by. `priority` is among the calls of one tenant.
    """

    streamed: bool = False
    input_tokens: int = 0
    output_tokens_max: int | None = None
    affinity: str = ""
    priority: Priority = "normal"


class Rule(Struct, frozen=True):
    """A route's declaration, ready to be held against candidates. What it needs decides, or may: the rest need not be known."""

    strategy: Strategy
    currency: str
    price_max_pico: int | None
    constraints: Constraints
    sticky_by: str
    constrains: bool
    needs_price: bool
    needs_figures: bool
    needs_draw: bool
    needs_wanted: bool


class Decision(Struct, frozen=True):
    """`order`: places in the candidates given, the one to be asked first first; empty where all are left. `left`: why, by place.

    `slow`: those in `order` are slower than the route wants, but none is quicker. `demoted` are asked after the others, and why.
    `arm`: of the route's experiment. `anonymous`: a sticky route had no session to hold on to, and went by the caller.
    """

    order: tuple[int, ...]
    left: Mapping[int, str]
    slow: bool = False
    demoted: Mapping[int, str] = {}
    arm: str | None = None
    anonymous: bool = False


class Verdict(Struct, frozen=True):
    """For people. `place` is 1 for the one that is asked first, None for one that is left."""

    model: str
    place: int | None
    why: str


def rule_of(route: Route) -> Rule:
    """Raises BadRequest for a price that is none."""
    limits = route.constraints
    price_max = None if limits.price_max is None else money(limits.price_max, "constraints.price_max")
    needs_price = price_max is not None or route.strategy in {"cheapest", "best"}
    hastens = limits.first_token_s_max is not None or limits.tokens_per_s_min is not None
    return Rule(
        route.strategy,
        route.currency,
        price_max,
        limits,
        route.sticky_by,
        constrains=limits != Constraints(),
        needs_price=needs_price,
        needs_figures=hastens or route.strategy == "fastest",
        needs_draw=route.strategy in {"weighted", "fastest"},
        needs_wanted=needs_price or route.strategy == "sticky" or route.experiment is not None,
    )


def decide(rule: Rule, candidates: Sequence[Candidate], wanted: Wanted, draw: float) -> Decision:
    """`draw` is chance, 0 to less than 1."""
    left: dict[int, str] = {}
    slow: dict[int, str] = {}
    able: list[int] = []
    crowded = False
    for place, one in enumerate(candidates):
        if one.barred is not None:
            left[place] = one.barred
            continue
        if rule.constrains:
            if (why := _unfit(rule, one)) is not None:
                left[place] = why
                continue
            if (why := _too_slow(rule.constraints, one.figures)) is not None:
                slow[place] = why
                continue
        able.append(place)
        crowded = crowded or one.full
    all_slow = not able and bool(slow)
    if all_slow:
        able = list(slow)
        crowded = any(candidates[place].full for place in able)
    else:
        left |= slow
    if len(able) > 1:
        able = _ORDERS[rule.strategy](able, candidates, wanted, draw)
        if crowded:
            able.sort(key=lambda place: candidates[place].full)
    return Decision(tuple(able), left, all_slow)


def led(
    decision: Decision, candidates: Sequence[Candidate], arm: str, model: str | None, canary: str | None
) -> Decision:
    """The same with the arm's `model` first; None: whichever but the `canary`, which is then asked last.

    A model that is left, at its limit or demoted leads nothing, and the call is in no arm.
    """
    places = decision.order
    if model is None:
        order = tuple(sorted(places, key=lambda place: candidates[place].model == canary))
    else:
        order = tuple(sorted(places, key=lambda place: candidates[place].model != model))
    leader = candidates[order[0]] if order else None
    leads = leader is not None and not leader.full and order[0] not in decision.demoted
    if leader is not None and leads and (leader.model == model or (model is None and leader.model != canary)):
        return structs.replace(decision, order=order, arm=arm)
    return decision if model else structs.replace(decision, order=order)


def verdicts(rule: Rule, candidates: Sequence[Candidate], decision: Decision) -> list[Verdict]:
    """Of every candidate: first those that are asked, in order, then those that are left."""
    taken = [
        Verdict(candidates[place].model, number, ordered_because(rule, candidates, decision, place))
        for number, place in enumerate(decision.order, 1)
    ]
    return taken + [Verdict(candidates[place].model, None, why) for place, why in decision.left.items()]


def ordered_because(rule: Rule, candidates: Sequence[Candidate], decision: Decision, place: int) -> str:
    """As `taken_because`, and who is asked last by its own doing."""
    said = taken_because(rule, candidates[place], decision)
    if not decision.demoted:
        return said
    if place in decision.demoted:
        return f"asked last: {decision.demoted[place]}"
    last = "; ".join(f"{candidates[one].model}: {why}" for one, why in decision.demoted.items())
    return f"{said}, and asked last are {last}"


def taken_because(rule: Rule, one: Candidate, decision: Decision) -> str:
    """Short, and in ASCII: it goes into a header and into the record."""
    match rule.strategy:
        case "ordered":
            said = "in order"
        case "weighted":
            said = f"weighted: {one.traits.weight:g}"
        case "cheapest":
            said = f"cheapest: {_price(rule, one)}"
        case "fastest":
            said = f"fastest: {_speed(one.figures)}"
        case "best":
            said = f"best: quality {'not declared' if (quality := one.traits.quality) is None else f'{quality:g}'}"
        case "least_busy":
            said = f"least busy: {one.busy_count} calls under way"
        case "sticky":
            said = f"sticky by {'principal (no session is given)' if decision.anonymous else rule.sticky_by}"
    if decision.slow:
        said += "; slower than the route wants, but none is quicker"
    return f"{said}; all are at their limit, so it waits" if one.full else said


# ---------------------------------------------------------------------------------------------- constraints


def _unfit(rule: Rule, one: Candidate) -> str | None:
    limits, traits = rule.constraints, one.traits
    if limits.regions and not (traits.regions and set(traits.regions) <= set(limits.regions)):
        found = ", ".join(traits.regions) or "not declared"
        return f"its region ({found}) is not among {', '.join(limits.regions)}"
    for name, value in limits.labels.items():
        if traits.labels.get(name) != value:
            return f"its label {name} is {traits.labels.get(name, 'not declared')}, not {value}"
    quality, least_quality = traits.quality, limits.quality_min
    if least_quality is not None and (quality is None or quality < least_quality):
        return f"quality {'not declared' if quality is None else f'{quality:g}'}, under {least_quality:g}"
    context, least = traits.context_tokens, limits.context_tokens_min
    if least is not None and (context is None or context < least):
        return f"context of {context or 'unknown'} tokens, under {least}"
    most = rule.price_max_pico
    if most is not None and (one.price_pico is None or one.price_pico > most):
        return f"price: {_price(rule, one)}, over {show(most, rule.currency)}"
    return None


def _too_slow(limits: Constraints, lately: Figures) -> str | None:
    most, least = limits.first_token_s_max, limits.tokens_per_s_min
    if most is not None and lately.first_p95_s is not None and lately.first_p95_s > most:
        return f"first token in {lately.first_p95_s:.2f} s (p95), over {most:g} s"
    if least is not None and lately.tokens_per_s is not None and lately.tokens_per_s < least:
        return f"{lately.tokens_per_s:.1f} tokens/s, under {least:g}"
    return None


def _price(rule: Rule, one: Candidate) -> str:
    if one.price_pico is None:
        return f"no price in {rule.currency} is known"
    return f"{show(one.price_pico, rule.currency)} expected"


def _speed(one: Figures) -> str:
    if one.first_p50_s is None and one.whole_p50_s is None:
        return "not measured lately"
    first = "" if one.first_p50_s is None else f"first token in {one.first_p50_s:.2f} s"
    whole = "" if one.whole_p50_s is None else f"whole answer in {one.whole_p50_s:.2f} s"
    return ", ".join(filter(None, (first, whole)))


# ------------------------------------------------------------------------------------------------- orders
# Each gives the places in a new order; ties stay in the order of the route.

Order: TypeAlias = Callable[[list[int], Sequence[Candidate], Wanted, float], list[int]]


def _ordered(able: list[int], _among: Sequence[Candidate], _wanted: Wanted, _draw: float) -> list[int]:
    return able


def _weighted(able: list[int], among: Sequence[Candidate], _wanted: Wanted, draw: float) -> list[int]:
    """The first by chance, each by its weight; then, of the rest, the next: what was left of the draw is chance again."""
    rest, order = list(able), []
    while len(rest) > 1:
        at = draw * sum(among[place].traits.weight for place in rest)
        for place in rest:
            weight = among[place].traits.weight
            if at < weight:
                break
            at -= weight
        order.append(place)
        rest.remove(place)
        draw = min(max(at / weight, 0.0), 1.0 - 2**-53)
    return order + rest


def _cheapest(able: list[int], among: Sequence[Candidate], _wanted: Wanted, _draw: float) -> list[int]:
    def price(place: int) -> float:
        pico = among[place].price_pico
        return _UNKNOWN if pico is None else pico

    return sorted(able, key=price)


def _best(able: list[int], among: Sequence[Candidate], _wanted: Wanted, _draw: float) -> list[int]:
    """Of equal quality, the cheaper one."""

    def key(place: int) -> tuple[float, float]:
        quality, pico = among[place].traits.quality, among[place].price_pico
        return (_UNKNOWN if quality is None else -quality, _UNKNOWN if pico is None else pico)

    return sorted(able, key=key)


def _fastest(able: list[int], among: Sequence[Candidate], wanted: Wanted, draw: float) -> list[int]:
    """A stream by its first token, a whole answer by its end; what was not measured lately goes last, but for some of the calls."""

    def seconds(place: int) -> float:
        one = among[place].figures
        known = (one.first_p50_s, one.whole_p50_s) if wanted.streamed else (one.whole_p50_s, one.first_p50_s)
        return next((one_s for one_s in known if one_s is not None), _UNKNOWN)

    order = sorted(able, key=seconds)
    unmeasured = [place for place in order if seconds(place) == _UNKNOWN]
    if draw < EXPLORED and 0 < len(unmeasured) < len(order):
        explored = unmeasured[int(draw / EXPLORED * len(unmeasured))]
        order.remove(explored)
        order.insert(0, explored)
    return order


def _least_busy(able: list[int], among: Sequence[Candidate], _wanted: Wanted, _draw: float) -> list[int]:
    """For its weight: one that counts double may be twice as busy."""
    return sorted(able, key=lambda place: (among[place].busy_count + 1) / among[place].traits.weight)


def _sticky(able: list[int], among: Sequence[Candidate], wanted: Wanted, _draw: float) -> list[int]:
    """Weighted rendezvous hashing: when a model goes or comes, only what was, or will be, its own moves.

    https://www.snia.org/sites/default/files/SDC15_presentations/dist_sys/Jason_Resch_New_Consistent_Hashings_Rev.pdf
    """
    salt = wanted.affinity.encode("utf-8", "surrogatepass")

    def score(place: int) -> float:
        one = among[place].traits
        mixed = blake2b(one.model.encode() + b"\0" + salt, digest_size=_HASH_BYTES).digest()
        return log((int.from_bytes(mixed) + 0.5) / _HASH_SPAN) / one.weight

    return sorted(able, key=score, reverse=True)


_ORDERS: Final[Mapping[Strategy, Order]] = {
    "ordered": _ordered,
    "weighted": _weighted,
    "cheapest": _cheapest,
    "fastest": _fastest,
    "best": _best,
    "least_busy": _least_busy,
    "sticky": _sticky,
}
