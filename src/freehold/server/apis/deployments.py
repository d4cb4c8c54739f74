"""Deployments and their runs, in Claude Managed Agents' shapes: /v1/deployments, /v1/deployment_runs. What is ours stands under
`freehold`. Source of the other shapes: the types of the `anthropic` SDK, beta.deployments and beta.deployment_runs.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType, field

from freehold.core.deployments import DeploymentRow, DeploymentRun
from freehold.core.errors import BadRequest, Unsupported
from freehold.core.ports import Clock
from freehold.core.schedules import (
    Cron,
    Deployment,
    Message,
    Missed,
    Once,
    Overlap,
    Schedule,
    content_of,
)
from freehold.core.session_log import Created
from freehold.runtime.schedules import next_after, upcoming
from freehold.runtime.schedules_service import DeploymentService
from freehold.server.apis._content import block_of
from freehold.server.apis._event_pages import Moment
from freehold.server.apis._events import UserMessage, parts_of
from freehold.server.apis._named import patched, with_given
from freehold.server.apis._session_shapes import BudgetLimit, budget_shown, cost_max_usd
from freehold.server.operations import Call, Operation

NAME_CHARS_MAX: Final = 256
PAGE_DEFAULT: Final = 20
UPCOMING_MAX: Final = 5


class UserDefineOutcome(Struct, frozen=True, tag="user.define_outcome"):
    """Known, and refused."""


class SystemMessage(Struct, frozen=True, tag="system.message"):
    """Known, and refused."""


Initial = UserMessage | UserDefineOutcome | SystemMessage


class DeployedAgent(Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    version: int | None = None
    type: Literal["agent"] = "agent"


class DeploymentExtra(Struct, frozen=True, forbid_unknown_fields=True):
    """Ours. `at`: one run at that time, in place of a schedule. See core.schedules.Deployment."""

    at: Moment | UnsetType | None = UNSET
    missed: Missed | UnsetType = UNSET
    overlap: Overlap | UnsetType = UNSET
    starting_deadline_s: float | UnsetType | None = UNSET


class DeploymentBody(Struct, frozen=True, forbid_unknown_fields=True):
    """To create and to change: what is left out stays (or takes its default). Of `metadata`, null deletes a key."""

    name: str | UnsetType = UNSET
    agent: str | DeployedAgent | UnsetType = UNSET
    environment_id: str | UnsetType = UNSET
    initial_events: tuple[Initial, ...] | UnsetType = UNSET
    schedule: Cron | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    budget: BudgetLimit | UnsetType | None = UNSET
    resources: tuple[Any, ...] | None = None
    vault_ids: tuple[str, ...] | None = None
    freehold: DeploymentExtra = DeploymentExtra()


class DeploymentShown(Struct, frozen=True, kw_only=True):
    id: str
    type: str = "deployment"
    name: str
    agent: dict[str, Any]
    environment_id: str
    initial_events: tuple[dict[str, Any], ...]
    schedule: dict[str, Any] | None
    description: str | None
    metadata: dict[str, str]
    status: Literal["active", "paused"]
    paused_reason: dict[str, str] | None
    budget: dict[str, Any] | None
    resources: tuple[Any, ...] = ()
    vault_ids: tuple[str, ...] = ()
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None
    freehold: dict[str, Any]


class RunShown(Struct, frozen=True, kw_only=True):
    id: str
    type: str = "deployment_run"
    deployment_id: str
    agent: dict[str, Any]
    trigger_context: dict[str, Any]
    session_id: str | None
    error: dict[str, str] | None
    created_at: datetime
    freehold: dict[str, Any]


class DeploymentPageShown(Struct, frozen=True):
    data: tuple[DeploymentShown, ...]
    next_page: str | None = None


class RunPageShown(Struct, frozen=True):
    data: tuple[RunShown, ...]
    next_page: str | None = None


class ListDeployments(Struct, frozen=True, forbid_unknown_fields=True):
    agent_id: str | None = None
    status: Literal["active", "paused"] | None = None
    include_archived: bool = False
    created_gte: Moment | None = field(name="created_at[gte]", default=None)
    created_lte: Moment | None = field(name="created_at[lte]", default=None)
    limit: int = PAGE_DEFAULT
    page: str | None = None


class ListRuns(Struct, frozen=True, forbid_unknown_fields=True):
    deployment_id: str | None = None
    trigger_type: Literal["schedule", "manual"] | None = None
    has_error: bool | None = None
    created_gt: Moment | None = field(name="created_at[gt]", default=None)
    created_gte: Moment | None = field(name="created_at[gte]", default=None)
    created_lt: Moment | None = field(name="created_at[lt]", default=None)
    created_lte: Moment | None = field(name="created_at[lte]", default=None)
    limit: int = PAGE_DEFAULT
    page: str | None = None


_RUN_ERRORS: Final[Mapping[str, str]] = {
    "not_found": "agent_archived_error",  # a run looks for nothing but its agent
    "rate_limited": "session_rate_limited_error",
    "overloaded": "session_rate_limited_error",
    "limit_reached": "session_rate_limited_error",
    "internal": "unknown_error",
}


def changed(deployment: Deployment, body: DeploymentBody) -> Deployment:
    """Pure. Raises Unsupported for what Claude Managed Agents have and we don't, by its path."""
    for name, ours in (
        ("resources", "declare tools as resources and name them in the agent"),
        ("vault_ids", "declare the credentials with the tools that use them"),
    ):
        if getattr(body, name):
            raise Unsupported(f"not served here: {ours}", field=name)
    if not isinstance(body.name, UnsetType) and not 0 < len(body.name.strip()) <= NAME_CHARS_MAX:
        raise BadRequest(f"expected 1 to {NAME_CHARS_MAX} characters, got {len(body.name)}", field="name")
    given: dict[str, Any] = {
        "title": body.name,
        "description": "" if body.description is None else body.description,
        "environment": body.environment_id,
        "missed": body.freehold.missed,
        "overlap": body.freehold.overlap,
        "starting_deadline_s": body.freehold.starting_deadline_s,
        "cost_max_usd": UNSET if isinstance(body.budget, UnsetType) else cost_max_usd(body.budget),
        "metadata": patched(deployment.metadata, body.metadata),
        "schedule": _schedule(deployment.schedule, body),
    }
    if not isinstance(body.agent, UnsetType):
        agent = DeployedAgent(body.agent) if isinstance(body.agent, str) else body.agent
        given |= {"agent": agent.id, "agent_version": agent.version}
    if not isinstance(body.initial_events, UnsetType):
        given["messages"] = tuple(_message(event, place) for place, event in enumerate(body.initial_events))
    return with_given(deployment, given)


def _schedule(there: Schedule | None, body: DeploymentBody) -> Schedule | None:
    cron, at = body.schedule, body.freehold.at
    if isinstance(cron, Cron) and isinstance(at, datetime):
        raise BadRequest("expected either a schedule or one time, got both", field="freehold.at")
    if isinstance(cron, Cron):
        return cron
    if isinstance(at, datetime):
        return Once(at=at)
    cleared = cron is None or (at is None and isinstance(there, Once))
    return None if cleared else there


def _message(event: Initial, place: int) -> Message:
    path = f"initial_events[{place}]"
    if not isinstance(event, UserMessage):
        raise Unsupported(
            "expected a user.message: what holds for every session belongs to the agent's instructions",
            field=f"{path}.type",
        )
    return parts_of(event.content, path)


def deployment_shown(row: DeploymentRow, now: datetime) -> DeploymentShown:
    deployment, archived = row.deployment, row.archived_at is not None
    paused = row.paused_at is not None and not archived
    schedule = deployment.schedule
    return DeploymentShown(
        id=deployment.name,
        name=deployment.title or deployment.name,
        agent=_agent(deployment.agent, deployment.agent_version),
        environment_id=deployment.environment,
        initial_events=tuple(
            {"type": "user.message", "content": [block_of(part) for part in content_of(message)]}
            for message in deployment.messages
        ),
        schedule=_cron(row, schedule, now) if isinstance(schedule, Cron) else None,
        description=deployment.description or None,
        metadata=deployment.metadata,
        status="paused" if paused else "active",
        paused_reason={"type": "manual"} if paused else None,
        budget=budget_shown(deployment.cost_max_usd) if deployment.cost_max_usd else None,
        created_at=row.created_at,
        updated_at=row.updated_at,
        archived_at=row.archived_at,
        freehold={
            "version": row.version,
            "created_by": row.by,
            "at": schedule.at if isinstance(schedule, Once) else None,
            "missed": deployment.missed,
            "overlap": deployment.overlap,
            "starting_deadline_s": deployment.starting_deadline_s,
            "next_run_at": None if schedule is None or archived else next_after(schedule, row.done_until),
            "last_run_at": row.last_run_at,
        },
    )


def _cron(row: DeploymentRow, schedule: Cron, now: datetime) -> dict[str, Any]:
    coming = () if row.archived_at is not None else islice(upcoming(schedule, now), UPCOMING_MAX)
    return {
        "type": "cron",
        "expression": schedule.expression,
        "timezone": schedule.timezone,
        "last_run_at": row.last_run_at,
        "upcoming_runs_at": list(coming),
    }


def _agent(name: str, version: int | None) -> dict[str, Any]:
    """A version of 0 is none in particular: the newest at each run."""
    return {"type": "agent", "id": name, "version": version or 0}


def run_shown(run: DeploymentRun) -> RunShown:
    code = run.error_code
    context: dict[str, Any] = {"type": "manual"}
    if run.slot is not None:
        context = {"type": "schedule", "scheduled_at": run.slot}
    kind = _RUN_ERRORS.get(code or "", "session_creation_rejected_error")
    return RunShown(
        id=run.id,
        deployment_id=run.deployment,
        agent=_agent(run.agent, run.agent_version),
        trigger_context=context,
        session_id=run.session_id,
        error=None if code is None else {"type": kind, "message": run.error_message or code},
        created_at=run.created_at,
        freehold={"code": code, "missed_count": run.missed_count, "run_by": run.run_by},
    )


_FIELDS: Final[Mapping[str, str]] = {
    "messages": "initial_events",
    "environment": "environment_id",
    "schedule.at": "freehold.at",
    "starting_deadline_s": "freehold.starting_deadline_s",
    "agent_version": "agent.version",
    "title": "name",
}
"""Of a declaration, as this dialect calls them."""


@contextmanager
def _in_their_words() -> Iterator[None]:
    try:
        yield
    except BadRequest as error:
        name, bracket, rest = (error.field or "").partition("[")
        theirs = _FIELDS.get(name)
        if theirs is None:
            raise
        raise BadRequest(error.message, field=f"{theirs}{bracket}{rest}", detail=error.detail) from error


class DeploymentApi:
    def __init__(self, service: DeploymentService, clock: Clock) -> None:
        self._service = service
        self._clock = clock

    async def create(self, call: Call) -> DeploymentShown:
        body: DeploymentBody = call.body
        for name in ("name", "agent", "initial_events"):
            if getattr(body, name) is UNSET:
                raise BadRequest("required, but missing", field=name)
        deployment = changed(Deployment(name="", agent="", messages=()), body)
        with _in_their_words():
            return self._shown(await self._service.create(call.principal, deployment))

    async def update(self, call: Call) -> DeploymentShown:
        body: DeploymentBody = call.body
        there = await self._service.get(call.principal, call.path["deployment_id"])
        deployment = changed(there.deployment, body)
        with _in_their_words():
            return self._shown(await self._service.update(call.principal, there, deployment))

    async def get(self, call: Call) -> DeploymentShown:
        return self._shown(await self._service.get(call.principal, call.path["deployment_id"]))

    async def list(self, call: Call) -> DeploymentPageShown:
        query: ListDeployments = call.query
        if query.include_archived and query.status is not None:
            raise BadRequest("cannot be combined with include_archived", field="status")
        page = await self._service.list(
            call.principal,
            agent=query.agent_id,
            status=query.status,
            archived=query.include_archived,
            created=Created(not_before=query.created_gte, not_after=query.created_lte),
            limit=query.limit,
            cursor=query.page,
        )
        # Off the event loop: when a hundred deployments run next takes some 30 ms to find.
        shown = await asyncio.to_thread(lambda: tuple(map(self._shown, page.rows)))
        return DeploymentPageShown(shown, page.next)

    async def archive(self, call: Call) -> DeploymentShown:
        return self._shown(await self._service.archive(call.principal, call.path["deployment_id"]))

    async def pause(self, call: Call) -> DeploymentShown:
        return self._shown(await self._service.pause(call.principal, call.path["deployment_id"]))

    async def unpause(self, call: Call) -> DeploymentShown:
        return self._shown(await self._service.unpause(call.principal, call.path["deployment_id"]))

    async def run(self, call: Call) -> RunShown:
        key = call.headers.get("idempotency-key")
        return run_shown(
            await self._service.run(call.principal, call.path["deployment_id"], idempotency_key=key)
        )

    async def get_run(self, call: Call) -> RunShown:
        return run_shown(await self._service.get_run(call.principal, call.path["deployment_run_id"]))

    async def runs(self, call: Call) -> RunPageShown:
        query: ListRuns = call.query
        page = await self._service.runs(
            call.principal,
            deployment=query.deployment_id,
            trigger=query.trigger_type,
            failed=query.has_error,
            created=Created(query.created_gt, query.created_gte, query.created_lt, query.created_lte),
            limit=query.limit,
            cursor=query.page,
        )
        return RunPageShown(tuple(run_shown(run) for run in page.rows), page.next)

    def _shown(self, row: DeploymentRow) -> DeploymentShown:
        return deployment_shown(row, self._clock.now())


def operations(service: DeploymentService, clock: Clock) -> list[Operation]:
    api = DeploymentApi(service, clock)
    every, one, runs = "/v1/deployments", "/v1/deployments/{deployment_id}", "/v1/deployment_runs"
    return [
        Operation(method="POST", path=every, id="createDeployment", tag="deployments",
                  summary="Set an agent to work: by a schedule, or by hand.", handler=api.create, body=DeploymentBody,
                  answer=DeploymentShown),
        Operation(method="GET", path=every, id="listDeployments", tag="deployments", summary="Deployments, newest first.",
                  handler=api.list, query=ListDeployments, answer=DeploymentPageShown),
        Operation(method="GET", path=one, id="getDeployment", tag="deployments", summary="A deployment.", handler=api.get,
                  answer=DeploymentShown),
        Operation(method="POST", path=one, id="updateDeployment", tag="deployments",
                  summary="Change a deployment: makes a new version.", handler=api.update, body=DeploymentBody,
                  answer=DeploymentShown),
        Operation(method="POST", path=f"{one}/archive", id="archiveDeployment", tag="deployments",
                  summary="Take out of use; idempotent.", handler=api.archive, answer=DeploymentShown),
        Operation(method="POST", path=f"{one}/pause", id="pauseDeployment", tag="deployments",
                  summary="Begin nothing by schedule until unpaused; idempotent.", handler=api.pause, answer=DeploymentShown),
        Operation(method="POST", path=f"{one}/unpause", id="unpauseDeployment", tag="deployments",
                  summary="Go on with the schedule; idempotent.", handler=api.unpause, answer=DeploymentShown),
        Operation(method="POST", path=f"{one}/run", id="runDeployment", tag="deployments",
                  summary="Run now. Honours Idempotency-Key.", handler=api.run, answer=RunShown),
        Operation(method="GET", path=runs, id="listDeploymentRuns", tag="deployments", summary="Runs, newest first.",
                  handler=api.runs, query=ListRuns, answer=RunPageShown),
        Operation(method="GET", path=f"{runs}/{{deployment_run_id}}", id="getDeploymentRun", tag="deployments",
                  summary="A run: its session, or why there is none.", handler=api.get_run, answer=RunShown),
    ]  # fmt: skip
