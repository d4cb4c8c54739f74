"""Store: sessions that share the beginning of another's log. Shared by reference: a fork's row says up to where, its segments say
whose table rows its first events are.

Segments are flat: a fork of a fork names whoever holds the events, so a read of the shared part is one statement however long
the line of forks is. Whoever never forked pays nothing: that events are shared shows in a read as a gap before the first one.
Deleting: `referenced` says what must stay; `release` is for whoever deletes a fork.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from freehold.core.errors import Conflict, NotFound, TooLarge
from freehold.core.session_log import SessionRow
from freehold.store import _blocks
from freehold.store._events import Encoded
from freehold.store._statements import WORK_CHANNEL
from freehold.store.database import Connection, Database, Row

SEGMENTS_MAX: Final = 64

_KEY: Final = """
INSERT INTO create_keys (tenant, key, session_id) VALUES ($1, $2, $3) ON CONFLICT (tenant, key) DO NOTHING RETURNING 1
"""
_KEYED: Final = "SELECT session_id FROM create_keys WHERE tenant = $1 AND key = $2"
_SEGMENTS: Final = (
    "SELECT after_seq, up_to_seq, holder_id FROM fork_segments WHERE session_id = $1 ORDER BY after_seq"
)
# In one order everywhere, as the writer locks its batches: no deadlocks.
_LOCK: Final = (
    "SELECT id, tenant, version FROM sessions WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE"
)
_COUNT: Final = "UPDATE sessions SET forks_count = forks_count + 1 WHERE id = ANY($1::text[])"
_INSERT: Final = f"""
WITH made AS (
    INSERT INTO sessions (
        id, tenant, agent, agent_version, status, version, title, model, metadata, created_by, origin_id, origin_seq, setup, when_busy
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $18, $19)
    RETURNING id, tenant, created_at, status
), written AS (
    INSERT INTO events (session_id, seq, tenant, at, type, body)
    SELECT m.id, $12 + e.place, m.tenant, m.created_at, e.type, e.body
    FROM made m CROSS JOIN unnest($13::text[], $14::bytea[]) WITH ORDINALITY AS e (type, body, place)
), shared AS (
    INSERT INTO fork_segments (session_id, after_seq, up_to_seq, holder_id)
    SELECT m.id, s.after_seq, s.up_to_seq, s.holder_id
    FROM made m CROSS JOIN unnest($15::bigint[], $16::bigint[], $17::text[]) AS s (after_seq, up_to_seq, holder_id)
)
SELECT created_at, (SELECT pg_notify('{WORK_CHANNEL}', '') FROM made WHERE status = 'running') AS called FROM made
"""  # noqa: S608 - built from our own constants alone

_SHARED: Final = """
SELECT e.seq, e.at, e.body
FROM fork_segments s CROSS JOIN LATERAL (
    SELECT seq, at, body FROM events
    WHERE session_id = s.holder_id AND seq > greatest(s.after_seq, $2) AND seq <= s.up_to_seq
    ORDER BY seq LIMIT $3
) AS e
WHERE s.session_id = $1 AND s.up_to_seq > $2
ORDER BY e.seq LIMIT $3
"""
_RELEASE: Final = """
WITH gone AS (
    DELETE FROM fork_segments WHERE session_id = ANY($1::text[]) RETURNING session_id, holder_id
), counted AS (
    SELECT holder_id, count(DISTINCT session_id) AS forks FROM gone GROUP BY holder_id
)
UPDATE sessions s SET forks_count = s.forks_count - c.forks FROM counted c WHERE s.id = c.holder_id
"""


class Segment(Struct, frozen=True):
    """The events after `after_seq`, up to `up_to_seq`, are rows of `holder_id`."""

    after_seq: int
    up_to_seq: int
    holder_id: str


def segments_of(origin_id: str, origins: Sequence[Segment], up_to_seq: int) -> list[Segment]:
    """Of a fork at `up_to_seq` of a session that itself shares `origins`. Raises TooLarge."""
    cut = [
        Segment(one.after_seq, min(one.up_to_seq, up_to_seq), one.holder_id)
        for one in origins
        if one.after_seq < up_to_seq
    ]
    own_after = origins[-1].up_to_seq if origins else 0
    if up_to_seq > own_after:
        cut.append(Segment(own_after, up_to_seq, origin_id))
    if len(cut) > SEGMENTS_MAX:
        raise TooLarge(
            f"session {origin_id} is a fork of a fork, {SEGMENTS_MAX} times over: fork one of its origins, or begin a new session"
        )
    return cut


async def fork(database: Database, row: SessionRow, encoded: Encoded, *, key: str | None) -> SessionRow | str:
    """The row as written, or the id of the session that the key made before."""

    async def write(connection: Connection) -> SessionRow | str:
        if key is not None and not await connection.fetch(_KEY, row.tenant, key, row.id):
            return str(await connection.fetchval(_KEYED, row.tenant, key))
        return await _write(connection, row, encoded)

    return await database.in_transaction("forking a session", write)


async def _write(connection: Connection, row: SessionRow, encoded: Encoded) -> SessionRow:
    origin_id, origin_seq = row.origin_id or "", row.origin_seq or 0
    found = [Segment(**one) for one in await connection.fetch(_SEGMENTS, origin_id)]
    segments = segments_of(origin_id, found, origin_seq)
    holders = sorted({one.holder_id for one in segments})
    rows = {one["id"]: one for one in await connection.fetch(_LOCK, sorted({*holders, origin_id}))}
    origin = rows.get(origin_id)
    if origin is None or origin["tenant"] != row.tenant or not rows.keys() >= set(holders):
        raise NotFound(f"no session {origin_id[:80]!r}, or no longer all of it")
    if not 0 < origin_seq <= origin["version"]:
        raise Conflict(
            f"session {origin_id} holds {origin['version']} events: it can't be forked at {origin_seq}"
        )
    await connection.execute(_COUNT, holders)
    made = await connection.fetchrow(
        _INSERT,
        row.id,
        row.tenant,
        row.agent,
        row.agent_version,
        row.status,
        origin_seq + len(encoded.types),
        row.title,
        row.model,
        msgspec.json.encode(row.metadata).decode(),
        row.created_by,
        origin_id,
        origin_seq,
        encoded.types,
        encoded.bodies,
        [one.after_seq for one in segments],
        [one.up_to_seq for one in segments],
        [one.holder_id for one in segments],
        None if row.setup is None else msgspec.json.encode(row.setup).decode(),
        row.when_busy,
    )
    await _blocks.keep(connection, row.id, row.tenant, encoded.blocks)
    at = made["created_at"]
    return msgspec.structs.replace(row, version=origin_seq + len(encoded.types), created_at=at, updated_at=at)


def gap_before(rows: Sequence[Row], after: int) -> bool:
    """Whether events between `after` and the first of `rows` live elsewhere: of its own, a log has no gaps."""
    return bool(rows) and rows[0]["seq"] != after + 1


async def shared(database: Database, session_id: str, *, after: int, limit: int) -> Sequence[Row]:
    """Of the events that the session shares, in order, those after `after`."""
    return await database.fetch(
        "reading what a session shares with its origin", _SHARED, session_id, after, limit
    )


async def referenced(database: Database, session_ids: Sequence[str]) -> frozenset[str]:
    """Those of the sessions whose events are also the beginning of a fork: they must not be deleted.

    To be sure against a fork that comes at the same moment, delete only `WHERE forks_count = 0`: a fork locks and counts there.
    """
    rows = await database.fetch(
        "looking for forks",
        "SELECT id FROM sessions WHERE id = ANY($1::text[]) AND forks_count > 0",
        list(session_ids),
    )
    return frozenset(row["id"] for row in rows)


async def release(connection: Connection, session_ids: Sequence[str]) -> None:
    """For whoever deletes these sessions, in the same transaction: what they shared is no longer held for them."""
    await connection.execute(_RELEASE, list(session_ids))
