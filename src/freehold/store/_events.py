"""A session's events as the table holds them: a type and JSON bytes. Why not jsonb: docs/decisions/0004.

Large texts stand beside them (_blocks.py); which texts an event has is here.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, get_args

import msgspec
from msgspec import Raw, Struct

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
from freehold.core.response_facts import OF_OTHER_KINDS, ItemAdded, ResponseAsked, ResponseEnded
from freehold.core.session import (
    AwaitsSession,
    CallAwaited,
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
ALONG_EVENTS_MAX: Final = 20_000
"""What an answer adds to its conversation, item by item: as many as its request had."""

_TYPES: Final[Mapping[type, str]] = {kind: str(kind.__struct_config__.tag) for kind in get_args(SessionEvent)}

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[SessionEvent] = msgspec.json.Decoder(SessionEvent)


class Encoded(Struct, frozen=True):
    """What one append adds to a log, ready for the statement. `blocks` are large texts that the bodies name, by digest. `items` are ids by
    which clients may refer to what is said, with the place (1, 2 ...) of the event that says it."""

    types: Sequence[str]
    bodies: Sequence[bytes]
    size_bytes: int
    change: RowChange
    blocks: Mapping[str, bytes] = {}
    items: Sequence[tuple[int, str]] = ()


def encode(events: Sequence[SessionEvent], *, events_max: int = APPEND_EVENTS_MAX) -> Encoded:
    """Raises BadRequest and TooLarge: here, in the caller's own time, so that a batch never meets what cannot be written."""
    if not 1 <= len(events) <= events_max:
        raise BadRequest(f"expected 1 to {events_max} events in an append, got {len(events)}", field="events")
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
    items = _items(events) if type(events[-1]) in OF_OTHER_KINDS else ()
    return Encoded(types, bodies, size_bytes, row_change(events), blocks, items)


def _items(events: Sequence[SessionEvent]) -> Sequence[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for place, event in enumerate(events, 1):
        if type(event) is ItemAdded:
            found.append((place, event.id))
        elif type(event) is ResponseEnded:
            found += [(place, item_id) for item_id in dict.fromkeys(event.item_ids)]
    return found


def item_ids_in(body: bytes) -> Sequence[str]:
    """Of an event's bytes as they are kept: the ids of what it says."""
    return [item_id for _, item_id in _items([_decoder.decode(body)])]


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
        case CallAwaited(awaits=AwaitsSession(task=task)):
            yield _encoder.encode(task)
        case Compacted():
            yield _encoder.encode(event.summary)
        case ResponseAsked():
            yield from _values(event.input, _ARRAY)
            yield from _values(event.head, _FIELDS)
        case ResponseEnded():
            if event.asked is not None:
                yield from _texts(event.asked)
            yield from _values(event.output, _ARRAY)
            yield from _values(event.head, _FIELDS)
        case ItemAdded():
            yield bytes(event.item)
        case _:
            pass


_ARRAY: Final = msgspec.json.Decoder(list[Raw])
_FIELDS: Final = msgspec.json.Decoder(dict[str, Raw])


def _values(
    given: Raw, decoder: "msgspec.json.Decoder[list[Raw]] | msgspec.json.Decoder[dict[str, Raw]]"
) -> Iterator[bytes]:
    """Of an array or object, each value by itself: what stands in many is kept once."""
    if len(bytes(given)) >= BLOCK_BYTES_MIN:
        found = decoder.decode(given)
        yield from map(bytes, found.values() if isinstance(found, dict) else found)


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
