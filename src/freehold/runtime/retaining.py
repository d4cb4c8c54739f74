"""Runtime: lets go of sessions that have been kept long enough, and ends those that wait too long, by the declared policies.

Each process tries, every hour or so; the rows decide (store/retention.py), so two of them do nothing twice. Whatever went is counted, by
policy, for whoever asks later. Actions: `retention:Read` and `retention:Run` on `retention/*`.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final

from freehold.background import background
from freehold.core.errors import Conflict, FreeholdError, NotFound
from freehold.core.jitter import jittered
from freehold.core.policy import Principal, authorize
from freehold.core.ports import Clock
from freehold.core.retaining import Evidence, PolicySurvey, RetentionRun, RetentionStore
from freehold.core.session import CancelRequested
from freehold.core.session_log import SessionLog
from freehold.runtime.inputs import check_limit

EVERY_S: Final = 3600.0
ENDED_MAX: Final = 1000
"""Of those that wait, in one run; the rest is for the next."""
LISTED_MAX: Final = 1000

log = logging.getLogger(__name__)


class Retaining:
    """`default_days` is the configuration's; None: for ever."""

    def __init__(
        self, store: RetentionStore, sessions: SessionLog, clock: Clock, *, default_days: float | None
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._clock = clock
        self.default_days = default_days

    async def survey(self, principal: Principal) -> Sequence[PolicySurvey]:
        """What a run would do now."""
        authorize(principal, "retention:Read", "retention/*")
        return await self._store.survey(principal.tenant, default_days=self.default_days)

    async def due(self, principal: Principal, *, limit: int) -> Sequence[tuple[str, str]]:
        """Which sessions it would delete, and by which policy (empty: the configuration), the longest unwritten first."""
        authorize(principal, "retention:Read", "retention/*")
        check_limit(limit, LISTED_MAX)
        return await self._store.due(principal.tenant, default_days=self.default_days, limit=limit)

    async def run(self, principal: Principal) -> Sequence[RetentionRun]:
        """Now, without waiting for its hour. What became of how many, by policy."""
        authorize(principal, "retention:Run", "retention/*")
        done = await self._run(principal.tenant, by=principal.id)
        await self._store.sweep()
        return done

    async def runs(self, principal: Principal, *, limit: int) -> Sequence[RetentionRun]:
        authorize(principal, "retention:Read", "retention/*")
        check_limit(limit, LISTED_MAX)
        return await self._store.runs(principal.tenant, limit=limit)

    async def evidence(
        self, principal: Principal, *, session_id: str | None, limit: int
    ) -> Sequence[Evidence]:
        """What is kept of approvals in sessions that are gone."""
        authorize(principal, "retention:Read", "retention/*")
        check_limit(limit, LISTED_MAX)
        return await self._store.evidence(principal.tenant, session_id=session_id, limit=limit)

    def running(self) -> AbstractAsyncContextManager["asyncio.Task[None]"]:
        return background(self._hourly(), "retention")

    async def _hourly(self) -> None:
        while True:
            await asyncio.sleep(jittered(EVERY_S))
            try:
                for tenant in await self._store.tenants():
                    await self._run(tenant, by="")
                await self._store.sweep()
                await self._store.forget_evidence()
            except FreeholdError as error:
                log.warning("retention.failed", extra={"detail": error.detail})

    async def _run(self, tenant: str, *, by: str) -> Sequence[RetentionRun]:
        deleted: dict[str, int] = {}
        evidence: dict[str, int] = {}
        ended = await self._end_waiting(tenant)
        while gone := await self._store.delete_due(tenant, default_days=self.default_days):
            for one in gone:
                deleted[one.policy] = deleted.get(one.policy, 0) + one.deleted
                evidence[one.policy] = evidence.get(one.policy, 0) + one.evidence
        now = self._clock.now()
        done = [
            RetentionRun(
                at=now,
                policy=policy,
                by=by,
                deleted=deleted.get(policy, 0),
                ended=ended.get(policy, 0),
                evidence=evidence.get(policy, 0),
            )
            for policy in sorted({*deleted, *ended})
        ]
        if done:
            await self._store.note(tenant, done)
            for run in done:
                log.info(
                    "retention.done",
                    extra={
                        "tenant": tenant,
                        "policy": run.policy,
                        "deleted": run.deleted,
                        "ended": run.ended,
                    },
                )
        return done

    async def _end_waiting(self, tenant: str) -> dict[str, int]:
        """One that was written to since is left alone."""
        ended: dict[str, int] = {}
        for one in await self._store.waiting_due(tenant, limit=ENDED_MAX):
            request = CancelRequested(
                scope="session", by=f"retention/{one.policy}", reason="nobody has written to it for too long"
            )
            with suppress(Conflict, NotFound):
                await self._sessions.append(one.session_id, [request], expected_version=one.version)
                ended[one.policy] = ended.get(one.policy, 0) + 1
        return ended
