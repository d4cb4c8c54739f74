"""Limits and budgets across processes: slices of allowances, leased from PostgreSQL. Implements core.ports.AllowanceLeases.

An allowance is a row, and a lease of it one a process. `granted` of all leases together never passes an allowance's size: who asks
locks the row, adds up, and takes at most what is free. What records say was spent is added to `recorded` of the lease that they
name, in the statement that writes them (_record_statements.py); so once a process is gone and its spool empty, what its leases
granted beyond that was never spent, and is free again. Until then it is held: nothing is given out twice.

A spool is the folder in which records wait (spool.py); leases name it and their owner there. Not here: what is asked for, and when.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from freehold.core.allowances import (
    CURRENCY,
    EACH,
    Allowance,
    AllowanceLeases,
    AllowanceState,
    Ask,
    BudgetNews,
    Grant,
    granted,
    like,
    scope_of,
)
from freehold.store._listen import Listener
from freehold.store.database import Connection, Database
from freehold.store.spool import Spool

CHANNEL: Final = "freehold_allowances"
SUBJECTS_MAX: Final = 10_000

_LOCK: Final = "SELECT id, base FROM allowances WHERE id = ANY($1) ORDER BY id FOR UPDATE"
_ADD: Final = """
INSERT INTO allowances (id, tenant, measure, name, subject, label, ends_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
         AS given (id, tenant, measure, name, subject, label, ends_at)
ORDER BY id ON CONFLICT DO NOTHING RETURNING id
"""
_BASE: Final = "UPDATE allowances SET base = $2 WHERE id = $1"
_LEASES: Final = """
SELECT allowance, owner, greatest(granted, recorded) AS granted FROM allowance_leases
WHERE allowance = ANY($1) AND (expires_at IS NULL OR expires_at > now())
"""
_KEEP: Final = """
INSERT INTO allowance_leases AS l (id, allowance, tenant, owner, spool, granted, turn, expires_at)
SELECT id, allowance, tenant, $5, $6, granted, turn, CASE WHEN lasting THEN NULL ELSE now() + $7::interval END
FROM unnest($1::text[], $2::text[], $3::text[], $4::numeric[], $8::bigint[], $9::boolean[])
     AS given (id, allowance, tenant, granted, turn, lasting)
ORDER BY id
ON CONFLICT (id) DO UPDATE SET granted = excluded.granted, turn = excluded.turn, expires_at = excluded.expires_at
WHERE l.turn < excluded.turn
"""
"""A statement that comes late, on a connection that was given up, changes nothing any more: its turn is over."""

_RECALL: Final = f"SELECT pg_notify('{CHANNEL}', $1 || ' ' || id) FROM unnest($2::text[]) AS id"  # noqa: S608 - our own constant
_OWNERS: Final = "SELECT DISTINCT owner FROM allowance_leases WHERE spool = $1 AND owner <> $2"
_LOCK_LEFT: Final = """
SELECT id FROM allowances WHERE id IN (SELECT allowance FROM allowance_leases WHERE spool = $1 AND owner = ANY($2))
ORDER BY id FOR UPDATE
"""
_END: Final = """
WITH gone AS (
    DELETE FROM allowance_leases AS l USING allowances AS a
    WHERE l.spool = $1 AND l.owner = ANY($2) AND a.id = l.allowance
      AND (l.expires_at IS NULL OR l.expires_at < now() OR a.measure = 'calls')
    RETURNING l.allowance, l.recorded
), added AS (
    UPDATE allowances AS a SET base = a.base + gone.recorded
    FROM (SELECT allowance, sum(recorded) AS recorded FROM gone GROUP BY allowance) AS gone WHERE a.id = gone.allowance
)
SELECT count(*) AS count FROM gone
"""
_EXPIRED: Final = "DELETE FROM allowance_leases WHERE expires_at < now() - interval '1 hour'"
_STATES: Final = """
SELECT a.id, a.base + coalesce(sum(l.recorded), 0) AS used,
       coalesce(sum(greatest(l.granted - l.recorded, 0)), 0) AS held
FROM allowances AS a LEFT JOIN allowance_leases AS l
     ON l.allowance = a.id AND (l.expires_at IS NULL OR l.expires_at > now())
WHERE a.id = ANY($1) GROUP BY a.id
"""
_SUBJECTS: Final = """
SELECT DISTINCT a.measure, a.name, a.subject FROM allowances AS a
WHERE a.tenant = $1 AND (a.ends_at IS NULL OR a.ends_at > now()) ORDER BY a.measure, a.name, a.subject LIMIT $2
"""
_TELL: Final[Mapping[BudgetNews, str]] = {
    "threshold_reached": """
UPDATE allowances SET warned_size = $2 WHERE id = $1 AND warned_size IS DISTINCT FROM $2
RETURNING webhook_event(tenant, 'budget.threshold_reached', name)
""",
    "exhausted": """
UPDATE allowances SET exhausted_size = $2 WHERE id = $1 AND exhausted_size IS DISTINCT FROM $2
RETURNING webhook_event(tenant, 'budget.exhausted', name)
""",
}
_SPENT_BY: Final = {
    "organisation": "call_days WHERE $2::text IS NULL",
    "team": "call_days WHERE team = $2",
    "team/*": "call_days WHERE team = $2",
    "user": "call_days WHERE user_name = $2",
    "user/*": "call_days WHERE user_name = $2",
    "key/*": "call_records WHERE key_id = $2",
    "key": """call_records WHERE (key_id = $2 OR key_id IN
              (SELECT k.id FROM api_keys AS k WHERE k.tenant = $1 AND k.name = $2))""",
}


class PostgresAllowances:
    """Without a spool, what a process that is killed had leased is held for good: nobody could say what it spent."""

    def __init__(self, database: Database, listener: Listener, spool: Spool | None, *, owner: str) -> None:
        self._database = database
        self._spool = spool
        self._owner = owner if spool is None else spool.owner
        self._place = "" if spool is None else spool.place
        self._hearers: list[Callable[[str], None]] = []
        listener.on(CHANNEL, self._hear)

    def lease_id(self, allowance_id: str) -> str:
        return f"{allowance_id}.{self._owner}"

    async def lease(self, asks: Sequence[Ask], *, lease_s: float) -> Sequence[Grant]:
        async def work(connection: Connection) -> list[Grant]:
            return await self._lease(connection, asks, lease_s)

        return await self._database.in_transaction("leasing limits and budgets", work)

    async def _lease(self, connection: Connection, asks: Sequence[Ask], lease_s: float) -> list[Grant]:
        ids = [ask.allowance.id for ask in asks]
        bases = await _bases(connection, ids, asks)
        # A statement of its own, and so with a look of its own: it sees whatever was committed before we had the locks.
        others = dict.fromkeys(ids, 0)
        for row in await connection.fetch(_LEASES, ids):
            if row["owner"] != self._owner:
                others[row["allowance"]] += int(row["granted"])
        grants = [
            granted(ask, spoken_for=bases[one], others=others[one])
            for one, ask in zip(ids, asks, strict=True)
        ]
        await connection.execute(
            _KEEP,
            [self.lease_id(one) for one in ids],
            ids,
            [ask.allowance.tenant for ask in asks],
            [Decimal(grant.granted) for grant in grants],
            self._owner,
            self._place,
            timedelta(seconds=lease_s),
            [ask.turn for ask in asks],
            [ask.allowance.measure == "money" for ask in asks],
        )
        recalled = [
            one
            for one, ask, grant in zip(ids, asks, grants, strict=True)
            if ask.waiting and grant.others > 0 and grant.granted < ask.granted + max(1, ask.need)
        ]
        if recalled:
            await connection.execute(_RECALL, self._owner, recalled)
        return grants

    async def end_left(self) -> int:
        spool = self._spool
        if spool is None:
            return 0
        rows = await self._database.fetch(
            "looking for leases that were left", _OWNERS, self._place, self._owner
        )
        if not rows:
            return 0
        gone = await asyncio.to_thread(spool.ended, [row["owner"] for row in rows])
        if not gone:
            return 0

        async def work(connection: Connection) -> int:
            await connection.fetch(_LOCK_LEFT, self._place, gone)
            count: int = await connection.fetchval(_END, self._place, gone)
            await connection.execute(_EXPIRED)
            return count

        return await self._database.in_transaction("ending leases that were left", work)

    async def tell(self, allowance: Allowance, size: int, news: BudgetNews) -> None:
        await self._database.fetch("telling of a budget", _TELL[news], allowance.id, Decimal(size))

    async def states(self, allowances: Sequence[Allowance]) -> Sequence[AllowanceState]:
        ids = [one.id for one in allowances]
        rows = await self._database.fetch("looking at limits and budgets", _STATES, ids)
        found = {row["id"]: AllowanceState(int(row["used"]), int(row["held"])) for row in rows}
        return [found.get(one) or AllowanceState(0, 0) for one in ids]

    async def subjects(self, tenant: str) -> Sequence[tuple[str, str, str]]:
        rows = await self._database.fetch("looking at limits and budgets", _SUBJECTS, tenant, SUBJECTS_MAX)
        return [(row["measure"], row["name"], row["subject"]) for row in rows]

    def on_recall(self, hear: Callable[[str], None]) -> None:
        self._hearers.append(hear)

    def _hear(self, payload: str | None, _server_pid: int) -> None:
        """What was missed is asked for again by whoever waits."""
        sender, _, allowance_id = (payload or "").partition(" ")
        if allowance_id and sender != self._owner:
            for hear in self._hearers:
                hear(allowance_id)


async def _bases(connection: Connection, ids: Sequence[str], asks: Sequence[Ask]) -> Mapping[str, int]:
    """What is spoken for beyond leases, with the rows locked. A new budget's is what its window has cost so far."""
    rows = await connection.fetch(_LOCK, ids)
    if len(rows) < len(ids):
        known = {row["id"] for row in rows}
        new = [ask.allowance for ask in asks if ask.allowance.id not in known]
        added = await connection.fetch(
            _ADD,
            [one.id for one in new],
            [one.tenant for one in new],
            [one.measure for one in new],
            [one.name for one in new],
            [one.subject for one in new],
            [one.window.label for one in new],
            [one.window.end for one in new],
        )
        ours = {row["id"] for row in added}
        for one in new:
            if one.measure == "money" and one.id in ours:
                await connection.execute(_BASE, one.id, await _spent(connection, one))
        rows = await connection.fetch(_LOCK, ids)
    return {row["id"]: int(row["base"]) for row in rows}


async def _spent(connection: Connection, one: Allowance) -> Any:
    """What records of the window say, which no lease has paid for."""
    scope = scope_of(one.scope)
    kind = f"{scope.kind}/*" if scope.name == EACH else scope.kind
    source = _SPENT_BY[kind]
    day = "day" if source.startswith("call_days") else "(at AT TIME ZONE 'UTC')::date"
    begins = (
        ""
        if source.startswith("call_days")
        else " AND ($3::date IS NULL OR at >= $3::date::timestamp AT TIME ZONE 'UTC')"
    )
    return await connection.fetchval(
        f"""
        SELECT coalesce(sum(cost_pico), 0)::numeric FROM {source}{begins}
          AND tenant = $1 AND currency = '{CURRENCY}'
          AND ($3::date IS NULL OR {day} >= $3) AND ($4::date IS NULL OR {day} < $4)
          AND ($5::text IS NULL OR provider || '/' || model LIKE $5)
        """,  # noqa: S608 - our own constants
        one.tenant,
        one.subject or None,
        None if one.window.first is None else one.window.first.date(),
        None if one.window.end is None else one.window.end.date(),
        like(one.models),
    )


_IMPLEMENTS: type[AllowanceLeases] = PostgresAllowances
