"""A model's answer in the Responses wire, on its way to being a kept one: our id, and what it builds on. Pure.

Not here: who keeps it (responses_keeping.py), and items (_response_items.py).
"""

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from msgspec import Raw, Struct

from freehold.core.errors import BadRequest, TooLarge, Unavailable
from freehold.core.response_facts import ResponseStatus
from freehold.core.responses import KeptResponse
from freehold.server.apis._response_items import EMPTY

EVENT_BYTES_MAX: Final = 64 * 1024 * 1024

_END_EVENTS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_MARK: Final = b'"response"'
"""In every event that has the response in it. In a string's value the quotes are escaped, so words never match."""

_FIELDS: Final = msgspec.json.Decoder(dict[str, Raw])
_TEXT: Final = msgspec.json.Decoder(str)
_MISREAD: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_encode: Final = msgspec.json.Encoder().encode

_USUAL: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
}
"""What a response repeats of its request, with what holds where that says nothing."""


class Ended(Struct, frozen=True):
    """A whole answer. `head` and `output` are JSON, as they are kept; `event` is how its stream says so."""

    status: ResponseStatus
    head: bytes
    output: bytes
    event: bytes = b""


class Marks(Struct, frozen=True):
    """What is ours in an answer: its id and the fields that no provider knows of."""

    response_id: str
    stored: bool
    background: bool = False
    previous_id: str | None = None
    conversation_id: str | None = None

    def on(self, response: Mapping[str, Raw]) -> dict[str, Any]:
        conversation = None if self.conversation_id is None else {"id": self.conversation_id}
        return {
            **response,
            "id": self.response_id,
            "store": self.stored,
            "background": self.background,
            "previous_response_id": self.previous_id,
            "conversation": conversation,
        }

    def begun(self, asked: Mapping[str, Raw], model: str, *, at_s: int) -> dict[str, Any]:
        """A response of which nothing is there yet."""
        repeated = {name: asked.get(name, usual) for name, usual in _USUAL.items()}
        said = {name: usual if _is_null(repeated[name]) else repeated[name] for name, usual in _USUAL.items()}
        new: dict[str, Any] = {
            "object": "response",
            "created_at": at_s,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "model": model,
            "usage": None,
            **said,
        }
        return self.on(new)

    def ended(self, body: bytes) -> tuple[Ended, bytes]:
        """A whole answer, and the same for its client. Raises Unavailable for bytes that are none."""
        try:
            response = self.on(_FIELDS.decode(body))
            ended = _ended(response)
        except _MISREAD as error:
            said = "answered with something that is not a response"
            raise Unavailable(said, detail=body[:1000].decode("utf-8", "replace")) from error
        return ended, _encode(response)


def _is_null(value: Any) -> bool:
    return isinstance(value, Raw) and bytes(value) == b"null"


def _ended(response: dict[str, Any], event: bytes = b"") -> Ended:
    status = cast("ResponseStatus", _TEXT.decode(response.get("status", b'"completed"')))
    output = response.get("output")
    head = {name: value for name, value in response.items() if name != "output"}
    return Ended(status, _encode(head), EMPTY if output is None else bytes(output), event)


class MarkedStream:
    """One answer's stream, with `marks` on every response in it. The event that ends it is held back, as `ended`."""

    __slots__ = ("_held", "_marks", "ended")

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._held = b""
        self.ended: Ended | None = None

    def feed(self, data: bytes) -> bytes:
        """What may go on to the client; may be empty. Bytes wait only while an event is not complete."""
        if self._held:
            data, self._held = self._held + data, b""
        if _MARK not in data and data.endswith(b"\n\n"):
            return data
        end = end_of_events(data)
        data, self._held = data[:end], data[end:]
        if len(self._held) > EVENT_BYTES_MAX:
            raise TooLarge(f"an event has more than EVENT_BYTES_MAX = {EVENT_BYTES_MAX} bytes")
        if _MARK not in data:
            return data
        return b"".join(self._told(event) for event in split(data))

    def rest(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def _told(self, event: bytes) -> bytes:
        if _MARK not in event:
            return event
        try:
            fields = data_of(event)
            response = self._marks.on(_FIELDS.decode(fields["response"]))
            kind = _TEXT.decode(fields["type"])
            told = event_of(kind, {**fields, "response": response})
            if kind not in _END_EVENTS:
                return told
            self.ended = _ended(response, told)
        except (*_MISREAD, KeyError):
            return event
        return b""


def end_of_events(data: bytes) -> int:
    """Where the last whole event ends; 0 where none does."""
    plain, carriage = data.rfind(b"\n\n"), data.rfind(b"\r\n\r\n")
    return max(plain + 2 if plain >= 0 else 0, carriage + 4 if carriage >= 0 else 0)


def split(data: bytes) -> list[bytes]:
    """Whole events, each with what ends it."""
    data = data.replace(b"\r\n", b"\n")
    return [event + b"\n\n" for event in data.split(b"\n\n") if event.strip()]


def data_of(event: bytes) -> dict[str, Raw]:
    """Raises msgspec.DecodeError where it is no JSON object."""
    lines = [line[5:] for line in event.split(b"\n") if line.startswith(b"data:")]
    return _FIELDS.decode(b"\n".join(lines))


def event_of(kind: str, fields: Mapping[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode(fields))


def numbered(event: bytes, number: int) -> tuple[str, bytes]:
    """The event's type, and the event with another number. Raises BadRequest where it is none."""
    try:
        fields = data_of(event)
        kind = _TEXT.decode(fields["type"])
    except (*_MISREAD, KeyError) as error:
        raise BadRequest("expected an event of a response's stream") from error
    return kind, event_of(kind, {**fields, "sequence_number": number})


def shown(kept: KeptResponse) -> bytes:
    """The response object as its client sees it."""
    return _encode({**_FIELDS.decode(kept.head), "status": kept.status, "output": Raw(kept.output)})


def is_background(kept: KeptResponse) -> bool:
    return bytes(_FIELDS.decode(kept.head).get("background", b"false")) == b"true"


def failed(kept: KeptResponse, *, code: str, message: str) -> Ended:
    """Of one in the background, that it came to nothing."""
    head = {**_FIELDS.decode(kept.head), "status": "failed", "error": {"code": code, "message": message}}
    return Ended("failed", _encode(head), EMPTY)
