"""Wires, OpenAI responses: usage in both directions, and reading nothing but usage from bytes that pass through.

Source: https://platform.openai.com/docs/api-reference/responses/object. The counts mean what the heart's mean.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from freehold.core.messages import Usage
from freehold.wires._fields import UNREADABLE
from freehold.wires._openai_usage import Counted, told_again
from freehold.wires._sse import Lines


class _InputDetails(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(Struct):
    reasoning_tokens: int | None = None


_NO_INPUT_DETAILS: Final = _InputDetails()
_NO_OUTPUT_DETAILS: Final = _OutputDetails()


class UsageShape(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


COUNTED: Final[Counted] = {
    "": frozenset({*UsageShape.__struct_fields__, "total_tokens"}),
    "input_tokens_details": frozenset(_InputDetails.__struct_fields__),
    "output_tokens_details": frozenset(_OutputDetails.__struct_fields__),
}


def usage_from(shape: UsageShape) -> Usage:
    given = shape.input_tokens_details or _NO_INPUT_DETAILS
    made = shape.output_tokens_details or _NO_OUTPUT_DETAILS
    return Usage(
        input_tokens=shape.input_tokens or 0,
        output_tokens=shape.output_tokens or 0,
        cache_read_tokens=given.cached_tokens or 0,
        cache_write_tokens=given.cache_write_tokens or 0,
        reasoning_tokens=made.reasoning_tokens or 0,
    )


def usage_json(usage: Usage, fields: Mapping[str, Raw]) -> dict[str, Any]:
    """`fields` are this vendor's own, as they came with the answer."""
    told: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens + usage.cache_write_1h_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    return told_again(told, fields)


class _OnlyUsage(Struct):
    usage: UsageShape | None = None


class _LastEvent(Struct):
    type: str = ""
    response: _OnlyUsage | None = None


_ONLY_USAGE: Final = msgspec.json.Decoder(_OnlyUsage)
USAGE_SHAPE: Final = msgspec.json.Decoder(UsageShape)
_LAST_EVENT: Final = msgspec.json.Decoder(_LastEvent)
_FINISHED: Final = ("response.completed", "response.incomplete")
_FAILED: Final = "response.failed"
_RESPONSE: Final = b'"response"'
"""In the first and the last events only, so that most are looked at once."""

_MOULD: Final = (b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",', b"}\n\n")
_MARKS: Final = tuple(f'"{name}"'.encode() for name in (*_FINISHED, _FAILED))


def usage_of(body: bytes) -> Usage | None:
    try:
        shape = _ONLY_USAGE.decode(body).usage
    except UNREADABLE:
        return None
    return None if shape is None else usage_from(shape)


class ResponsesUsageTap:
    """Searches whole lines for the last event, and decodes no other. (In texts, the marks' quotes would be escaped.)"""

    __slots__ = ("_finished", "_lines", "_usage")

    def __init__(self) -> None:
        self._lines = Lines()
        self._usage: Usage | None = None
        self._finished = False

    def feed(self, data: bytes) -> None:
        self._look(self._lines.feed(data))

    def mould(self, event: bytes) -> tuple[bytes, bytes] | None:
        return _MOULD if event.startswith(_MOULD[0]) else None

    def _look(self, lines: bytes) -> None:
        if _RESPONSE in lines and any(mark in lines for mark in _MARKS):
            for line in lines.splitlines():
                if line.startswith(b"data:") and any(mark in line for mark in _MARKS):
                    self._read(line[5:])

    def _read(self, json: bytes) -> None:
        try:
            event = _LAST_EVENT.decode(json)
        except UNREADABLE:
            return
        if event.type not in _FINISHED and event.type != _FAILED:
            return
        self._finished = self._finished or event.type in _FINISHED
        if event.response is not None and event.response.usage is not None:
            self._usage = usage_from(event.response.usage)

    @property
    def usage(self) -> Usage | None:
        self._look(self._lines.rest)
        return self._usage

    @property
    def finished(self) -> bool:
        self._look(self._lines.rest)
        return self._finished
