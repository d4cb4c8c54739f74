"""Wires, Anthropic: whole answers, both directions.

What only this vendor says of an answer rides in `extra` under its own name (container, context_management, stop_details), that of the
usage as `usage.<field>`. Towards a client of another wire it is left out: an answer cannot be refused for saying more than was asked.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from freehold.core.errors import BadRequest, Unavailable, Unsupported
from freehold.core.messages import (
    AnswerPart,
    Carried,
    Media,
    ModelResponse,
    Opaque,
    Reasoning,
    Refusal,
    StopReason,
    Text,
    ToolCall,
    Usage,
)
from freehold.core.validation import decode
from freehold.wires._arguments import object_of, text_of
from freehold.wires._fields import NO_FIELDS, OBJECT, UNREADABLE, extra_of, is_null, own, spliced, text_in
from freehold.wires.anthropic_messages._blocks_encode import client_thinking, client_tool_use
from freehold.wires.anthropic_messages._errors import error_in_stream
from freehold.wires.anthropic_messages._shapes import NAME, TextBlock, says_something
from freehold.wires.anthropic_messages._usage import USAGE_FIELDS, UsageShape, usage_from, usage_json

USAGE_PREFIX: Final = "usage."
TOP_FIELDS: Final = frozenset({
    "id",
    "type",
    "role",
    "model",
    "content",
    "stop_reason",
    "stop_sequence",
    "usage",
})
_BLOCK_FIELDS: Final = {
    "text": frozenset({"type", "text"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
    "tool_use": frozenset({"type", "id", "name", "input"}),
}
_encode: Final = msgspec.json.Encoder().encode


class Message(Struct):
    id: str = ""
    model: str = ""
    content: list[Raw] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: UsageShape | None = None


class Block(Struct):
    """Any block that an answer may hold, as far as the heart knows it."""

    type: str
    text: str = ""
    thinking: str = ""
    signature: str | None = None
    data: str = ""
    id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")


_MESSAGE: Final = msgspec.json.Decoder(Message)
_BLOCK: Final = msgspec.json.Decoder(Block)


def decode_response(body: bytes, provider: str) -> ModelResponse:
    try:
        top = decode(body, OBJECT)
        answer = None if _is_error(top) else _decode(body, top, provider)
    except (*UNREADABLE, BadRequest) as error:
        said = f"answered with something that is not a message: {error}"
        raise Unavailable(said, detail=body[:1000].decode("utf-8", "replace")) from error
    if answer is None:
        raise error_in_stream(body)
    return answer


def _is_error(top: dict[str, Raw]) -> bool:
    """200, and an error inside."""
    return text_in(top.get("type")) == "error"


def _decode(body: bytes, top: dict[str, Raw], provider: str) -> ModelResponse:
    message = decode(body, _MESSAGE)
    if message.content is None:
        raise BadRequest("required, but missing", field="content")
    fields = vendor_fields(top)
    content = tuple(
        part_of(json, provider, message.model, f"content[{index}]")
        for index, json in enumerate(message.content)
    )
    reason = REASONS.get(message.stop_reason or "")
    if reason is None and message.stop_reason is not None:
        fields["stop_reason"] = top["stop_reason"]
    return ModelResponse(
        id=message.id,
        model=message.model,
        content=content,
        stop_reason=reason or "end_turn",
        usage=Usage() if message.usage is None else usage_from(message.usage),
        stop_sequence=message.stop_sequence,
        extra=extra_of(NAME, fields),
    )


def vendor_fields(top: dict[str, Raw]) -> dict[str, Raw]:
    """What only this vendor says of a message."""
    fields = {name: value for name, value in top.items() if name not in TOP_FIELDS and not is_null(value)}
    usage = top.get("usage")
    if usage is not None and not is_null(usage):
        fields.update(usage_fields(usage))
    return fields


def usage_fields(usage: Raw) -> dict[str, Raw]:
    return {
        USAGE_PREFIX + name: value
        for name, value in OBJECT.decode(usage).items()
        if name not in USAGE_FIELDS and not is_null(value)
    }


def part_of(json: Raw, provider: str, model: str, path: str) -> AnswerPart:
    block = decode(bytes(json), _BLOCK, root=path)
    known = _BLOCK_FIELDS.get(block.type)
    if known is None:
        return Carried(NAME, block.type, json)
    fields = {
        name: value
        for name, value in OBJECT.decode(json).items()
        if name not in known and says_something(name, value)
    }
    match block.type:
        case "text":
            return Text(block.text, None, extra_of(NAME, fields))
        case "tool_use":
            return ToolCall(block.id, block.name, text_of(block.input), extra=extra_of(NAME, fields))
        case "thinking":
            seal = Opaque(NAME, provider, model, block.signature) if block.signature else None
            return Reasoning(block.thinking, seal)
        case _:
            return Reasoning("", Opaque(NAME, provider, model, block.data, "redacted_thinking"))


REASONS: Final[dict[str, StopReason]] = {
    "end_turn": "end_turn",
    "max_tokens": "tokens_max",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "refusal": "refusal",
    "pause_turn": "pause",
    "model_context_window_exceeded": "context_full",
}
STOPS: Final[dict[StopReason, str]] = {reason: said for said, reason in REASONS.items()}


# ------------------------------------------------------------------------------------------ for a client


def encode_response(response: ModelResponse) -> bytes:
    fields = dict(own(response.extra, NAME))
    usage = take_usage_fields(fields) if fields else NO_FIELDS
    body: dict[str, Any] = {
        "id": response.id,
        "type": "message",
        "role": "assistant",
        "model": response.model,
        "content": [_client_block(part, index) for index, part in enumerate(response.content)],
        "stop_reason": STOPS[response.stop_reason],
        "stop_sequence": response.stop_sequence,
        "stop_details": None,
        "container": None,
        "usage": usage_json(response.usage, usage),
    }
    body.update(fields)
    return _encode(body)


def take_usage_fields(fields: dict[str, Raw]) -> dict[str, Raw]:
    names = [name for name in fields if name.startswith(USAGE_PREFIX)]
    return {name.removeprefix(USAGE_PREFIX): fields.pop(name) for name in names}


def _client_block(part: AnswerPart, index: int) -> Any:
    match part:
        case Text():
            fields = own(part.extra, NAME)
            shape = TextBlock(part.text)
            return spliced(_encode(shape), fields) if fields else shape
        case ToolCall():
            return client_tool_use(part, object_of(part.arguments))
        case Reasoning():
            return client_thinking(part)
        case Refusal():
            return TextBlock(part.text)
        case Carried() | Media():
            return client_block_of(part, index)


def client_block_of(part: Carried | Media, index: int) -> Raw:
    """Raises Unsupported for what this vendor's client would not know."""
    if isinstance(part, Carried) and part.wire == NAME:
        return part.block
    what = f"{part.wire}'s {part.type}" if isinstance(part, Carried) else part.kind
    raise Unsupported(f"{NAME} cannot tell its client of {what}", field=f"content[{index}]")
