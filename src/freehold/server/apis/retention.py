"""Retention: what the declared policies would let go of, letting go of it now, what went, and what is kept of it. Ours alone."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from freehold.core.ports import Resources
from freehold.core.retaining import PolicySurvey, RetentionRun
from freehold.core.retention import Retention
from freehold.runtime.retaining import Retaining
from freehold.server.apis._events import shown
from freehold.server.operations import Call, Operation


class PolicyShown(Struct, frozen=True, kw_only=True):
    """`name` is empty for the configuration's own. Counts are of now: `due` would be deleted, `waiting_due` ended."""

    name: str
    days: float | None
    hold: bool
    waiting_days: float | None
    evidence_days: float | None
    sessions: int
    due: int
    forked: int
    waiting_due: int
    oldest_at: datetime | None


class DueShown(Struct, frozen=True):
    session_id: str
    policy: str


class RetentionPlan(Struct, frozen=True):
    policies: tuple[PolicyShown, ...]
    due: tuple[DueShown, ...]


class RunList(Struct, frozen=True):
    data: tuple[RetentionRun, ...]


class EvidenceShown(Struct, frozen=True, kw_only=True):
    session_id: str
    agent: str
    keep_until: datetime
    event: dict[str, Any]


class EvidenceList(Struct, frozen=True):
    data: tuple[EvidenceShown, ...]


class GetPlan(Struct, frozen=True, forbid_unknown_fields=True):
    """So many of the sessions that are due are named."""

    limit: int = 100


class ListRuns(Struct, frozen=True, forbid_unknown_fields=True):
    limit: int = 100


class ListEvidence(Struct, frozen=True, forbid_unknown_fields=True):
    session_id: str | None = None
    limit: int = 1000


class Run(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class RetentionApi:
    def __init__(self, retaining: Retaining, resources: Resources) -> None:
        self._retaining = retaining
        self._resources = resources

    async def plan(self, call: Call) -> RetentionPlan:
        query: GetPlan = call.query
        surveys = await self._retaining.survey(call.principal)
        due = await self._retaining.due(call.principal, limit=query.limit)
        listed = await self._resources.list(call.principal.tenant, "retention")
        declared = {one.resource.name: one.resource for one in listed if isinstance(one.resource, Retention)}
        return RetentionPlan(
            tuple(self._shown(one, declared.get(one.policy)) for one in surveys),
            tuple(DueShown(session_id, policy) for session_id, policy in due),
        )

    def _shown(self, survey: PolicySurvey, declared: Retention | None) -> PolicyShown:
        policy = declared or Retention(name="", days=self._retaining.default_days)
        return PolicyShown(
            name=survey.policy,
            days=policy.days,
            hold=policy.hold,
            waiting_days=policy.waiting_days,
            evidence_days=policy.evidence_days,
            sessions=survey.sessions,
            due=survey.due,
            forked=survey.forked,
            waiting_due=survey.waiting_due,
            oldest_at=survey.oldest_at,
        )

    async def run(self, call: Call) -> RunList:
        return RunList(tuple(await self._retaining.run(call.principal)))

    async def runs(self, call: Call) -> RunList:
        query: ListRuns = call.query
        return RunList(tuple(await self._retaining.runs(call.principal, limit=query.limit)))

    async def evidence(self, call: Call) -> EvidenceList:
        query: ListEvidence = call.query
        found = await self._retaining.evidence(call.principal, session_id=query.session_id, limit=query.limit)
        return EvidenceList(
            tuple(
                EvidenceShown(
                    session_id=one.session_id,
                    agent=one.agent,
                    keep_until=one.keep_until,
                    event=shown(one.session_id, one.recorded, ours=True)[0].body,
                )
                for one in found
            )
        )


def operations(retaining: Retaining, resources: Resources) -> Sequence[Operation]:
    api = RetentionApi(retaining, resources)
    return [
        Operation(method="GET", path="/v1/retention", id="planRetention", tag="retention", handler=api.plan, query=GetPlan,
                  summary="Policies, and what a run would let go of now; changes nothing.", answer=RetentionPlan),
        Operation(method="POST", path="/v1/retention/run", id="runRetention", tag="retention", handler=api.run, body=Run,
                  summary="Let go now of what has been kept long enough.", answer=RunList),
        Operation(method="GET", path="/v1/retention/runs", id="listRetentionRuns", tag="retention", handler=api.runs,
                  query=ListRuns, summary="How many sessions went, by which policy, newest first.", answer=RunList),
        Operation(method="GET", path="/v1/retention/evidence", id="listEvidence", tag="retention", handler=api.evidence,
                  query=ListEvidence, summary="Approvals kept of sessions that are gone.", answer=EvidenceList),
    ]  # fmt: skip
