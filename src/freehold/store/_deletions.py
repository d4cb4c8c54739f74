"""Store: sessions that are deleted, by somebody or because their time is over. Gone for everybody at once, swept afterwards.

Deleting takes the session's row, in one short transaction; its events, snapshot, blocks and kept results go in bounded statements, by
whoever finds what is left to sweep. What a fork reads as its own beginning is never deleted: such a session stays until its forks are gone.
Records of calls stay: they are the bill.
"""

import logging
from collections.abc import Sequence
from typing import Final

import asyncpg

from freehold.core.errors import Conflict, NotFound
from freehold.core.ports import Objects
from freehold.store import _evidence, _forks
from freehold.store._events import item_ids_in
from freehold.store.database import Connection, Database

ROWS_MAX: Final = 10_000
NAMED_MAX: Final = 100
"""Events that name items, read at once."""
SWEPT_MAX: Final = 100
"""Sessions, in one go."""
OBJECTS_MAX: Final = 1000
RESULTS_TENANT: Final = ".results"
"""Where runtime/offload.py keeps what was too large."""

log = logging.getLogger(__name__)

_LOCK: Final = "SELECT status, forks_count FROM sessions WHERE tenant = $1 AND id = $2 FOR UPDATE"
_DELETE: Final = """
WITH gone AS (
    DELETE FROM sessions WHERE id = ANY($1::text[]) AND forks_count = 0 RETURNING id, tenant, kind
)
INSERT INTO session_deletions (session_id, tenant, kind) SELECT id, tenant, kind FROM gone
"""
_LEFT: Final = "SELECT session_id, tenant FROM session_deletions ORDER BY at LIMIT $1"
_SWEEP: Final = tuple(
    f"""
    DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE session_id = $1 LIMIT $2)) RETURNING 1
    """  # noqa: S608 - our own tables
    for table in ("events", "append_keys", "snapshots")
)
_SAID: Final = """
SELECT seq, body FROM events
WHERE session_id = $1 AND type IN ('response_ended', 'item_added') AND seq > $2
  AND EXISTS (SELECT FROM session_deletions d WHERE d.session_id = $1 AND d.kind <> 'agent')
ORDER BY seq LIMIT $3
"""
_UNNAME: Final = "DELETE FROM items WHERE tenant = $1 AND item_id = ANY ($3::text[]) AND session_id = $2"
_UNUSE: Final = """
DELETE FROM block_uses WHERE ctid = ANY(ARRAY(SELECT ctid FROM block_uses WHERE session_id = $1 LIMIT $2)) RETURNING digest
"""
_NAMED: Final = "SELECT FROM events WHERE session_id = $1 AND position($2::bytea IN body) > 0 LIMIT 1"
_UNUSE_ONE: Final = "DELETE FROM block_uses WHERE session_id = $1 AND digest = $2"
_UNUSED: Final = """
DELETE FROM blocks b WHERE b.tenant = $1 AND b.digest = ANY($2::text[])
AND NOT EXISTS (SELECT FROM block_uses u WHERE u.tenant = b.tenant AND u.digest = b.digest)
"""
_SWEPT: Final = "DELETE FROM session_deletions WHERE session_id = $1"


async def delete(database: Database, tenant: str, session_id: str) -> None:
    """Raises NotFound; Conflict while it runs or waits, where a fork reads its events, or a policy holds it."""

    async def write(connection: Connection) -> None:
        row = await connection.fetchrow(_LOCK, tenant, session_id)
        if row is None:
            raise NotFound(f"no session {session_id[:80]!r}")
        if row["status"] in {"running", "waiting"}:
            raise Conflict(f"session {session_id} is {row['status']}: cancel it first, then delete it")
        if row["forks_count"]:
            raise Conflict(
                f"session {session_id} has forks that read its events as their own beginning ({row['forks_count']}): delete them first"
            )
        judged = await _evidence.judged(connection, tenant, session_id)
        if judged.held_by:
            raise Conflict(
                f"session {session_id} is held by the retention policy {judged.held_by}: nobody deletes it while that is declared"
            )
        if judged.evidence_days is not None:
            await _evidence.keep(connection, tenant, {session_id: judged.evidence_days})
        await gone(connection, [session_id])

    await database.in_transaction("deleting a session", write)


async def gone(connection: Connection, session_ids: Sequence[str]) -> None:
    """In a transaction that has locked and judged them."""
    await _forks.release(connection, session_ids)
    await connection.execute(_DELETE, list(session_ids))


async def sweep(database: Database, objects: Objects) -> int:
    """What is left of deleted sessions. How many are gone without a trace now. Several may sweep at once."""
    count = 0
    while rows := await database.fetch("looking for deleted sessions", _LEFT, SWEPT_MAX):
        for row in rows:
            await sweep_one(database, objects, row["tenant"], row["session_id"])
            count += 1
    return count


async def sweep_one(database: Database, objects: Objects, tenant: str, session_id: str) -> None:
    after = 0
    while rows := await database.fetch("sweeping a session", _SAID, session_id, after, NAMED_MAX):
        item_ids = [item_id for row in rows for item_id in item_ids_in(row["body"])]
        await database.fetch("sweeping a session", _UNNAME, tenant, session_id, item_ids)
        after = rows[-1]["seq"]
    for statement in _SWEEP:
        while len(await database.fetch("sweeping a session", statement, session_id, ROWS_MAX)) == ROWS_MAX:
            pass
    while await _sweep_blocks(database, tenant, session_id):
        pass
    prefix = f"{tenant}/{session_id}/"
    while (page := await objects.list(RESULTS_TENANT, prefix=prefix, limit=OBJECTS_MAX)).objects:
        for one in page.objects:
            await objects.delete(RESULTS_TENANT, one.key)
    await database.fetch("sweeping a session", _SWEPT, session_id)


async def release_blocks(
    connection: Connection, tenant: str, session_id: str, digests: Sequence[str]
) -> None:
    """For whoever erased an event that named them, in the same transaction: none of the session's that is left names them any more."""
    for digest in digests:
        if not await connection.fetch(_NAMED, session_id, digest.encode()):
            await connection.execute(_UNUSE_ONE, session_id, digest)
            await _drop(connection, tenant, digest)


async def _sweep_blocks(database: Database, tenant: str, session_id: str) -> bool:
    """True when there may be more. What another session takes up at this moment stays."""

    async def write(connection: Connection) -> int:
        rows = await connection.fetch(_UNUSE, session_id, ROWS_MAX)
        try:
            async with connection.transaction():
                await connection.execute(_UNUSED, tenant, [row["digest"] for row in rows])
        except asyncpg.ForeignKeyViolationError:
            # Some are in use again. One by one, so that only these stay.
            for row in rows:
                await _drop(connection, tenant, row["digest"])
        return len(rows)

    return await database.in_transaction("sweeping a session's blocks", write) == ROWS_MAX


async def _drop(connection: Connection, tenant: str, digest: str) -> None:
    try:
        async with connection.transaction():
            await connection.execute(_UNUSED, tenant, [digest])
    except asyncpg.ForeignKeyViolationError:
        log.debug("store.block.used_again", extra={"digest": digest})
