"""Wires, Bedrock Converse: events to a client's stream, one block at a time, as the vendor tells them. Other vendors interleave parts:
what belongs to a later one waits.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from freehold.core.errors import FreeholdError
from freehold.core.messages import Carried, Media, Opaque, Reasoning, Refusal, Text, ToolCall, Usage
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
from freehold.wires._aws_errors import encode_error_in_stream
from freehold.wires._aws_eventstream import encode_event
from freehold.wires._fields import own, text_in
from freehold.wires._in_turn import InTurn, PartEvent
from freehold.wires.bedrock_converse._blocks_decode import REDACTED
from freehold.wires.bedrock_converse._blocks_encode import call_seal, client_block, signature_of
from freehold.wires.bedrock_converse._response import (
    ADDITIONAL,
    NO_METRICS,
    STOPS,
    additional_fields,
    take_usage_fields,
)
from freehold.wires.bedrock_converse._shapes import NAME
from freehold.wires.bedrock_converse._usage import usage_json

_TEXT: Final = b'{"contentBlockIndex":%d,"delta":{"text":%s}}'
_ARGUMENTS: Final = b'{"contentBlockIndex":%d,"delta":{"toolUse":{"input":%s}}}'
_THOUGHT: Final = b'{"contentBlockIndex":%d,"delta":{"reasoningContent":{"%s":%s}}}'
_CITATION: Final = b'{"contentBlockIndex":%d,"delta":{"citation":%s}}'
_STOP_FIELDS: Final = frozenset({ADDITIONAL})
_ARRAY: Final = msgspec.json.Decoder(list[Raw])
_encode: Final = msgspec.json.Encoder().encode


class ConverseStreamEncoder:
    __slots__ = ("_block", "_call", "_call_seal", "_said", "_started", "_thinking", "_turns", "_usage")

    def __init__(self) -> None:
        self._started: Started | None = None
        self._usage = Usage()
        self._turns = InTurn()
        self._block = -1  # The number of the block that is being told.
        self._thinking = False
        self._call = ""  # The id of the call that is being told.
        self._call_seal: Opaque | None = None
        self._said = False  # Whether the part has had a delta: a block without any is not to be seen.

    def encode(self, event: StreamEvent) -> bytes:
        match event:
            case Started():
                self._started = event
                return encode_event("messageStart", b'{"role":"assistant"}')
            case UsageReported():
                self._usage = event.usage
                return b""
            case Finished():
                return self._in_order(self._turns.rest()) + self._finish(event)
            case _:
                return self._in_order(self._turns.add(event))

    def error(self, error: FreeholdError, request_id: str) -> bytes:
        return encode_error_in_stream(error)

    def end(self) -> bytes:
        return b""

    def _in_order(self, events: Sequence[PartEvent]) -> bytes:
        told = b""
        for event in events:
            told += self._begin(event) if isinstance(event, PartStarted) else self._tell(event)
        return told

    def _begin(self, event: PartStarted) -> bytes:
        part = event.part
        self._block += 1
        self._thinking = isinstance(part, Reasoning)
        self._said = False
        match part:
            case Text():
                return self._text(part.text) + self._citations(own(part.extra, NAME).get("citations"))
            case Refusal():
                return self._text(part.text)
            case Reasoning():
                return self._text(part.text) + (b"" if part.opaque is None else self._seal(part.opaque))
            case ToolCall():
                self._call, self._call_seal = part.id, part.opaque
                start = {"toolUse": {"toolUseId": part.id, "name": part.name, **own(part.extra, NAME)}}
                told = self._start(start)
                return told + (self._delta(_ARGUMENTS, part.arguments) if part.arguments else b"")
            case Carried() | Media():
                return self._whole(part)

    def _whole(self, part: Carried | Media) -> bytes:
        """Raises Unsupported for what this vendor's client would not know."""
        block: Any = client_block(part, f"content[{self._block}]")
        if isinstance(block, Raw):
            return self._start(msgspec.json.decode(block, type=dict[str, Raw]))
        if isinstance(part, Media) and part.kind == "image":
            image = msgspec.json.decode(_encode(block["image"]), type=dict[str, Raw])
            told = {"delta": {"image": {"source": image["source"]}}, "contentBlockIndex": self._block}
            start = self._start({"image": {"format": image["format"]}})
            return start + encode_event("contentBlockDelta", _encode(told))
        return self._start(block)

    def _tell(self, event: PartEvent) -> bytes:
        match event:
            case TextAdded():
                return self._text(event.text)
            case ArgumentsAdded():
                return self._delta(_ARGUMENTS, event.json)
            case OpaqueSet():
                return self._seal(event.opaque)
            case PartFinished():
                told = self._citations(own(event.extra, NAME).get("citations"))
                if not self._said:
                    told += self._delta(_TEXT, "")
                return told + self._stop() + self._sealed_call()
            case _:
                return b""  # A part begins once.

    def _stop(self) -> bytes:
        return encode_event("contentBlockStop", b'{"contentBlockIndex":%d}' % self._block)

    def _sealed_call(self) -> bytes:
        """A call's seal has no place in a call here: it is the signature of an empty thought behind it."""
        seal, self._call_seal = self._call_seal, None
        if seal is None:
            return b""
        self._block += 1
        return self._thought("signature", call_seal(self._call, seal)) + self._stop()

    def _start(self, start: Any) -> bytes:
        self._said = True
        return encode_event("contentBlockStart", _encode({"start": start, "contentBlockIndex": self._block}))

    def _text(self, text: str) -> bytes:
        if not text:
            return b""
        return self._thought("text", text) if self._thinking else self._delta(_TEXT, text)

    def _delta(self, form: bytes, text: str) -> bytes:
        self._said = True
        return encode_event("contentBlockDelta", form % (self._block, _encode(text)))

    def _thought(self, field: str, text: str) -> bytes:
        self._said = True
        return encode_event("contentBlockDelta", _THOUGHT % (self._block, field.encode(), _encode(text)))

    def _seal(self, opaque: Opaque) -> bytes:
        if not self._thinking:
            self._call_seal = opaque
            return b""
        if opaque.wire == NAME and opaque.kind == REDACTED:
            return self._thought("redactedContent", opaque.data)
        return self._thought("signature", signature_of(opaque))

    def _citations(self, citations: Raw | None) -> bytes:
        told = b""
        for one in () if citations is None else _ARRAY.decode(citations):
            self._said = True
            told += encode_event("contentBlockDelta", _CITATION % (self._block, bytes(one)))
        return told

    def _finish(self, event: Finished) -> bytes:
        fields = dict(own(event.extra, NAME))
        if self._started is not None:
            fields = dict(own(self._started.extra, NAME)) | fields
        stop: dict[str, Any] = {
            "stopReason": text_in(fields.pop("stopReason", None)) or STOPS[event.stop_reason],
            **additional_fields(event.stop_sequence, fields),
            **{name: fields.pop(name) for name in _STOP_FIELDS if name in fields},
        }
        usage = usage_json(self._usage) | take_usage_fields(fields)
        metrics = fields.pop("metrics", NO_METRICS)
        metadata = {"usage": usage, "metrics": metrics, **fields}
        return encode_event("messageStop", _encode(stop)) + encode_event("metadata", _encode(metadata))
