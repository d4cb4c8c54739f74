"""A session's events as the table holds them: a type and JSON bytes. Why not jsonb: docs/decisions/0004.

Large texts stand beside them (_blocks.py); which texts an event has is here.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, get_args

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest, Internal, TooLarge
from freehold.core.messages import (
    Bytes,
    Carried,
    Media,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from freehold.core.session import (
    Compacted,
    ModelAnswered,
    Recorded,
    ResultGiven,
    RowChange,
    SessionEvent,
    ThreadAsks,
    ToolFinished,
    ToolStarted,
    UserSpoke,
    row_change,
)
from freehold.store._blocks import BLOCK_BYTES_MIN, put_back, taken_out
from freehold.store.database import Row

APPEND_BYTES_MAX: Final = 32 * 1024 * 1024
APPEND_EVENTS_MAX: Final = 1000

_TYPES: Final[Mapping[type, str]] = {kind: str(kind.__struct_config__.tag) for kind in get_args(SessionEvent)}

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[SessionEvent] = msgspec.json.Decoder(SessionEvent)


class Encoded(Struct, frozen=True):
    """What one append adds to a log, ready for the statement. `blocks` are large texts that the bodies name, by digest."""

    types: Sequence[str]
    bodies: Sequence[bytes]
    size_bytes: int
    change: RowChange
    blocks: Mapping[str, bytes] = {}


def encode(events: Sequence[SessionEvent]) -> Encoded:
    """Raises BadRequest and TooLarge: here, in the caller's own time, so that a batch never meets what cannot be written."""
    if not 1 <= len(events) <= APPEND_EVENTS_MAX:
        raise BadRequest(
            f"expected 1 to {APPEND_EVENTS_MAX} events in an append, got {len(events)}", field="events"
        )
    types: list[str] = []
    bodies: list[bytes] = []
    blocks: dict[str, bytes] = {}
    size_bytes = 0
    for event in events:
        try:
            body = _encoder.encode(event)
        except UnicodeEncodeError as error:
            raise BadRequest(
                "expected text in Unicode, got a lone surrogate", field="events", detail=str(error)
            ) from error
        size_bytes += len(body)
        if size_bytes > APPEND_BYTES_MAX:
            raise TooLarge(
                f"an append holds at most {APPEND_BYTES_MAX} bytes, this one has more: put large content into the object store"
            )
        if len(body) >= BLOCK_BYTES_MIN or b'"\\u0000' in body:
            body, found = taken_out(body, _texts(event))
            blocks |= found
        types.append(_TYPES[type(event)])
        bodies.append(body)
    return Encoded(types, bodies, size_bytes, row_change(events), blocks)


def _texts(event: SessionEvent) -> Iterator[bytes]:
    """Of an event, what may be large, as its JSON has it."""
    match event:
        case UserSpoke() | ModelAnswered() | ToolFinished() | ResultGiven():
            for part in event.content:
                yield from texts_of(part)
        case ToolStarted():
            yield _encoder.encode(event.arguments)
        case ThreadAsks():
            for call in event.calls:
                yield _encoder.encode(call.arguments)
        case Compacted():
            yield _encoder.encode(event.summary)
        case _:
            pass


def texts_of(part: Part) -> Iterator[bytes]:
    """Of a part, those that may be large enough for a block."""
    match part:
        case Text(text=text) | Refusal(text=text) | Reasoning(text=text):
            yield _encoder.encode(text)
            if isinstance(part, Reasoning) and part.opaque is not None:
                yield _encoder.encode(part.opaque.data)
        case Media(source=Bytes(data)):
            yield _encoder.encode(data)
        case ToolCall():
            yield _encoder.encode(part.arguments)
        case Carried():
            yield bytes(part.block)
        case ToolResult():
            for inner in part.content:
                yield from texts_of(inner)
        case Media():
            pass


def decode(
    session_id: str, rows: Sequence[Row], blocks: Mapping[str, bytes] = MappingProxyType({})
) -> list[Recorded]:
    """From rows with seq, at and body, and the blocks that these name."""
    recorded = []
    for row in rows:
        try:
            event = _decoder.decode(put_back(row["body"], blocks))
        except msgspec.MsgspecError as error:
            raise Internal(
                f"event {row['seq']} of {session_id} cannot be read: it was written by a newer Freehold, or damaged",
                detail=str(error),
            ) from error
        recorded.append(Recorded(row["seq"], row["at"], event))
    return recorded
