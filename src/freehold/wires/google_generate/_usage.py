"""Wires, Google: usage in both directions, and reading nothing but usage from bytes that pass through.

Source: https://ai.google.dev/api/generate-content#UsageMetadata. `promptTokenCount` holds what was cached, as the heart's count does;
what the vendor's own tools read stands beside it. `candidatesTokenCount` leaves thoughts out. In a stream, counts are totals so far.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from freehold.core.messages import Usage
from freehold.wires._fields import UNREADABLE
from freehold.wires._sse import Lines


class _Modality(Struct, rename="camel"):
    modality: str = ""
    token_count: int | None = None


class UsageShape(Struct, rename="camel"):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    total_token_count: int | None = None
    prompt_tokens_details: list[_Modality] | None = None
    candidates_tokens_details: list[_Modality] | None = None


def usage_from(shape: UsageShape) -> Usage:
    given = (shape.prompt_token_count or 0) + (shape.tool_use_prompt_token_count or 0)
    said, thought = shape.candidates_token_count or 0, shape.thoughts_token_count or 0
    made = said + thought
    if thought and said >= thought and shape.total_token_count == given + said:
        made = said  # Some models' totals say that their thoughts are counted among the rest.
    return Usage(
        input_tokens=given,
        output_tokens=made,
        cache_read_tokens=shape.cached_content_token_count or 0,
        reasoning_tokens=thought,
        input_audio_tokens=_audio(shape.prompt_tokens_details),
        output_audio_tokens=_audio(shape.candidates_tokens_details),
    )


def _audio(details: list[_Modality] | None) -> int:
    return sum(one.token_count or 0 for one in details or () if one.modality == "AUDIO")


def usage_json(usage: Usage) -> dict[str, Any]:
    thought = min(usage.reasoning_tokens, usage.output_tokens)
    told: dict[str, Any] = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": usage.output_tokens - thought,
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
    }
    if usage.cache_read_tokens:
        told["cachedContentTokenCount"] = usage.cache_read_tokens
    if thought:
        told["thoughtsTokenCount"] = thought
    if usage.input_audio_tokens:
        told["promptTokensDetails"] = _details(usage.input_tokens, usage.input_audio_tokens)
    if usage.output_audio_tokens:
        told["candidatesTokensDetails"] = _details(usage.output_tokens - thought, usage.output_audio_tokens)
    return told


def _details(count: int, audio: int) -> list[dict[str, Any]]:
    rest = {"modality": "TEXT", "tokenCount": max(0, count - audio)}
    return [rest, {"modality": "AUDIO", "tokenCount": audio}]


class _Candidate(Struct, rename="camel"):
    finish_reason: str | None = None


class _OnlyUsage(Struct, rename="camel"):
    usage_metadata: UsageShape | None = None
    candidates: list[_Candidate] | None = None


_ONLY_USAGE: Final = msgspec.json.Decoder(_OnlyUsage)
_USAGE: Final = b'"usageMetadata"'
_FINISH: Final = b'"finishReason"'


def _read(body: bytes) -> _OnlyUsage:
    try:
        return _ONLY_USAGE.decode(body)
    except UNREADABLE:
        return _OnlyUsage()


def usage_of(body: bytes) -> Usage | None:
    shape = _read(body).usage_metadata
    return None if shape is None else usage_from(shape)


class GoogleUsageTap:
    """Every chunk has usage, and the last one counts: it is kept, and decoded when somebody asks."""

    __slots__ = ("_finished", "_last", "_lines")

    def __init__(self) -> None:
        self._lines = Lines()
        self._last = b""
        self._finished = False

    def feed(self, data: bytes) -> None:
        self._look(self._lines.feed(data))

    def mould(self, _: bytes) -> None:
        """Usage is in each."""

    def _look(self, lines: bytes) -> None:
        if _USAGE in lines:
            self._last = lines
        if not self._finished and _FINISH in lines:
            self._finished = any(_finishes(line) for line in lines.splitlines() if _FINISH in line)

    @property
    def usage(self) -> Usage | None:
        self._look(self._lines.rest)
        for line in reversed(self._last.splitlines()):
            if _USAGE in line and line.startswith(b"data:"):
                return usage_of(line[5:])
        return None

    @property
    def finished(self) -> bool:
        self._look(self._lines.rest)
        return self._finished


def _finishes(line: bytes) -> bool:
    """Decoded, since a call's arguments may have a field of that name."""
    return line.startswith(b"data:") and any(one.finish_reason for one in _read(line[5:]).candidates or ())
