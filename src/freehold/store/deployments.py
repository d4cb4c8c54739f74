"""Deployments as kept, on PostgreSQL: implements core.deployments.Deployments. Its statements: _deployment_statements.py.

A slot is dealt with in one transaction: the deployment's row (fenced by its epoch), the run, and the run's session with its first events.
Killed before it commits, nothing happened, and the claim runs out; killed after, all of it did.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from freehold.core.deployments import (
    Dealt,
    DeploymentClaim,
    DeploymentPage,
    DeploymentRow,
    DeploymentRun,
    Deployments,
    DeploymentStatus,
    RunPage,
    Trigger,
)
from freehold.core.errors import BadRequest, Conflict, Internal, NotFound
from freehold.core.schedules import Deployment
from freehold.core.session_log import ANY_TIME, Created, NewSession
from freehold.core.validation import check_limit
from freehold.store import _deployment_statements as statements
from freehold.store._batch import Create
from freehold.store._events import encode
from freehold.store._listen import Changes, Listener
from freehold.store._names import missing
from freehold.store._statements import write_creates
from freehold.store.database import Connection, Database, Row

log = logging.getLogger(__name__)

CLAIM_MAX: Final = 1000
LIST_MAX: Final = 1000
LEASE_S_MAX: Final = 3600.0
RUNS_KEPT: Final = timedelta(days=400)

_decoder: msgspec.json.Decoder[Deployment] = msgspec.json.Decoder(Deployment)


class PostgresDeployments:
    """`wait_until_due` hears of other processes once `listener` runs."""

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._changes = Changes(listener, statements.CHANNEL)

    async def get(self, tenant: str, name: str) -> DeploymentRow:
        rows = await self._database.fetch("reading a deployment", statements.GET, tenant, name)
        if not rows:
            raise await missing(self._database, tenant, "deployment", name)
        return _row(rows[0])

    async def list(
        self,
        tenant: str,
        *,
        agent: str | None = None,
        status: DeploymentStatus | None = None,
        archived: bool = False,
        created: Created = ANY_TIME,
        limit: int = 20,
        cursor: str | None = None,
    ) -> DeploymentPage:
        check_limit(limit, LIST_MAX)
        paused = None if status is None else status == "paused"
        rows = await self._database.fetch(
            "listing deployments",
            statements.LIST,
            *(tenant, agent, paused, archived, *_span(created), *_place(cursor), limit + 1),
        )
        page = tuple(_row(row) for row in rows[:limit])
        more = len(rows) > limit
        return DeploymentPage(
            page, f"{_us(page[-1].created_at)}.{page[-1].deployment.name}" if more else None
        )

    async def pause(self, tenant: str, name: str, *, at: datetime) -> None:
        if not await self._database.fetch("pausing a deployment", statements.PAUSE, tenant, name, at):
            raise await self._not_changed(tenant, name)

    async def unpause(self, tenant: str, name: str) -> None:
        if not await self._database.fetch("unpausing a deployment", statements.UNPAUSE, tenant, name):
            raise await self._not_changed(tenant, name)

    async def _not_changed(self, tenant: str, name: str) -> Conflict:
        await self.get(tenant, name)
        return Conflict(f"deployment {name} is archived: declare it again to use it")

    async def run(self, run: DeploymentRun, session: NewSession | None, *, key: str | None) -> DeploymentRun:
        async def begin(connection: Connection) -> bool:
            return bool(await _begin(connection, [(run, session, key)]))

        if await self._database.in_transaction("running a deployment", begin):
            return run
        rows = await self._database.fetch(
            "reading a run", statements.RUN_OF_KEY, run.tenant, run.deployment, key
        )
        if not rows:
            raise Conflict(f"run {run.id} exists already")
        return _run(rows[0])

    async def get_run(self, tenant: str, run_id: str) -> DeploymentRun:
        rows = await self._database.fetch("reading a run", statements.GET_RUN, tenant, run_id)
        if not rows:
            raise NotFound(f"no deployment run {run_id[:80]!r}")
        return _run(rows[0])

    async def runs(
        self,
        tenant: str,
        *,
        deployment: str | None = None,
        trigger: Trigger | None = None,
        failed: bool | None = None,
        created: Created = ANY_TIME,
        limit: int = 20,
        cursor: str | None = None,
    ) -> RunPage:
        check_limit(limit, LIST_MAX)
        scheduled = None if trigger is None else trigger == "schedule"
        rows = await self._database.fetch(
            "listing runs of deployments",
            statements.RUNS if deployment is None else statements.RUNS_OF_ONE,
            *(tenant, deployment, scheduled, failed, *_span(created), cursor, limit + 1),
        )
        page = tuple(_run(row) for row in rows[:limit])
        return RunPage(page, page[-1].id if len(rows) > limit else None)

    async def claim(
        self, now: datetime, *, limit: int, lease_s: float, after_tenant: str | None = None
    ) -> Sequence[DeploymentClaim]:
        check_limit(limit, CLAIM_MAX)
        if not 0 < lease_s <= LEASE_S_MAX:
            raise BadRequest(
                f"expected more than 0 and at most {LEASE_S_MAX:g} seconds, got {lease_s}", field="lease_s"
            )
        doing, lease = "claiming deployments", timedelta(seconds=lease_s)
        if after_tenant is None:
            rows = await self._database.fetch(doing, statements.CLAIM_FIRST, now, limit, lease)
        else:
            rows = await self._database.fetch(doing, statements.CLAIM_SHARED, now, limit, lease, after_tenant)
        return [claim for row in rows if (claim := _claim(row)) is not None]

    async def deal(self, dealt: Sequence[Dealt]) -> frozenset[tuple[str, str]]:
        in_order = sorted(dealt, key=lambda one: _name(one.claim))

        async def deal(connection: Connection) -> frozenset[tuple[str, str]]:
            rows = await connection.fetch(statements.DEAL, *_columns(in_order))
            valid = frozenset((row["tenant"], row["name"]) for row in rows)
            begun = [
                (one.run, one.session, None)
                for one in in_order
                if one.run is not None and _name(one.claim) in valid
            ]
            await _begin(connection, begun)
            return valid

        return await self._database.in_transaction("dealing with due deployments", deal)

    async def wait_until_due(self, now: datetime, timeout_s: float) -> None:
        async def due_in() -> float | None:
            rows = await self._database.fetch("looking what is due", statements.NEXT_DUE)
            due_at: datetime | None = rows[0]["due_at"]
            return None if due_at is None else (due_at - now).total_seconds()

        await self._changes.wait(timeout_s, due_in)


async def forget_runs(database: Database, *, at_once: int) -> int:
    """How many were forgotten: those that are older than RUNS_KEPT. Ids are in the order of time."""
    count = 0
    while deleted := len(await database.fetch("forgetting old runs", statements.FORGET, RUNS_KEPT, at_once)):
        count += deleted
    return count


async def _begin(
    connection: Connection, begun: Sequence[tuple[DeploymentRun, NewSession | None, str | None]]
) -> frozenset[str]:
    """Writes runs with their sessions, but for those that were there already. The ids of the runs that are new."""
    if not begun:
        return frozenset()
    columns = [[getattr(run, name) for run, _, _ in begun] for name in statements.RUN_COLUMNS]
    rows = await connection.fetch(statements.INSERT_RUNS, *columns, [key for _, _, key in begun])
    new = frozenset(row["id"] for row in rows)
    sessions = [(run, session) for run, session, _ in begun if session is not None and run.id in new]
    if sessions:
        made = await write_creates(connection, [_create(session) for _, session in sessions])
        if len(made.sessions) < len(sessions):
            raise Conflict("a session of that id exists already")
        await connection.execute(
            statements.MARK_SESSIONS,
            [session.row.id for _, session in sessions],
            [run.deployment for run, _ in sessions],
        )
    return new


def _claim(row: Row) -> DeploymentClaim | None:
    """None where this process can't read what is declared, which is nothing against the others: a newer one may."""
    try:
        read = _row(row)
    except Internal as error:
        log.warning("store.deployment.not_read", extra={"deployment": row["name"], "detail": error.detail})
        return None
    return DeploymentClaim(row=read, epoch=row["epoch"], at_work=row["at_work"], queued_at=row["queued_at"])


def _create(session: NewSession) -> Create:
    encoded = encode(session.events)
    change = encoded.change
    row = msgspec.structs.replace(
        session.row, status=change.status or session.row.status, version=len(session.events)
    )
    return Create(row, encoded)


def _columns(dealt: Sequence[Dealt]) -> tuple[Sequence[object], ...]:
    return (
        [one.claim.row.tenant for one in dealt],
        [one.claim.row.deployment.name for one in dealt],
        [one.claim.epoch for one in dealt],
        [one.done_until for one in dealt],
        [one.due_at for one in dealt],
        [one.queued_at for one in dealt],
        [one.run.created_at if one.run is not None and one.run.session_id else None for one in dealt],
    )


def _name(claim: DeploymentClaim) -> tuple[str, str]:
    return claim.row.tenant, claim.row.deployment.name


def _span(created: Created) -> tuple[datetime | None, ...]:
    return created.after, created.not_before, created.before, created.not_after


def _place(cursor: str | None) -> tuple[datetime | None, str | None]:
    if cursor is None:
        return None, None
    at_us, _, name = cursor.partition(".")
    if not at_us.isdecimal() or len(at_us) > 18 or not name:
        raise BadRequest(f"expected a page's `next_page`, got {cursor[:80]!r}", field="page")
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(at_us)), name


def _us(at: datetime) -> int:
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def _row(row: Row) -> DeploymentRow:
    try:
        deployment = _decoder.decode(row["body"])
    except msgspec.MsgspecError as error:
        raise Internal(
            f"deployment {row['name']} cannot be read: it was written by a newer Freehold, or damaged",
            detail=str(error),
        ) from error
    return DeploymentRow(
        tenant=row["tenant"],
        deployment=deployment,
        version=row["version"],
        by=row["created_by"],
        created_at=row["created_at"],
        updated_at=max(row["updated_at"], row["paused_at"] or row["updated_at"]),
        done_until=row["done_until"],
        archived_at=row["archived_at"],
        paused_at=row["paused_at"],
        last_run_at=row["last_run_at"],
    )


def _run(row: Row) -> DeploymentRun:
    return DeploymentRun(**{name: row[name] for name in statements.RUN_COLUMNS})


_IMPLEMENTS: type[Deployments] = PostgresDeployments
