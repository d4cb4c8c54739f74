"""Wires, Bedrock Converse: whole answers, both directions.

An answer has neither id nor model: the provider adds them (they are in the answer's head, and in the request). What only this vendor
says of an answer rides in `extra` (metrics, trace, the tier). Towards a client of another wire it is left out: an answer cannot be
refused for saying more than was asked.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from freehold.core.errors import BadRequest, Unavailable
from freehold.core.messages import AnswerPart, Carried, ModelResponse, StopReason, ToolResult, Usage, raw
from freehold.core.validation import decode
from freehold.wires._fields import OBJECT, extra_of, is_null, own, text_in
from freehold.wires.bedrock_converse._blocks_decode import parts_of
from freehold.wires.bedrock_converse._blocks_encode import client_blocks
from freehold.wires.bedrock_converse._shapes import NAME, Block
from freehold.wires.bedrock_converse._usage import USAGE_FIELDS, UsageShape, usage_from, usage_json

USAGE_PREFIX: Final = "usage."
ADDITIONAL: Final = "additionalModelResponseFields"
NO_METRICS: Final = Raw(b'{"latencyMs":0}')
"""What a client is told where the provider measured nothing: the shape requires it."""

_TOP_FIELDS: Final = frozenset({"output", "stopReason", "usage"})
_encode: Final = msgspec.json.Encoder().encode

REASONS: Final[dict[str, StopReason]] = {
    "end_turn": "end_turn",
    "tool_use": "tool_use",
    "max_tokens": "tokens_max",
    "stop_sequence": "stop_sequence",
    "content_filtered": "refusal",
    "guardrail_intervened": "refusal",
    "model_context_window_exceeded": "context_full",
}
STOPS: Final[dict[StopReason, str]] = {
    "end_turn": "end_turn",
    "tool_use": "tool_use",
    "tokens_max": "max_tokens",
    "stop_sequence": "stop_sequence",
    "refusal": "content_filtered",
    "pause": "end_turn",
    "context_full": "model_context_window_exceeded",
}


class _Message(Struct):
    content: list[Block]


class _Output(Struct):
    message: _Message


class _Response(Struct, rename="camel"):
    output: _Output
    stop_reason: str | None = None
    usage: Raw | UnsetType = UNSET


_RESPONSE: Final = msgspec.json.Decoder(_Response)
_USAGE: Final = msgspec.json.Decoder(UsageShape)


def decode_response(body: bytes, provider: str) -> ModelResponse:
    try:
        return _decode(body, provider)
    except (BadRequest, UnicodeDecodeError) as error:
        said = f"answered with something that is not a Converse answer: {error}"
        raise Unavailable(said, detail=body[:1000].decode("utf-8", "replace")) from error


def _decode(body: bytes, provider: str) -> ModelResponse:
    shape = decode(body, _RESPONSE)
    top = OBJECT.decode(body)
    fields = {name: value for name, value in top.items() if name not in _TOP_FIELDS and not is_null(value)}
    usage = Usage()
    if isinstance(shape.usage, Raw) and not is_null(shape.usage):
        usage = usage_in(shape.usage, fields)
    return ModelResponse(
        id="",
        model="",
        content=_content(shape.output.message.content, provider),
        stop_reason=reason_of(shape.stop_reason, fields),
        usage=usage,
        stop_sequence=stop_sequence_in(fields.get(ADDITIONAL)),
        extra=extra_of(NAME, fields),
    )


def _content(blocks: list[Block], provider: str) -> tuple[AnswerPart, ...]:
    path = "output.message.content"
    parts: list[AnswerPart] = []
    for place, part in enumerate(parts_of(blocks, path, provider=provider)):
        if isinstance(part, ToolResult):  # Of a tool that ran at the vendor: its own business.
            parts.append(Carried(NAME, "toolResult", Raw(_encode(blocks[place]))))
        else:
            parts.append(part)
    return tuple(parts)


def usage_in(json: Raw, fields: dict[str, Raw]) -> Usage:
    shape = decode(bytes(json), _USAGE, root="usage")
    for name, value in OBJECT.decode(json).items():
        if name not in USAGE_FIELDS and not is_null(value):
            fields[USAGE_PREFIX + name] = value
    return usage_from(shape)


def reason_of(said: str | None, fields: dict[str, Raw]) -> StopReason:
    """Where the heart's word says less, the vendor's own rides along."""
    reason = REASONS.get(said or "", "end_turn")
    if said is not None and STOPS[reason] != said:
        fields["stopReason"] = raw(said)
    return reason


class _StopSequence(Struct):
    stop_sequence: str | None = None


_STOP_SEQUENCE: Final = msgspec.json.Decoder(_StopSequence)


def stop_sequence_in(additional: Raw | None) -> str | None:
    """Anthropic's models say which, to those who asked for `/stop_sequence`."""
    if additional is None:
        return None
    try:
        return _STOP_SEQUENCE.decode(additional).stop_sequence
    except msgspec.DecodeError:
        return None


# ------------------------------------------------------------------------------------------ for a client


def encode_response(response: ModelResponse) -> bytes:
    fields = dict(own(response.extra, NAME))
    usage = usage_json(response.usage) | take_usage_fields(fields)
    content = [
        block
        for index, part in enumerate(response.content)
        for block in client_blocks(part, f"content[{index}]")
    ]
    return _encode({
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": text_in(fields.pop("stopReason", None)) or STOPS[response.stop_reason],
        "usage": usage,
        "metrics": fields.pop("metrics", NO_METRICS),
        **additional_fields(response.stop_sequence, fields),
        **fields,
    })


def take_usage_fields(fields: dict[str, Raw]) -> dict[str, Any]:
    names = [name for name in fields if name.startswith(USAGE_PREFIX)]
    return {name.removeprefix(USAGE_PREFIX): fields.pop(name) for name in names}


def additional_fields(stop_sequence: str | None, fields: Mapping[str, Raw]) -> dict[str, Any]:
    """Which stop sequence it was: said where Anthropic's models say it here."""
    if stop_sequence is None or ADDITIONAL in fields:
        return {}
    return {ADDITIONAL: {"stop_sequence": stop_sequence}}
