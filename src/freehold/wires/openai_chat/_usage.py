"""Wires, OpenAI chat: usage in both directions, and reading nothing but usage from bytes that pass through.

Source: https://platform.openai.com/docs/api-reference/chat/object. OpenAI's counts mean what the heart's mean: `prompt_tokens` is
all input, cached or not, and `completion_tokens` all output. xAI alone counts reasoning beside the completion: its total tells.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from freehold.core.messages import NO_USAGE, Usage
from freehold.core.validation import decode
from freehold.wires._fields import UNREADABLE
from freehold.wires._openai_usage import Counted, told_again, uncounted
from freehold.wires._sse import Lines


class _PromptDetails(Struct):
    cached_tokens: int | None = None
    audio_tokens: int | None = None
    cache_write_tokens: int | None = None


class _CompletionDetails(Struct):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


_NO_PROMPT_DETAILS: Final = _PromptDetails()
_NO_COMPLETION_DETAILS: Final = _CompletionDetails()


class UsageShape(Struct):
    """`prompt_cache_hit_tokens` is DeepSeek's."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: int | None = None


_COUNTED: Final[Counted] = {
    "": frozenset({
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
    }),
    "prompt_tokens_details": frozenset(_PromptDetails.__struct_fields__),
    "completion_tokens_details": frozenset(_CompletionDetails.__struct_fields__),
}
_PREDICTIONS: Final = frozenset({
    "usage.completion_tokens_details.accepted_prediction_tokens",
    "usage.completion_tokens_details.rejected_prediction_tokens",
})
"""Every answer tells them to its client: 0 is not worth carrying."""


class _PromptAlone(_PromptDetails, forbid_unknown_fields=True):
    pass


class _CompletionAlone(_CompletionDetails, forbid_unknown_fields=True):
    accepted_prediction_tokens: Literal[0] | None = None
    rejected_prediction_tokens: Literal[0] | None = None


class _CountsAlone(UsageShape, forbid_unknown_fields=True):
    """A usage that says nothing but what the heart counts, as most do."""

    prompt_tokens_details: _PromptAlone | None = None
    completion_tokens_details: _CompletionAlone | None = None
    prompt_cache_hit_tokens: None = None


_COUNTS_ALONE: Final = msgspec.json.Decoder(_CountsAlone | None)


def read_usage(usage: Raw) -> tuple[Usage, dict[str, Raw]]:
    """And what of it no count of the heart says, by path. Raises BadRequest, and what reading hostile JSON raises (UNREADABLE)."""
    try:
        alone = _COUNTS_ALONE.decode(usage)
    except UNREADABLE:
        return usage_from(decode(bytes(usage), USAGE_SHAPE, root="usage")), own_usage(usage)
    return NO_USAGE if alone is None else usage_from(alone), {}


def own_usage(usage: Raw) -> dict[str, Raw]:
    """Of `read_usage`, what is no count's. Raises what reading hostile JSON raises (UNREADABLE)."""
    try:
        _COUNTS_ALONE.decode(usage)
        return {}
    except UNREADABLE:
        pass
    said = uncounted(usage, _COUNTED)
    return {path: value for path, value in said.items() if path not in _PREDICTIONS or bytes(value) != b"0"}


def usage_from(shape: UsageShape) -> Usage:
    prompt = shape.prompt_tokens_details or _NO_PROMPT_DETAILS
    completion = shape.completion_tokens_details or _NO_COMPLETION_DETAILS
    given, made = shape.prompt_tokens or 0, shape.completion_tokens or 0
    reasoning = completion.reasoning_tokens or 0
    if reasoning and shape.total_tokens == given + made + reasoning:
        made += reasoning
    return Usage(
        input_tokens=given,
        output_tokens=made,
        cache_read_tokens=prompt.cached_tokens or shape.prompt_cache_hit_tokens or 0,
        cache_write_tokens=prompt.cache_write_tokens or 0,
        reasoning_tokens=reasoning,
        input_audio_tokens=prompt.audio_tokens or 0,
        output_audio_tokens=completion.audio_tokens or 0,
    )


def usage_json(usage: Usage, fields: Mapping[str, Raw]) -> dict[str, Any]:
    """`fields` are this vendor's own, as they came with the answer."""
    told: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens + usage.cache_write_1h_tokens,
            "audio_tokens": usage.input_audio_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.output_audio_tokens,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    return told_again(told, fields)


class _OnlyUsage(Struct):
    usage: UsageShape | None = None


_ONLY_USAGE: Final = msgspec.json.Decoder(_OnlyUsage)
USAGE_SHAPE: Final = msgspec.json.Decoder(UsageShape)
_USAGE: Final = b'"usage"'
_NO_USAGE: Final = b'"usage":null'
_REASON: Final = b'"finish_reason"'
_NO_REASON: Final = b'"finish_reason":null'
_DONE: Final = b"[DONE]"
_CHOICE: Final = b'"choices":[{'
_PADDING: Final = b'"obfuscation":"'
"""What OpenAI fills its events up with, behind all else: https://platform.openai.com/docs/api-reference/chat/create (include_obfuscation)."""
_NULL_BYTES_MAX: Final = 8
"""Of what stands after a field's name, so much is looked at: a colon, spaces, null."""


def usage_of(body: bytes) -> Usage | None:
    try:
        shape = _ONLY_USAGE.decode(body).usage
    except UNREADABLE:
        return None
    return None if shape is None else usage_from(shape)


class OpenAIUsageTap:
    """Searches whole lines for marks, and decodes no line without. (In text, the marks' quotes would be escaped.)"""

    __slots__ = ("_finished", "_lines", "_usage")

    def __init__(self) -> None:
        self._lines = Lines()
        self._usage: Usage | None = None
        self._finished = False

    def feed(self, data: bytes) -> None:
        self._look(self._lines.feed(data))

    def mould(self, event: bytes) -> tuple[bytes, bytes] | None:
        """All but a choice's beginning stays as it is. What stands behind padding that follows `"usage":null` is not looked at."""
        start, end = event.find(_CHOICE), event.rfind(_NO_REASON)
        if start < 0 or end < start or not event.startswith(b"data:"):
            return None
        begins, ends = event[: start + len(_CHOICE)], event[end:]
        if _says(begins + ends, _USAGE, _NO_USAGE) or _REASON in begins:
            return None
        padding = ends.find(_PADDING)
        if padding >= 0 and _NO_USAGE in ends[:padding]:
            ends = ends[: padding + len(_PADDING)]
        return begins, ends

    def _look(self, lines: bytes) -> None:
        """A server that says `"usage":null` in every chunk is not read chunk by chunk for it; one that counts in each, at the last."""
        if _says(lines, _USAGE, _NO_USAGE):
            for line in reversed(lines.splitlines()):
                if line.startswith(b"data:") and (usage := usage_of(line[5:])) is not None:
                    self._usage = usage
                    break
        if not self._finished:
            self._finished = _says(lines, _REASON, _NO_REASON) or (_DONE in lines and _is_done(lines))

    @property
    def usage(self) -> Usage | None:
        if rest := self._lines.rest:
            self._look(rest)
        return self._usage

    @property
    def finished(self) -> bool:
        if rest := self._lines.rest:
            self._look(rest)
        return self._finished


def _is_done(lines: bytes) -> bool:
    return any(line.startswith(b"data:") and line[5:].strip() == _DONE for line in lines.splitlines())


def _says(lines: bytes, name: bytes, null: bytes) -> bool:
    """Whether a field of this quoted name is there, with another value than null. Where it is mostly there, it is mostly `null`."""
    count = lines.count(name)
    if not count or count == lines.count(null):
        return False
    at = lines.rfind(name)
    while at >= 0:  # From the end, where the answer is told to be over.
        start = at + len(name)
        if not lines[start : start + _NULL_BYTES_MAX].lstrip(b": ").startswith(b"null"):
            return True
        at = lines.rfind(name, 0, at)
    return False
