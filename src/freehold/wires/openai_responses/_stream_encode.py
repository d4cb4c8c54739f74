"""Wires, OpenAI responses: events to a client's stream, in the vendor's own order: the response begins; item after item is added,
told and done, and so are the pieces in it; the response ends, and repeats all of it.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from freehold.core.errors import BadRequest, ContentRefused, FreeholdError, RateLimited
from freehold.core.messages import (
    AnswerPart,
    Carried,
    ModelRequest,
    Opaque,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    Usage,
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
from freehold.wires._fields import NO_FIELDS, UNREADABLE, own
from freehold.wires._in_turn import InTurn, PartEvent
from freehold.wires._openai_errors import error_fields
from freehold.wires._openai_usage import apart
from freehold.wires.openai_responses._output import (
    BEGUN,
    DONE,
    call_item,
    content_of,
    is_content,
    item_id,
    message_fields,
    message_item,
    output_text,
    packed_reasoning,
    reasoning_item,
    refused_in_answer,
)
from freehold.wires.openai_responses._response import head, incomplete_reason
from freehold.wires.openai_responses._shapes import ITEM, NAME, ReasoningItem
from freehold.wires.openai_responses._tools import CalledAs, is_custom_call
from freehold.wires.openai_responses._usage import usage_json

_CODES: Final[Mapping[type[FreeholdError], str]] = {
    RateLimited: "rate_limit_exceeded",
    BadRequest: "invalid_prompt",
    ContentRefused: "invalid_prompt",
}
"""Of a response that failed, which knows few codes: the others are `server_error`. The error event before it says more."""

_REASONING: Final = msgspec.json.Decoder(ReasoningItem)
_encode: Final = msgspec.json.Encoder().encode


class _Open:
    """The part that is being told. `place` says where it is, in the words of its events."""

    __slots__ = ("delta", "index", "opaque", "part", "pieces", "place")

    def __init__(self, index: int, part: AnswerPart, place: dict[str, Any]) -> None:
        self.index = index
        self.part = part
        self.place = place
        self.pieces: list[str] = []
        self.opaque: Opaque | None = None
        self.delta = b""  # All of its delta events that comes before their number.

    def begin_deltas(self, name: str, more: Mapping[str, Any] = NO_FIELDS) -> None:
        fields = _encode({"type": name, **self.place, **more})
        self.delta = b"event: %s\ndata: %s" % (name.encode(), fields[:-1]) + b',"sequence_number":'

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class ResponsesStreamEncoder:
    __slots__ = ("_called_as", "_content", "_created", "_head", "_in_turn", "_items", "_message", "_message_fields", "_of_usage", "_open",
                 "_request", "_sequence", "_usage")  # fmt: skip

    def __init__(self, request: ModelRequest, created: int) -> None:
        self._request = request
        self._called_as = CalledAs(request)
        self._created = created
        self._sequence = 0
        self._head: dict[str, Any] = {}
        self._usage = Usage()
        self._of_usage: dict[str, Raw] = {}
        self._in_turn = InTurn()
        self._open: _Open | None = None
        self._items: list[Any] = []
        self._message: dict[str, Any] | None = None  # The item that the last text is in, until it is done.
        self._message_fields: Mapping[str, Raw] = NO_FIELDS
        self._content: list[AnswerPart] = []  # For the reason it stopped.

    def encode(self, event: StreamEvent) -> bytes:
        opened = self._open
        match event:
            case TextAdded() if opened is not None and opened.index == event.index and opened.delta:
                return self._delta(opened, event.text)
            case ArgumentsAdded() if opened is not None and opened.index == event.index:
                return self._delta(opened, event.json)
            case Started():
                return self._start(event)
            case UsageReported():
                self._usage = event.usage
                return b""
            case Finished():
                told = b"".join(map(self._tell, self._in_turn.rest()))
                return told + self._close_message() + self._finish(event)
            case _:
                return b"".join(map(self._tell, self._in_turn.add(event)))

    def error(self, error: FreeholdError, request_id: str) -> bytes:
        """The vendor says it twice, and of two clients each hears one. Of an answer that is passed on, we know no beginning."""
        fields = error_fields(error)[1]
        flat = {name: fields[name] for name in ("code", "message", "param")}
        told = self._event("error", {**flat, "error": fields})
        if not self._head:
            return told
        failed = {"code": _CODES.get(type(error), "server_error"), "message": fields["message"]}
        response = {**self._head, "status": "failed", "error": failed, "output": self._items}
        return told + self._event("response.failed", {"response": response})

    def end(self) -> bytes:
        return b""

    # The response.

    def _start(self, event: Started) -> bytes:
        self._of_usage, fields = apart(own(event.extra, NAME))
        self._head = head(event.id, event.model, self._created, self._request) | fields
        response = {"response": self._head}
        return self._event("response.created", response) + self._event("response.in_progress", response)

    def _finish(self, event: Finished) -> bytes:
        why = incomplete_reason(event.stop_reason, self._content)
        status = "incomplete" if why else DONE
        of_usage, fields = apart(own(event.extra, NAME))
        response = self._head | {
            "status": status,
            "completed_at": None if why else self._created,
            "incomplete_details": {"reason": why} if why else None,
            "output": self._items,
            "usage": usage_json(self._usage, self._of_usage | of_usage),
        }
        return self._event(f"response.{status}", {"response": response | fields})

    # Its parts.

    def _tell(self, event: PartEvent) -> bytes:
        if isinstance(event, PartStarted):
            return self._begin(event.index, event.part)
        opened = self._open
        if opened is None:
            return b""
        match event:
            case TextAdded():
                return self._begin_thought(opened) + self._delta(opened, event.text)
            case ArgumentsAdded():
                return self._delta(opened, event.json)
            case OpaqueSet():
                opened.opaque = event.opaque
                return b""
            case PartFinished():
                self._open = None
                return self._end_part(opened, own(event.extra, NAME))

    def _begin(self, index: int, part: AnswerPart) -> bytes:
        self._content.append(part)
        if isinstance(part, Text | Refusal) or is_content(part):
            return self._begin_content(index, part)
        told = self._close_message()
        place: dict[str, Any] = {"output_index": len(self._items)}
        self._open = opened = _Open(index, part, place)
        match part:
            case ToolCall():
                begun = ToolCall(part.id, part.name, "", part.opaque, None, part.extra)
                fields = self._called_as.fields(begun)
                item = call_item(begun, fields, self._head["id"], index, status=BEGUN)
                place["item_id"] = item["id"]
                opened.opaque = part.opaque
                if not is_custom_call(fields):
                    opened.begin_deltas("response.function_call_arguments.delta")
                told += self._item("added", item)
                return told + (self._delta(opened, part.arguments) if part.arguments else b"")
            case Reasoning():
                opened.opaque = part.opaque
                return told + (self._tell(TextAdded(index, part.text)) if part.text else b"")
            case Carried(wire="openai_responses"):
                return told + self._item("added", part.block)
            case _:
                raise refused_in_answer(part, index)

    def _begin_content(self, index: int, part: AnswerPart) -> bytes:
        fields = message_fields(part)
        told = b""
        if self._message is None or "id" not in fields or fields != self._message_fields:
            told = self._close_message()
            self._message = message_item(fields, self._head["id"], index, [], BEGUN)
            self._message_fields = fields
            told += self._item("added", self._message)
        message = self._message
        place = {
            "item_id": message["id"],
            "output_index": len(self._items),
            "content_index": len(message["content"]),
        }
        self._open = opened = _Open(index, part, place)
        begun: Any = content_of(part)
        match part:
            case Text():
                opened.begin_deltas("response.output_text.delta", {"logprobs": []})
                begun = output_text("", NO_FIELDS)
            case Refusal():
                opened.begin_deltas("response.refusal.delta")
                begun = {"type": "refusal", "refusal": ""}
            case _:
                pass
        told += self._event("response.content_part.added", {**place, "part": begun})
        text = part.text if isinstance(part, Text | Refusal) else ""
        return told + (self._delta(opened, text) if text else b"")

    def _begin_reasoning(self, opened: _Open) -> bytes:
        """Not before there is something to tell: the seal may come first, and has the vendor's own id in it."""
        if "item_id" in opened.place:
            return b""
        made = item_id("reasoning", self._head["id"], opened.index)
        opened.place["item_id"] = _own_id(opened.opaque) or made
        return self._item("added", {"id": opened.place["item_id"], "type": "reasoning", "summary": []})

    def _begin_thought(self, opened: _Open) -> bytes:
        """A summary begins with its first word: many thoughts have none."""
        if opened.delta:
            return b""
        told = self._begin_reasoning(opened)
        opened.place["summary_index"] = 0
        opened.begin_deltas("response.reasoning_summary_text.delta")
        part = {"type": "summary_text", "text": ""}
        return told + self._event("response.reasoning_summary_part.added", {**opened.place, "part": part})

    def _delta(self, opened: _Open, text: str) -> bytes:
        """A custom tool's text is told when its arguments are whole: pieces of JSON are no pieces of the text."""
        opened.pieces.append(text)
        if not opened.delta:
            return b""
        number = self._sequence
        self._sequence = number + 1
        return b'%b%d,"delta":%b}\n\n' % (opened.delta, number, _encode(text))

    def _end_part(self, opened: _Open, said: Mapping[str, Raw]) -> bytes:
        part, place, text = opened.part, opened.place, opened.text
        match part:
            case Text():
                shape = output_text(text, {**own(part.extra, NAME), **said})
                done = {**place, "text": text, "logprobs": shape["logprobs"]}
                return self._event("response.output_text.done", done) + self._end_content(opened, shape)
            case Refusal():
                told = self._event("response.refusal.done", {**place, "refusal": text})
                return told + self._end_content(opened, {"type": "refusal", "refusal": text})
            case ToolCall():
                return self._end_call(
                    ToolCall(part.id, part.name, text, opened.opaque, None, part.extra), opened
                )
            case Reasoning():
                told = self._end_thought(opened) if opened.delta else self._begin_reasoning(opened)
                told_as = place["item_id"]
                whole = reasoning_item if told_as == _own_id(opened.opaque) else packed_reasoning
                return told + self._done(whole(told_as, text, opened.opaque))
            case Carried() if is_content(part):
                return self._end_content(opened, part.block)
            case Carried():
                return self._done(part.block)
            case _:
                return b""

    def _end_call(self, call: ToolCall, opened: _Open) -> bytes:
        place, fields = opened.place, self._called_as.fields(call)
        item = call_item(call, fields, self._head["id"], opened.index)
        if is_custom_call(fields):
            told = self._event("response.custom_tool_call_input.delta", {**place, "delta": item["input"]})
            done = {**place, "input": item["input"]}
            return told + self._event("response.custom_tool_call_input.done", done) + self._done(item)
        done = {**place, "name": item["name"], "arguments": call.arguments}
        return self._event("response.function_call_arguments.done", done) + self._done(item)

    def _end_content(self, opened: _Open, shape: Any) -> bytes:
        told = self._event("response.content_part.done", {**opened.place, "part": shape})
        if self._message is not None:
            self._message["content"].append(shape)
            if "id" not in self._message_fields:
                told += self._close_message()
        return told

    def _end_thought(self, opened: _Open) -> bytes:
        place, text = opened.place, opened.text
        told = self._event("response.reasoning_summary_text.done", {**place, "text": text})
        part = {"type": "summary_text", "text": text}
        return told + self._event("response.reasoning_summary_part.done", {**place, "part": part})

    def _close_message(self) -> bytes:
        message, self._message = self._message, None
        return b"" if message is None else self._done({**message, "status": DONE})

    def _done(self, item: Any) -> bytes:
        told = self._item("done", item)
        self._items.append(item)
        return told

    def _item(self, what: str, item: Any) -> bytes:
        return self._event(f"response.output_item.{what}", {"output_index": len(self._items), "item": item})

    def _event(self, name: str, fields: Mapping[str, Any]) -> bytes:
        number = self._sequence
        self._sequence = number + 1
        json = _encode({"type": name, "sequence_number": number, **fields})
        return b"event: %s\ndata: %s\n\n" % (name.encode(), json)


def _own_id(opaque: Opaque | None) -> str | None:
    """This vendor's own, where it is known by now. An item keeps the id that it began with: sealed under another, it is packed."""
    if opaque is None or opaque.wire != NAME or opaque.kind != ITEM:
        return None
    try:
        return _REASONING.decode(opaque.data.encode("utf-8", "replace")).id
    except UNREADABLE:
        return None
