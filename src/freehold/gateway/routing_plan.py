"""Gateway: a route's plan for one call: how its models look for this request, who may be asked, and in which order. Never waits.

Who may call a route may call what it chooses, but for models that a policy of theirs denies. Not here: the choice itself
(routing.py), and how the models are asked (routing_course.py).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct, structs

from freehold.core.errors import ContextTooLong, FreeholdError, Overloaded, Unavailable, Unsupported
from freehold.core.experiments import Experiment, assigned
from freehold.core.policy import ALLOW_ALL, Principal, allowed, authorize, evaluate
from freehold.core.ports import Clock
from freehold.gateway.attempts import Answered, Asked, Plan
from freehold.gateway.capabilities import refusal
from freehold.gateway.metering import Meter
from freehold.gateway.residency import unmet
from freehold.gateway.routing import Candidate, Decision, Verdict, Wanted, decide, led, verdicts
from freehold.gateway.routing_course import Course, Pause
from freehold.gateway.routing_table import seen, unasked
from freehold.gateway.slo import Jointly, demoted
from freehold.gateway.targets import Member, Routed, Target

_CHANCE_BYTES: Final = 6
_CHANCE_SPAN: Final = 1 << (8 * _CHANCE_BYTES)


_UNREAD: Final = {streamed: Wanted(streamed=streamed) for streamed in (False, True)}
"""What is known of requests that need not be read for the choice."""


class Look(Struct, frozen=True):
    """One request held against one route: `routed`, which is the one that was asked for, or its arm."""

    routed: Routed
    wanted: Wanted
    candidates: Sequence[Candidate]
    decision: Decision


class Explained(Struct, frozen=True):
    """For people: the verdicts are of all models, the candidates in the route's order. `missing` cannot be asked here at all.

    `routed` is the route that was asked for, or the one that is the request's `arm`.
    """

    routed: Routed
    arm: str | None
    wanted: Wanted
    candidates: Sequence[Candidate]
    verdicts: Sequence[Verdict]
    missing: Sequence[tuple[str, str]]


class Chance:
    """0 to less than 1, from the clock's entropy."""

    __slots__ = ("_clock",)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(self) -> float:
        return int.from_bytes(self._clock.entropy(_CHANCE_BYTES)) / _CHANCE_SPAN


class _Fitness:
    """Why a model is not for this request, whatever its figures. Notes whether it was too long for one."""

    __slots__ = ("_action", "_asked", "_deniers", "_further", "_principal", "too_long")

    def __init__(self, principal: Principal, action: str, asked: Asked[Answered]) -> None:
        self._principal = principal
        self._action = action
        self._asked = asked
        self._deniers = [layer for layer in principal.layers if layer is not ALLOW_ALL]
        """By a policy's own word: what none of them mentions, the route's permission covers."""
        self._further = asked.further_models()
        self.too_long = False

    def denied(self, resource: str) -> bool:
        return any(evaluate(layer, self._action, resource) == "explicitly_denied" for layer in self._deniers)

    def __call__(self, member: Member) -> str | None:
        target = member.target
        if self.denied(target.resource):
            return "a policy denies it"
        for model in self._further:
            if not allowed(self._principal, self._action, f"model/{target.provider.name}/{model}"):
                return f"{target.provider.name}/{model}, which may answer instead, may not be called"
        if why := unmet(self._principal.residency, target.regions, target.labels):
            return why
        try:
            lacking = self._asked.lack_of(target)
        except Unsupported as error:
            return error.message
        if lacking is None or target.facts is None:
            return None
        lack, _ = lacking
        self.too_long = self.too_long or lack.what == "context"
        return refusal("it", lack, target.facts, field="", instead=()).message


def look(
    routed: Routed, principal: Principal, action: str, asked: Asked[Answered], *,
    session_id: str | None, user: str | None, streamed: bool, draw: float, now_s: float, at: datetime,
    canary_percent: float, measured: bool = False,
) -> tuple[Look, _Fitness]:  # fmt: skip
    """Where the request's arm is a route that can take it, it is that one's. Raises what is wrong with the request for everybody."""
    wanted = asked.wanted() if routed.rule.needs_wanted or measured else _UNREAD[streamed]
    anonymous = False
    if routed.rule.strategy == "sticky":
        given = wanted.affinity or session_id if routed.rule.sticky_by == "session" else None
        anonymous = routed.rule.sticky_by == "session" and not given
        wanted = structs.replace(wanted, affinity=given or principal.id)
    fitness = _Fitness(principal, action, asked)
    arm: tuple[str, str | None] | None = None
    if (experiment := routed.route.experiment) is not None:
        key = _key(experiment, wanted.affinity or session_id, user, principal.id)
        arm = assigned(experiment, routed.route.name, key, canary_percent)
        inner = routed.arms.get(arm[1] or "")
        if inner is not None and not fitness.denied(inner.resource):
            found, its_fitness = look(
                inner, principal, action, asked, session_id=session_id, user=user, streamed=streamed, draw=draw,
                now_s=now_s, at=at, canary_percent=0.0, measured=measured,
            )  # fmt: skip
            if found.decision.order:
                return structs.replace(
                    found, decision=structs.replace(found.decision, arm=arm[0])
                ), its_fitness
    candidates = seen(routed, wanted, fitness, now_s=now_s, at=at, measured=measured)
    decision = decide(routed.rule, candidates, wanted, draw)
    if anonymous:
        decision = structs.replace(decision, anonymous=True)
    if (objectives := routed.objectives) is not None:
        models = [one.model for one in candidates]
        decision = demoted(decision, models, objectives.judged(models, now_s, at))
    if experiment is not None and arm is not None:
        canary = None if experiment.canary is None else experiment.canary.model
        decision = led(decision, candidates, *arm, canary)
    return Look(routed, wanted, candidates, decision), fitness


def _key(experiment: Experiment, session: str | None, user: str | None, principal: str) -> str:
    """What stays in its arm; each kind in a space of its own."""
    match experiment.sticky_by:
        case "session" if session:
            return f"session\0{session}"
        case "user" if user:
            return f"user\0{user}"
        case _:
            return f"principal\0{principal}"


def routed_plan(
    meter: Meter, action: str, asked: Asked[Answered], target: Target, routed: Routed, *,
    clock: Clock, pause: Pause, chance: Chance, canary_percent: float,
) -> Plan:  # fmt: skip
    """Raises Forbidden, and where no model can be asked, with every one's reason: Overloaded, ContextTooLong, Unsupported ..."""
    meter.choice, meter.objectives = routed.unasked, routed.objectives
    authorize(meter.principal, action, target.resource)
    now_s = clock.monotonic_s()
    found, fitness = look(
        routed, meter.principal, action, asked, session_id=meter.session_id, user=meter.account.user,
        streamed=meter.streamed, draw=chance() if routed.rule.needs_draw else 0.0, now_s=now_s, at=meter.at,
        canary_percent=canary_percent,
    )  # fmt: skip
    order = found.decision.order
    if not order:
        raise _nobody(routed, found.decision, now_s, too_long=fitness.too_long)
    if (asked_by := found.routed) is not routed:
        outer = routed.objectives
        meter.objectives = asked_by.objectives if outer is None else Jointly(asked_by.objectives, outer)
    course = Course(
        asked_by, found.candidates, found.decision, called=routed.route.name, now_s=now_s, meter=meter, clock=clock,
        pause=pause, chance=chance,
    )  # fmt: skip
    meter.course = course
    asks_max = (1 + asked_by.route.retries.again_max) * len(order)
    return Plan(tuple([asked_by.members[place].target for place in order]), course, asks_max)


def explained(
    routed: Routed, principal: Principal, action: str, asked: Asked[Answered], *,
    user: str | None, draw: float, now_s: float, at: datetime, canary_percent: float,
) -> Explained:  # fmt: skip
    found, _ = look(
        routed,
        principal,
        action,
        asked,
        session_id=None,
        user=user,
        streamed=False,
        draw=draw,
        now_s=now_s,
        at=at,
        canary_percent=canary_percent,
        measured=True,
    )
    told = verdicts(found.routed.rule, found.candidates, found.decision)
    arm = found.decision.arm
    return Explained(found.routed, arm, found.wanted, found.candidates, told, found.routed.missing)


def _nobody(routed: Routed, decision: Decision, now_s: float, *, too_long: bool) -> FreeholdError:
    """The cause that passes soonest goes first."""
    said = (
        f"no model of the route {routed.route.name} can be asked: {'; '.join(unasked(routed, decision.left))}"
    )
    resting = [one.health.comes_back_in_s(now_s) for one in routed.members if one.health.barred(now_s)]
    if resting:
        return Overloaded(said, retry_after_s=max(1.0, min(resting)))
    if any(one.drained for one in routed.members):
        return Unavailable(said, field="model")
    if too_long:
        return ContextTooLong(said, field="model")
    return Unsupported(said, field="model")
