"""Wires, Anthropic: usage in both directions, and reading nothing but usage from bytes that pass through.

Source: https://platform.claude.com/docs/en/api/messages. This vendor's `input_tokens` leaves out what was read from or written to
the cache; the heart's counts all of it. In a stream, counts are totals so far, and a field that is absent has not changed.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct, structs

from freehold.core.messages import Usage
from freehold.wires._fields import UNREADABLE
from freehold.wires._sse import Lines


class _CacheCreation(Struct):
    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class _OutputDetails(Struct):
    thinking_tokens: int | None = None


class UsageShape(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _OutputDetails | None = None


USAGE_FIELDS: Final = frozenset(UsageShape.__struct_fields__)


def usage_from(shape: UsageShape) -> Usage:
    read, written = shape.cache_read_input_tokens or 0, shape.cache_creation_input_tokens or 0
    creation, details = shape.cache_creation, shape.output_tokens_details
    written_1h = (creation.ephemeral_1h_input_tokens or 0) if creation is not None else 0
    if creation is not None:
        written = max(written, (creation.ephemeral_5m_input_tokens or 0) + written_1h)
    return Usage(
        input_tokens=(shape.input_tokens or 0) + read + written,
        output_tokens=shape.output_tokens or 0,
        cache_read_tokens=read,
        cache_write_tokens=written - written_1h,
        cache_write_1h_tokens=written_1h,
        reasoning_tokens=0 if details is None else details.thinking_tokens or 0,
    )


def later(before: UsageShape, after: UsageShape) -> UsageShape:
    known = {name: value for name in USAGE_FIELDS if (value := getattr(after, name)) is not None}
    return structs.replace(before, **known)


def usage_json(usage: Usage, fields: Mapping[str, Raw]) -> dict[str, Any]:
    """Of a whole message. `fields` are this vendor's own, as they came."""
    told = delta_usage_json(usage, {})
    told["cache_creation"] = _creation(usage)
    told["inference_geo"] = told["service_tier"] = None
    told.update(fields)
    return told


def delta_usage_json(usage: Usage, fields: Mapping[str, Raw]) -> dict[str, Any]:
    """Of `message_delta`."""
    written = usage.cache_write_tokens + usage.cache_write_1h_tokens
    told: dict[str, Any] = {
        "input_tokens": max(0, usage.input_tokens - usage.cache_read_tokens - written),
        "output_tokens": usage.output_tokens,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "server_tool_use": None,
    }
    if written:
        told["cache_creation"] = _creation(usage)
    if usage.reasoning_tokens:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    told.update(fields)
    return told


def _creation(usage: Usage) -> dict[str, int]:
    return {
        "ephemeral_5m_input_tokens": usage.cache_write_tokens,
        "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
    }


class _Message(Struct):
    usage: UsageShape | None = None


class _OnlyUsage(Struct):
    usage: UsageShape | None = None
    message: _Message | None = None


_ONLY_USAGE: Final = msgspec.json.Decoder(_OnlyUsage)
_USAGE: Final = b'"usage"'
_STOPS: Final = (b'"type":"message_stop"', b'"type": "message_stop"')
_MOULD: Final = (b'event: content_block_delta\ndata: {"type":"content_block_delta",', b"}\n\n")
"""Usage and end come in events of other types."""


def _shape_in(body: bytes) -> UsageShape | None:
    try:
        found = _ONLY_USAGE.decode(body)
    except UNREADABLE:
        return None
    return found.usage or (None if found.message is None else found.message.usage)


def usage_of(body: bytes) -> Usage | None:
    shape = _shape_in(body)
    return None if shape is None else usage_from(shape)


class AnthropicUsageTap:
    """Searches whole lines for marks, and decodes no line without. (In text, the marks' quotes would be escaped.)"""

    __slots__ = ("_finished", "_lines", "_shape")

    def __init__(self) -> None:
        self._lines = Lines()
        self._shape: UsageShape | None = None
        self._finished = False

    def feed(self, data: bytes) -> None:
        self._look(self._lines.feed(data))

    def mould(self, event: bytes) -> tuple[bytes, bytes] | None:
        return _MOULD if event.startswith(_MOULD[0]) else None

    def _look(self, lines: bytes) -> None:
        if _USAGE in lines:
            for line in lines.splitlines():
                if _USAGE in line and line.startswith(b"data:"):
                    shape = _shape_in(line[5:])
                    if shape is not None:
                        self._shape = shape if self._shape is None else later(self._shape, shape)
        if not self._finished:
            self._finished = _STOPS[0] in lines or _STOPS[1] in lines

    @property
    def usage(self) -> Usage | None:
        if rest := self._lines.rest:
            self._look(rest)
        return None if self._shape is None else usage_from(self._shape)

    @property
    def finished(self) -> bool:
        if rest := self._lines.rest:
            self._look(rest)
        return self._finished
