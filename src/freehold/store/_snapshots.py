"""Store: what a session's log said up to some event, so that a long one need not be read from its beginning. The newest one only.

A snapshot is a shortcut, never the truth: one of another format, or damaged, is not there. Its large texts are blocks, the same that
the session's events name. When to take one is not decided here (runtime/journal.py).
"""

import copy
import hashlib
import logging
from functools import cache
from typing import Final

import msgspec
from msgspec import Struct

from freehold.core.errors import Internal
from freehold.core.messages import Message
from freehold.core.session_log import Lease
from freehold.core.session_state import STATE_FORMAT, SessionState
from freehold.store import _blocks
from freehold.store._events import texts_of
from freehold.store.database import Connection, Database

SNAPSHOT_BYTES_MAX: Final = 64 * 1024 * 1024
"""Without its blocks. A session with more to be shown is read from its log."""

log = logging.getLogger(__name__)

_READ: Final = "SELECT seq, body FROM snapshots WHERE session_id = $1 AND format = $2"
# Whoever deletes the session waits for us, or we find nothing to keep it for.
_HELD: Final = """
SELECT FROM sessions WHERE id = $1 AND owner = $2 AND epoch = $3 AND version >= $4 FOR KEY SHARE
"""
_KEEP: Final = """
INSERT INTO snapshots (session_id, tenant, seq, format, body) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (session_id) DO UPDATE SET seq = excluded.seq, format = excluded.format, body = excluded.body, at = now()
WHERE snapshots.seq < excluded.seq OR snapshots.format <> excluded.format
"""

_encoder: Final = msgspec.json.Encoder()


class _Snapshot(Struct):
    """The messages apart, so that each has its large texts taken out by itself."""

    state: SessionState
    messages: list[Message]


_decoder: Final = msgspec.json.Decoder(_Snapshot)


@cache
def format_of_state() -> str:
    """Another one as soon as any field of the state is."""
    schema = msgspec.json.encode(msgspec.json.schema(SessionState), order="sorted")
    return f"{STATE_FORMAT}.{hashlib.sha256(schema).hexdigest()[:16]}"


def encode(state: SessionState) -> tuple[bytes, dict[str, bytes]]:
    """And the blocks that it names."""
    blocks: dict[str, bytes] = {}
    messages = []
    for message in state.messages:
        body, found = _blocks.taken_out(
            _encoder.encode(message), [text for part in message.content for text in texts_of(part)]
        )
        messages.append(body)
        blocks |= found
    rest = copy.copy(state)
    rest.messages = []
    shown = [] if state.last_answer is None else [*state.last_answer.content]
    queued = [part for _, spoken in state.queued for part in spoken.content]
    body, found = _blocks.taken_out(
        _encoder.encode(rest), [text for part in (*shown, *queued) for text in texts_of(part)]
    )
    return b'{"state":%s,"messages":[%s]}' % (body, b",".join(messages)), blocks | found


def decode(body: bytes) -> SessionState:
    """Raises MsgspecError."""
    snapshot = _decoder.decode(body)
    snapshot.state.messages = snapshot.messages
    return snapshot.state


async def read(database: Database, session_id: str) -> SessionState | None:
    rows = await database.fetch("reading a snapshot", _READ, session_id, format_of_state())
    if not rows:
        return None
    try:
        blocks = await _blocks.named_by(database, [session_id], rows)
        return decode(_blocks.put_back(rows[0]["body"], blocks))
    except (msgspec.MsgspecError, Internal) as error:
        log.warning("store.snapshot.unreadable", extra={"session": session_id, "detail": str(error)})
        return None


async def keep(database: Database, lease: Lease, state: SessionState) -> None:
    body, blocks = encode(state)
    if len(body) > SNAPSHOT_BYTES_MAX:
        return

    async def write(connection: Connection) -> None:
        if await connection.fetch(_HELD, lease.session_id, lease.owner, lease.epoch, state.seq):
            await _blocks.keep(connection, lease.session_id, lease.tenant, blocks)
            await connection.execute(
                _KEEP, lease.session_id, lease.tenant, state.seq, format_of_state(), body
            )

    await database.in_transaction("keeping a snapshot", write)
