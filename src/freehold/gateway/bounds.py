"""Gateway: the most that a call can use and cost, from what is asked and what is known of the model.

Input: no vocabulary has a token of less than a byte, so a body has at most as many tokens as bytes, and what a vendor adds
(ADDED_TOKENS). Where a body names what stands elsewhere, or holds pictures, sound or documents, its bytes say nothing: then it is
the model's context. Output: what the request allows, for each answer it wants; else the most that the model can give.

What a vendor's own tools (web search ...) read in further rounds is known to the vendor alone, and is in no bound.
"""

from collections.abc import Callable, Mapping
from typing import Final, assert_never

import msgspec
from msgspec import Raw, Struct, field

from freehold.catalog.models import ModelFacts
from freehold.core.messages import (
    Carried,
    CarriedTool,
    Media,
    ModelRequest,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from freehold.core.pricing import ModelPrice, TokenPrice
from freehold.wires import holds_two

ADDED_TOKENS: Final = 1_000
CONTEXT_TOKENS: Final = 1_000_000
"""Of a model whose context is not known."""

OUTPUT_TOKENS: Final = 128_000
"""Of a model of which is not known how much it can say."""

MESSAGE_BYTES: Final = 32
"""What stands around a message."""

BYTES_A_TOKEN: Final = 2
"""Fewer than nearly any text has: for limits of tokens, where a bound that nothing passes would refuse too much."""

_ELSEWHERE: Final = frozenset({
    "previous_response_id", "conversation", "prompt", "container", "mcp_servers", "web_search_options", "cachedContent",
    "cached_content",
})  # fmt: skip
"""Fields of the top level that name what stands elsewhere, or have the vendor look for it."""

_LIST: Final = b"["
"""Whatever is no text stands in a list of parts or of tools, beside that of messages."""


class Most(Struct, frozen=True):
    """`input_likely` is what a limit of tokens counts beforehand."""

    input_tokens: int
    input_likely: int
    output_tokens: int

    @property
    def likely_tokens(self) -> int:
        return self.input_likely + self.output_tokens


class _Generation(Struct):
    """Google's, in both spellings, and Bedrock's."""

    max_output_tokens: int | None = field(default=None, name="maxOutputTokens")
    max_output_tokens_too: int | None = field(default=None, name="max_output_tokens")
    max_tokens: int | None = field(default=None, name="maxTokens")
    candidates: int | None = field(default=None, name="candidateCount")
    candidates_too: int | None = field(default=None, name="candidate_count")


_generation: Final = msgspec.json.Decoder(_Generation | None)
_number: Final = msgspec.json.Decoder(int | None)
_TOP: Final = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens", "maxTokens"})
_ANSWERS: Final = frozenset({"n", "best_of"})
_NESTED: Final = frozenset({"generationConfig", "generation_config", "inferenceConfig"})


def most_of_body(
    body: bytes, fields: Mapping[str, Raw], facts: ModelFacts | None, holds_more: Callable[[], bool]
) -> Most:
    """`fields` is the body's top level. `holds_more` tells whether it holds more than text, and is asked where it might."""
    asked, answers = None, 1
    for name, raw in fields.items():
        if name in _TOP and (number := _int(raw)) is not None:
            asked = number if asked is None else max(asked, number)
        elif name in _ANSWERS:
            answers = max(answers, _int(raw) or 1)
        elif name in _NESTED:
            number, count = _nested(raw)
            asked = number if asked is None else max(asked, number or 0)
            answers = max(answers, count)
    elsewhere = not _ELSEWHERE.isdisjoint(fields) or (holds_two(body, _LIST) and holds_more())
    return _most(len(body), asked, answers, facts, elsewhere=elsewhere)


def most_of_request(request: ModelRequest, facts: ModelFacts | None) -> Most:
    parts = [part for message in request.messages for part in message.content]
    size = sum(len(text.text.encode()) for text in request.instructions) + sum(map(_size, parts))
    size += sum(len(msgspec.json.encode(tool)) for tool in request.tools) + MESSAGE_BYTES * len(
        request.messages
    )
    if request.output is not None and request.output.schema is not None:
        size += len(bytes(request.output.schema))
    return _most(size, request.tokens_max, 1, facts, elsewhere=holds_more(request))


def most_of_texts(size_bytes: int) -> Most:
    """Of embeddings, which say nothing."""
    return Most(size_bytes + ADDED_TOKENS, size_bytes // BYTES_A_TOKEN + 1, 0)


def most_pico(price: ModelPrice, most: Most) -> int:
    """Each token at the dearest that one of its side can be, of the tiers that so much input can reach."""
    count = most.input_tokens
    dearest = max(
        _dearest(price.input, count),
        _dearest(price.cache_read, count),
        _dearest(price.cache_write, count),
        _dearest(price.cache_write_1h, count),
        _dearest(price.input_audio, count),
    )
    said = max(
        _dearest(price.output, count), _dearest(price.reasoning, count), _dearest(price.output_audio, count)
    )
    return price.pico_per_request + count * dearest + most.output_tokens * said


def _dearest(price: TokenPrice | None, count: int) -> int:
    if price is None:
        return 0
    if not price.tiers:
        return price.pico_per_token
    return max(
        price.pico_per_token, *(tier.pico_per_token for tier in price.tiers if count > tier.above_tokens), 0
    )


def _most(size: int, asked: int | None, answers: int, facts: ModelFacts | None, *, elsewhere: bool) -> Most:
    context = (facts.context_tokens if facts is not None else None) or CONTEXT_TOKENS
    if asked is None or asked < 0:
        asked = OUTPUT_TOKENS
        if facts is not None:
            asked = facts.output_tokens_max or facts.context_tokens or OUTPUT_TOKENS
    full = max(context, size) if elsewhere else size + ADDED_TOKENS
    return Most(full, size // BYTES_A_TOKEN + 1, asked * max(1, answers))


def _nested(raw: Raw) -> tuple[int | None, int]:
    try:
        given = _generation.decode(raw)
    except msgspec.DecodeError:
        return None, 1  # The vendor's to judge.
    if given is None:
        return None, 1
    sizes = (given.max_output_tokens, given.max_output_tokens_too, given.max_tokens)
    size = max((size for size in sizes if size is not None), default=None)
    return size, given.candidates or given.candidates_too or 1


def _int(raw: Raw) -> int | None:
    try:
        number: int | None = _number.decode(raw)
    except msgspec.DecodeError:
        return None
    return number


def _size(part: Part) -> int:
    match part:
        case Text() | Refusal() | Reasoning():
            return len(part.text.encode())
        case Media():
            return 0
        case ToolCall():
            return len(part.name) + len(part.arguments.encode())
        case ToolResult():
            return sum(map(_size, part.content))
        case Carried():
            return len(bytes(part.block))
        case _ as unreachable:
            assert_never(unreachable)


def holds_more(request: ModelRequest) -> bool:
    """Anything but text and tools that the client runs: pictures, what only one vendor understands, tools that it runs itself."""
    return any(isinstance(tool, CarriedTool) for tool in request.tools) or any(
        any(map(_is_more, message.content)) for message in request.messages
    )


def _is_more(part: Part) -> bool:
    # Quicker than isinstance, which a Struct's type makes slow when it says no.
    if type(part) is ToolResult:
        return any(map(_is_more, part.content))
    return type(part) is Media or type(part) is Carried
