"""Experiments: how a route's arms do (`GET /v1/experiments/{name}`), and what people think of answers (`POST /v1/feedback`).

Actions: `experiment:Get` on `experiment/NAME`, `feedback:Create` on `feedback/*`. Intervals hold at every look (core/confidence.py).
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from math import isfinite
from typing import Final

from msgspec import Struct

from freehold.core import confidence, ids
from freehold.core.confidence import Interval, Mean, Proportion
from freehold.core.errors import BadRequest, NotFound
from freehold.core.experiments import (
    BASELINE,
    CANARY,
    SHADOW,
    ArmSums,
    CanaryStep,
    Experiment,
    Feedback,
    Sums,
)
from freehold.core.policy import authorize
from freehold.core.ports import CallRecords, Experiments, Resources
from freehold.core.resources import check_name
from freehold.core.routes import Route
from freehold.server.operations import Call, Operation

FLUSH_S_MAX: Final = 5.0
COMMENT_CHARS_MAX: Final = 2000
SCORE_MAX: Final = 1e9


class ExperimentQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`since`: calls that began then, or later; with an offset. Without it: since the experiment is declared as it is."""

    since: datetime | None = None


class EstimateShown(Struct, frozen=True):
    """Of `count` observations. The truth is between `low` and `high` at all looks together with 95 %; null where nothing can be said yet."""

    count: int
    estimate: float | None
    low: float | None
    high: float | None


class DifferenceShown(Struct, frozen=True):
    """Of this arm over the first one. `decided`: zero is outside."""

    estimate: float
    low: float | None
    high: float | None
    decided: bool


class ArmShown(Struct, frozen=True):
    """`error_rate`, `cost` (a call's, in the route's currency), `first_token_ms` (of streams), `whole_ms`, and `score.NAME` of feedback."""

    arm: str
    percent: float | None
    calls: int
    errors: int
    measures: dict[str, EstimateShown]
    differences: dict[str, DifferenceShown]


class StepShown(Struct, frozen=True):
    at: datetime
    status: str
    percent: float
    reason: str


class ExperimentShown(Struct, frozen=True):
    """`steps` are its canary's, newest first. `waiting_calls` of this server are not counted yet."""

    name: str
    since: datetime
    currency: str
    arms: tuple[ArmShown, ...]
    steps: tuple[StepShown, ...]
    waiting_calls: int


class FeedbackBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`call_id` is what an answer's header `x-freehold-call-id` says. A later score of the same `name` takes its place."""

    call_id: str
    score: float
    name: str = "score"
    comment: str = ""


class FeedbackShown(Struct, frozen=True):
    call_id: str
    name: str
    score: float


class ExperimentApi:
    def __init__(self, kept: Experiments, records: CallRecords, resources: Resources) -> None:
        self._kept = kept
        self._records = records
        self._resources = resources

    async def get(self, call: Call) -> ExperimentShown:
        query: ExperimentQuery = call.query
        name, tenant = call.path["name"], call.principal.tenant
        authorize(call.principal, "experiment:Get", f"experiment/{name}")
        if query.since is not None and query.since.tzinfo is None:
            raise BadRequest("expected an offset, as in 2026-11-21T00:00:00Z", field="since")
        found = await self._resources.get(tenant, "route", name)
        route = found.resource
        if not isinstance(route, Route) or (experiment := route.experiment) is None:
            raise NotFound(f"the route {name} declares no experiment")
        since = query.since or await self._began(tenant, route)
        await self._arrive()
        sums = await self._kept.sums(tenant, name, since=since, currency=route.currency)
        steps = await self._kept.steps(tenant, name) if experiment.canary is not None else ()
        return ExperimentShown(
            name, since.astimezone(UTC), route.currency, _arms(experiment, sums, steps),
            tuple(StepShown(one.at, one.status, one.percent, one.reason) for one in steps),
            self._records.waiting_count,
        )  # fmt: skip

    async def add(self, call: Call) -> FeedbackShown:
        body: FeedbackBody = call.body
        authorize(call.principal, "feedback:Create", "feedback/*")
        ids.check("call", body.call_id, field="call_id")
        check_name(body.name)
        if not isfinite(body.score) or abs(body.score) > SCORE_MAX:
            raise BadRequest(f"expected a number from -{SCORE_MAX:g} to {SCORE_MAX:g}", field="score")
        if len(body.comment) > COMMENT_CHARS_MAX or "\0" in body.comment:
            raise BadRequest(f"expected text of at most {COMMENT_CHARS_MAX} characters", field="comment")
        feedback = Feedback(
            tenant=call.principal.tenant,
            call_id=body.call_id,
            name=body.name,
            score=body.score,
            comment=body.comment,
            principal=call.principal.id,
        )
        if not await self._kept.add(feedback):
            await self._arrive()
            if not await self._kept.add(feedback):
                raise NotFound(
                    "no such call; one that has just ended is known after a second", field="call_id"
                )
        return FeedbackShown(body.call_id, body.name, body.score)

    async def _arrive(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S_MAX):
                await self._records.flush()

    async def _began(self, tenant: str, route: Route) -> datetime:
        """Since when the experiment is declared as it is, whatever else of the route has changed."""
        versions = sorted(
            await self._resources.versions(tenant, "route", route.name), key=lambda one: -one.version
        )
        began = versions[0].updated_at
        for one in versions:
            if not isinstance(one.resource, Route) or one.resource.experiment != route.experiment:
                break
            began = one.updated_at
        return began


def _arms(
    experiment: Experiment, sums: Sequence[ArmSums], steps: Sequence[CanaryStep]
) -> tuple[ArmShown, ...]:
    """Those declared in their order, then whatever else is on record: arms of an earlier declaration."""
    by_name = {one.arm: one for one in sums}
    declared = _declared(experiment, steps)
    names = [*declared, *(name for name in by_name if name not in declared)]
    empty = ArmSums(arm="", calls=0, errors=0, measures={})
    every = {name: _observed(by_name.get(name, empty)) for name in names}
    first = every[names[0]]
    return tuple(
        ArmShown(
            name,
            declared.get(name),
            by_name.get(name, empty).calls,
            by_name.get(name, empty).errors,
            {measure: _estimate(one) for measure, one in every[name].items()},
            {} if name == names[0] else _differences(first, every[name]),
        )
        for name in names
    )


def _declared(experiment: Experiment, steps: Sequence[CanaryStep]) -> dict[str, float]:
    """Name to percentage. Whatever the others are compared with comes first."""
    if experiment.canary is not None:
        percent = steps[0].percent if steps else 0.0
        arms = {BASELINE: 100.0 - percent, CANARY: percent}
    else:
        arms = {one.called: one.percent for one in experiment.arms} or {BASELINE: 100.0}
    return arms | {f"{SHADOW}{one.model}": one.percent for one in experiment.shadows}


def _observed(one: ArmSums) -> dict[str, Proportion | Mean]:
    observed: dict[str, Proportion | Mean] = {"error_rate": Proportion(one.calls, one.errors)}
    observed |= {name: _mean(sums) for name, sums in one.measures.items()}
    return observed | {f"score.{name}": _mean(sums) for name, sums in one.scores.items()}


def _mean(sums: Sums) -> Mean:
    return Mean(sums.count, sums.mean, sums.variance * sums.count)


def _estimate(one: Proportion | Mean) -> EstimateShown:
    return EstimateShown(one.count, one.estimate if one.count else None, *_ends(one.interval()))


def _differences(
    first: Mapping[str, Proportion | Mean], other: Mapping[str, Proportion | Mean]
) -> dict[str, DifferenceShown]:
    told = {}
    for name, one in other.items():
        against = first.get(name)
        if against is not None and against.count and one.count:
            found = confidence.difference(against, one)
            told[name] = DifferenceShown(found.estimate, *_ends(found.interval), found.decided)
    return told


def _ends(interval: Interval) -> tuple[float | None, float | None]:
    return (
        interval.low if isfinite(interval.low) else None,
        interval.high if isfinite(interval.high) else None,
    )


def operations(kept: Experiments, records: CallRecords, resources: Resources) -> list[Operation]:
    api = ExperimentApi(kept, records, resources)
    return [
        Operation(method="GET", path="/v1/experiments/{name}", id="getExperiment", tag="routes", handler=api.get,
                  summary="How the arms of a route's experiment do, with intervals that hold at every look.",
                  query=ExperimentQuery, answer=ExperimentShown),
        Operation(method="POST", path="/v1/feedback", id="createFeedback", tag="routes", handler=api.add,
                  summary="Score the answer to a call.", body=FeedbackBody, answer=FeedbackShown),
    ]  # fmt: skip
