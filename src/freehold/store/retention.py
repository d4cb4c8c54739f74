"""Store: which sessions have been kept long enough, by the declared policies, and letting go of them: implements core/retaining.py.

Deleting itself is _deletions.py, what is kept of approvals _evidence.py. When it is done is not decided here (runtime/retaining.py).
"""

from collections.abc import Sequence
from typing import Final

from freehold.core.ports import Objects
from freehold.core.retaining import Evidence, Gone, PolicySurvey, RetentionRun, RetentionStore, Waiting
from freehold.store import _deletions, _evidence
from freehold.store.database import Connection, Database

RESPONSES_DAYS: Final = 30.0
DELETED_MAX: Final = 200
"""In one transaction."""

# $1 is the tenant, $2 the policies (_evidence.rules), $3 the configuration's days, $4 those of kept responses. For each session: what the policies that match say
# together, and which of them decides. Only those old enough for the shortest time are looked at, by an index.
_JUDGED: Final = """
WITH rules AS (
    SELECT * FROM jsonb_to_recordset($2::jsonb) AS r (
        name text, kinds text[], agents text[], metadata jsonb, statuses text[], days float8, hold boolean, waiting_days float8,
        evidence_days float8
    )
), judged AS (
    SELECT s.id, s.due_at, s.updated_at, k.hold, k.evidence_days,
           coalesce(k.days, CASE s.kind WHEN 'agent' THEN $3::float8 WHEN 'response' THEN $4::float8 END) AS days,
           s.forks_count > 0 OR s.kind = 'response' AND EXISTS (SELECT FROM sessions f WHERE f.origin_id = s.id) AS forked,
           coalesce(k.policy, '') AS policy
    FROM sessions s CROSS JOIN LATERAL (
        SELECT coalesce(bool_or(r.hold), false) AS hold, max(r.days) AS days, max(r.evidence_days) AS evidence_days,
               (array_agg(r.name ORDER BY r.hold DESC, r.days DESC NULLS LAST) FILTER (WHERE r.hold OR r.days IS NOT NULL))[1] AS policy
        FROM rules r
        WHERE s.kind = ANY (r.kinds) AND (r.agents IS NULL OR s.agent = ANY (r.agents)) AND s.metadata @> r.metadata
          AND (r.statuses IS NULL OR CASE WHEN s.archived_at IS NULL THEN s.status ELSE 'archived' END = ANY (r.statuses))
    ) AS k
    WHERE s.tenant = $1 AND s.status IN ('idle', 'cancelled') {old_enough}
)
"""
_OLD: Final = "AND s.due_at < now() - make_interval(secs => 86400 * least((SELECT min(days) FROM rules), $3::float8, $4::float8))"
_DUE: Final = "NOT hold AND days IS NOT NULL AND due_at < now() - make_interval(secs => 86400 * days)"
_WAITING: Final = """
WITH rules AS (
    SELECT * FROM jsonb_to_recordset($2::jsonb) AS r (name text, kinds text[], agents text[], metadata jsonb, waiting_days float8)
    WHERE r.waiting_days IS NOT NULL
)
SELECT s.id, s.version, k.policy FROM sessions s CROSS JOIN LATERAL (
    SELECT max(r.waiting_days) AS days, (array_agg(r.name ORDER BY r.waiting_days DESC))[1] AS policy
    FROM rules r WHERE s.kind = ANY (r.kinds) AND (r.agents IS NULL OR s.agent = ANY (r.agents)) AND s.metadata @> r.metadata
) AS k
WHERE s.tenant = $1 AND s.status IN ('waiting', 'paused') AND s.updated_at < now() - make_interval(secs => 86400 * k.days)
ORDER BY s.updated_at
"""
_SURVEY: Final = f"""{_JUDGED.format(old_enough="")}
SELECT policy, count(*) AS sessions, count(*) FILTER (WHERE {_DUE} AND NOT forked) AS due,
       count(*) FILTER (WHERE {_DUE} AND forked) AS forked, min(updated_at) AS oldest_at
FROM judged GROUP BY policy ORDER BY policy
"""  # noqa: S608 - our own constants
_ALL_DUE: Final = f"""{_JUDGED.format(old_enough=_OLD)}
SELECT id, policy, evidence_days FROM judged WHERE {_DUE} AND NOT forked ORDER BY due_at LIMIT $5
"""  # noqa: S608 - our own constants
_LOCK: Final = """
SELECT id FROM sessions WHERE id = ANY ($1::text[]) AND status IN ('idle', 'cancelled') AND forks_count = 0 ORDER BY id
FOR UPDATE SKIP LOCKED
"""
_TENANTS: Final = "SELECT DISTINCT tenant FROM sessions ORDER BY tenant"
_NOTE: Final = """
INSERT INTO retention_runs (tenant, policy, by, deleted, ended, evidence)
SELECT $1, * FROM unnest($2::text[], $3::text[], $4::int[], $5::int[], $6::int[])
"""
_RUNS: Final = """
SELECT at, policy, by, deleted, ended, evidence FROM retention_runs WHERE tenant = $1 ORDER BY id DESC LIMIT $2
"""


class PostgresRetention:
    """`responses_days`: how long kept responses are, where no policy says otherwise. Conversations are kept until somebody deletes them."""

    def __init__(
        self, database: Database, objects: Objects, *, responses_days: float = RESPONSES_DAYS
    ) -> None:
        self._database = database
        self._objects = objects
        self._responses_days = responses_days

    async def tenants(self) -> Sequence[str]:
        return [row["tenant"] for row in await self._database.fetch("listing tenants", _TENANTS)]

    async def survey(self, tenant: str, *, default_days: float | None) -> Sequence[PolicySurvey]:
        async def look(connection: Connection) -> Sequence[PolicySurvey]:
            declared = await _evidence.policies(connection, tenant)
            rules = _evidence.rules(declared)
            decided = {
                row["policy"]: row
                for row in await connection.fetch(_SURVEY, tenant, rules, default_days, self._responses_days)
            }
            waiting = [row["policy"] for row in await connection.fetch(_WAITING, tenant, rules)]
            names = ["", *(one.name for one in declared)]
            return [
                PolicySurvey(
                    policy=name,
                    waiting_due=waiting.count(name),
                    sessions=row["sessions"] if (row := decided.get(name)) else 0,
                    due=row["due"] if row else 0,
                    forked=row["forked"] if row else 0,
                    oldest_at=row["oldest_at"] if row else None,
                )
                for name in names
            ]

        return await self._database.in_transaction("looking which sessions are due", look)

    async def due(self, tenant: str, *, default_days: float | None, limit: int) -> Sequence[tuple[str, str]]:
        async def look(connection: Connection) -> Sequence[tuple[str, str]]:
            rules = _evidence.rules(await _evidence.policies(connection, tenant))
            rows = await connection.fetch(_ALL_DUE, tenant, rules, default_days, self._responses_days, limit)
            return [(row["id"], row["policy"]) for row in rows]

        return await self._database.in_transaction("looking which sessions are due", look)

    async def waiting_due(self, tenant: str, *, limit: int) -> Sequence[Waiting]:
        async def look(connection: Connection) -> Sequence[Waiting]:
            rules = _evidence.rules(await _evidence.policies(connection, tenant))
            rows = await connection.fetch(f"{_WAITING} LIMIT $3", tenant, rules, limit)
            return [Waiting(row["id"], row["policy"], row["version"]) for row in rows]

        return await self._database.in_transaction("looking which sessions wait too long", look)

    async def delete_due(self, tenant: str, *, default_days: float | None) -> Sequence[Gone]:
        async def write(connection: Connection) -> Sequence[Gone]:
            rules = _evidence.rules(await _evidence.policies(connection, tenant))
            due = await connection.fetch(
                _ALL_DUE, tenant, rules, default_days, self._responses_days, DELETED_MAX
            )
            held = {row["id"] for row in await connection.fetch(_LOCK, [row["id"] for row in due])}
            # Between looking and locking somebody may have written to one of them: look again, at what nobody can change now.
            again = await connection.fetch(
                _ALL_DUE, tenant, rules, default_days, self._responses_days, DELETED_MAX
            )
            gone = {row["id"]: row for row in again if row["id"] in held}
            wanted = {
                id_: row["evidence_days"] for id_, row in gone.items() if row["evidence_days"] is not None
            }
            kept = await _evidence.keep(connection, tenant, wanted)
            if gone:
                await _deletions.gone(connection, list(gone))
            counts: dict[str, Gone] = {}
            for id_, row in gone.items():
                before = counts.get(row["policy"], Gone(row["policy"], 0, 0))
                counts[row["policy"]] = Gone(
                    row["policy"], before.deleted + 1, before.evidence + kept.get(id_, 0)
                )
            return list(counts.values())

        return await self._database.in_transaction("deleting old sessions", write)

    async def note(self, tenant: str, run: Sequence[RetentionRun]) -> None:
        await self._database.fetch(
            "noting what was deleted",
            _NOTE,
            tenant,
            [one.policy for one in run],
            [one.by for one in run],
            [one.deleted for one in run],
            [one.ended for one in run],
            [one.evidence for one in run],
        )

    async def runs(self, tenant: str, *, limit: int) -> Sequence[RetentionRun]:
        rows = await self._database.fetch("reading what was deleted", _RUNS, tenant, limit)
        return [RetentionRun(**row) for row in rows]

    async def evidence(self, tenant: str, *, session_id: str | None, limit: int) -> Sequence[Evidence]:
        return await _evidence.read(self._database, tenant, session_id=session_id, limit=limit)

    async def sweep(self) -> int:
        return await _deletions.sweep(self._database, self._objects)

    async def forget_evidence(self) -> int:
        return await _evidence.forget(self._database)


_IMPLEMENTS: type[RetentionStore] = PostgresRetention
