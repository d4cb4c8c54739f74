"""Wires, OpenAI responses: a provider's stream to events.

Source: https://platform.openai.com/docs/api-reference/responses-streaming. What others who follow it leave out is made good: names
of events, deltas (the whole comes when it is done), the adding of pieces. Items that only this wire knows come whole, when they
are done; what is told of their progress is passed over.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct, structs

from freehold.core.errors import BadRequest, BrokenOff
from freehold.core.messages import AnswerPart, Carried, Reasoning, Refusal, Text
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
from freehold.core.validation import decode
from freehold.wires._fields import OBJECT, UNREADABLE, extra_of, is_null
from freehold.wires._freeform import BEGIN, END, escaped
from freehold.wires._openai_errors import error_in_stream
from freehold.wires._sse import SseReader
from freehold.wires.openai_responses._items_decode import THOUGHT_BREAK, call
from freehold.wires.openai_responses._response import (
    ANSWER,
    Origin,
    answer_part,
    failure,
    message_of,
    reason_of,
    used,
    vendor_fields,
)
from freehold.wires.openai_responses._shapes import MESSAGE, NAME, ItemHead

PARTS_MAX: Final = 10_000
"""Of one answer."""

_DONE: Final = b"[DONE]"
_ENDS: Final = ("response.completed", "response.incomplete", "response.failed")
_CALLS: Final = ("function_call", "custom_tool_call")
_ARGUMENTS: Final = ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta")
_THOUGHTS: Final = {
    "response.reasoning_summary_text.delta": "summary",
    "response.reasoning_text.delta": "content",
}


class _Event(Struct):
    """Any event, as far as one of those read here has it."""

    type: str = ""
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: str | dict[str, Any] | None = None  # An object where a tool of the vendor's own speaks.
    item: Raw = Raw(b"null")
    part: Raw = Raw(b"null")
    response: Raw = Raw(b"null")


_EVENT: Final = msgspec.json.Decoder(_Event)
_HEAD: Final = msgspec.json.Decoder(ItemHead)


class _Piece:
    """A part of the answer: the heart's index of it, and how far it was told."""

    __slots__ = ("finished", "index", "told")

    def __init__(self, index: int) -> None:
        self.index = index
        self.told = False
        self.finished = False


class _Item:
    """`pieces` are by the vendor's index in the item; an item that is one part has it at 0."""

    __slots__ = ("fields", "kind", "pieces", "thought")

    def __init__(self, kind: str, fields: dict[str, Raw]) -> None:
        self.kind = kind
        self.fields = fields  # Of a message, as they ride on its texts.
        self.pieces: dict[int, _Piece] = {}
        self.thought: tuple[str, int] | None = None  # Which of a thought's texts is being told.


class ResponsesStreamDecoder:
    __slots__ = ("_content", "_finished", "_items", "_origin", "_sse", "_started")

    def __init__(self, provider: str) -> None:
        self._sse = SseReader()
        self._origin = Origin(provider, "")
        self._started = False
        self._finished = False
        self._items: dict[int, _Item] = {}
        self._content: list[AnswerPart] = []

    def feed(self, data: bytes) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        for name, json in self._sse.feed(data):
            self._event(name, json, events)
        return events

    def end(self) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        for name, json in self._sse.end():
            self._event(name, json, events)
        if not self._finished:
            raise BrokenOff("the stream ended before the answer was finished")
        return events

    def _event(self, name: bytes, json: bytes, events: list[StreamEvent]) -> None:
        if self._finished or json == _DONE:
            return
        if name == b"error":
            raise error_in_stream(json)
        try:
            self._read(_EVENT.decode(json), json, events)
        except (*UNREADABLE, BadRequest) as error:
            said = f"the stream holds something that is not an event of a response: {error}"
            raise BrokenOff(said, detail=json[:1000].decode("utf-8", "replace")) from error

    def _read(self, event: _Event, json: bytes, events: list[StreamEvent]) -> None:
        kind = event.type
        if event.delta and isinstance(event.delta, str):
            self._delta(event, event.delta, events)
        elif kind == "response.created":
            self._start(event, events)
        elif kind == "response.output_item.added":
            self._added(event, events)
        elif kind == "response.content_part.added":
            self._content_added(event, events)
        elif kind == "response.content_part.done":
            place = event.content_index
            self._content_done(self._item(event, "message"), place, event.part, events)
        elif kind == "response.output_item.done":
            self._item_done(event, events)
        elif kind in _ENDS:
            self._end(event, json, events)
        elif kind == "error" or (not kind and b'"error"' in json):
            raise error_in_stream(json)

    # The response.

    def _start(self, event: _Event, events: list[StreamEvent]) -> None:
        if self._started:
            return
        self._started = True
        answer = decode(bytes(event.response), ANSWER, root="response")
        self._origin = Origin(self._origin.provider, answer.model)
        fields = vendor_fields(decode(bytes(event.response), OBJECT, root="response"))
        events.append(Started(answer.id, answer.model, extra_of(NAME, fields)))

    def _end(self, event: _Event, json: bytes, events: list[StreamEvent]) -> None:
        self._start(event, events)
        answer = decode(bytes(event.response), ANSWER, root="response")
        error = failure(answer, json)
        if error is not None or event.type == "response.failed":
            raise error or error_in_stream(json)
        self._finished = True
        for item in self._items.values():
            self._close(item, events)
        if not is_null(answer.usage):
            events.append(UsageReported(used(answer)))
        fields = vendor_fields(decode(bytes(event.response), OBJECT, root="response"))
        events.append(Finished(reason_of(answer, self._content), None, extra_of(NAME, fields)))

    # Its items.

    def _added(self, event: _Event, events: list[StreamEvent]) -> _Item:
        if not self._started:
            raise BadRequest("an item of a response that never began")
        kind = decode(bytes(event.item), _HEAD, root="item").type
        known = self._items.get(event.output_index)
        if known is not None:
            self._close(known, events)
        item = self._items[event.output_index] = _Item(kind, {})
        match kind:
            case "message":
                _, item.fields = message_of(event.item, "item")
            case "function_call":
                began = call(event.item, "item")
                self._open(item, 0, began, events).told = bool(began.arguments)
            case "custom_tool_call":
                piece = self._open(item, 0, structs.replace(call(event.item, "item"), arguments=""), events)
                events.append(ArgumentsAdded(piece.index, BEGIN))
            case "reasoning":
                self._open(item, 0, Reasoning(), events)  # Its seal comes once, when it is whole.
            case _:
                pass
        return item

    def _item(self, event: _Event, kind: str) -> _Item:
        item = self._items.get(event.output_index)
        if item is None:
            if not self._started:
                raise BadRequest("a piece of a response that never began")
            item = self._items[event.output_index] = _Item(kind, {})
        return item

    def _item_of(self, event: _Event, *kinds: str) -> _Item:
        """The first of `kinds` is what a piece begins that comes before its item."""
        item = self._item(event, kinds[0])
        if item.kind not in kinds:
            raise BadRequest(f"{event.type} of item {event.output_index}, which is {item.kind}")
        return item

    def _item_done(self, event: _Event, events: list[StreamEvent]) -> None:
        item = self._items.get(event.output_index)
        kind = decode(bytes(event.item), _HEAD, root="item").type
        if item is None or item.kind != kind:
            item = self._added(event, events)
        match kind:
            case "message":
                content = message_of(event.item, "item")[0].content
                for place, part in enumerate(content if isinstance(content, list) else ()):
                    self._content_done(item, place, part, events)
            case "function_call" | "custom_tool_call":
                self._call_done(item, event.item, events)
            case "reasoning":
                self._thought_done(item, event.item, events)
            case _:
                if not item.pieces:
                    self._open(item, 0, Carried(NAME, kind, event.item), events)
        self._close(item, events)

    def _open(self, item: _Item, place: int, part: AnswerPart, events: list[StreamEvent]) -> _Piece:
        index = len(self._content)
        if index >= PARTS_MAX:
            raise BrokenOff(f"the answer has more than PARTS_MAX = {PARTS_MAX} parts")
        piece = item.pieces[place] = _Piece(index)
        self._content.append(part)
        events.append(PartStarted(index, part))
        return piece

    def _close(self, item: _Item, events: list[StreamEvent]) -> None:
        for piece in item.pieces.values():
            if not piece.finished:
                piece.finished = True
                events.append(PartFinished(piece.index))

    # Their pieces.

    def _delta(self, event: _Event, text: str, events: list[StreamEvent]) -> None:
        kind = event.type
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            item = self._item_of(event, "message")
            piece = item.pieces.get(event.content_index)
            if piece is None:
                part = Text("", None, extra_of(NAME, item.fields)) if "text" in kind else Refusal("")
                piece = self._open(item, event.content_index, part, events)
        elif kind in _ARGUMENTS:
            found = self._item_of(event, *_CALLS).pieces.get(0)
            if found is None:
                raise BadRequest("arguments of a call that was never added")
            found.told = True
            events.append(ArgumentsAdded(found.index, text if kind == _ARGUMENTS[0] else escaped(text)))
            return
        elif kind in _THOUGHTS:
            item = self._item_of(event, "reasoning")
            piece = item.pieces.get(0) or self._open(item, 0, Reasoning(), events)
            number = event.summary_index if _THOUGHTS[kind] == "summary" else event.content_index
            before, item.thought = item.thought, (_THOUGHTS[kind], number)
            if before not in (None, item.thought):
                text = THOUGHT_BREAK + text
        else:
            return
        piece.told = True
        events.append(TextAdded(piece.index, text))

    def _content_added(self, event: _Event, events: list[StreamEvent]) -> None:
        item = self._item(event, "message")
        if item.kind != "message" or event.content_index in item.pieces:
            return
        part = answer_part(event.part, "part", item.fields)
        match part:
            case Text():
                piece = self._open(item, event.content_index, self._begun(item, part.text), events)
                piece.told = bool(part.text)
            case Refusal():
                self._open(item, event.content_index, part, events).told = bool(part.text)
            case _:
                pass  # What only this wire knows comes whole, when it is done.

    def _begun(self, item: _Item, text: str) -> Text:
        return Text(text, None, extra_of(NAME, item.fields))

    def _content_done(self, item: _Item, place: int, json: Raw, events: list[StreamEvent]) -> None:
        piece = item.pieces.get(place)
        if item.kind != "message" or (piece is not None and piece.finished):
            return
        part = answer_part(json, f"content[{place}]", item.fields)
        fields: dict[str, Raw] = {}
        match part:
            case Text():
                piece = piece or self._open(item, place, self._begun(item, ""), events)
                own = part.extra.get(NAME, {})
                fields = {name: value for name, value in own.items() if not name.startswith(MESSAGE)}
                self._tell_whole(piece, part.text, events)
            case Refusal():
                piece = piece or self._open(item, place, Refusal(""), events)
                self._tell_whole(piece, part.text, events)
            case _:
                piece = self._open(item, place, part, events)
        piece.finished = True
        events.append(PartFinished(piece.index, extra_of(NAME, fields)))

    def _tell_whole(self, piece: _Piece, text: str, events: list[StreamEvent]) -> None:
        if text and not piece.told:
            piece.told = True
            events.append(TextAdded(piece.index, text))

    def _call_done(self, item: _Item, json: Raw, events: list[StreamEvent]) -> None:
        done, piece = call(json, "item"), item.pieces[0]
        if item.kind == "custom_tool_call":
            rest = END if piece.told else done.arguments.removeprefix(BEGIN)
            events.append(ArgumentsAdded(piece.index, rest))
        elif done.arguments and not piece.told:
            events.append(ArgumentsAdded(piece.index, done.arguments))
        if done.opaque is not None:
            events.append(OpaqueSet(piece.index, done.opaque))

    def _thought_done(self, item: _Item, json: Raw, events: list[StreamEvent]) -> None:
        piece = item.pieces.get(0) or self._open(item, 0, Reasoning(), events)
        thought = self._origin.thought(json, "item")
        self._tell_whole(piece, thought.text, events)
        if thought.opaque is not None:
            events.append(OpaqueSet(piece.index, thought.opaque))
