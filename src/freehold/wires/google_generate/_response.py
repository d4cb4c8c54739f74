"""Wires, Google: whole answers, both directions.

What only this vendor says of an answer rides in `extra` under its own name (createTime), that of the candidate as
`candidate.<field>` (groundingMetadata, safetyRatings). Towards a client of another wire it is left out.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct, UnsetType

from freehold.core.errors import BadRequest, BrokenOff, ContentRefused, FreeholdError, Unavailable
from freehold.core.messages import (
    AnswerPart,
    Carried,
    ModelResponse,
    Opaque,
    Reasoning,
    StopReason,
    Text,
    ToolCall,
    Usage,
)
from freehold.core.validation import decode
from freehold.wires._arguments import text_of
from freehold.wires._fields import OBJECT, UNREADABLE, extra_of, is_null, own
from freehold.wires._google_errors import error_inside
from freehold.wires.google_generate._parts_decode import blob, file
from freehold.wires.google_generate._parts_encode import client_parts
from freehold.wires.google_generate._seals import SEALED, THOUGHT
from freehold.wires.google_generate._shapes import NAME, BlobShape, CallShape, FileShape
from freehold.wires.google_generate._usage import UsageShape, usage_from, usage_json

CANDIDATE: Final = "candidate."
FINISH: Final = "candidate.finishReason"
TOP_FIELDS: Final = frozenset({"candidates", "usageMetadata", "modelVersion", "responseId"})
CANDIDATE_FIELDS: Final = frozenset({"content", "finishReason", "index"})
_PART_FIELDS: Final = frozenset({
    "text",
    "thought",
    "thoughtSignature",
    "inlineData",
    "fileData",
    "functionCall",
})
_EMPTY: Final = (b"null", b"[]", b"{}")
_encode: Final = msgspec.json.Encoder().encode


class _AnswerCall(CallShape, rename="camel"):
    """`partial_args` are of a mode that only the vendor's own clients can ask for."""

    partial_args: Raw | UnsetType = msgspec.UNSET
    will_continue: bool | None = None


class AnswerPartShape(Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    inline_data: BlobShape | None = None
    file_data: FileShape | None = None
    function_call: _AnswerCall | None = None


class _Content(Struct):
    parts: list[Raw] | None = None


class Candidate(Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None


class _Feedback(Struct, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


class Chunk(Struct, rename="camel"):
    """A whole answer, or a piece of one: they have the same shape."""

    candidates: list[Raw] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: UsageShape | None = None
    model_version: str = ""
    response_id: str = ""
    error: Raw | UnsetType = msgspec.UNSET


CHUNK: Final = msgspec.json.Decoder(Chunk)
CANDIDATE_SHAPE: Final = msgspec.json.Decoder(Candidate)
_PART: Final = msgspec.json.Decoder(AnswerPartShape)


def decode_response(body: bytes, provider: str) -> ModelResponse:
    refusal = None
    try:
        chunk = decode(body, CHUNK)
        refusal = refusal_in(chunk, body)
        if refusal is None:
            return _decode(chunk, body, provider)
    except (*UNREADABLE, BadRequest) as error:
        said = f"answered with something that is not this vendor's answer: {error}"
        raise Unavailable(said, detail=body[:1000].decode("utf-8", "replace")) from error
    raise refusal


def refusal_in(chunk: Chunk, body: bytes) -> FreeholdError | None:
    """An error in an answer's place, or a prompt that was blocked."""
    if not isinstance(chunk.error, UnsetType) and not is_null(chunk.error):
        return error_inside(body)
    feedback = chunk.prompt_feedback
    if feedback is None or feedback.block_reason is None or chunk.candidates:
        return None
    more = f": {feedback.block_reason_message}" if feedback.block_reason_message else ""
    return ContentRefused(f"the prompt was blocked ({feedback.block_reason}){more}")


def _decode(chunk: Chunk, body: bytes, provider: str) -> ModelResponse:
    candidates = chunk.candidates or []
    if len(candidates) != 1:
        raise BadRequest(f"expected one candidate, got {len(candidates)}", field="candidates")
    candidate = decode(bytes(candidates[0]), CANDIDATE_SHAPE, root="candidates[0]")
    origin = Origin(provider, chunk.model_version)
    content: list[AnswerPart] = []
    for json in candidate_parts(candidate):
        content += whole_parts(json, origin)
    fields = vendor_fields(OBJECT.decode(body)) | candidate_fields(OBJECT.decode(candidates[0]))
    reason = reason_of(candidate, content)
    if said := unusual(candidate.finish_reason):
        fields[FINISH] = said
    return ModelResponse(
        id=chunk.response_id,
        model=chunk.model_version,
        content=tuple(content),
        stop_reason=reason,
        usage=Usage() if chunk.usage_metadata is None else usage_from(chunk.usage_metadata),
        extra=extra_of(NAME, fields),
    )


def candidate_parts(candidate: Candidate) -> Sequence[Raw]:
    return () if candidate.content is None else candidate.content.parts or ()


def vendor_fields(top: dict[str, Raw]) -> dict[str, Raw]:
    return {
        name: value for name, value in top.items() if name not in TOP_FIELDS and bytes(value) not in _EMPTY
    }


def candidate_fields(candidate: dict[str, Raw]) -> dict[str, Raw]:
    return {
        CANDIDATE + name: value
        for name, value in candidate.items()
        if name not in CANDIDATE_FIELDS and bytes(value) not in _EMPTY
    }


class Origin(Struct, frozen=True):
    """Whose answer it is: seals are bound to it."""

    provider: str
    model: str

    def seal(self, data: str, kind: str = "signature") -> Opaque:
        return Opaque(NAME, self.provider, self.model, data, kind)


def whole_parts(json: Raw, origin: Origin) -> Sequence[AnswerPart]:
    """None for a part that says nothing; two where words or media are sealed."""
    shape = decode(bytes(json), _PART, root="parts")
    signature = shape.thought_signature
    if shape.function_call is not None:
        return (_call(shape.function_call, signature, origin),)
    fields = {
        name: value
        for name, value in OBJECT.decode(json).items()
        if name not in _PART_FIELDS and not is_null(value)
    }
    said: AnswerPart | None = None
    if shape.text is not None:
        if shape.thought:
            own_seal = origin.seal(signature, SEALED) if signature else origin.seal("", THOUGHT)
            return (Reasoning(shape.text, own_seal),)
        said = Text(shape.text, None, extra_of(NAME, fields)) if shape.text else None
    elif shape.inline_data is not None:
        said = blob(shape.inline_data, fields, "inlineData")
    elif shape.file_data is not None:
        said = file(shape.file_data, fields)
    elif fields:
        return (Carried(NAME, next(iter(fields)), json),)
    seal = (Reasoning("", origin.seal(signature)),) if signature else ()
    return seal if said is None else (said, *seal)


def _call(call: _AnswerCall, signature: str | None, origin: Origin) -> ToolCall:
    if not isinstance(call.partial_args, UnsetType) or call.will_continue:
        raise BadRequest(
            "expected a call's arguments whole, got pieces of them", field="functionCall.partialArgs"
        )
    arguments = "{}" if isinstance(call.args, UnsetType) or is_null(call.args) else text_of(call.args)
    seal = origin.seal(signature) if signature else None
    return ToolCall(call.id or "", call.name, arguments, seal)


# ---------------------------------------------------------------------------------------- why it stopped

_REASONS: Final[dict[str, StopReason]] = {
    "STOP": "end_turn",
    "MAX_TOKENS": "tokens_max",
    "SAFETY": "refusal",
    "RECITATION": "refusal",
    "LANGUAGE": "refusal",
    "BLOCKLIST": "refusal",
    "PROHIBITED_CONTENT": "refusal",
    "SPII": "refusal",
    "IMAGE_SAFETY": "refusal",
    "IMAGE_PROHIBITED_CONTENT": "refusal",
    "IMAGE_RECITATION": "refusal",
    "MODEL_ARMOR": "refusal",
    "CONTINUATION": "pause",
}
_FAILURES: Final = frozenset({
    "MALFORMED_FUNCTION_CALL",
    "MALFORMED_RESPONSE",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
})
"""The model wrote something that the vendor could make nothing of: there is no answer, and another try may give one."""

FINISHES: Final[dict[StopReason, str]] = {
    "end_turn": "STOP",
    "tokens_max": "MAX_TOKENS",
    "stop_sequence": "STOP",
    "tool_use": "STOP",
    "refusal": "SAFETY",
    "pause": "CONTINUATION",
    "context_full": "MAX_TOKENS",
}


def reason_of(candidate: Candidate, content: Sequence[AnswerPart]) -> StopReason:
    """The vendor says STOP though tools are called. Raises BrokenOff for what is no answer."""
    said = candidate.finish_reason or "STOP"
    if said in _FAILURES:
        more = f": {candidate.finish_message}" if candidate.finish_message else ""
        raise BrokenOff(f"the model's answer could not be used ({said}){more[:500]}")
    reason = _REASONS.get(said, "end_turn")
    if reason == "end_turn" and any(isinstance(part, ToolCall) for part in content):
        return "tool_use"
    return reason


def unusual(finish: str | None) -> Raw | None:
    """A reason that the heart's word for it would not bring back."""
    if finish is None or finish in FINISHES.values():
        return None
    return Raw(_encode(finish))


# ------------------------------------------------------------------------------------------ for a client


def encode_response(response: ModelResponse) -> bytes:
    fields = dict(own(response.extra, NAME))
    body = closing(response.stop_reason, response.usage, fields, client_parts(response.content))
    return _encode({**body, "modelVersion": response.model, "responseId": response.id})


def piece_json(answer_id: str, model: str, part: Any) -> dict[str, Any]:
    candidate = {"content": {"parts": [part], "role": "model"}, "index": 0}
    return {"candidates": [candidate], "modelVersion": model, "responseId": answer_id}


_NO_PARTS: Final = ({"text": ""},)
"""The vendor's SDK takes a turn out of its conversation when one of its pieces has no part."""


def closing(reason: StopReason, usage: Usage, fields: dict[str, Raw], parts: Sequence[Any]) -> dict[str, Any]:
    """What the last piece of an answer says, and a whole one."""
    finish = fields.pop(FINISH, None)
    candidate: dict[str, Any] = {
        "content": {"parts": parts or _NO_PARTS, "role": "model"},
        "finishReason": FINISHES[reason] if finish is None else finish,
        "index": 0,
    }
    top: dict[str, Any] = {}
    for name, value in fields.items():
        if name.startswith(CANDIDATE):
            candidate[name.removeprefix(CANDIDATE)] = value
        else:
            top[name] = value
    return {"candidates": [candidate], "usageMetadata": usage_json(usage), **top}
