"""Runtime: a session as recorded, whole: its log and what its models were equipped with. In memory, or as lines of JSON in a file.

    {"type": "recording", "version": 1, "session_id": ...}             first
    {"type": "equipment", "digest": ..., "body": ...}                  before the first event that names it
    {"type": "event", "seq": 1, "at": ..., "event": {"type": ...}}     as the log holds it

The same session gives the same bytes.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from freehold.core.errors import BadRequest
from freehold.core.session import ModelAnswered, Recorded, SessionEvent
from freehold.core.session_log import SessionLog
from freehold.runtime.equipment import Equipment, decoded

PAGE: Final = 1000


class Head(Struct, frozen=True, tag="recording", kw_only=True):
    version: Literal[1] = 1
    session_id: str


class EquipmentLine(Struct, frozen=True, tag="equipment"):
    digest: str
    body: Raw


class EventLine(Struct, frozen=True, tag="event"):
    seq: int
    at: datetime
    event: SessionEvent


_LINE: Final[Any] = msgspec.json.Decoder(Head | EquipmentLine | EventLine)
_ENCODER: Final = msgspec.json.Encoder()


class Recording(Struct, frozen=True):
    session_id: str
    events: Sequence[Recorded]
    equipments: Mapping[str, Equipment]


async def lines(log: SessionLog, tenant: str, session_id: str) -> AsyncIterator[bytes]:
    """As a file has it, each with its line's end."""
    yield _ENCODER.encode(Head(session_id=session_id)) + b"\n"
    told: set[str] = set()
    after = 0
    while True:
        page = await log.read(session_id, after=after, limit=PAGE)
        bodies = await _bodies(log, tenant, page, told)
        for recorded in page:
            digest = _named(recorded)
            if digest and digest not in told:
                told.add(digest)
                if digest in bodies:
                    yield _ENCODER.encode(EquipmentLine(digest, Raw(bodies[digest]))) + b"\n"
            yield _one_line(_ENCODER.encode(EventLine(recorded.seq, recorded.at, recorded.event)))
        if len(page) < PAGE:
            return
        after = page[-1].seq


async def recording(log: SessionLog, tenant: str, session_id: str) -> Recording:
    return read_lines([line async for line in lines(log, tenant, session_id)])


def read_lines(found: Iterable[bytes]) -> Recording:
    """Raises BadRequest, with the line, where that is no recording of ours, or is damaged."""
    head: Head | None = None
    events: list[Recorded] = []
    equipments: dict[str, Equipment] = {}
    for number, line in enumerate(found, 1):
        if not line.strip():
            continue
        match _line(line, number):
            case Head() as head:
                pass
            case EquipmentLine(digest, body):
                if hashlib.sha256(bytes(body)).hexdigest() != digest:
                    raise _damaged(number, f"the equipment's digest is not {digest}")
                equipments[digest] = _equipment(bytes(body), number)
            case EventLine(seq, at, event):
                if seq != len(events) + 1:
                    raise _damaged(number, f"expected event {len(events) + 1}, got {seq}")
                events.append(Recorded(seq, at, event))
    if head is None or not events:
        raise BadRequest("expected a session's recording (freehold sessions export), got nothing of it")
    return Recording(head.session_id, events, equipments)


def _one_line(told: bytes) -> bytes:
    """What clients say to a kept response stands there as they wrote it, line breaks and all."""
    return (told if b"\n" not in told else msgspec.json.format(told, indent=-1)) + b"\n"


def _line(line: bytes, number: int) -> Head | EquipmentLine | EventLine:
    try:
        found: Head | EquipmentLine | EventLine = _LINE.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(number, str(error)) from error
    if isinstance(found, Head) != (number == 1):
        raise _damaged(number, "expected its head as the first line, and only there")
    return found


def _equipment(body: bytes, number: int) -> Equipment:
    try:
        return decoded(body)
    except msgspec.MsgspecError as error:
        raise _damaged(number, f"written by a newer Freehold: {error}") from error


def _damaged(number: int, why: str) -> BadRequest:
    return BadRequest(f"line {number} is not a recording's (freehold sessions export): {why}", field="file")


async def _bodies(
    log: SessionLog, tenant: str, page: Sequence[Recorded], told: set[str]
) -> Mapping[str, bytes]:
    wanted = {_named(recorded) for recorded in page} - told - {""}
    return await log.blocks(tenant, sorted(wanted)) if wanted else {}


def _named(recorded: Recorded) -> str:
    return recorded.event.equipment if isinstance(recorded.event, ModelAnswered) else ""
