"""Experiments as a route declares them, and their decisions: who is in which arm, and when a canary takes a step. Pure.

An arm is a model of the route that is asked first, and should it fail, the route goes on as it would; or it is another route, which
has the call whole. Shadows are asked beside whoever answers, and what they say is thrown away. Not here: how calls are led (gateway/routing_plan.py), who asks shadows
(gateway/shadowing.py), where a canary's state is kept (store/experiments.py), the statistics (confidence.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from itertools import pairwise
from math import log
from typing import Final, Literal, Protocol, TypeAlias

from msgspec import Struct

from freehold.core.confidence import ALPHA, Proportion, worse_than

ROUTE: Final = "route/"
"""Before a route's name, where a model's could stand."""

ARMS_MAX: Final = 20
ARM_CHARS_MAX: Final = 256
SHADOWS_MAX: Final = 5
STEPS_MAX: Final = 20
STEP_S_MAX: Final = 7 * 86_400.0
CALLS_MIN_MAX: Final = 1_000_000

SHADOW: Final = "shadow:"
"""Before a shadow's model, it is the arm of its records."""
CANARY: Final = "canary"
BASELINE: Final = "baseline"

SLOW_SHARE: Final = 0.05
"""Of a canary's streams, those that may be slower than its 95th percentile is to be."""

_WHOLE: Final = 100.0
_HASH_BYTES: Final = 8
_HASH_SPAN: Final = float(1 << (8 * _HASH_BYTES))

StickyBy: TypeAlias = Literal["session", "user", "principal"]


class Arm(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """`model` is one of the route's, or `route/NAME`. Its name, where none is given, is the model's."""

    model: str
    percent: float
    name: str | None = None

    @property
    def called(self) -> str:
        return self.name or self.model


class Shadow(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """`percent` of the route's calls are also asked of `model`. It need not be one of the route's."""

    model: str
    percent: float = 100.0


class Canary(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """`steps` are the percentages that `model` (an arm's) gets, one after the other, each for `step_s` and `calls_min` of its calls at least.

    Where its error rate is certainly over `error_rate_max`, or the 95th percentile of its streams' first tokens over
    `first_token_p95_s_max`, it gets no more calls. A changed declaration begins anew; a greater `run` is such a change.
    """

    model: str
    steps: tuple[float, ...] = (1.0, 5.0, 25.0, 50.0, 100.0)
    step_s: float = 3600.0
    calls_min: int = 30
    error_rate_max: float | None = 0.02
    first_token_p95_s_max: float | None = None
    run: int = 1


class Experiment(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Arms or a canary, and shadows. `sticky_by`: what stays in its arm; calls of no known session or user go by their principal."""

    arms: tuple[Arm, ...] = ()
    shadows: tuple[Shadow, ...] = ()
    canary: Canary | None = None
    sticky_by: StickyBy = "session"

    def routes(self) -> Iterator[tuple[str, str]]:
        """Names of routes that are its arms, with the path of each."""
        named = [(f"arms[{place}].model", arm.model) for place, arm in enumerate(self.arms)]
        if self.canary is not None:
            named.append(("canary.model", self.canary.model))
        for path, model in named:
            if model.startswith(ROUTE):
                yield f"experiment.{path}", model.removeprefix(ROUTE)


# ---------------------------------------------------------------------------------------------- assignment


def assigned(experiment: Experiment, name: str, key: str, canary_percent: float) -> tuple[str, str | None]:
    """The arm of `key` in the experiment of the route `name`, and the model that is asked first; None: whichever the route would.

    The same key is in the same arm while percentages are. Raising one arm's percentage moves keys into that arm alone, and
    lowering it out of that arm alone.
    """
    if (canary := experiment.canary) is not None:
        chosen = _hash(name, canary.model, key) * _WHOLE < canary_percent
        return (CANARY, canary.model) if chosen else (BASELINE, None)
    if not experiment.arms:
        return BASELINE, None
    arm = max(experiment.arms, key=lambda one: log(_hash(name, one.called, key)) / one.percent)
    return arm.called, arm.model


def _hash(name: str, arm: str, key: str) -> float:
    """More than 0, and at most 1."""
    text = f"{name}\0{arm}\0{key}".encode("utf-8", "surrogatepass")
    mixed = int.from_bytes(blake2b(text, digest_size=_HASH_BYTES).digest())
    return (mixed + 0.5) / _HASH_SPAN


# -------------------------------------------------------------------------------------------------- canary

Status: TypeAlias = Literal["running", "done", "stepped_back"]


class CanaryState(Struct, frozen=True):
    """`step` is a place in its steps, since when it is there. `version` grows with every change."""

    status: Status
    step: int
    since: datetime
    version: int = 1

    def percent(self, canary: Canary) -> float:
        return 0.0 if self.status == "stepped_back" else canary.steps[min(self.step, len(canary.steps) - 1)]


class Seen(Struct, frozen=True):
    """Calls of a canary since its last step. `slow` are those of `streamed` whose first token came after the limit."""

    calls: int = 0
    errors: int = 0
    streamed: int = 0
    slow: int = 0


class Step(Struct, frozen=True):
    """What is next, and why, for people."""

    status: Status
    step: int
    reason: str


def judged(canary: Canary, state: CanaryState, seen: Seen, now: datetime) -> Step | None:
    """None: stay. May be asked at any time, as often as one likes: all the looks of all steps together step a sound canary back
    with a probability of ALPHA at most.
    """
    if state.status != "running":
        return None
    if (why := _breach(canary, seen)) is not None:
        return Step("stepped_back", state.step, why)
    if (now - state.since).total_seconds() < canary.step_s or seen.calls < canary.calls_min:
        return None
    sound = f"{seen.errors} errors in {seen.calls} calls at {canary.steps[state.step]:g} %"
    if state.step + 1 == len(canary.steps):
        return Step("done", state.step, sound)
    return Step("running", state.step + 1, sound)


def _breach(canary: Canary, seen: Seen) -> str | None:
    looks = len(canary.steps) * (
        (canary.error_rate_max is not None) + (canary.first_token_p95_s_max is not None)
    )
    most = canary.error_rate_max
    if most is not None and worse_than(Proportion(seen.calls, seen.errors), most, ALPHA / looks):
        return f"{seen.errors} errors in {seen.calls} calls: certainly over {most:g}"
    most_s = canary.first_token_p95_s_max
    if most_s is not None and worse_than(Proportion(seen.streamed, seen.slow), SLOW_SHARE, ALPHA / looks):
        said = f"{seen.slow} of {seen.streamed} streams began after {most_s:g} s"
        return f"{said}: their 95th percentile is certainly over it"
    return None


# --------------------------------------------------------------------------------------------------- check


def problems(experiment: Experiment | None, models: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Paths, and what is wrong there. `models` are the route's."""
    if experiment is None:
        return
    if not (experiment.arms or experiment.shadows or experiment.canary):
        yield "experiment", "expected arms, shadows or a canary"
    if experiment.arms and experiment.canary is not None:
        yield "experiment.canary", "a canary and arms exclude each other: which of them would a call be in?"
    yield from _arm_problems(experiment.arms, models)
    if len(experiment.shadows) > SHADOWS_MAX:
        yield "experiment.shadows", f"expected at most {SHADOWS_MAX}, got {len(experiment.shadows)}"
    for place, one in enumerate(experiment.shadows):
        path = f"experiment.shadows[{place}]"
        if not all(one.model.partition("/")) or one.model.startswith(ROUTE):
            yield f"{path}.model", f"expected provider/name (no route), got {one.model[:80]!r}"
        if not 0 < one.percent <= _WHOLE:
            yield f"{path}.percent", f"expected more than 0 to 100, got {one.percent}"
    if experiment.canary is not None:
        yield from _canary_problems(experiment.canary, models)


def _arm_problems(arms: Sequence[Arm], models: Sequence[str]) -> Iterator[tuple[str, str]]:
    if arms and not 2 <= len(arms) <= ARMS_MAX:
        yield "experiment.arms", f"expected 2 to {ARMS_MAX}, got {len(arms)}"
    seen: set[str] = set()
    for place, one in enumerate(arms):
        path = f"experiment.arms[{place}]"
        yield from _model_problem(one.model, models, path)
        if not 0 < one.percent < _WHOLE:
            yield f"{path}.percent", f"expected more than 0 and less than 100, got {one.percent}"
        if one.called in seen or one.called in (CANARY, BASELINE) or one.called.startswith(SHADOW):
            yield f"{path}.name", f"{one.called[:80]!r} is taken: every arm needs a name of its own"
        if not (one.called.isprintable() and len(one.called) <= ARM_CHARS_MAX):
            yield f"{path}.name", f"expected at most {ARM_CHARS_MAX} printable characters"
        seen.add(one.called)
    total = sum(one.percent for one in arms)
    if arms and not abs(total - _WHOLE) < 1e-6:
        yield "experiment.arms", f"expected percentages that come to 100, got {total:g}"


def _canary_problems(canary: Canary, models: Sequence[str]) -> Iterator[tuple[str, str]]:
    path, steps = "experiment.canary", canary.steps
    yield from _model_problem(canary.model, models, path)
    if len(models) < 2 and not canary.model.startswith(ROUTE):
        yield f"{path}.model", "there must be another model that answers the other calls"
    rising = all(before < after for before, after in pairwise(steps))
    if not 0 < len(steps) <= STEPS_MAX or not rising or not (steps[0] > 0 and steps[-1] <= _WHOLE):
        yield (
            f"{path}.steps",
            f"expected 1 to {STEPS_MAX} percentages, each greater than the one before, 100 at most",
        )
    if not 0 < canary.step_s <= STEP_S_MAX:
        yield f"{path}.step_s", f"expected more than 0 to {STEP_S_MAX:g} seconds, got {canary.step_s}"
    if not 1 <= canary.calls_min <= CALLS_MIN_MAX:
        yield f"{path}.calls_min", f"expected 1 to {CALLS_MIN_MAX}, got {canary.calls_min}"
    if canary.error_rate_max is None and canary.first_token_p95_s_max is None:
        yield f"{path}.error_rate_max", "a canary needs a limit: this one or first_token_p95_s_max"
    if canary.error_rate_max is not None and not 0 < canary.error_rate_max < 1:
        yield f"{path}.error_rate_max", f"expected more than 0 and less than 1, got {canary.error_rate_max}"
    if canary.first_token_p95_s_max is not None and not 0 < canary.first_token_p95_s_max < float("inf"):
        yield f"{path}.first_token_p95_s_max", "expected more than 0 seconds"


def _model_problem(model: str, models: Sequence[str], path: str) -> Iterator[tuple[str, str]]:
    if model not in models and not model.startswith(ROUTE):
        told = f"expected one of the route's models ({', '.join(models)}) or {ROUTE}NAME"
        yield f"{path}.model", f"{told}, got {model[:80]!r}"


# ------------------------------------------------------------------------------------------------- results


class Sums(Struct, frozen=True):
    count: int
    mean: float
    variance: float


class ModelScores(Protocol):
    """What feedback says of models. Raises Unavailable."""

    async def scores(self, tenant: str, name: str, *, since: datetime) -> Mapping[str, Sums]:
        """By `provider/name`, of calls that began then or later: the newest of them, where they are very many."""
        ...


class ArmSums(Struct, frozen=True, kw_only=True):
    """Of one arm's records. `measures`: cost (of priced calls, in the route's currency), first token and whole answer (ms)."""

    arm: str
    calls: int
    errors: int
    measures: Mapping[str, Sums]
    scores: Mapping[str, Sums] = {}


class CanaryStep(Struct, frozen=True):
    """A step that was taken. `percent` is what the canary gets since."""

    at: datetime
    status: Status
    percent: float
    reason: str


class Feedback(Struct, frozen=True, kw_only=True):
    """What somebody thinks of a call's answer. One for each call and `name`: a later one takes its place."""

    tenant: str
    call_id: str
    name: str
    score: float
    comment: str
    principal: str
