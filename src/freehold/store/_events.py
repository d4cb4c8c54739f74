"""A session's events as the table holds them: a type and JSON bytes. Why not jsonb: docs/decisions/0004."""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest, Internal, TooLarge
from freehold.core.session import Recorded, RowChange, SessionEvent, row_change
from freehold.store.database import Row

APPEND_BYTES_MAX: Final = 32 * 1024 * 1024
APPEND_EVENTS_MAX: Final = 1000

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[SessionEvent] = msgspec.json.Decoder(SessionEvent)


class Encoded(Struct, frozen=True):
    """What one append adds to a log, ready for the statement."""

    types: Sequence[str]
    bodies: Sequence[bytes]
    size_bytes: int
    change: RowChange


def encode(events: Sequence[SessionEvent]) -> Encoded:
    """Raises BadRequest and TooLarge: here, in the caller's own time, so that a batch never meets what cannot be written."""
    if not 1 <= len(events) <= APPEND_EVENTS_MAX:
        raise BadRequest(
            f"expected 1 to {APPEND_EVENTS_MAX} events in an append, got {len(events)}", field="events"
        )
    try:
        bodies = [_encoder.encode(event) for event in events]
    except UnicodeEncodeError as error:
        raise BadRequest(
            "expected text in Unicode, got a lone surrogate", field="events", detail=str(error)
        ) from error
    size_bytes = sum(map(len, bodies))
    if size_bytes > APPEND_BYTES_MAX:
        raise TooLarge(
            f"an append holds at most {APPEND_BYTES_MAX} bytes, this one has {size_bytes}: put large content into the object store"
        )
    types = [str(type(event).__struct_config__.tag) for event in events]
    return Encoded(types, bodies, size_bytes, row_change(events))


def decode(session_id: str, rows: Sequence[Row]) -> list[Recorded]:
    """From rows with seq, at and body."""
    recorded = []
    for row in rows:
        try:
            event = _decoder.decode(row["body"])
        except msgspec.MsgspecError as error:
            raise Internal(
                f"event {row['seq']} of {session_id} cannot be read: it was written by a newer Freehold, or damaged",
                detail=str(error),
            ) from error
        recorded.append(Recorded(row["seq"], row["at"], event))
    return recorded
