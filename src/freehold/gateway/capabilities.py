"""Gateway: what a request asks of a model, held against what is known of it. Pure: nothing is sent, nothing is looked up.

What is not known is never refused. Bodies that pass as bytes are not decoded for this: `suspect` looks for the few signs that
something may be asked that the model lacks, and only then is the request read. Not here: the facts (catalog/models.py), and
which models there are instead (alternatives.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Raw, Struct

from freehold.catalog.models import Ability, ModelFacts
from freehold.core import tokens
from freehold.core.errors import ContextTooLong, FreeholdError, Unsupported
from freehold.core.messages import Media, ModelRequest, Part, Text, ToolCall, ToolResult
from freehold.wires import holds_two

SURELY: Final = 0.7
"""Of an estimate of tokens, the part that is there without doubt: only what is too long even so is refused."""

BYTES_PER_TOKEN_MIN: Final = 2
"""Fewer bytes than this for each token of a model's context are not too many, or not obviously."""

AUDIO_BYTES_MIN: Final = 2048
"""A body smaller than this holds no sound: that comes inline."""

Lacked: TypeAlias = Ability | Literal["output", "context"]

_SAID: Final[Mapping[Ability, str]] = {
    "images": "takes no images",
    "documents": "reads no documents",
    "audio": "takes no audio",
    "tools": "calls no tools",
    "reasoning": "has no reasoning that can be set",
    "json_schema": "cannot hold its answer to a JSON schema",
}
_MEDIA: Final[Mapping[str, Ability]] = {"image": "images", "audio": "audio", "document": "documents"}
_SIGNS: Final[Mapping[str, Mapping[Ability, bytes]]] = {
    "openai_chat": {"images": b'"image_url"', "documents": b'"file"', "audio": b'"input_audio"'},
    "openai_responses": {"images": b'"input_image"', "documents": b'"input_file"', "audio": b'"input_audio"'},
    "anthropic_messages": {"images": b'"image"', "documents": b'"document"'},
    "bedrock_converse": {"images": b'"image"', "documents": b'"document"', "audio": b'"audio"'},
    "google_generate": {"images": b'"image/', "documents": b'"application/pdf"', "audio": b'"audio/'},
}
"""In a body's bytes, as each wire says it."""

_SET: Final[Mapping[Lacked, tuple[str, ...]]] = {
    "tools": ("tools", "toolConfig"),
    "reasoning": ("reasoning_effort", "thinking", "reasoning", "output_config", "additionalModelRequestFields"),
    "json_schema": ("response_format", "output_config", "output_format", "text", "outputConfig"),
    "output": ("max_completion_tokens", "max_tokens", "max_output_tokens", "inferenceConfig"),
    "context": ("messages", "input", "contents"),
}  # fmt: skip
"""At a body's top level, as the wires say it. Google has most of these inside `generationConfig`."""

_INSIDE: Final = "generationConfig"
_OUTPUT_FIELDS: Final = _SET["output"][:3]
_LIST: Final = b"["
"""Signs stand in the list of a message's parts, within that of messages: where there is but one list, there is none of them."""

_NO_LIMIT: Final = 1 << 62


class Lack(Struct, frozen=True):
    """`field` is the heart's path. `amount`: the tokens that were asked for, where it is a matter of tokens."""

    what: Lacked
    field: str
    amount: int = 0


def lack_of(facts: ModelFacts, request: ModelRequest, *, size_bytes: int) -> Lack | None:
    """The first thing that this model is known not to do. `size_bytes` bounds the request's text from above."""
    for ability, field in _asked(request, facts.lacks):
        if ability in facts.lacks:
            return Lack(ability, field)
    asked, most = request.tokens_max, facts.output_tokens_max
    if asked is not None and most is not None and asked > most:
        return Lack("output", "tokens_max", asked)
    context = facts.context_tokens
    if context is not None and size_bytes > context * BYTES_PER_TOKEN_MIN:
        estimated = tokens.of_request(request)
        if estimated * SURELY > context:
            return Lack("context", "messages", estimated)
    return None


def is_able(facts: ModelFacts, lack: Lack, request: ModelRequest) -> bool:
    """Whether this model is known to do what another lacks, and not known to lack anything else that is asked."""
    match lack.what:
        case "output":
            able = (facts.output_tokens_max or 0) >= lack.amount
        case "context":
            able = (facts.context_tokens or 0) > lack.amount
        case ability:
            able = ability in facts.has
    return able and lack_of(facts, request, size_bytes=0) is None


def text_bytes(request: ModelRequest) -> int:
    """At most so many bytes of text are in it, instructions and tools included (UTF-8 has four for a character at most)."""
    said = sum(len(text.text) for text in request.instructions)
    said += sum(_characters(part) for message in request.messages for part in message.content)
    return 4 * said + sum(len(msgspec.json.encode(tool)) for tool in request.tools)


def _characters(part: Part) -> int:
    match part:
        case Text():
            return len(part.text)
        case ToolCall():
            return len(part.arguments)
        case ToolResult():
            return sum(_characters(inner) for inner in part.content)
        case _:
            return 0


def _asked(request: ModelRequest, lacks: frozenset[Ability]) -> Iterator[tuple[Ability, str]]:
    """In the order in which a reader meets it. Messages are gone through only where a model lacks something that stands there."""
    if not lacks.isdisjoint(_MEDIA.values()):
        for index, message in enumerate(request.messages):
            for place, part in enumerate(message.content):
                yield from _media(part, f"messages[{index}].content[{place}]")
    if request.tools:
        yield "tools", "tools"
    setting = request.reasoning
    if setting is not None and setting.enabled and setting.effort != "none":
        yield "reasoning", "reasoning.effort" if setting.effort else "reasoning"
    if request.output is not None and request.output.schema is not None:
        yield "json_schema", "response_format"


def _media(part: Part, path: str) -> Iterator[tuple[Ability, str]]:
    if isinstance(part, Media):
        ability = _MEDIA.get(part.kind)
        # A document that is text is told as text where a vendor has no documents.
        if ability is not None and not part.media_type.startswith("text/"):
            yield ability, path
    elif isinstance(part, ToolResult):
        for place, inner in enumerate(part.content):
            yield from _media(inner, f"{path}.content[{place}]")


# --------------------------------------------------------------------------------- bodies that pass as bytes


class Suspicion:
    """What to look for in the bodies that go to one model: made once for it, asked of each."""

    __slots__ = ("_every_sign", "_fields", "_output_digits", "_signs", "_size_bytes")

    def __init__(self, facts: ModelFacts, wire: str | None) -> None:
        signs, most, context = _SIGNS.get(wire or "", {}), facts.output_tokens_max, facts.context_tokens
        fields = [name for what in facts.lacks for name in _SET.get(what, ())]
        self._fields = frozenset([*fields, _INSIDE])
        self._every_sign = tuple(sign for what, sign in signs.items() if what in facts.lacks)
        self._signs = tuple(sign for sign in self._every_sign if sign != signs.get("audio"))
        self._output_digits = _NO_LIMIT if most is None else len(str(most))
        self._size_bytes = _NO_LIMIT if context is None else context * BYTES_PER_TOKEN_MIN

    def falls_on(self, body: bytes, fields: Mapping[str, Raw]) -> bool:
        """Whether something may be asked that the model lacks. `fields` are the body's top level."""
        if len(body) > self._size_bytes or not self._fields.isdisjoint(fields):
            return True
        for name in _OUTPUT_FIELDS:
            if name in fields and len(bytes(fields[name])) >= self._output_digits:
                return True
        if not holds_two(body, _LIST):
            return False
        for sign in self._signs if len(body) < AUDIO_BYTES_MIN else self._every_sign:
            if sign in body:
                return True
        return False


# ------------------------------------------------------------------------------------------------ refusing


def refusal(
    model: str, lack: Lack, facts: ModelFacts, *, field: str, instead: Sequence[str]
) -> FreeholdError:
    """`instead` are models that could do it. `field` is the path in the words of whoever asked."""
    could = f"; models here that can: {', '.join(instead)}" if instead else ""
    match lack.what:
        case "output":
            most = facts.output_tokens_max
            said = f"{model} answers with {most} tokens at most, and {lack.amount} were asked for"
        case "context":
            said = f"{model} takes {facts.context_tokens} tokens in all, and this has about {lack.amount}"
            return ContextTooLong(said + could, field=field)
        case ability:
            said = f"{model} {_SAID[ability]}"
    return Unsupported(said + could, field=field)
