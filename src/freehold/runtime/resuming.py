"""Runtime: what a session's log says now, found out in about the same time however long it is: a snapshot, and what came after it."""

from typing import Final

from msgspec import Struct

from freehold.core.session_log import SessionLog
from freehold.core.session_state import SessionState

READ_PAGE: Final = 500
"""A log of fewer events has no snapshot, and none is asked for."""


class Resumed(Struct, frozen=True):
    """`snapshot_seq` is the event up to which a snapshot is kept; 0: there is none."""

    state: SessionState
    snapshot_seq: int


async def resumed(log: SessionLog, session_id: str) -> Resumed:
    state, snapshot_seq = SessionState(), 0
    page = await log.read(session_id, limit=READ_PAGE)
    if len(page) == READ_PAGE and (found := await log.snapshot(session_id)) is not None:
        state, snapshot_seq = found, found.seq
        page = await log.read(session_id, after=state.seq, limit=READ_PAGE)
    while page:
        for recorded in page:
            state.apply(recorded)
        if len(page) < READ_PAGE:
            break
        page = await log.read(session_id, after=state.seq, limit=READ_PAGE)
    return Resumed(state, snapshot_seq)
