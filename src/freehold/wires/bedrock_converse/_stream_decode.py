"""Wires, Bedrock Converse: a provider's stream to events. Source: the ConverseStreamOutput of botocore's service model.

Most blocks begin without a word, with their first delta. Usage comes after the stop here and before it in the heart, so the end waits
for it. Events of unknown types are skipped, as AWS's SDKs do.
"""

from base64 import b64decode, b64encode
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from freehold.core.errors import BadRequest, BrokenOff
from freehold.core.messages import (
    AnswerPart,
    Carried,
    Media,
    Opaque,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    raw,
)
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
from freehold.wires._aws_errors import error_in_stream
from freehold.wires._aws_eventstream import Frame, FrameReader
from freehold.wires._fields import OBJECT, extra_of, is_null
from freehold.wires._opaque import unpacked
from freehold.wires.bedrock_converse._blocks_decode import REDACTED, one_of, parts_of
from freehold.wires.bedrock_converse._response import ADDITIONAL, reason_of, stop_sequence_in, usage_in
from freehold.wires.bedrock_converse._shapes import NAME, TOOL_USE, Block


class _ToolDelta(Struct):
    input: str = ""


class _ReasoningDelta(Struct, rename="camel"):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class _Delta(Struct, rename="camel"):
    text: str | None = None
    tool_use: _ToolDelta | None = None
    reasoning_content: _ReasoningDelta | None = None
    citation: Raw | UnsetType = UNSET


class _DeltaEvent(Struct, rename="camel"):
    delta: _Delta
    content_block_index: int = 0


class _RawDelta(Struct):
    delta: Block


class _StartEvent(Struct, rename="camel"):
    start: Block | None = None
    content_block_index: int = 0


class _StopEvent(Struct, rename="camel"):
    content_block_index: int = 0


_DELTA: Final = msgspec.json.Decoder(_DeltaEvent)
_RAW_DELTA: Final = msgspec.json.Decoder(_RawDelta)
_START: Final = msgspec.json.Decoder(_StartEvent)
_STOP: Final = msgspec.json.Decoder(_StopEvent)
_REASONING: Final = "reasoningContent"
_encode: Final = msgspec.json.Encoder().encode


class _Open(Struct):
    """A block that is being told. `carried` gathers what only this vendor has; `redacted` may come in pieces."""

    part: int
    kind: str
    signature: str = ""
    redacted: bytes = b""
    citations: list[Raw] = []
    carried: dict[str, Any] | None = None
    empty: bool = False  # A call whose arguments have not begun.


class ConverseStreamDecoder:
    __slots__ = (
        "_done",
        "_fields",
        "_open",
        "_parts",
        "_provider",
        "_reader",
        "_reason",
        "_started",
        "_stop_sequence",
    )

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._reader = FrameReader()
        self._started = False
        self._done = False
        self._parts = 0
        self._open: dict[int, _Open] = {}
        self._reason: StopReason | None = None
        self._stop_sequence: str | None = None
        self._fields: dict[str, Raw] = {}

    def feed(self, data: bytes) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        for frame in self._reader.feed(data):
            self._frame(frame, events)
        return events

    def end(self) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        if not self._done:
            self._reader.end()
            if self._reason is None:
                raise BrokenOff("the stream ended before the answer was finished")
            self._finish(events)
        return events

    def _frame(self, frame: Frame, events: list[StreamEvent]) -> None:
        headers, json = frame.headers, frame.payload
        match headers.get(":message-type"):
            case "event":
                pass
            case "exception":
                raise error_in_stream(str(headers.get(":exception-type", "")), json)
            case "error":
                said = _encode({"message": str(headers.get(":error-message", ""))})
                raise error_in_stream(str(headers.get(":error-code", "")), said)
            case _:
                raise BrokenOff("the stream holds something that is neither an event nor an exception")
        if self._done:
            return
        try:
            self._event(str(headers.get(":event-type", "")), json, events)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadRequest) as error:
            said_of = f"the stream holds something that is not an event: {error}"
            raise BrokenOff(said_of, detail=json[:1000].decode("utf-8", "replace")) from error

    def _event(self, kind: str, json: bytes, events: list[StreamEvent]) -> None:
        match kind:
            case "contentBlockDelta":
                self._delta(json, events)
            case "contentBlockStart":
                self._start_block(json, events)
            case "contentBlockStop":
                self._stop_block(_STOP.decode(json).content_block_index, events)
            case "messageStart":
                self._begin(events)
            case "messageStop":
                self._stop(json)
            case "metadata":
                self._metadata(json, events)
            case _:
                pass  # Of a kind that is to come.

    def _begin(self, events: list[StreamEvent]) -> None:
        if self._started:
            raise BrokenOff("the answer begins twice")
        self._started = True
        events.append(Started("", ""))

    # Blocks.

    def _open_part(self, index: int, kind: str, part: AnswerPart | None, events: list[StreamEvent]) -> _Open:
        """A part that is carried is told when it is whole."""
        if not self._started:
            raise BrokenOff("a block of an answer that has not begun")
        opened = self._open[index] = _Open(self._parts, kind, "", b"", [], None)
        self._parts += 1
        if part is not None:
            events.append(PartStarted(opened.part, part))
        return opened

    def _start_block(self, json: bytes, events: list[StreamEvent]) -> None:
        event = _START.decode(json)
        index = event.content_block_index
        if index in self._open:
            raise BrokenOff(f"block {index} begins twice")
        if not event.start:
            return  # A block whose first delta says what it is.
        kind, start = one_of(event.start, "start")
        if kind == "toolUse":
            shape, rest = TOOL_USE.read(start, "start.toolUse")
            fields = dict(rest)
            if shape.type is not None:
                fields["type"] = raw(shape.type)
            call = ToolCall(shape.tool_use_id, shape.name, "", extra=extra_of(NAME, fields))
            self._open_part(index, "toolUse", call, events).empty = True
        else:
            opened = self._open_part(index, kind, None, events)
            opened.carried = msgspec.json.decode(start)

    def _delta(self, json: bytes, events: list[StreamEvent]) -> None:
        event = _DELTA.decode(json)
        delta, index = event.delta, event.content_block_index
        opened = self._open.get(index)
        if opened is not None and opened.carried is not None:
            _gather(opened.carried, json)
        elif delta.text is not None:
            opened = _of_kind("text", index, opened) or self._open_part(index, "text", Text(""), events)
            if delta.text:
                events.append(TextAdded(opened.part, delta.text))
        elif delta.tool_use is not None:
            if opened is None or opened.kind != "toolUse":
                raise BrokenOff(f"arguments of block {index}, which is no tool call")
            if delta.tool_use.input:
                opened.empty = False
                events.append(ArgumentsAdded(opened.part, delta.tool_use.input))
        elif delta.reasoning_content is not None:
            opened = _of_kind(_REASONING, index, opened) or self._open_part(
                index, _REASONING, Reasoning(), events
            )
            self._think(delta.reasoning_content, opened, events)
        elif isinstance(delta.citation, Raw):
            opened = _of_kind("text", index, opened) or self._open_part(index, "text", Text(""), events)
            opened.citations.append(delta.citation)
        elif opened is None:
            opened = self._open_part(index, *_unknown_kind(json), events)
            opened.carried = {}
            _gather(opened.carried, json)

    def _think(self, delta: _ReasoningDelta, opened: _Open, events: list[StreamEvent]) -> None:
        if delta.text:
            events.append(TextAdded(opened.part, delta.text))
        if delta.signature:
            opened.signature += delta.signature
        if delta.redacted_content:
            try:
                opened.redacted += b64decode(delta.redacted_content, validate=True)
            except ValueError as error:
                raise BrokenOff("the stream holds redacted content that is no base64") from error

    def _stop_block(self, index: int, events: list[StreamEvent]) -> None:
        opened = self._open.pop(index, None)
        if opened is None:
            return  # It had nothing to say.
        if opened.carried is not None:
            events.append(PartStarted(opened.part, _whole(opened.kind, opened.carried)))
        if opened.empty:  # No arguments are `{}` in a whole answer, and nothing at all in a stream.
            events.append(ArgumentsAdded(opened.part, "{}"))
        seal = self._seal(opened)
        if seal is not None:
            events.append(OpaqueSet(opened.part, seal))
        if opened.citations:
            fields = {"citations": Raw(_encode(opened.citations))}
            events.append(PartFinished(opened.part, {NAME: fields}))
        else:
            events.append(PartFinished(opened.part))

    def _seal(self, opened: _Open) -> Opaque | None:
        if opened.redacted:
            return Opaque(NAME, self._provider, "", b64encode(opened.redacted).decode(), REDACTED)
        if opened.signature:
            return unpacked(opened.signature) or Opaque(NAME, self._provider, "", opened.signature)
        return None

    # The end.

    def _stop(self, json: bytes) -> None:
        top = OBJECT.decode(json)
        said = top.pop("stopReason", None)
        self._note(top)
        self._reason = reason_of(
            None if said is None else msgspec.json.decode(said, type=str | None), self._fields
        )
        self._stop_sequence = stop_sequence_in(top.get(ADDITIONAL))

    def _metadata(self, json: bytes, events: list[StreamEvent]) -> None:
        top = OBJECT.decode(json)
        usage = top.pop("usage", None)
        self._note(top)
        if usage is not None and not is_null(usage):
            events.append(UsageReported(usage_in(usage, self._fields)))
        if self._reason is not None:
            self._finish(events)

    def _note(self, fields: dict[str, Raw]) -> None:
        self._fields.update((name, value) for name, value in fields.items() if not is_null(value))

    def _finish(self, events: list[StreamEvent]) -> None:
        if not self._started:
            raise BrokenOff("the stream ended before it began")
        self._done = True
        usage = events.pop() if events and isinstance(events[-1], UsageReported) else None
        for index in list(self._open):
            self._stop_block(index, events)
        if usage is not None:
            events.append(usage)
        reason = self._reason or "end_turn"
        events.append(Finished(reason, self._stop_sequence, extra_of(NAME, self._fields)))


def _whole(kind: str, gathered: dict[str, Any]) -> Media | Carried:
    """An image that came in pieces, or what only this vendor has."""
    block = Raw(_encode(gathered))
    if kind == "image" and "source" in gathered:
        (part,) = parts_of([{kind: block}], "start")
        if isinstance(part, Media):
            return part
    return Carried(NAME, kind, Raw(_encode({kind: block})))


def _of_kind(kind: str, index: int, opened: _Open | None) -> _Open | None:
    """What is there already. Raises BrokenOff when that is something else."""
    if opened is not None and opened.kind != kind:
        raise BrokenOff(f"{kind} of block {index}, which is {opened.kind}")
    return opened


def _unknown_kind(json: bytes) -> tuple[str, None]:
    return one_of(_RAW_DELTA.decode(json).delta, "delta")[0], None


def _gather(carried: dict[str, Any], json: bytes) -> None:
    """A delta of a block that is not ours to read: texts and lists join the field of their name."""
    _, value = one_of(_RAW_DELTA.decode(json).delta, "delta")
    piece = msgspec.json.decode(value)
    if isinstance(piece, list):
        piece = {"content": piece}
    if not isinstance(piece, dict):
        return
    for name, added in piece.items():
        before = carried.get(name)
        if isinstance(before, str) and isinstance(added, str):
            carried[name] = before + added
        elif isinstance(before, list) and isinstance(added, list):
            carried[name] = [*before, *added]
        else:
            carried[name] = added
