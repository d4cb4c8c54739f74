"""Wires, Anthropic: events to a client's stream, in exactly the order that the vendor has: one block at a time, each begun, told and
stopped; `message_delta` with the totals; `message_stop`. Other vendors interleave parts: what belongs to a later one waits.

`message_start` waits for the second event, since it tells what the input cost, where that is known by then.
"""

from collections import deque
from typing import Any, Final

import msgspec
from msgspec import Raw

from freehold.core.errors import FreeholdError
from freehold.core.messages import NO_USAGE, Carried, Media, Opaque, Reasoning, Refusal, Text, ToolCall
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
from freehold.wires._arguments import EMPTY
from freehold.wires._fields import own
from freehold.wires._opaque import packed
from freehold.wires.anthropic_messages._blocks_encode import client_tool_use, signature_of
from freehold.wires.anthropic_messages._errors import error_object
from freehold.wires.anthropic_messages._response import STOPS, client_block_of, take_usage_fields
from freehold.wires.anthropic_messages._shapes import NAME, RedactedThinkingBlock, ThinkingBlock
from freehold.wires.anthropic_messages._usage import delta_usage_json, usage_json

_TEXT_START: Final = b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":{"type":"text","text":""}}\n\n'
_BLOCK_STOP: Final = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_DELTA: Final = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b:'
)
_DELTA_END: Final = b"}}\n\n"
_TEXT: Final = b'text_delta","text"'
_THINKING: Final = b'thinking_delta","thinking"'
_SIGNATURE: Final = b'signature_delta","signature"'
_JSON: Final = b'input_json_delta","partial_json"'
_CITATION: Final = b'citations_delta","citation"'
_ARRAY: Final = msgspec.json.Decoder(list[Raw])
_encode: Final = msgspec.json.Encoder().encode
_NO_USAGE_TOLD: Final = Raw(_encode(usage_json(NO_USAGE, {})))


class AnthropicStreamEncoder:
    __slots__ = (
        "_block",
        "_blocks",
        "_delta_kind",
        "_opening",
        "_part",
        "_pending",
        "_started",
        "_usage",
        "_waiting",
    )

    def __init__(self) -> None:
        self._started: Started | None = None  # Until it was told.
        self._usage = NO_USAGE
        self._part: int | None = None  # The part that is being told.
        self._block = -1  # Its number among the blocks.
        self._delta_kind = _TEXT
        self._opening = b""  # Of the block's deltas.
        self._pending: Reasoning | None = None  # Begun, but not told: its seal decides which block it is.
        self._waiting: dict[int, deque[StreamEvent]] = {}  # Later parts, in their order.

    def encode(self, event: StreamEvent) -> bytes:
        if type(event) is TextAdded and event.index == self._part and self._pending is None:
            return self._opening + _encode(event.text) + _DELTA_END
        # Quicker than a match, whose isinstance a Struct's type makes slow when it says no.
        if type(event) is Started:
            self._started = event
            return b""
        if type(event) is UsageReported:
            self._usage = event.usage
            return self._start()
        if type(event) is Finished:
            return self._start() + self._rest() + self._finish(event)
        return self._start() + self._in_turn(event)  # type: ignore[arg-type]  # All that is left is of a part.

    def error(self, error: FreeholdError, request_id: str) -> bytes:
        return b"event: error\ndata: " + error_object(error, request_id)[1] + b"\n\n"

    def end(self) -> bytes:
        return b""

    def _start(self) -> bytes:
        started, self._started = self._started, None
        if started is None:
            return b""
        fields = dict(own(started.extra, NAME))
        known = not fields and self._usage is NO_USAGE
        usage = _NO_USAGE_TOLD if known else usage_json(self._usage, take_usage_fields(fields))
        message: dict[str, Any] = {
            "id": started.id,
            "type": "message",
            "role": "assistant",
            "model": started.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
            "usage": usage,
            **fields,
        }
        return _event("message_start", {"message": message})

    def _in_turn(self, event: PartStarted | TextAdded | ArgumentsAdded | OpaqueSet | PartFinished) -> bytes:
        if self._part is None and type(event) is PartStarted:
            return self._begin(event)
        if event.index != self._part:
            self._waiting.setdefault(event.index, deque()).append(event)
            return b""
        return self._tell(event) + self._next()

    def _next(self) -> bytes:
        """Tells what has waited for the part that has just ended."""
        told = b""
        while self._part is None and self._waiting:
            index = next(iter(self._waiting))
            told += self._begin_waiting(self._waiting.pop(index))
        return told

    def _begin_waiting(self, events: "deque[StreamEvent]") -> bytes:
        told = b""
        for event in events:
            if isinstance(event, PartStarted):
                told += self._begin(event)
            elif isinstance(event, TextAdded | ArgumentsAdded | OpaqueSet | PartFinished):
                told += self._tell(event)
        return told

    def _rest(self) -> bytes:
        """Parts that nobody finished."""
        told = b""
        while self._part is not None:
            told += self._tell(PartFinished(self._part)) + self._next()
        return told

    def _begin(self, event: PartStarted) -> bytes:
        self._part = event.index
        self._block += 1
        match event.part:
            case Text():
                self._tell_in(_TEXT)
                told = _TEXT_START % self._block + self._text(event.part.text)
                return told + self._citations(own(event.part.extra, NAME).get("citations"))
            case Refusal():
                self._tell_in(_TEXT)
                return _TEXT_START % self._block + self._text(event.part.text)
            case Reasoning():
                self._tell_in(_THINKING)
                self._pending = event.part
                return b"" if event.part.opaque is None else self._seal(event.part.opaque)
            case ToolCall() as call:
                self._tell_in(_JSON)
                told = self._block_start(client_tool_use(call, EMPTY))
                return told + (self._delta(_JSON, _encode(call.arguments)) if call.arguments else b"")
            case Carried() | Media():
                return self._block_start(client_block_of(event.part, event.index))

    def _tell(self, event: TextAdded | ArgumentsAdded | OpaqueSet | PartFinished | PartStarted) -> bytes:
        if type(event) is ArgumentsAdded:
            return self._delta(_JSON, _encode(event.json))
        if type(event) is PartFinished:
            told = self._unseal()
            if event.extra:
                told += self._citations(own(event.extra, NAME).get("citations"))
            self._part = None
            return told + _BLOCK_STOP % self._block
        if type(event) is TextAdded:
            return self._unseal() + self._text(event.text)
        if type(event) is OpaqueSet:
            return self._seal(event.opaque)
        return b""  # A part begins once.

    def _unseal(self) -> bytes:
        """A thought in plain begins."""
        pending, self._pending = self._pending, None
        if pending is None:
            return b""
        return self._block_start(ThinkingBlock("", "")) + self._text(pending.text)

    def _seal(self, opaque: Opaque) -> bytes:
        if self._delta_kind != _THINKING:
            # A tool call's seal, which comes when its block has begun: the field rides on a delta that says nothing else.
            return _event(
                "content_block_delta",
                {
                    "index": self._block,
                    "delta": {
                        "type": "input_json_delta",
                        "partial_json": "",
                        "freehold_seal": packed(opaque),
                    },
                },
            )
        pending = self._pending
        if (
            pending is not None
            and not pending.text
            and opaque.wire == NAME
            and opaque.kind == "redacted_thinking"
        ):
            self._pending = None
            return self._block_start(RedactedThinkingBlock(opaque.data))
        return self._unseal() + self._delta(_SIGNATURE, _encode(signature_of(opaque)))

    def _text(self, text: str) -> bytes:
        return self._delta(self._delta_kind, _encode(text)) if text else b""

    def _citations(self, citations: Raw | None) -> bytes:
        if citations is None:
            return b""
        return b"".join(self._delta(_CITATION, bytes(one)) for one in _ARRAY.decode(citations))

    def _delta(self, kind: bytes, json: bytes) -> bytes:
        return (_DELTA % (self._block, kind)) + json + _DELTA_END

    def _tell_in(self, kind: bytes) -> None:
        self._delta_kind = kind
        self._opening = _DELTA % (self._block, kind)

    def _block_start(self, block: Any) -> bytes:
        return _event("content_block_start", {"index": self._block, "content_block": block})

    def _finish(self, event: Finished) -> bytes:
        fields = dict(own(event.extra, NAME))
        usage = take_usage_fields(fields)
        delta: dict[str, Any] = {
            "stop_reason": fields.pop("stop_reason", STOPS[event.stop_reason]),
            "stop_sequence": event.stop_sequence,
            "stop_details": fields.pop("stop_details", None),
            "container": fields.pop("container", None),
        }
        told = {"delta": delta, "usage": delta_usage_json(self._usage, usage), **fields}
        return _event("message_delta", told) + _STOP


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), _encode({"type": name, **fields}))
