"""Wires, OpenAI chat: a provider's stream to events.

Source: https://platform.openai.com/docs/api-reference/chat/streaming. Known ways in which others differ, all accepted: no `[DONE]`;
usage in the last chunk, in one of its own, or in every one; tool calls whole in one delta, without an index, all with index 0, or
without ids; ids and names repeated with every delta; `stop` as the reason though tools are called; errors as a chunk.
"""

from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, structs

from freehold.core.errors import BadRequest, BrokenOff
from freehold.core.messages import AnswerPart, Opaque, Reasoning, Refusal, Text, ToolCall
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
from freehold.wires._fields import NULL, OBJECT, UNREADABLE, is_null
from freehold.wires._mould import Mould
from freehold.wires._openai_errors import error_in_stream
from freehold.wires._sse import SseReader
from freehold.wires.openai_chat._custom import call_of
from freehold.wires.openai_chat._gathered import Gathered, merged_details
from freehold.wires.openai_chat._response import LEGACY_FINISH, Origin, reason_of, stopped_by, text_of_details
from freehold.wires.openai_chat._shapes import NAME
from freehold.wires.openai_chat._usage import USAGE_SHAPE, own_usage, usage_from

TOOL_CALLS_MAX: Final = 1_000
"""Parallel calls in one answer."""

_DONE: Final = b"[DONE]"
_DATA: Final = b"data: "


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: _Function | None = None
    custom: Raw | UnsetType = UNSET
    extra_content: Raw | UnsetType = UNSET


class _Delta(Struct, forbid_unknown_fields=True):
    role: str | None = None
    content: str | None = None
    tool_calls: list[_Call] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: Raw | UnsetType = UNSET


class _Choice(Struct, forbid_unknown_fields=True):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    logprobs: Raw | UnsetType = UNSET
    stop_reason: Raw | UnsetType = UNSET


class _Chunk(Struct, forbid_unknown_fields=True):
    """`obfuscation` is padding against guessing texts from packet sizes: it says nothing."""

    choices: list[_Choice] = []
    id: str | None = None
    object: str | None = None
    created: Raw | UnsetType = UNSET
    model: str | None = None
    service_tier: Raw | UnsetType = UNSET
    system_fingerprint: Raw | UnsetType = UNSET
    obfuscation: Raw | UnsetType = UNSET
    usage: Raw = Raw(NULL)


_STRICT: Final = msgspec.json.Decoder(_Chunk)
_CHUNK_FIELDS: Final = frozenset(_Chunk.__struct_fields__)
_CHOICE_FIELDS: Final = frozenset(_Choice.__struct_fields__)
_DELTA_FIELDS: Final = frozenset(_Delta.__struct_fields__)
_ARRAY: Final = msgspec.json.Decoder(list[Raw])
_encode: Final = msgspec.json.Encoder().encode


class _OpenCall(Struct):
    part: int
    id: str
    json: list[str]


class OpenAIStreamDecoder:
    __slots__ = (
        "_calls",
        "_content",
        "_customs",
        "_details",
        "_done",
        "_finish",
        "_gathered",
        "_kind",
        "_last_call",
        "_mould",
        "_open",
        "_origin",
        "_parts",
        "_sse",
        "_started",
        "_stop_sequence",
        "_told_thought",
        "_usage",
    )

    def __init__(self, provider: str) -> None:
        self._sse = SseReader()
        self._mould = Mould()
        self._origin = Origin(provider, "")
        self._started = False
        self._done = False
        self._finish: str | None = None
        self._stop_sequence: str | None = None
        self._parts = 0
        self._open: int | None = None  # The Text, Refusal or Reasoning part that is being told.
        self._kind = ""
        self._details: list[Raw] = []
        self._told_thought = False  # In plain: details then only repeat it.
        self._calls: dict[int, _OpenCall] = {}  # By the vendor's index, or by our own count from -1 down.
        self._last_call: _OpenCall | None = None
        self._customs = False
        self._content: list[AnswerPart] = []  # One of each kind that was seen: for the reason it stopped.
        self._gathered = Gathered()
        self._usage = Raw(NULL)  # The last one counts.

    def feed(self, data: bytes) -> list[StreamEvent]:
        if (event := self._mould.event_in(data)) is not None:
            return [event]
        events: list[StreamEvent] = []
        for name, json in self._sse.feed(data):
            self._event(name, json, events)
        self._mould.learn(data, events, _text_alone)
        return events

    def end(self) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        for name, json in self._sse.end():
            self._event(name, json, events)
        if not self._done:
            if self._finish is None:
                raise BrokenOff("the stream ended before the answer was finished")
            self._finished(events)
        return events

    def _event(self, name: bytes, json: bytes, events: list[StreamEvent]) -> None:
        if self._done:
            return
        if name == b"error":
            raise error_in_stream(json)
        if json.startswith(_DONE) and json.strip() == _DONE:
            if not self._started:
                raise BrokenOff("the stream ended before it began")
            self._finished(events)
            return
        try:
            chunk = _STRICT.decode(json)
        except UNREADABLE:
            chunk = self._carefully(json)
        if not self._started:
            self._start(chunk, events)
        try:
            for choice in chunk.choices:
                self._choice(choice, events)
            if not is_null(chunk.usage):
                self._usage = chunk.usage
                events.append(UsageReported(usage_from(USAGE_SHAPE.decode(chunk.usage))))
        except (*UNREADABLE, BadRequest) as error:
            raise _strange(json, error) from error

    def _start(self, chunk: _Chunk, events: list[StreamEvent]) -> None:
        """Azure begins with a chunk that has no id and no choice (what its filter says of the prompt)."""
        if not chunk.choices and not chunk.id:
            return
        self._started = True
        self._origin = Origin(self._origin.provider, chunk.model or "")
        fields = {}
        for name in ("created", "service_tier", "system_fingerprint"):
            value = getattr(chunk, name)
            if value is not UNSET and bytes(value) != b"null":
                fields[name] = value
        events.append(Started(chunk.id or "", chunk.model or "", {NAME: fields} if fields else {}))

    def _choice(self, choice: _Choice, events: list[StreamEvent]) -> None:
        if choice.index != 0:
            raise BrokenOff("the stream holds several answers; ask for n = 1")
        delta = choice.delta
        if delta is not None:
            if delta.reasoning_details is not UNSET or delta.reasoning or delta.reasoning_content:
                self._thought(delta, events)
            if delta.content:
                self._told("text", delta.content, events)
            if delta.refusal:
                self._told("refusal", delta.refusal, events)
            if delta.tool_calls:
                for call in delta.tool_calls:
                    self._call(call, events)
        if choice.logprobs is not UNSET:
            self._gathered.add("choice.logprobs", choice.logprobs)
        if choice.stop_reason is not UNSET:
            self._stop_sequence = stopped_by(choice.stop_reason) or self._stop_sequence
        if choice.finish_reason:
            self._finish = choice.finish_reason

    def _thought(self, delta: _Delta, events: list[StreamEvent]) -> None:
        """OpenRouter says a thought twice: plainly in `reasoning`, and in `reasoning_details` with what seals it."""
        text = delta.reasoning_content or delta.reasoning or ""
        kind = (
            "reasoning_content"
            if delta.reasoning_content or self._kind == "reasoning_content"
            else "reasoning"
        )
        details = delta.reasoning_details
        if details is not UNSET and bytes(details) not in (b"null", b"[]"):
            told = self._told_thought or bool(text)
            text = text if told else text_of_details(details)
            self._told(kind, text, events)
            self._details += _ARRAY.decode(details)
        elif text:
            self._told_thought = True
            self._told(kind, text, events)

    def _told(self, kind: str, text: str, events: list[StreamEvent]) -> None:
        index = self._open
        if index is None or kind != self._kind:
            self._close(events)
            self._kind = kind
            part = Text("") if kind == "text" else Refusal("") if kind == "refusal" else Reasoning()
            index = self._open = self._new_part(part, events)
        if text:
            events.append(TextAdded(index, text))

    def _close(self, events: list[StreamEvent]) -> None:
        index = self._open
        if index is None:
            return
        if self._kind.startswith("reasoning"):
            if self._details:
                data = merged_details(self._details)
                self._details = []
                events.append(OpaqueSet(index, self._origin.seal(data, "reasoning_details")))
            else:
                events.append(OpaqueSet(index, self._origin.seal("", self._kind)))
        events.append(PartFinished(index))
        self._open = None

    def _new_part(self, part: AnswerPart, events: list[StreamEvent]) -> int:
        index = self._parts
        self._parts += 1
        self._content.append(part)
        events.append(PartStarted(index, part))
        return index

    def _call(self, call: _Call, events: list[StreamEvent]) -> None:
        if call.custom is not UNSET or call.type == "custom" or self._customs:
            self._customs = True
            self._gathered.add("custom_tool_calls", Raw(_encode([call])))
            return
        function = call.function or _Function()
        known = self._find(call, function)
        found = known or self._open_call(call, function, events)
        if function.arguments:
            found.json.append(function.arguments)
            events.append(ArgumentsAdded(found.part, function.arguments))
        if known and (seal := self._seal_of(call)) is not None:
            events.append(OpaqueSet(found.part, seal))

    def _seal_of(self, call: _Call) -> Opaque | None:
        content = call.extra_content
        if content is UNSET or bytes(content) in (b"null", b"{}"):
            return None
        return self._origin.seal(bytes(content).decode(), "extra_content")

    def _find(self, call: _Call, function: _Function) -> _OpenCall | None:
        """The call that this delta goes on with; None where it begins another."""
        if call.index is None:
            same = [known for known in self._calls.values() if call.id and known.id == call.id]
            known = same[0] if same else None if call.id or function.name else self._last_call
        else:
            known = self._calls.get(call.index)
        if known is None or (call.id and call.id != known.id):
            return None
        if function.name and not call.id and _is_json("".join(known.json)):
            return None  # Neither id nor a new index, but a name again after whole arguments.
        return known

    def _open_call(self, call: _Call, function: _Function, events: list[StreamEvent]) -> _OpenCall:
        if len(self._calls) >= TOOL_CALLS_MAX:
            raise BrokenOff(f"the answer calls more than TOOL_CALLS_MAX = {TOOL_CALLS_MAX} tools")
        self._close(events)
        number = len(self._calls)
        part = self._new_part(ToolCall(call.id or "", function.name or "", "", self._seal_of(call)), events)
        opened = _OpenCall(part, call.id or "", [])
        place = -1 - number if call.index is None else call.index
        if place in self._calls:
            self._calls[-1 - number] = self._calls.pop(place)
        self._calls[place] = self._last_call = opened
        return opened

    def _finished(self, events: list[StreamEvent]) -> None:
        self._done = True
        try:
            self._tell_the_end(events)
        except UNREADABLE as error:
            raise _strange(b"", error) from error

    def _tell_the_end(self, events: list[StreamEvent]) -> None:
        self._close(events)
        events += (PartFinished(call.part) for call in sorted(self._calls.values(), key=_by_part))
        for call_id, custom in self._gathered.take_custom_calls():
            called = call_of(call_id, custom, "custom")
            index = self._new_part(structs.replace(called, arguments=""), events)
            events += (ArgumentsAdded(index, called.arguments), PartFinished(index))
        reason = reason_of(self._finish, self._content, self._stop_sequence)
        fields = self._gathered.fields()
        fields.update(own_usage(self._usage))
        if self._finish == LEGACY_FINISH:
            fields["choice.finish_reason"] = Raw(_encode(LEGACY_FINISH))
        events.append(Finished(reason, self._stop_sequence, {NAME: fields} if fields else {}))

    def _carefully(self, json: bytes) -> _Chunk:
        """A chunk with fields that nobody has told us of: they are gathered, and the rest is read without them."""
        try:
            top = OBJECT.decode(json)
            if bytes(top.get("error", b"null")) != b"null" and "choices" not in top:
                raise error_in_stream(json)
            if bytes(top.get("error", b"null")) not in (b"null", b'""'):
                raise error_in_stream(json)
            return _STRICT.decode(_encode(self._without_unknown(top)))
        except UNREADABLE as error:
            raise _strange(json, error) from error

    def _without_unknown(self, top: dict[str, Raw]) -> dict[str, Any]:
        cleaned: dict[str, Any] = self._gathered.split(top, _CHUNK_FIELDS, "")
        if not bytes(top.get("choices", b"")).startswith(b"["):
            cleaned.pop("choices", None)
            return cleaned
        choices = []
        for json in _ARRAY.decode(top["choices"]):
            choice: dict[str, Any] = self._gathered.split(OBJECT.decode(json), _CHOICE_FIELDS, "choice.")
            if bytes(choice.get("delta", b"")).startswith(b"{"):
                choice["delta"] = self._gathered.split(
                    OBJECT.decode(choice["delta"]), _DELTA_FIELDS, "message."
                )
            choices.append(choice)
        cleaned["choices"] = choices
        return cleaned


def _text_alone(data: bytes) -> str | None:
    """Of an event that says nothing beside one text (see `Mould`)."""
    if not data.startswith(_DATA):
        return None
    try:
        chunk = _STRICT.decode(data[len(_DATA) :])
    except UNREADABLE:
        return None
    if len(chunk.choices) != 1 or not is_null(chunk.usage):
        return None
    choice = chunk.choices[0]
    if choice.delta is None or choice.finish_reason or _says(choice.logprobs) or _says(choice.stop_reason):
        return None
    delta = choice.delta
    if delta.tool_calls or delta.reasoning_details is not UNSET:
        return None
    told = [text for text in (delta.content, delta.refusal, delta.reasoning_content, delta.reasoning) if text]
    return told[0] if len(told) == 1 else None


def _says(value: Raw | UnsetType) -> bool:
    return value is not UNSET and not is_null(value)


def _strange(json: bytes, error: Exception) -> BrokenOff:
    said = f"the stream holds something that is not a chunk: {error}"
    return BrokenOff(said, detail=json[:1000].decode("utf-8", "replace"))


def _by_part(call: _OpenCall) -> int:
    return call.part


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=Raw)
    except UNREADABLE:
        return False
    return True
