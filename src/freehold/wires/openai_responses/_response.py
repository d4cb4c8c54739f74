"""Wires, OpenAI responses: whole answers, both directions.

What only this vendor says of an answer rides in `extra` under its own name, of usage as `usage.<path>`. What it repeats of the request is not kept: for a client
it is said again from the request itself. Towards a client of another wire it is left out: an answer cannot be refused for saying
more than was asked.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from freehold.core.errors import BadRequest, FreeholdError, Unavailable
from freehold.core.messages import (
    AnswerPart,
    Carried,
    ModelRequest,
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
from freehold.wires._fields import NULL, OBJECT, UNREADABLE, extra_of, is_null, own
from freehold.wires._opaque import unpacked
from freehold.wires._openai_errors import error_in_stream
from freehold.wires._openai_usage import apart, uncounted
from freehold.wires.openai_responses._echo import echo
from freehold.wires.openai_responses._items_decode import call, thought_of
from freehold.wires.openai_responses._output import answer_items
from freehold.wires.openai_responses._parts_decode import part, read
from freehold.wires.openai_responses._shapes import (
    ITEM,
    MESSAGE,
    NAME,
    ItemHead,
    MessageItem,
    ReasoningItem,
    fields_of,
)
from freehold.wires.openai_responses._tools import CalledAs
from freehold.wires.openai_responses._usage import COUNTED, USAGE_SHAPE, usage_from, usage_json

REPEATED: Final = frozenset({
    "background",
    "completed_at",
    "conversation",
    "error",
    "frequency_penalty",
    "id",
    "incomplete_details",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "object",
    "output",
    "output_text",
    "parallel_tool_calls",
    "presence_penalty",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "status",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "usage",
    "user",
})
"""Fields of an answer that the heart has, or that the request said."""

_NO_USAGE: Final = Raw(NULL)
_EMPTY: Final = (b"null", b"[]", b"{}")
_HEAD: Final = msgspec.json.Decoder(ItemHead)
_MESSAGE: Final = msgspec.json.Decoder(MessageItem)
_REASONING: Final = msgspec.json.Decoder(ReasoningItem)
_MESSAGE_FIELDS: Final = fields_of(MessageItem)
_encode: Final = msgspec.json.Encoder().encode


class _Incomplete(Struct):
    reason: str | None = None


class Answer(Struct):
    id: str = ""
    model: str = ""
    status: str | None = None
    incomplete_details: _Incomplete | None = None
    output: list[Raw] | None = None
    usage: Raw = Raw(NULL)
    error: Raw = Raw(b"null")


ANSWER: Final = msgspec.json.Decoder(Answer)


def decode_response(body: bytes, provider: str) -> ModelResponse:
    try:
        top = decode(body, OBJECT)
        answer = decode(body, ANSWER)
        error = failure(answer, body)
        response = _decode(answer, top, provider) if error is None else None
    except (*UNREADABLE, BadRequest) as reason:
        said = f"answered with something that is not a response: {reason}"
        raise Unavailable(said, detail=body[:1000].decode("utf-8", "replace")) from reason
    if response is None:
        raise error or Unavailable("failed")
    return response


def failure(answer: Answer, body: bytes) -> FreeholdError | None:
    """200, and no answer: it failed, or it was put off, which nobody here asked for."""
    if bytes(answer.error) != b"null" or answer.status == "failed":
        return error_in_stream(b'{"error":' + bytes(answer.error) + b"}")
    if answer.status in ("cancelled", "queued", "in_progress"):
        return Unavailable(
            f"answered with a response that is {answer.status}", detail=body[:1000].decode("utf-8", "replace")
        )
    return None


def _decode(answer: Answer, top: dict[str, Raw], provider: str) -> ModelResponse:
    if answer.output is None:
        raise BadRequest("required, but missing", field="output")
    origin = Origin(provider, answer.model)
    content: list[AnswerPart] = []
    for place, item in enumerate(answer.output):
        content += _parts(item, f"output[{place}]", origin)
    return ModelResponse(
        id=answer.id,
        model=answer.model,
        content=tuple(content),
        stop_reason=reason_of(answer, content),
        usage=Usage() if is_null(answer.usage) else used(answer),
        extra=extra_of(NAME, vendor_fields(top)),
    )


def used(answer: Answer) -> Usage:
    return usage_from(decode(bytes(answer.usage), USAGE_SHAPE, root="usage"))


def vendor_fields(top: dict[str, Raw]) -> dict[str, Raw]:
    said = {name: value for name, value in top.items() if name not in REPEATED and bytes(value) not in _EMPTY}
    return said | uncounted(top.get("usage", _NO_USAGE), COUNTED)


class Origin(Struct, frozen=True):
    """Whose answer it is: seals are bound to it."""

    provider: str
    model: str

    def thought(self, item: Raw, path: str) -> Reasoning:
        """Sealed by the whole item. One that was packed for a client (behind may be another Freehold) is what it was again."""
        shape = decode(bytes(item), _REASONING, root=path)
        seal = unpacked(shape.encrypted_content or "")
        if seal is None or seal.provider != self.provider:
            seal = Opaque(NAME, self.provider, self.model, bytes(item).decode(), ITEM)
        return Reasoning(thought_of(shape), seal)


def _parts(item: Raw, path: str, origin: Origin) -> list[AnswerPart]:
    kind = decode(bytes(item), _HEAD, root=path).type
    match kind:
        case "message":
            shape, fields = message_of(item, path)
            content = shape.content if isinstance(shape.content, list) else []
            return [answer_part(one, f"{path}.content[{place}]", fields) for place, one in enumerate(content)]
        case "function_call" | "custom_tool_call":
            return [call(item, path)]
        case "reasoning":
            return [origin.thought(item, path)]
        case _:
            return [Carried(NAME, kind, item)]


def message_of(item: Raw, path: str) -> tuple[MessageItem, dict[str, Raw]]:
    """A message of an answer, and its own fields as they ride on its texts."""
    shape, rest = read(item, _MESSAGE, _MESSAGE_FIELDS, path)
    return shape, {MESSAGE + name: value for name, value in rest.items()}


def answer_part(json: Raw, path: str, message: dict[str, Raw]) -> AnswerPart:
    found = part(json, path, message)
    if not isinstance(found, Text | Refusal | Carried):
        raise BadRequest("expected output_text or refusal", field=f"{path}.type")
    return found


# ---------------------------------------------------------------------------------------- why it stopped


def reason_of(answer: Answer, content: Sequence[AnswerPart]) -> StopReason:
    if answer.status == "incomplete":
        why = None if answer.incomplete_details is None else answer.incomplete_details.reason
        return "refusal" if why == "content_filter" else "tokens_max"
    if any(_is_call(one) for one in content):
        return "tool_use"
    return "refusal" if any(isinstance(one, Refusal) for one in content) else "end_turn"


def _is_call(part: AnswerPart) -> bool:
    """Calls that the client answers. (What the vendor runs itself ends no turn.)"""
    return isinstance(part, ToolCall) or (isinstance(part, Carried) and part.type in _CLIENT_CALLS)


_CLIENT_CALLS: Final = frozenset({
    "apply_patch_call",
    "computer_call",
    "local_shell_call",
    "mcp_approval_request",
    "shell_call",
})
_INCOMPLETE: Final[dict[StopReason, str]] = {
    "tokens_max": "max_output_tokens",
    "context_full": "max_output_tokens",
    "refusal": "content_filter",
}


def incomplete_reason(reason: StopReason, content: Sequence[AnswerPart]) -> str | None:
    """None for a whole answer; one that says no in words is whole."""
    if reason == "refusal" and any(isinstance(one, Refusal) for one in content):
        return None
    return _INCOMPLETE.get(reason)


# ------------------------------------------------------------------------------------------ for a client


def encode_response(response: ModelResponse, created: int, request: ModelRequest | None = None) -> bytes:
    why = incomplete_reason(response.stop_reason, response.content)
    body = head(response.id, response.model, created, request)
    status = "incomplete" if why else "completed"
    of_usage, fields = apart(own(response.extra, NAME))
    body |= {
        "status": status,
        "completed_at": None if why else created,
        "incomplete_details": {"reason": why} if why else None,
        "output": answer_items(response, status, CalledAs(request)),
        "usage": usage_json(response.usage, of_usage),
    }
    return _encode(body | fields)


def head(answer_id: str, model: str, created: int, request: ModelRequest | None) -> dict[str, Any]:
    """A response that has just begun."""
    return {
        "id": answer_id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "usage": None,
        **echo(request),
    }
