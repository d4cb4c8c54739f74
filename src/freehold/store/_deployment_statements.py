"""The statements of deployments, and what a change of a declaration means for its row.

Slots, claims and leases are in the clock of whoever asks (`$1`); `-infinity` in `due_at` means: look at once.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import msgspec

from freehold.core.errors import LimitReached
from freehold.core.schedules import DEPLOYMENTS_MAX, Deployment, Once
from freehold.store.database import Connection

CHANNEL: Final = "freehold_deployments"
TENANTS_LOOKED_AT: Final = 32

_NOTIFY: Final = f"SELECT pg_notify('{CHANNEL}', '')"
_DECLARE: Final = """
INSERT INTO deployments AS d (tenant, name, agent, schedule, done_until, due_at)
SELECT $1, g.name, g.agent, g.schedule, least(now(), g.before), CASE WHEN g.schedule IS NOT NULL THEN '-infinity'::timestamptz END
FROM unnest($2::text[], $3::text[], $4::text[], $5::timestamptz[]) AS g (name, agent, schedule, before)
ON CONFLICT (tenant, name) DO UPDATE SET
    agent = excluded.agent, schedule = excluded.schedule, archived_at = NULL, epoch = d.epoch + 1,
    paused_at = CASE WHEN d.archived_at IS NULL THEN d.paused_at END,
    due_at = CASE WHEN d.archived_at IS NULL AND d.paused_at IS NOT NULL THEN NULL ELSE excluded.due_at END,
    (done_until, queued_at) = (
        SELECT CASE WHEN anew THEN excluded.done_until ELSE d.done_until END, CASE WHEN NOT anew THEN d.queued_at END
        FROM (SELECT d.archived_at IS NOT NULL OR d.schedule IS DISTINCT FROM excluded.schedule AS anew) AS is_it
    )
"""
# Those of one tenant are declared one after the other, so that each sees how many there are.
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('deployments ' || $1::text, 0))"
_COUNT: Final = "SELECT count(*) FROM deployments WHERE tenant = $1 AND archived_at IS NULL"
_THERE: Final = (
    "SELECT count(*) FROM deployments WHERE tenant = $1 AND archived_at IS NULL AND name = ANY($2::text[])"
)
_ARCHIVE: Final = """
UPDATE deployments SET archived_at = now(), due_at = NULL, queued_at = NULL, epoch = epoch + 1
WHERE tenant = $1 AND name = $2
"""


async def declare(connection: Connection, tenant: str, deployments: Sequence[Deployment]) -> None:
    """In the transaction that writes the declarations. A schedule that is new, or another, begins now; one that stays goes on. A single
    time that was accepted while it was to come, and passes meanwhile, is run.

    Raises LimitReached where the tenant would have too many; those that are there may always be changed.
    """
    if not deployments:
        return
    schedules = [
        None if one.schedule is None else msgspec.json.encode(one.schedule).decode() for one in deployments
    ]
    before = [
        one.schedule.at - timedelta.resolution if isinstance(one.schedule, Once) else None
        for one in deployments
    ]
    names, agents = [one.name for one in deployments], [one.agent for one in deployments]
    await _check_count(connection, tenant, names)
    await connection.execute(_DECLARE, tenant, names, agents, schedules, before)
    await connection.execute(_NOTIFY)


async def _check_count(connection: Connection, tenant: str, names: Sequence[str]) -> None:
    await connection.execute(_LOCK, tenant)
    new = len(names) - await connection.fetchval(_THERE, tenant, names)
    if new and (count := new + await connection.fetchval(_COUNT, tenant)) > DEPLOYMENTS_MAX:
        raise LimitReached(
            f"expected {DEPLOYMENTS_MAX:,} deployments at most (DEPLOYMENTS_MAX; archived ones don't count), these would be {count:,}: archive some"
        )


async def archive(connection: Connection, tenant: str, name: str) -> None:
    await connection.execute(_ARCHIVE, tenant, name)


_STATE: Final = "d.tenant, d.name, d.created_at, d.archived_at, d.paused_at, d.done_until, d.last_run_at, d.queued_at, d.epoch"
_DECLARED: Final = """
JOIN resources r ON (r.tenant, r.kind, r.name) = (d.tenant, 'deployment', d.name)
JOIN resource_versions v ON (v.tenant, v.kind, v.name, v.version) = (r.tenant, r.kind, r.name, r.version)
"""
_ROW: Final = f"SELECT {_STATE}, r.version, r.updated_at, v.body, v.created_by FROM deployments d {_DECLARED}"  # noqa: S608 - our own constants
GET: Final = f"{_ROW} WHERE d.tenant = $1 AND d.name = $2"
LIST: Final = f"""{_ROW}
WHERE d.tenant = $1
  AND ($2::text IS NULL OR d.agent = $2)
  AND ($3::boolean IS NULL OR (d.paused_at IS NOT NULL) = $3)
  AND ($4::boolean OR d.archived_at IS NULL)
  AND ($5::timestamptz IS NULL OR d.created_at > $5) AND ($6::timestamptz IS NULL OR d.created_at >= $6)
  AND ($7::timestamptz IS NULL OR d.created_at < $7) AND ($8::timestamptz IS NULL OR d.created_at <= $8)
  AND ($9::timestamptz IS NULL OR (d.created_at, d.name) < ($9, $10::text))
ORDER BY d.created_at DESC, d.name DESC LIMIT $11
"""
PAUSE: Final = """
UPDATE deployments SET paused_at = coalesce(paused_at, $3), due_at = NULL, queued_at = NULL, epoch = epoch + 1
WHERE tenant = $1 AND name = $2 AND archived_at IS NULL
RETURNING 1
"""
UNPAUSE: Final = f"""
UPDATE deployments SET paused_at = NULL, epoch = epoch + 1,
    due_at = CASE WHEN schedule IS NOT NULL THEN '-infinity'::timestamptz END
WHERE tenant = $1 AND name = $2 AND archived_at IS NULL
RETURNING pg_notify('{CHANNEL}', '')
"""  # noqa: S608 - our own constants

_FIRST: Final = """
SELECT d.tenant, d.name FROM deployments d WHERE d.due_at <= $1 ORDER BY d.due_at LIMIT $2
FOR UPDATE SKIP LOCKED
"""
# The tenants that wait longest, and the next ones behind the last tenant of the claim before, each with its first. Conditions are
# written so that only the index that is meant can serve them: what the planner knows of due_at is always out of date.
_SHARED: Final = f"""
SELECT d.tenant, d.name FROM (
    WITH RECURSIVE hop AS (
        (SELECT n.tenant, 1 AS number FROM deployments n WHERE n.due_at IS NOT NULL AND n.tenant > $4
         ORDER BY n.tenant, n.due_at LIMIT 1)
        UNION ALL
        SELECT n.tenant, h.number + 1 FROM hop h CROSS JOIN LATERAL (
            SELECT n.tenant FROM deployments n WHERE n.due_at IS NOT NULL AND n.tenant > h.tenant
            ORDER BY n.tenant, n.due_at LIMIT 1
        ) AS n
        WHERE h.number < {TENANTS_LOOKED_AT}
    ), tenants AS (
        SELECT tenant FROM hop
        UNION
        SELECT o.tenant FROM (SELECT n.tenant FROM deployments n WHERE n.due_at <= $1 ORDER BY n.due_at LIMIT $2) AS o
    )
    SELECT c.tenant, c.name FROM tenants t CROSS JOIN LATERAL (
        SELECT n.tenant, n.name, n.due_at, row_number() OVER (ORDER BY n.tenant, n.due_at) AS place FROM deployments n
        WHERE n.due_at IS NOT NULL
          AND (n.tenant, n.due_at) >= (t.tenant, '-infinity') AND (n.tenant, n.due_at) <= (t.tenant, $1)
        ORDER BY n.tenant, n.due_at LIMIT $2
    ) AS c
    ORDER BY c.place, c.due_at LIMIT $2
) AS chosen CROSS JOIN LATERAL (
    SELECT n.tenant, n.name FROM deployments n
    WHERE n.tenant = chosen.tenant AND n.name = chosen.name AND (n.due_at <= $1) IS TRUE
    FOR UPDATE SKIP LOCKED
) AS d
"""  # noqa: S608 - our own constants


def _claim(chosen: str) -> str:
    """Need not outlive a crash of the database, so that nobody waits for its disk."""
    return f"""
WITH chosen AS ({chosen}), d AS (
    UPDATE deployments SET due_at = $1 + $3::interval, epoch = deployments.epoch + 1
    FROM chosen WHERE (deployments.tenant, deployments.name) = (chosen.tenant, chosen.name)
    RETURNING deployments.*
)
SELECT {_STATE}, r.version, r.updated_at, v.body, v.created_by, EXISTS (
    SELECT FROM sessions s WHERE s.tenant = d.tenant AND s.deployment = d.name AND s.status IN ('running', 'waiting', 'paused')
) AS at_work, set_config('synchronous_commit', 'off', true)
FROM d {_DECLARED}
"""  # noqa: S608 - our own constants


CLAIM_FIRST: Final = _claim(_FIRST)
CLAIM_SHARED: Final = _claim(_SHARED)

DEAL: Final = """
UPDATE deployments d SET done_until = g.done_until, due_at = g.due_at, queued_at = g.queued_at,
    last_run_at = coalesce(g.run_at, d.last_run_at)
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[])
    AS g (tenant, name, epoch, done_until, due_at, queued_at, run_at)
WHERE d.tenant = g.tenant AND d.name = g.name AND d.epoch = g.epoch AND d.due_at IS NOT NULL
RETURNING d.tenant, d.name
"""
RUN_COLUMNS: Final = (
    "id", "tenant", "deployment", "slot", "created_at", "agent", "agent_version", "session_id", "error_code",
    "error_message", "missed_count", "run_by",
)  # fmt: skip
_RUN: Final = ", ".join(RUN_COLUMNS)
INSERT_RUNS: Final = f"""
INSERT INTO deployment_runs ({_RUN}, key)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::int[], $8::text[], $9::text[],
    $10::text[], $11::int[], $12::text[], $13::text[]
)
ON CONFLICT DO NOTHING
RETURNING id
"""  # noqa: S608 - our own constants
MARK_SESSIONS: Final = """
UPDATE sessions s SET deployment = g.deployment FROM unnest($1::text[], $2::text[]) AS g (id, deployment) WHERE s.id = g.id
"""
RUN_OF_KEY: Final = f"SELECT {_RUN} FROM deployment_runs WHERE tenant = $1 AND deployment = $2 AND key = $3"  # noqa: S608 - our own constants
GET_RUN: Final = f"SELECT {_RUN} FROM deployment_runs WHERE tenant = $1 AND id = $2"  # noqa: S608 - our own constants
_RUNS: Final = f"""
SELECT {_RUN} FROM deployment_runs
WHERE tenant = $1
  AND {{}}
  AND ($3::boolean IS NULL OR (slot IS NOT NULL) = $3)
  AND ($4::boolean IS NULL OR (error_code IS NOT NULL) = $4)
  AND ($5::timestamptz IS NULL OR created_at > $5) AND ($6::timestamptz IS NULL OR created_at >= $6)
  AND ($7::timestamptz IS NULL OR created_at < $7) AND ($8::timestamptz IS NULL OR created_at <= $8)
  AND ($9::text IS NULL OR id < $9)
ORDER BY id DESC LIMIT $10
"""  # noqa: S608 - our own constants
RUNS: Final = _RUNS.format("$2::text IS NULL")
RUNS_OF_ONE: Final = _RUNS.format("deployment = $2")
"""A statement of its own, so that a plan for all is never taken for it: one's few runs are found by their index."""

FORGET: Final = """
DELETE FROM deployment_runs WHERE id = ANY (ARRAY(SELECT id FROM deployment_runs ORDER BY id LIMIT $2)) AND created_at < now() - $1::interval
RETURNING 1
"""
NEXT_DUE: Final = "SELECT min(greatest(due_at, 'epoch')) AS due_at FROM deployments WHERE due_at IS NOT NULL"
"""NULL where none is: `greatest` passes over NULL, so it goes inside."""
