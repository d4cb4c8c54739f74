"""Runtime: begins the runs of deployments: those whose time has come, and those that are asked for by hand.

Level-triggered: a worker asks what is due, whatever became of the worker before. A slot is dealt with in one transaction, session included;
a claim only keeps other workers from the same work, and who comes second changes nothing. Runs act with the rights, at that moment, of
whoever declared the deployment's current version. Why a run could not begin is told in the run; the schedule goes on.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final, assert_never

from msgspec import Struct
from msgspec.structs import replace

from freehold.background import again_and_again, background
from freehold.core import ids
from freehold.core.deployments import Dealt, DeploymentClaim, DeploymentRow, DeploymentRun, Deployments
from freehold.core.environments import DEFAULT
from freehold.core.errors import FreeholdError, Internal
from freehold.core.ports import Clock, Principals
from freehold.core.schedules import Deployment, content_of
from freehold.core.session import SessionSetup
from freehold.core.session_log import NewSession
from freehold.runtime.declared import Declarations
from freehold.runtime.schedules_plan import Idle, Run, Wait, decide
from freehold.runtime.sessions import Sessions

log = logging.getLogger(__name__)

CLAIMED_AT_ONCE_MAX: Final = 128
TOGETHER_MAX: Final = 16
"""So many slots are looked at before others of this process have their turn: some 3 ms."""

ERROR_CHARS_MAX: Final = 1000
LEASE_S: Final = 10.0
"""How long the slots that a dead worker had just claimed wait for another."""

WRITES_MAX: Final = 4
"""Attempts within a claim's lease."""

WRITE_AGAIN_S: Final = 0.2
"""After the first of them; twice as long after each."""

POLL_S: Final = 5.0


class ScheduleMeans(Struct, frozen=True, kw_only=True):
    kept: Deployments
    sessions: Sessions
    declarations: Declarations
    principals: Principals
    clock: Clock


class Scheduler:
    def __init__(self, means: ScheduleMeans) -> None:
        self._means = means
        self._last_tenant: str | None = None
        """Of the claim before, where it could not take all: then tenants have to share."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with background(again_and_again(self._begin_or_wait, "schedules"), "schedules"):
            yield

    async def _begin_or_wait(self) -> None:
        if not await self.begin_due():
            await self._means.kept.wait_until_due(self._means.clock.now(), POLL_S)

    async def begin_due(self) -> int:
        """Deals with what is due now, CLAIMED_AT_ONCE_MAX deployments at most. How many there were."""
        means = self._means
        claims = await means.kept.claim(
            means.clock.now(), limit=CLAIMED_AT_ONCE_MAX, lease_s=LEASE_S, after_tenant=self._last_tenant
        )
        full = len(claims) == CLAIMED_AT_ONCE_MAX
        self._last_tenant = max(claim.row.tenant for claim in claims) if full else None
        dealt: list[Dealt | None] = []
        for start in range(0, len(claims), TOGETHER_MAX):
            dealt += await asyncio.gather(*map(self._deal, claims[start : start + TOGETHER_MAX]))
            await asyncio.sleep(0)
        await self._write([one for one in dealt if one is not None])
        return len(claims)

    async def _write(self, dealt: Sequence[Dealt]) -> None:
        """Together; and where they cannot be written together, each alone, so that only who is wrong fails."""
        if not dealt:
            return
        try:
            await self._written(dealt)
        except FreeholdError as error:
            if error.retryable:
                raise
            for one in dealt:
                await self._write_alone(one)

    async def _written(self, dealt: Sequence[Dealt]) -> None:
        """Tried again while the claims hold, also where it is not known whether it was written: a slot has its run once."""
        for attempt in range(WRITES_MAX - 1):
            try:
                await self._means.kept.deal(dealt)
                return
            except FreeholdError as error:
                if not error.retryable:
                    raise
                log.warning("schedules.write_again", extra={"count": len(dealt), "error": str(error)})
            await asyncio.sleep(WRITE_AGAIN_S * 2**attempt)
        await self._means.kept.deal(dealt)

    async def _write_alone(self, dealt: Dealt) -> None:
        try:
            try:
                await self._means.kept.deal([dealt])
            except FreeholdError as error:
                if error.retryable or dealt.run is None:
                    raise
                failed = _failed(dealt.run, error.code, error.message)
                await self._means.kept.deal([replace(dealt, run=failed, session=None)])
        except FreeholdError as error:
            name = dealt.claim.row.deployment.name
            log.warning("schedules.put_off", extra={"deployment": name, "error": str(error)})

    async def _deal(self, claim: DeploymentClaim) -> Dealt | None:
        """None where it has to be tried again: then the claim runs out. One deployment's fault is not the others'."""
        name = claim.row.deployment.name
        try:
            return await self._decided(claim, self._means.clock.now())
        except FreeholdError as error:
            log.warning("schedules.put_off", extra={"deployment": name, "error": str(error)})
        except Exception:
            log.exception("schedules.crashed", extra={"deployment": name})
        return None

    async def _decided(self, claim: DeploymentClaim, now: datetime) -> Dealt:
        decision = decide(claim, now)
        match decision:
            case Idle(done_until=done_until, due_at=due_at):
                return Dealt(claim=claim, done_until=done_until, due_at=due_at)
            case Wait(done_until=done_until, due_at=due_at):
                return Dealt(claim=claim, done_until=done_until, due_at=due_at, queued_at=now)
            case Run():
                run, session = await self._run(claim.row, decision, now)
                return Dealt(
                    claim=claim, done_until=decision.slot, due_at=decision.due_at, run=run, session=session
                )
            case _ as unreachable:
                assert_never(unreachable)

    async def _run(
        self, row: DeploymentRow, decision: Run, now: datetime
    ) -> tuple[DeploymentRun, NewSession | None]:
        empty = self._empty(row, now, by=row.by, slot=decision.slot, missed=decision.missed_count)
        if decision.refused is not None:
            return _failed(empty, *decision.refused), None
        return await self._begun(row, empty)

    async def begin_by_hand(self, row: DeploymentRow, *, by: str, key: str | None) -> DeploymentRun:
        """Whether it is paused or at work does not matter. Raises what is worth trying again (Unavailable)."""
        empty = self._empty(row, self._means.clock.now(), by=by)
        run, session = await self._begun(row, empty)
        return await self._means.kept.run(run, session, key=key)

    def _empty(
        self, row: DeploymentRow, now: datetime, *, by: str, slot: datetime | None = None, missed: int = 0
    ) -> DeploymentRun:
        deployment = row.deployment
        return DeploymentRun(
            id=ids.new("drun", self._means.clock),
            tenant=row.tenant,
            deployment=deployment.name,
            agent=deployment.agent,
            agent_version=deployment.agent_version or 0,
            created_at=now,
            run_by=by,
            slot=slot,
            missed_count=missed,
        )

    async def _begun(
        self, row: DeploymentRow, empty: DeploymentRun
    ) -> tuple[DeploymentRun, NewSession | None]:
        """The run with its session, or with the cause that there is none. Raises what is worth trying again."""
        try:
            session = await self._session(row)
        except FreeholdError as error:
            if error.retryable:
                raise
            return _failed(empty, error.code, str(error)), None
        except Exception:  # One deployment's fault is not the others': told in its run, logged once.
            log.exception("schedules.crashed", extra={"deployment": empty.deployment, "run": empty.id})
            message = f"something went wrong here; the log has it under {empty.id}"
            return _failed(empty, Internal.code, message), None
        made = session.row
        return replace(empty, session_id=made.id, agent_version=made.agent_version), session

    async def _session(self, row: DeploymentRow) -> NewSession:
        deployment, means = row.deployment, self._means
        principal = await means.principals.current(row.tenant, row.by)
        version = deployment.agent_version
        declared = await means.declarations.agent_in_use(row.tenant, deployment.agent, version=version)
        return await means.sessions.prepared(
            principal,
            deployment.agent,
            declared=declared,
            title=deployment.title or deployment.name,
            inputs=[content_of(message) for message in deployment.messages],
            setup=_setup(deployment),
        )


def _setup(deployment: Deployment) -> SessionSetup | None:
    environment = None if deployment.environment == DEFAULT else deployment.environment
    if environment is None and deployment.cost_max_usd is None:
        return None
    return SessionSetup(environment=environment, cost_max_usd=deployment.cost_max_usd)


def _failed(run: DeploymentRun, code: str, message: str) -> DeploymentRun:
    return replace(run, session_id=None, error_code=code, error_message=message[:ERROR_CHARS_MAX])
