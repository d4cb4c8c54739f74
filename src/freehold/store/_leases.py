"""Leases: which worker may write a session's turn. One predicate over the rows says which sessions want a worker.

    status IN ('running', 'waiting') AND due_at <= now()

Whose turn it is among them is decided in the database (claim_sessions, migrations/0008_queues.sql): tenants share what workers have to
give, whoever has how many sessions.

A lease moves `due_at` to its end, releasing moves it back to now, or to when a waiting session wants to be woken: a worker that
died is found by the same look as a session that never had one, so there is no event about a dead worker that could be lost. Time is the database's clock alone.
Claiming and releasing both begin a new epoch: an append under a lease needs to name its epoch, nothing else.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from freehold.core.errors import BadRequest
from freehold.core.session_log import Lease
from freehold.core.validation import check_limit
from freehold.store._statements import WORK_CHANNEL
from freehold.store.database import Database

CLAIM_MAX: Final = 1000
RELEASED_AT_ONCE_MAX: Final = 256
LEASE_S_MAX: Final = 3600.0

_CLAIM: Final = """
SELECT c.session_id, c.of_tenant, c.of_epoch, c.waited_since, (SELECT s.kind FROM sessions s WHERE s.id = c.session_id) AS kind
FROM claim_sessions($1, $2, $3, $4) AS c
"""

_RENEW: Final = """
UPDATE sessions s SET due_at = now() + $4
FROM unnest($2::text[], $3::bigint[]) AS held (id, epoch)
WHERE s.id = held.id AND s.epoch = held.epoch AND s.owner = $1
RETURNING s.id
"""

_RELEASE: Final = f"""
WITH freed AS (
    UPDATE sessions s SET owner = NULL, epoch = s.epoch + 1,
        due_at = CASE s.status WHEN 'waiting' THEN coalesce(s.wake_at, 'infinity') ELSE now() END
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS held (id, owner, epoch)
    WHERE s.id = held.id AND s.epoch = held.epoch AND s.owner = held.owner
    RETURNING s.id, s.status = 'running' OR s.status = 'waiting' AND s.wake_at IS NOT NULL OR EXISTS (
        SELECT FROM session_limits l WHERE l.tenant = s.tenant AND l.agent = s.agent
    ) AS claimable
)
SELECT id, claimable, (SELECT pg_notify('{WORK_CHANNEL}', '') FROM freed WHERE claimable LIMIT 1) AS called FROM freed
"""  # noqa: S608 - built from our own constants alone

_DUE_IN: Final = """
SELECT extract(epoch FROM due_at - now())::float8 AS due_in_s FROM (
    SELECT min(due_at) AS due_at FROM sessions
    WHERE status IN ('running', 'waiting') AND due_at > now() AND due_at < 'infinity'
) AS first
"""

_FREE_ALL: Final = """
UPDATE sessions SET owner = NULL, epoch = epoch + 1, due_at = now()
WHERE owner IS NOT NULL
RETURNING id
"""


async def claim(
    database: Database, owner: str, *, limit: int, lease_s: float, tenant_max: int | None = None
) -> Sequence[Lease]:
    if not owner:
        raise BadRequest("expected a worker's id, got nothing", field="owner")
    check_limit(limit, CLAIM_MAX)
    rows = await database.fetch("claiming sessions", _CLAIM, owner, limit, _duration(lease_s), tenant_max)
    waited = sorted(rows, key=lambda row: row["waited_since"])
    return [
        Lease(row["session_id"], row["of_tenant"], owner, row["of_epoch"], row["waited_since"], row["kind"])
        for row in waited
    ]


async def renew(database: Database, owner: str, leases: Sequence[Lease], *, lease_s: float) -> frozenset[str]:
    if not leases:
        return frozenset()
    in_order = sorted((lease.session_id, lease.epoch) for lease in leases)
    rows = await database.fetch(
        "renewing leases",
        _RENEW,
        owner,
        [session_id for session_id, _ in in_order],
        [epoch for _, epoch in in_order],
        _duration(lease_s),
    )
    return frozenset(row["id"] for row in rows)


async def release(database: Database, leases: Sequence[Lease]) -> Sequence[bool]:
    """Of each, whether a worker may have something to do, now or at a time that none of them knew: its session, or another of an agent with a limit."""
    in_order = sorted(leases, key=lambda lease: lease.session_id)
    rows = await database.fetch(
        "releasing leases",
        _RELEASE,
        [lease.session_id for lease in in_order],
        [lease.owner for lease in in_order],
        [lease.epoch for lease in in_order],
    )
    wanting = {row["id"] for row in rows if row["claimable"]}
    return [lease.session_id in wanting for lease in leases]


async def due_in_s(database: Database) -> float | None:
    """Seconds until some session wants a worker though nobody writes to it: a wait or a lease that ends. None: never."""
    rows = await database.fetch("looking when sessions are due", _DUE_IN)
    due_in: float | None = rows[0]["due_in_s"]
    return due_in


async def free_all(database: Database) -> int:
    """Ends every lease: for a start at which it is certain that no worker is alive. Returns how many there were."""
    return len(await database.fetch("freeing leases", _FREE_ALL))


def _duration(lease_s: float) -> timedelta:
    if not 0 < lease_s <= LEASE_S_MAX:
        raise BadRequest(
            f"expected more than 0 and at most {LEASE_S_MAX:g} seconds, got {lease_s}", field="lease_s"
        )
    return timedelta(seconds=lease_s)
