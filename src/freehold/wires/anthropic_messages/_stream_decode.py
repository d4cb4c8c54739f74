"""Wires, Anthropic: a provider's stream to events. Source: https://platform.claude.com/docs/en/build-with-claude/streaming

Events of unknown types are skipped, as the vendor asks. A block that only this vendor has is told when it is whole.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct, UnsetType

from freehold.core.errors import BadRequest, BrokenOff
from freehold.core.messages import Carried, Opaque, Reasoning, StopReason, Text, ToolCall
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
from freehold.wires._fields import OBJECT, UNREADABLE, extra_of, is_null
from freehold.wires._mould import Mould
from freehold.wires._sse import SseReader
from freehold.wires.anthropic_messages._errors import error_in_stream
from freehold.wires.anthropic_messages._response import (
    REASONS,
    part_of,
    usage_fields,
    vendor_fields,
)
from freehold.wires.anthropic_messages._shapes import NAME
from freehold.wires.anthropic_messages._usage import UsageShape, later, usage_from

_encode: Final = msgspec.json.Encoder().encode


class _Delta(Struct):
    """Of a block, all kinds in one."""

    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: Raw | UnsetType = msgspec.UNSET
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Message(Struct):
    id: str = ""
    model: str = ""
    usage: UsageShape | None = None


class _Event(Struct):
    type: str
    index: int = 0
    delta: _Delta | None = None
    content_block: Raw | UnsetType = msgspec.UNSET
    message: _Message | None = None
    usage: UsageShape | None = None


class _RawMessage(Struct):
    message: dict[str, Raw]


class _RawDelta(Struct):
    delta: dict[str, Raw]


_EVENT: Final = msgspec.json.Decoder(_Event)
_RAW_MESSAGE: Final = msgspec.json.Decoder(_RawMessage)
_RAW_DELTA: Final = msgspec.json.Decoder(_RawDelta)
_STOP_FIELDS: Final = frozenset({"stop_reason", "stop_sequence"})
_DELTA_EVENT_FIELDS: Final = frozenset({"type", "delta", "usage"})


class _Open(Struct):
    """A block that is being told. `carried` gathers one that only this vendor has; `empty`: a call whose arguments have not begun."""

    part: int
    kind: str
    signature: str = ""
    citations: list[Raw] = []
    carried: dict[str, Any] | None = None
    json: str = ""
    empty: bool = False


_KINDS: Final = {
    "text_delta": Text.__name__,
    "citations_delta": Text.__name__,
    "input_json_delta": ToolCall.__name__,
    "thinking_delta": Reasoning.__name__,
    "signature_delta": Reasoning.__name__,
}
"""Of which part a delta is."""


class AnthropicStreamDecoder:
    __slots__ = (
        "_done",
        "_fields",
        "_model",
        "_mould",
        "_open",
        "_parts",
        "_provider",
        "_reason",
        "_sse",
        "_started",
        "_stop_sequence",
        "_usage",
    )

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._sse = SseReader()
        self._mould = Mould()
        self._model = ""
        self._started = False
        self._done = False
        self._parts = 0
        self._open: dict[int, _Open] = {}
        self._usage = UsageShape()
        self._reason: StopReason | None = None
        self._stop_sequence: str | None = None
        self._fields: dict[str, Raw] = {}

    def feed(self, data: bytes) -> list[StreamEvent]:
        if (told := self._mould.event_in(data)) is not None:
            return [told]
        events: list[StreamEvent] = []
        for _, json in self._sse.feed(data):
            self._event(json, events)
        self._mould.learn(data, events, _text_alone)
        return events

    def end(self) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        for _, json in self._sse.end():
            self._event(json, events)
        if not self._done:
            if self._reason is None:
                raise BrokenOff("the stream ended before the answer was finished")
            self._finish(events)
        return events

    def _event(self, json: bytes, events: list[StreamEvent]) -> None:
        if self._done:
            return
        refusal = None
        try:
            event = _EVENT.decode(json)
            if event.type == "error":
                refusal = error_in_stream(json)
            else:
                self._dispatch(event, json, events)
        except (*UNREADABLE, BadRequest) as error:
            if json.strip() == b"[DONE]":  # Some who follow this vendor end as OpenAI does.
                return
            said = f"the stream holds something that is not an event: {error}"
            raise BrokenOff(said, detail=json[:1000].decode("utf-8", "replace")) from error
        if refusal is not None:
            raise refusal

    def _dispatch(self, event: _Event, json: bytes, events: list[StreamEvent]) -> None:
        match event.type:
            case "content_block_delta":
                self._delta(event, json, events)
            case "content_block_start":
                self._start_block(event, events)
            case "content_block_stop":
                self._stop_block(event.index, events)
            case "message_start":
                self._start(event, json, events)
            case "message_delta":
                self._message_delta(event, json, events)
            case "message_stop":
                self._finish(events)
            case _:
                pass  # `ping`, and what is to come.

    def _start(self, event: _Event, json: bytes, events: list[StreamEvent]) -> None:
        message = event.message
        if message is None or self._started:
            raise BrokenOff("expected one message_start with a message")
        self._started = True
        self._model = message.model
        fields = vendor_fields(_RAW_MESSAGE.decode(json).message)
        events.append(Started(message.id, message.model, extra_of(NAME, fields)))
        self._report(message.usage, events)

    def _report(self, usage: UsageShape | None, events: list[StreamEvent]) -> None:
        if usage is not None:
            self._usage = later(self._usage, usage)
            events.append(UsageReported(usage_from(self._usage)))

    def _start_block(self, event: _Event, events: list[StreamEvent]) -> None:
        json = event.content_block
        if isinstance(json, UnsetType) or not self._started or event.index in self._open:
            raise BrokenOff("expected a content block that begins once, after message_start")
        part = part_of(json, self._provider, self._model, "content_block")
        index = self._parts
        self._parts += 1
        opened = self._open[event.index] = _Open(index, type(part).__name__, "", [], None, "")
        match part:
            case Carried():
                opened.carried = msgspec.json.decode(part.block)
                return
            case ToolCall() if part.arguments == "{}":
                opened.empty = True
                part = ToolCall(part.id, part.name, "", extra=part.extra)
            case Reasoning() if part.opaque is not None and part.opaque.kind == "signature":
                opened.signature = part.opaque.data
                part = Reasoning(part.text)
            case _:
                pass
        events.append(PartStarted(index, part))

    def _delta(self, event: _Event, json: bytes, events: list[StreamEvent]) -> None:
        delta, opened = event.delta, self._open.get(event.index)
        if delta is None or opened is None:
            raise BrokenOff(f"a delta of block {event.index}, which is not open")
        if opened.carried is not None:
            _gather(opened, delta, json)
            return
        if opened.kind != _KINDS.get(delta.type, opened.kind):
            raise BrokenOff(f"{delta.type} of block {event.index}, which is {opened.kind}")
        match delta.type:
            case "text_delta":
                events.append(TextAdded(opened.part, delta.text or ""))
            case "input_json_delta":
                if delta.partial_json:
                    opened.empty = False
                    events.append(ArgumentsAdded(opened.part, delta.partial_json))
            case "thinking_delta":
                if delta.thinking:
                    events.append(TextAdded(opened.part, delta.thinking))
            case "signature_delta":
                opened.signature += delta.signature or ""
            case "citations_delta":
                if not isinstance(delta.citation, UnsetType):
                    opened.citations.append(delta.citation)
            case _:
                pass  # Of a kind that is to come.

    def _stop_block(self, index: int, events: list[StreamEvent]) -> None:
        opened = self._open.pop(index, None)
        if opened is None:
            raise BrokenOff(f"the end of block {index}, which is not open")
        if opened.carried is not None:
            events.append(PartStarted(opened.part, _carried(opened)))
        if opened.empty:  # No arguments are `{}` in a whole answer, and nothing at all in a stream.
            events.append(ArgumentsAdded(opened.part, "{}"))
        if opened.signature:
            seal = Opaque(NAME, self._provider, self._model, opened.signature)
            events.append(OpaqueSet(opened.part, seal))
        if opened.citations:
            fields = {"citations": Raw(_encode(opened.citations))}
            events.append(PartFinished(opened.part, {NAME: fields}))
        else:
            events.append(PartFinished(opened.part))

    def _message_delta(self, event: _Event, json: bytes, events: list[StreamEvent]) -> None:
        delta = event.delta
        if delta is not None and delta.stop_reason is not None:
            self._reason = REASONS.get(delta.stop_reason, "end_turn")
            self._stop_sequence = delta.stop_sequence
            if delta.stop_reason not in REASONS:
                self._fields["stop_reason"] = Raw(_encode(delta.stop_reason))
        self._report(event.usage, events)
        top = OBJECT.decode(json)
        self._note({name: value for name, value in top.items() if name not in _DELTA_EVENT_FIELDS})
        if "delta" in top:
            inner = _RAW_DELTA.decode(json).delta
            self._note({name: value for name, value in inner.items() if name not in _STOP_FIELDS})
        if event.usage is not None:
            self._note(usage_fields(top["usage"]))

    def _note(self, fields: dict[str, Raw]) -> None:
        self._fields.update((name, value) for name, value in fields.items() if not is_null(value))

    def _finish(self, events: list[StreamEvent]) -> None:
        if not self._started:
            raise BrokenOff("the stream ended before it began")
        self._done = True
        for index in list(self._open):
            self._stop_block(index, events)
        reason = self._reason or "end_turn"
        events.append(Finished(reason, self._stop_sequence, extra_of(NAME, self._fields)))


def _text_alone(data: bytes) -> str | None:
    """Of an event that is one delta of a text or of a thought (see `Mould`)."""
    _, _, json = data.rpartition(b"\ndata: ")
    try:
        event = _EVENT.decode(json)
    except UNREADABLE:
        return None
    delta = event.delta
    if event.type != "content_block_delta" or delta is None:
        return None
    return {"text_delta": delta.text, "thinking_delta": delta.thinking}.get(delta.type)


def _gather(opened: _Open, delta: _Delta, json: bytes) -> None:
    """A delta of a block that is not ours to read: its texts join the block's fields of the same name."""
    if delta.type == "input_json_delta":
        opened.json += delta.partial_json or ""
        return
    carried = opened.carried if opened.carried is not None else {}
    for name, value in _RAW_DELTA.decode(json).delta.items():
        if name == "type":
            continue
        piece = msgspec.json.decode(value)
        before = carried.get(name)
        carried[name] = before + piece if isinstance(before, str) and isinstance(piece, str) else piece


def _carried(opened: _Open) -> Carried:
    block = opened.carried or {}
    if opened.json:
        block["input"] = Raw(opened.json.encode())
    return Carried(NAME, str(block.get("type", "")), Raw(_encode(block)))
