"""Wires, Google: events to a client's stream. Texts go out as they come; a call goes out when its arguments are whole.

Usage is told with the last piece. Other vendors interleave parts; here each piece stands for itself, so they may.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, structs

from freehold.core.errors import FreeholdError
from freehold.core.messages import AnswerPart, Opaque, Reasoning, Refusal, Text, ToolCall, Usage
from freehold.core.stream import (
    ArgumentsAdded,
    Finished,
    OpaqueSet,
    PartFinished,
    PartStarted,
    Started,
    StreamEvent,
    TextAdded,
    UsageReported,
)
from freehold.wires._fields import own, spliced
from freehold.wires._google_errors import error_object
from freehold.wires.google_generate._parts_encode import client_part
from freehold.wires.google_generate._response import closing, piece_json
from freehold.wires.google_generate._seals import for_client
from freehold.wires.google_generate._shapes import NAME, PartShape

_encode: Final = msgspec.json.Encoder().encode
_TEXT: Final = b'data: {"candidates":[{"content":{"parts":[{"text":%s%s}],"role":"model"},"index":0}],%s}\n\n'
_THOUGHT: Final = b',"thought":true'


class GoogleStreamEncoder:
    __slots__ = ("_calls", "_fields", "_head", "_open", "_pieces", "_started", "_usage")

    def __init__(self) -> None:
        self._started = Started("", "")
        self._head = b""  # What every piece says of the answer.
        self._open: dict[int, AnswerPart] = {}
        self._pieces: dict[int, list[str]] = {}
        self._usage = Usage()
        self._fields: dict[str, Raw] = {}

    def encode(self, event: StreamEvent) -> bytes:
        match event:
            case TextAdded():
                return self._text(event)
            case ArgumentsAdded():
                self._pieces.setdefault(event.index, []).append(event.json)
                return b""
            case PartStarted():
                return self._begin(event)
            case OpaqueSet():
                return self._seal(event.index, event.opaque)
            case PartFinished():
                return self._finish_part(event.index)
            case Started():
                self._start(event)
                return b""
            case UsageReported():
                self._usage = event.usage
                return b""
            case Finished():
                return self._finish(event)

    def error(self, error: FreeholdError, request_id: str) -> bytes:
        return b"data: " + error_object(error, request_id)[1] + b"\n\n"

    def end(self) -> bytes:
        return b""

    def _start(self, event: Started) -> None:
        self._started = event
        self._fields = dict(own(event.extra, NAME))
        self._head = _encode({"modelVersion": event.model, "responseId": event.id})[1:-1]

    def _text(self, event: TextAdded) -> bytes:
        if not event.text:
            return b""
        part = self._open.get(event.index)
        if isinstance(part, Reasoning):
            self._open[event.index] = Reasoning(part.text + event.text, part.opaque)
            return _TEXT % (_encode(event.text), _THOUGHT, self._head)
        return _TEXT % (_encode(event.text), b"", self._head)

    def _begin(self, event: PartStarted) -> bytes:
        part = self._open[event.index] = event.part
        match part:
            case Text() if fields := own(part.extra, NAME):
                return self._piece(spliced(_encode(PartShape(text=part.text)), fields))
            case Text() | Refusal():
                return self._piece(PartShape(text=part.text)) if part.text else b""
            case Reasoning():
                told = self._piece(PartShape(text=part.text, thought=True)) if part.text else b""
                return told if part.opaque is None else told + self._seal(event.index, part.opaque)
            case ToolCall():
                self._pieces[event.index] = [part.arguments]
                return b""
            case _:
                del self._open[event.index]
                return self._piece(client_part(part, event.index))

    def _seal(self, index: int, opaque: Opaque) -> bytes:
        part = self._open.get(index)
        if isinstance(part, ToolCall):
            self._open[index] = structs.replace(part, opaque=opaque)
            return b""
        signature = for_client(opaque)
        if signature is None:
            return b""
        words = isinstance(part, Reasoning) and bool(part.text)
        return self._piece(PartShape(text="", thought=words or None, thought_signature=signature))

    def _finish_part(self, index: int) -> bytes:
        part = self._open.pop(index, None)
        if not isinstance(part, ToolCall):
            return b""
        arguments = "".join(self._pieces.pop(index, ()))
        return self._piece(client_part(structs.replace(part, arguments=arguments), index))

    def _finish(self, event: Finished) -> bytes:
        told = b"".join([self._finish_part(index) for index in [*self._open]])
        fields = {**self._fields, **own(event.extra, NAME)}
        last = closing(event.stop_reason, self._usage, fields, [])
        head = {"modelVersion": self._started.model, "responseId": self._started.id}
        return told + b"data: " + _encode({**last, **head}) + b"\n\n"

    def _piece(self, part: Any) -> bytes:
        return b"data: " + _encode(piece_json(self._started.id, self._started.model, part)) + b"\n\n"
