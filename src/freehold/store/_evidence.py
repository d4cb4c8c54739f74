"""Store: what is kept of approvals beyond a session's deletion: what people were asked, what they decided, and what ran on it.

Copied in the transaction that deletes the session, by whomever it is deleted, where a retention policy says so. Whole: the blocks
that its events name go with the session.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import msgspec
from msgspec import Struct

from freehold.core.retaining import Evidence
from freehold.core.retention import Retention
from freehold.core.session import (
    ApprovalDecided,
    AwaitsApproval,
    CallAwaited,
    Recorded,
    SessionEvent,
    ToolStarted,
)
from freehold.store import _blocks
from freehold.store._events import decode
from freehold.store.database import Connection, Database, Row

_EVENTS: Final = """
SELECT e.session_id, e.seq, e.at, e.body FROM events e
WHERE e.session_id = ANY ($1::text[]) AND e.type IN ('call_awaited', 'approval_decided', 'tool_started')
ORDER BY e.session_id, e.seq
"""
_READ_BLOCKS: Final = "SELECT digest, body FROM blocks WHERE tenant = $1 AND digest = ANY ($2::text[])"
_KEEP: Final = """
INSERT INTO approval_evidence (session_id, seq, tenant, agent, at, body, keep_until)
SELECT k.session_id, k.seq, s.tenant, s.agent, k.at, k.body, now() + k.lasts
FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::bytea[], $5::interval[]) AS k (session_id, seq, at, body, lasts)
JOIN sessions s ON s.id = k.session_id
ON CONFLICT DO NOTHING
"""
_READ: Final = """
SELECT session_id, seq, agent, at, body, keep_until FROM approval_evidence
WHERE tenant = $1 AND ($2::text IS NULL OR session_id = $2) ORDER BY session_id DESC, seq LIMIT $3
"""
_FORGET: Final = """
DELETE FROM approval_evidence WHERE ctid = ANY (ARRAY (SELECT ctid FROM approval_evidence WHERE keep_until < now() LIMIT $1)) RETURNING 1
"""
_POLICIES: Final = """
SELECT v.body FROM resources r
JOIN resource_versions v ON (v.tenant, v.kind, v.name, v.version) = (r.tenant, r.kind, r.name, r.version)
WHERE r.tenant = $1 AND r.kind = 'retention' AND NOT r.archived ORDER BY r.name
"""
_JUDGED: Final = """
SELECT min(r.name) FILTER (WHERE r.hold) AS held_by, max(r.evidence_days) AS evidence_days
FROM sessions s JOIN jsonb_to_recordset($3::jsonb) AS r (
    name text, kinds text[], agents text[], metadata jsonb, statuses text[], hold boolean, evidence_days float8
) ON s.kind = ANY (r.kinds) AND (r.agents IS NULL OR s.agent = ANY (r.agents)) AND s.metadata @> r.metadata
  AND (r.statuses IS NULL OR CASE WHEN s.archived_at IS NULL THEN s.status ELSE 'archived' END = ANY (r.statuses))
WHERE s.tenant = $1 AND s.id = $2
"""
FORGOTTEN_MAX: Final = 10_000

_encoder: Final = msgspec.json.Encoder()
_policy: Final = msgspec.json.Decoder(Retention)


async def policies(connection: Connection, tenant: str) -> Sequence[Retention]:
    return [_policy.decode(row["body"]) for row in await connection.fetch(_POLICIES, tenant)]


def rules(declared: Sequence[Retention]) -> str:
    """As the statements take them: JSON, what is left out in it null."""
    return _encoder.encode([
        {
            "name": one.name,
            "kinds": one.kinds,
            "agents": one.agents or None,
            "metadata": one.metadata,
            "statuses": one.statuses or None,
            "days": one.days,
            "hold": one.hold,
            "waiting_days": one.waiting_days,
            "evidence_days": one.evidence_days,
        }
        for one in declared
    ]).decode()


class Judged(Struct, frozen=True):
    """What the policies say of one session: which one holds it (empty: none), and how long evidence is kept of it."""

    held_by: str
    evidence_days: float | None


async def judged(connection: Connection, tenant: str, session_id: str) -> Judged:
    declared = await policies(connection, tenant)
    if not declared:
        return Judged("", None)
    row = await connection.fetchrow(_JUDGED, tenant, session_id, rules(declared))
    return Judged(row["held_by"] or "", row["evidence_days"])


async def keep(connection: Connection, tenant: str, days: Mapping[str, float]) -> Mapping[str, int]:
    """Of these sessions, which are about to be deleted, for so many days. How many events of each."""
    rows = await connection.fetch(_EVENTS, list(days)) if days else []
    digests = sorted({digest for row in rows for digest in _blocks.named_in(row["body"])})
    blocks = (
        {row["digest"]: row["body"] for row in await connection.fetch(_READ_BLOCKS, tenant, digests)}
        if digests
        else {}
    )
    asked: set[tuple[str, str]] = set()
    kept: list[Row] = []
    for row in rows:
        [recorded] = decode(row["session_id"], [row], blocks)
        if _is_evidence(row["session_id"], recorded.event, asked):
            kept.append(row)
    if kept:
        await connection.execute(
            _KEEP,
            [row["session_id"] for row in kept],
            [row["seq"] for row in kept],
            [row["at"] for row in kept],
            [_blocks.put_back(row["body"], blocks) for row in kept],
            [timedelta(days=days[row["session_id"]]) for row in kept],
        )
    counts: dict[str, int] = {}
    for row in kept:
        counts[row["session_id"]] = counts.get(row["session_id"], 0) + 1
    return counts


def _is_evidence(session_id: str, event: SessionEvent, asked: set[tuple[str, str]]) -> bool:
    """`asked` grows by the calls that people were asked about."""
    match event:
        case CallAwaited(call_id=call_id, awaits=AwaitsApproval()):
            asked.add((session_id, call_id))
            return True
        case ApprovalDecided():
            return True
        case ToolStarted(call_id=call_id):
            return (session_id, call_id) in asked
        case _:
            return False


async def read(database: Database, tenant: str, *, session_id: str | None, limit: int) -> Sequence[Evidence]:
    rows = await database.fetch("reading kept approvals", _READ, tenant, session_id, limit)
    found = []
    for row in rows:
        [recorded] = decode(row["session_id"], [row])
        found.append(
            Evidence(
                session_id=row["session_id"],
                agent=row["agent"],
                recorded=Recorded(recorded.seq, recorded.at, recorded.event),
                keep_until=row["keep_until"],
            )
        )
    return found


async def forget(database: Database) -> int:
    count = 0
    while deleted := len(await database.fetch("forgetting kept approvals", _FORGET, FORGOTTEN_MAX)):
        count += deleted
    return count
