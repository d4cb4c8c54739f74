"""Wires, Bedrock Converse: usage in both directions, and reading nothing but usage from bytes that pass through.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html. This vendor's `inputTokens` leaves out what was read
from or written to the cache, its `totalTokens` has everything; the heart counts all input.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from freehold.core.errors import BrokenOff
from freehold.core.messages import Usage
from freehold.wires._aws_eventstream import FrameReader


class _CacheDetail(Struct, rename="camel"):
    ttl: str = ""
    input_tokens: int = 0


class UsageShape(Struct, rename="camel"):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_details: list[_CacheDetail] | None = None


USAGE_FIELDS: Final = frozenset({*UsageShape.__struct_encode_fields__, "totalTokens"})


def usage_from(shape: UsageShape) -> Usage:
    read, written = shape.cache_read_input_tokens or 0, shape.cache_write_input_tokens or 0
    written_1h = sum(one.input_tokens for one in shape.cache_details or () if one.ttl == "1h")
    written_1h = min(written_1h, written)
    return Usage(
        input_tokens=(shape.input_tokens or 0) + read + written,
        output_tokens=shape.output_tokens or 0,
        cache_read_tokens=read,
        cache_write_tokens=written - written_1h,
        cache_write_1h_tokens=written_1h,
    )


def usage_json(usage: Usage) -> dict[str, Any]:
    written = usage.cache_write_tokens + usage.cache_write_1h_tokens
    told: dict[str, Any] = {
        "inputTokens": max(0, usage.input_tokens - usage.cache_read_tokens - written),
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.cache_read_tokens or written:
        told["cacheReadInputTokens"] = usage.cache_read_tokens
        told["cacheWriteInputTokens"] = written
    if usage.cache_write_1h_tokens:
        by_ttl = {"5m": usage.cache_write_tokens, "1h": usage.cache_write_1h_tokens}
        told["cacheDetails"] = [{"ttl": ttl, "inputTokens": count} for ttl, count in by_ttl.items() if count]
    return told


class _OnlyUsage(Struct):
    usage: UsageShape | None = None


_ONLY_USAGE: Final = msgspec.json.Decoder(_OnlyUsage)


def usage_of(body: bytes) -> Usage | None:
    try:
        shape = _ONLY_USAGE.decode(body).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if shape is None else usage_from(shape)


class ConverseUsageTap:
    """Looks at every frame's head, and decodes only the one that holds the usage. What is no event stream is none of its business."""

    __slots__ = ("_finished", "_reader", "_usage")

    def __init__(self) -> None:
        self._reader: FrameReader | None = FrameReader()
        self._usage: Usage | None = None
        self._finished = False

    def feed(self, data: bytes) -> None:
        if self._reader is None:
            return
        try:
            frames = self._reader.feed(data)
        except BrokenOff:
            self._reader = None
            return
        for frame in frames:
            event = frame.headers.get(":event-type")
            if event == "metadata":
                self._usage = usage_of(frame.payload) or self._usage
            elif event == "messageStop":
                self._finished = True

    def mould(self, _: bytes) -> None:
        """Frames have checksums and sizes: no two are alike."""

    @property
    def usage(self) -> Usage | None:
        return self._usage

    @property
    def finished(self) -> bool:
        return self._finished
