"""Routes as they are declared: rules that pick among models, and what is done where one fails. Drains: models that take no new calls.

Not here: the choice itself (gateway/routing.py), and how its targets are asked (gateway/routing_course.py).
"""

from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from freehold.core.contracts import check_currency, money, pattern_of
from freehold.core.errors import BadRequest
from freehold.core.experiments import ROUTE, Experiment
from freehold.core.experiments import problems as experiment_problems
from freehold.core.serving import Cache, Slo
from freehold.core.serving import problems as serving_problems

PREFIX: Final = ROUTE.rstrip("/")
"""`route/NAME` is the model's name of a route wherever its bare name could mean something else."""

MODELS_MAX: Final = 50
WEIGHT_MAX: Final = 1e6
AGAIN_MAX: Final = 5
WAITING_MAX: Final = 10_000
WAIT_S_MAX: Final = 300.0
CONCURRENT_MAX: Final = 100_000
SCORE_NAME_CHARS_MAX: Final = 128

Strategy: TypeAlias = Literal["ordered", "weighted", "cheapest", "fastest", "best", "least_busy", "sticky"]


class CallTimeouts(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """In seconds; None is the default (10, 600, 300, 3600). `first_event_s`: until a stream's first event, or a whole answer begins.
    `idle_s`: between two pieces of an answer.
    """

    connect_s: float | None = None
    first_event_s: float | None = None
    idle_s: float | None = None
    total_s: float | None = None


class RouteModel(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """`model` is `provider/name`. `quality` is a score of your own, on one scale throughout the route; more is better.

    `regions` and `labels` go before the provider's. `concurrent_max`: calls under way at once, by routes, for each server process.
    """

    model: str
    weight: float = 1.0
    quality: float | None = None
    regions: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    drained: bool = False
    concurrent_max: int | None = None
    timeouts: CallTimeouts | None = None


class Constraints(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What a model must meet. `price_max` is decimal text, in the route's currency, for one call as it is expected.

    Latency is measured: first token by its 95th percentile, tokens per second by their median; a model that was not measured yet
    meets both, and where no model is quick enough the others are asked all the same. A model meets `regions` whose regions are all
    among them, and `labels` if it has them all.
    """

    price_max: str | None = None
    first_token_s_max: float | None = None
    tokens_per_s_min: float | None = None
    quality_min: float | None = None
    context_tokens_min: int | None = None
    regions: tuple[str, ...] = ()
    labels: dict[str, str] = {}


class Retries(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """After all models have failed once: how often they are asked again, with growing pauses, if the budget has it: `share_max`
    of the route's calls. `wait_s_max`: a longer `retry-after` than this is not waited for.
    """

    again_max: int = 1
    share_max: float = 0.2
    wait_s_max: float = 5.0


class Hedge(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A second model is asked too, where the first has not begun after `after_s` (its own 95th percentile where none is given); the
    quicker one answers. At most `share_max` of the route's calls.
    """

    after_s: float | None = None
    share_max: float = 0.1


class Queue(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Where all models are at their `concurrent_max`: so many calls wait, each so long; the others are told to come back."""

    waiting_max: int = 100
    wait_s: float = 5.0


class Route(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag="route",
    tag_field="kind",
):
    """Its name is used as a model's. `models` are names, or more about them. Strategies:

    ordered: the first that can. weighted: by chance. cheapest: by the price expected. fastest: by what was measured. best: by quality.
    least_busy: the fewest calls under way. sticky: the same for a session (or a principal), so that vendors' prompt caches stay warm.
    `output_tokens` is a typical answer, for prices, until the models' own are known. `quality_by` is the name of a score of feedback: a
    model's mean of late, once there are enough, goes before the quality that is declared.
    """

    name: str
    models: tuple[str | RouteModel, ...]
    strategy: Strategy = "ordered"
    description: str = ""
    constraints: Constraints = Constraints()
    currency: str = "USD"
    output_tokens: int = 500
    quality_by: str | None = None
    sticky_by: Literal["session", "principal"] = "session"
    retries: Retries = Retries()
    timeouts: CallTimeouts | None = None
    hedge: Hedge | None = None
    queue: Queue = Queue()
    refused_content_falls_back: bool = False
    cache: Cache | None = None
    slo: Slo | None = None
    experiment: Experiment | None = None

    def members(self) -> tuple[RouteModel, ...]:
        return tuple(RouteModel(model=one) if isinstance(one, str) else one for one in self.models)


class Drain(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag="drain",
    tag_field="kind",
):
    """`models` (`provider/name`, `*` and `?` stand for any) take no new calls; those under way end as they would."""

    name: str
    models: str
    reason: str = ""


def check(declared: Route | Drain) -> None:
    """Raises BadRequest with the path of what is wrong."""
    if isinstance(declared, Drain):
        pattern_of(declared.models, "models")
        return
    for field, problem in _problems(declared):
        raise BadRequest(problem, field=field)
    check_currency(declared.currency)
    if declared.constraints.price_max is not None:
        money(declared.constraints.price_max, "constraints.price_max")


def arm_problems(route: Route, others: Mapping[str, Route]) -> Iterator[tuple[str, str]]:
    """Where arms are routes: paths, and what is wrong there. `others` are all routes by name, `route` as it is declared among them.

    A call is in one experiment: so an arm's route has none of its own, and no route comes to itself again.
    """
    for path, name in route.experiment.routes() if route.experiment else ():
        other = others.get(name)
        if other is None:
            known = ", ".join(sorted(set(others) - {route.name})) or "none"
            yield path, f"no route is declared as {name[:80]!r}; declared: {known}"
        elif (circle := _way_back(name, route.name, others)) is not None:
            yield path, f"the route comes to itself again: {' > '.join((route.name, *circle))}"
        elif other.experiment is not None:
            yield path, f"{PREFIX}/{name} has an experiment of its own, and a call is in one"
    for other in others.values() if route.experiment else ():
        if other.name != route.name and any(name == route.name for _, name in _arm_routes(other)):
            yield "experiment", f"the route is an arm of {other.name}, and a call is in one experiment"


def _way_back(name: str, home: str, others: Mapping[str, Route]) -> tuple[str, ...] | None:
    """The routes from `name` on by which arms lead to `home`."""
    ways: list[tuple[str, ...]] = [(name,)]
    seen = {name}
    while ways:
        way = ways.pop()
        if way[-1] == home:
            return way
        further = {arm for _, arm in _arm_routes(others.get(way[-1]))} - seen
        seen |= further
        ways += [(*way, one) for one in sorted(further)]
    return None


def _arm_routes(route: Route | None) -> Iterator[tuple[str, str]]:
    return iter(()) if route is None or route.experiment is None else route.experiment.routes()


def _problems(route: Route) -> Iterator[tuple[str, str]]:
    if not 0 < len(route.models) <= MODELS_MAX:
        yield "models", f"expected 1 to {MODELS_MAX} models, got {len(route.models)}"
    seen: set[str] = set()
    for place, one in enumerate(route.members()):
        path = f"models[{place}]"
        provider, _, name = one.model.partition("/")
        if not provider or not name or provider == PREFIX:
            yield path, f"expected provider/name (no route, no bare name), got {one.model[:80]!r}"
        if one.model in seen:
            yield path, f"{one.model} is there a second time"
        seen.add(one.model)
        yield from _model_problems(one, path)
    unrated = route.quality_by is None and all(one.quality is None for one in route.members())
    if route.strategy == "best" and unrated:
        yield "strategy", "best goes by quality: give the models one, or say quality_by"
    if route.quality_by is not None and not 0 < len(route.quality_by) <= SCORE_NAME_CHARS_MAX:
        yield "quality_by", "expected the name of a score of feedback"
    if not route.output_tokens > 0:
        yield "output_tokens", f"expected more than 0, got {route.output_tokens}"
    yield from _constraint_problems(route)
    yield from timeout_problems(route.timeouts, "timeouts")
    yield from _failure_problems(route)
    yield from serving_problems(route.cache, route.slo)
    yield from experiment_problems(route.experiment, [one.model for one in route.members()])


def _constraint_problems(route: Route) -> Iterator[tuple[str, str]]:
    """What no model could meet, or every one does, is a mistake."""
    limits = route.constraints
    for name in ("first_token_s_max", "tokens_per_s_min", "context_tokens_min"):
        value = getattr(limits, name)
        if value is not None and not value > 0:
            yield f"constraints.{name}", f"expected more than 0, got {value:g}"
    rated = route.quality_by is not None or any(one.quality is not None for one in route.members())
    if limits.quality_min is not None and not rated:
        yield "constraints.quality_min", "no model has a quality: give the models one, or say quality_by"


def _model_problems(one: RouteModel, path: str) -> Iterator[tuple[str, str]]:
    if not 0 < one.weight <= WEIGHT_MAX:
        yield f"{path}.weight", f"expected more than 0, up to {WEIGHT_MAX:g}, got {one.weight:g}"
    if one.concurrent_max is not None and not 0 < one.concurrent_max <= CONCURRENT_MAX:
        yield f"{path}.concurrent_max", f"expected 1 to {CONCURRENT_MAX}, got {one.concurrent_max}"
    yield from timeout_problems(one.timeouts, f"{path}.timeouts")


def timeout_problems(timeouts: CallTimeouts | None, path: str) -> Iterator[tuple[str, str]]:
    """Paths, and what is wrong there."""
    for name in CallTimeouts.__struct_fields__ if timeouts else ():
        value = getattr(timeouts, name)
        if value is not None and not 0 < value < float("inf"):
            yield f"{path}.{name}", f"expected more than 0 seconds, got {value}"


def _failure_problems(route: Route) -> Iterator[tuple[str, str]]:
    retries, queue = route.retries, route.queue
    if not 0 <= retries.again_max <= AGAIN_MAX:
        yield "retries.again_max", f"expected 0 to {AGAIN_MAX}, got {retries.again_max}"
    shares = {"retries": retries.share_max, "hedge": route.hedge.share_max if route.hedge else 0.0}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            yield f"{name}.share_max", f"expected 0 to 1, got {share}"
    if not 0 <= retries.wait_s_max <= WAIT_S_MAX:
        yield "retries.wait_s_max", f"expected 0 to {WAIT_S_MAX:g} seconds, got {retries.wait_s_max}"
    if not 0 <= queue.waiting_max <= WAITING_MAX:
        yield "queue.waiting_max", f"expected 0 to {WAITING_MAX}, got {queue.waiting_max}"
    if not 0 <= queue.wait_s <= WAIT_S_MAX:
        yield "queue.wait_s", f"expected 0 to {WAIT_S_MAX:g} seconds, got {queue.wait_s}"
    if route.hedge is not None and route.hedge.after_s is not None and not route.hedge.after_s > 0:
        yield "hedge.after_s", f"expected more than 0 seconds, got {route.hedge.after_s}"
