"""Wires, OpenAI chat: events to the chunks of a client's stream. One choice; `id`, `created` and `model` the same in every chunk."""

from typing import Any, Final

import msgspec
from msgspec import Raw, structs

from freehold.core.errors import FreeholdError
from freehold.core.messages import (
    AnswerPart,
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
from freehold.wires._fields import UNREADABLE, own, spliced
from freehold.wires._opaque import packed
from freehold.wires._openai_errors import error_object
from freehold.wires.openai_chat._custom import is_custom_call, names_of, told
from freehold.wires.openai_chat._parts_encode import call_fields, detail_of
from freehold.wires.openai_chat._response import PREFIXES, finish_reason, prefixed, refused_in_answer
from freehold.wires.openai_chat._shapes import NAME
from freehold.wires.openai_chat._usage import usage_json

_SUFFIX: Final = b',"logprobs":null,"finish_reason":null}]'
_DONE: Final = b"data: [DONE]\n\n"
_KEYS: Final = {"text": b'{"content":', "refusal": b'{"refusal":', "reasoning": b'{"reasoning_content":'}
_encode: Final = msgspec.json.Encoder().encode


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


def _wants_usage(request: ModelRequest) -> bool:
    options = own(request.extra, NAME).get("stream_options")
    try:
        return options is not None and bool(msgspec.json.decode(options, type=_StreamOptions).include_usage)
    except UNREADABLE:
        return False


class OpenAIStreamEncoder:
    __slots__ = (
        "_calls",
        "_content",
        "_created",
        "_custom",
        "_customs",
        "_details",
        "_head",
        "_keys",
        "_late",
        "_sealed",
        "_tail",
        "_thoughts",
        "_usage",
        "_usage_wanted",
    )

    def __init__(self, request: ModelRequest, created: int) -> None:
        self._usage_wanted = _wants_usage(request)
        self._created = created
        self._custom = names_of(request)
        self._customs: dict[int, tuple[ToolCall, list[str]]] = {}  # Told when their text is whole.
        self._head = b""
        # OpenAI has `usage` in every chunk, once it was asked for: null in all but the last.
        self._tail = b',"usage":null}\n\n' if self._usage_wanted else b"}\n\n"
        self._usage = Usage()
        self._keys: dict[int, bytes] = {}  # Part -> the beginning of its deltas.
        self._calls: dict[int, int] = {}  # Part -> place among the tool calls.
        self._thoughts: dict[int, list[str]] = {}
        self._sealed: dict[int, Opaque] = {}
        self._details: list[dict[str, str | int]] = []
        self._late: dict[
            str, Raw
        ] = {}  # Said when an answer that came whole began, and told where a stream ends.
        self._content: list[AnswerPart] = []

    def encode(self, event: StreamEvent) -> bytes:
        match event:
            case TextAdded():
                return self._text(event)
            case ArgumentsAdded() if event.index in self._customs:
                self._customs[event.index][1].append(event.json)
                return b""
            case ArgumentsAdded():
                call = b'{"tool_calls":[{"index":%d,"function":{"arguments":' % self._calls[event.index]
                return self._chunk(call + _encode(event.json) + b"}}]}")
            case PartStarted():
                return self._part(event.index, event.part)
            case PartFinished():
                return self._part_finished(event.index)
            case OpaqueSet():
                return self._seal(event.index, event.opaque)
            case UsageReported():
                self._usage = event.usage
                return b""
            case Started():
                return self._start(event)
            case Finished():
                return self._finish(event)

    def error(self, error: FreeholdError, request_id: str) -> bytes:
        return b"data: " + error_object(error)[1] + b"\n\n"

    def end(self) -> bytes:
        return _DONE

    def _chunk(self, delta: bytes) -> bytes:
        return self._head + delta + _SUFFIX + self._tail

    def _start(self, event: Started) -> bytes:
        fields: dict[str, Any] = {
            "id": event.id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": event.model,
        }
        for name, value in own(event.extra, NAME).items():
            (self._late if name.startswith(PREFIXES) else fields)[name] = value
        self._head = b"data: " + _encode(fields)[:-1] + b',"choices":[{"index":0,"delta":'
        return self._chunk(b'{"role":"assistant","content":"","refusal":null}')

    def _text(self, event: TextAdded) -> bytes:
        thought = self._thoughts.get(event.index)
        if thought is not None:
            thought.append(event.text)
        return self._chunk(self._keys[event.index] + _encode(event.text) + b"}")

    def _part(self, index: int, part: AnswerPart) -> bytes:
        self._content.append(part)
        match part:
            case Text():
                self._keys[index] = _KEYS["text"]
            case Refusal():
                self._keys[index] = _KEYS["refusal"]
            case Reasoning():
                self._keys[index] = _KEYS["reasoning"]
                self._thoughts[index] = []
                if part.opaque is not None:
                    self._sealed[index] = part.opaque
            case ToolCall():
                return self._call(index, part)
            case _:
                raise refused_in_answer(part, index)
        return self._text(TextAdded(index, part.text)) if part.text else b""

    def _call(self, index: int, call: ToolCall) -> bytes:
        place = self._calls[index] = len(self._calls)
        if is_custom_call(call, self._custom):
            self._customs[index] = (call, [call.arguments])
            return b""
        function = {"name": call.name, "arguments": call.arguments}
        shape = _encode({"index": place, "id": call.id, "type": "function", "function": function})
        return self._chunk(b'{"tool_calls":[' + bytes(spliced(shape, call_fields(call))) + b"]}")

    def _custom_call(self, index: int) -> bytes:
        call, pieces = self._customs.pop(index)
        whole = told(structs.replace(call, arguments="".join(pieces))) | dict(call_fields(call))
        return self._chunk(_encode({"tool_calls": [{"index": self._calls[index], **whole}]}))

    def _seal(self, index: int, opaque: Opaque) -> bytes:
        """A thought's seal goes out with the thought as a whole, when that is over; a call's at once."""
        if index in self._thoughts:
            self._sealed[index] = opaque
            return b""
        if index in self._customs:
            call, pieces = self._customs[index]
            self._customs[index] = (structs.replace(call, opaque=opaque), pieces)
            return b""
        # OpenAI's SDK wants a `function` in every delta of a call.
        shape = {"index": self._calls[index], "function": {"arguments": ""}}
        sealed = _encode({**shape, "extra_content": {"freehold": packed(opaque)}})
        return self._chunk(b'{"tool_calls":[' + sealed + b"]}")

    def _part_finished(self, index: int) -> bytes:
        """Sealed thoughts are told at once in the end: OpenAI's SDK for Node keeps but the last delta of a field it doesn't know."""
        if index in self._customs:
            return self._custom_call(index)
        thought, opaque = self._thoughts.pop(index, None), self._sealed.pop(index, None)
        if thought is not None and opaque is not None:
            self._details.append(detail_of("".join(thought), opaque, len(self._details)))
        return b""

    def _finish(self, event: Finished) -> bytes:
        details = self._chunk(_encode({"reasoning_details": self._details})) if self._details else b""
        return details + self._last(event)

    def _last(self, event: Finished) -> bytes:
        fields = {**self._late, **own(event.extra, NAME)}
        choice: dict[str, Any] = {
            "index": 0,
            "delta": prefixed(fields, "message."),
            "logprobs": fields.pop("choice.logprobs", None),
            "finish_reason": fields.pop("choice.finish_reason", None)
            or finish_reason(event.stop_reason, self._content),
        }
        if event.stop_sequence is not None:
            choice["stop_reason"] = event.stop_sequence
        choice.update(prefixed(fields, "choice."))
        top = {name: value for name, value in fields.items() if not name.startswith(PREFIXES)}
        head = self._head[: self._head.rindex(b',"choices":[{"index":0,"delta":')]
        beyond = b"," + _encode(top)[1:-1] if top else b""
        last = head + beyond + b',"choices":[' + _encode(choice) + b"]" + self._tail
        if not self._usage_wanted:
            return last
        usage = usage_json(self._usage, fields)
        return last + head + b',"choices":[],"usage":' + _encode(usage) + b"}\n\n"
