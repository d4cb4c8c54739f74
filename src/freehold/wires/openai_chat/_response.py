"""Wires, OpenAI chat: whole answers, both directions.

What only this vendor says of an answer rides in `extra`: fields of the whole under their own names, those of the choice as
`choice.<field>` (logprobs), those of the message as `message.<field>` (annotations, audio), of usage as `usage.<path>`. Towards a client of another wire they
are left out: an answer cannot be refused for saying more than was asked.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from freehold.core.errors import BadRequest, Unavailable, Unsupported
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
)
from freehold.core.validation import decode
from freehold.wires._fields import NULL, OBJECT, UNREADABLE, own, spliced
from freehold.wires._openai_errors import error_in_stream
from freehold.wires._openai_usage import USAGE
from freehold.wires.openai_chat._custom import call_of, is_custom_call, names_of, told
from freehold.wires.openai_chat._parts_encode import call_fields, details_of
from freehold.wires.openai_chat._shapes import NAME
from freehold.wires.openai_chat._usage import read_usage, usage_json

MESSAGE_FIELDS: Final = frozenset({
    "role",
    "content",
    "refusal",
    "tool_calls",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
})
_CHOICE_FIELDS: Final = frozenset({"index", "message", "finish_reason"})
_TOP_FIELDS: Final = frozenset({"id", "object", "model", "choices", "usage"})
PREFIXES: Final = ("choice.", "message.", USAGE)
_EMPTY: Final = (b"null", b"[]", b"{}")
LEGACY_FINISH: Final = "function_call"
"""Answers a request of the form before tools, and its `message.function_call` comes with it."""

_encode: Final = msgspec.json.Encoder().encode


class _Thought(Struct):
    text: str = ""


class _Chunk(Struct):
    """Mistral's content of reasoning models: a list of `text` and `thinking`."""

    type: str = "text"
    text: str | None = None
    thinking: list[_Thought] | str | None = None


class _Function(Struct):
    name: str | None = None
    arguments: Raw = Raw(b'""')


class _Call(Struct):
    id: str | None = None
    type: str | None = None
    function: _Function | None = None
    custom: Raw = Raw(b"{}")
    extra_content: Raw | UnsetType = UNSET


class _Message(Struct):
    content: str | list[_Chunk] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: Raw | UnsetType = UNSET
    tool_calls: list[Raw] | None = None


class _Choice(Struct):
    message: Raw
    finish_reason: str | None = None
    stop_reason: Raw | UnsetType = UNSET


class _Answer(Struct):
    choices: list[Raw]
    id: str | None = None
    model: str | None = None
    usage: Raw = Raw(NULL)


class _MessageAlone(_Message, forbid_unknown_fields=True):
    role: str | None = None
    annotations: Annotated[list[Raw], Meta(max_length=0)] | None = None


class _ChoiceAlone(Struct, forbid_unknown_fields=True):
    message: _MessageAlone
    index: Raw = Raw(b"0")
    finish_reason: str | None = None
    stop_reason: None = None
    logprobs: None = None


class _AnswerAlone(Struct, forbid_unknown_fields=True):
    """One that says nothing but what most answers do: for these, one decode is enough."""

    choices: Annotated[list[_ChoiceAlone], Meta(min_length=1, max_length=1)]
    id: str | None = None
    object: Raw = Raw(NULL)
    model: str | None = None
    usage: Raw = Raw(NULL)
    created: Raw = Raw(NULL)
    system_fingerprint: Raw = Raw(NULL)
    service_tier: Raw = Raw(NULL)


_OF_THE_WHOLE: Final = ("created", "system_fingerprint", "service_tier")
_ALONE: Final = msgspec.json.Decoder(_AnswerAlone)
_ANSWER: Final = msgspec.json.Decoder(_Answer)
_CHOICE: Final = msgspec.json.Decoder(_Choice)
_MESSAGE: Final = msgspec.json.Decoder(_Message)
_CALL: Final = msgspec.json.Decoder(_Call)


def decode_response(body: bytes, provider: str) -> ModelResponse:
    try:
        alone = _ALONE.decode(body)
    except UNREADABLE:
        alone = None
    try:
        if alone is not None:
            return _decode_alone(alone, provider)
        top = decode(body, OBJECT)
        answer = None if _is_error(top) else _decode(body, top, provider)
    except (*UNREADABLE, BadRequest) as error:
        said = f"answered with something that is not a chat completion: {error}"
        raise Unavailable(said, detail=body[:1000].decode("utf-8", "replace")) from error
    if answer is None:
        raise error_in_stream(body)
    return answer


def _is_error(top: dict[str, Raw]) -> bool:
    """200, and an error inside."""
    return "choices" not in top and bytes(top.get("error", b"null")) != b"null"


def _decode_alone(answer: _AnswerAlone, provider: str) -> ModelResponse:
    fields = {name: value for name in _OF_THE_WHOLE if _tells(value := getattr(answer, name))}
    choice = answer.choices[0]
    return _told(answer, choice, choice.message, fields, provider=provider, stop_sequence=None)


def _decode(body: bytes, top: dict[str, Raw], provider: str) -> ModelResponse:
    """Of an answer that says more."""
    answer = decode(body, _ANSWER)
    if len(answer.choices) != 1:
        raise BadRequest(f"expected one choice, got {len(answer.choices)}", field="choices")
    fields = {name: value for name, value in top.items() if name not in _TOP_FIELDS and _tells(value)}
    choice = decode(bytes(answer.choices[0]), _CHOICE, root="choices[0]")
    message = decode(bytes(choice.message), _MESSAGE, root="choices[0].message")
    for prefix, json, known in (
        ("choice", answer.choices[0], _CHOICE_FIELDS),
        ("message", choice.message, MESSAGE_FIELDS),
    ):
        for name, value in OBJECT.decode(json).items():
            if name not in known and _tells(value):
                fields[f"{prefix}.{name}"] = value
    stop_sequence = stopped_by(choice.stop_reason)
    if stop_sequence is not None:
        fields.pop("choice.stop_reason", None)
    return _told(answer, choice, message, fields, provider=provider, stop_sequence=stop_sequence)


def _told(
    answer: _Answer | _AnswerAlone,
    choice: _Choice | _ChoiceAlone,
    message: _Message,
    fields: dict[str, Raw],
    *,
    provider: str,
    stop_sequence: str | None,
) -> ModelResponse:
    """`fields` are those that only this vendor has."""
    model = answer.model or ""
    content = _content(message, Origin(provider, model))
    usage, more = read_usage(answer.usage)
    fields.update(more)
    stop_reason = reason_of(choice.finish_reason, content, stop_sequence)
    if choice.finish_reason == LEGACY_FINISH:
        fields["choice.finish_reason"] = Raw(_encode(LEGACY_FINISH))
    return ModelResponse(
        id=answer.id or "",
        model=model,
        content=content,
        stop_reason=stop_reason,
        usage=usage,
        stop_sequence=stop_sequence,
        extra={NAME: fields} if fields else {},
    )


def _tells(value: Raw) -> bool:
    return bytes(value) not in _EMPTY


class Origin(Struct, frozen=True):
    """Whose answer it is: seals are bound to it."""

    provider: str
    model: str

    def seal(self, data: str, kind: str) -> Opaque:
        return Opaque(NAME, self.provider, self.model, data, kind)


def _content(message: _Message, origin: Origin) -> tuple[AnswerPart, ...]:
    parts: list[AnswerPart] = []
    thought = message.reasoning_content or message.reasoning
    details = message.reasoning_details
    if details is not UNSET and _tells(details):
        text = thought or text_of_details(details)
        parts.append(Reasoning(text, origin.seal(bytes(details).decode(), "reasoning_details")))
    elif thought:
        parts.append(
            Reasoning(
                thought, origin.seal("", "reasoning_content" if message.reasoning_content else "reasoning")
            )
        )
    if isinstance(message.content, str):
        if message.content:
            parts.append(Text(message.content))
    elif message.content:
        parts += _chunks(message.content, origin)
    if message.refusal:
        parts.append(Refusal(message.refusal))
    for index, call in enumerate(message.tool_calls or ()):
        parts.append(_call(call, index, origin))
    return tuple(parts)


def _chunks(chunks: Sequence[_Chunk], origin: Origin) -> list[AnswerPart]:
    parts: list[AnswerPart] = []
    for chunk in chunks:
        if chunk.type == "thinking":
            thought = chunk.thinking
            text = thought if isinstance(thought, str) else "".join(piece.text for piece in thought or ())
            parts.append(Reasoning(text, origin.seal("", "thinking")))
        elif chunk.text:
            parts.append(Text(chunk.text))
    return parts


def _call(json: Raw, index: int, origin: Origin) -> ToolCall:
    path = f"choices[0].message.tool_calls[{index}]"
    call = decode(bytes(json), _CALL, root=path)
    function = call.function
    if function is None:
        return call_of(call.id or "", call.custom, f"{path}.custom")
    opaque = None
    if call.extra_content is not UNSET and _tells(call.extra_content):
        opaque = origin.seal(bytes(call.extra_content).decode(), "extra_content")
    return ToolCall(call.id or "", function.name or "", _arguments(function.arguments), opaque)


def _arguments(given: Raw) -> str:
    """JSON text; an object where a vendor forgot that it should be text."""
    json = bytes(given)
    if json.startswith(b'"'):
        return msgspec.json.decode(json, type=str)
    return "" if json == b"null" else json.decode()


class _Detail(Struct):
    text: str | None = None
    summary: str | None = None


_DETAILS: Final = msgspec.json.Decoder(list[_Detail])


def text_of_details(details: Raw) -> str:
    return "".join(
        detail.text or detail.summary or ""
        for detail in decode(bytes(details), _DETAILS, root="reasoning_details")
    )


# ---------------------------------------------------------------------------------------- why it stopped

_REASONS: Final[dict[str, StopReason]] = {
    "stop": "end_turn",
    "length": "tokens_max",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_FINISHES: Final[dict[StopReason, str]] = {
    "end_turn": "stop",
    "tokens_max": "length",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "pause": "stop",
    "context_full": "length",
}


def reason_of(finish: str | None, content: Sequence[AnswerPart], stop_sequence: str | None) -> StopReason:
    """Several vendors say `stop` though they call tools; a refusal in words comes with `stop`, too."""
    reason = _REASONS.get(finish or "stop", "end_turn")
    if reason != "end_turn":
        return reason
    kinds = set(map(type, content))
    if ToolCall in kinds:
        return "tool_use"
    if Refusal in kinds:
        return "refusal"
    return "stop_sequence" if stop_sequence is not None else "end_turn"


def finish_reason(reason: StopReason, content: Sequence[AnswerPart]) -> str:
    if reason == "refusal" and any(isinstance(part, Refusal) for part in content):
        return "stop"
    return _FINISHES[reason]


def stopped_by(given: Raw | UnsetType) -> str | None:
    """vLLM and SGLang say which stop sequence it was (or a token's number, which is nobody's text)."""
    if given is UNSET or not bytes(given).startswith(b'"'):
        return None
    return msgspec.json.decode(given, type=str)


# ------------------------------------------------------------------------------------------ for a client


def encode_response(response: ModelResponse, created: int, request: ModelRequest | None = None) -> bytes:
    fields = dict(own(response.extra, NAME))
    created_json = fields.pop("created", None)
    logprobs = fields.pop("choice.logprobs", None)
    finish = fields.pop("choice.finish_reason", None)
    choice: dict[str, Any] = {
        "index": 0,
        "message": _message(response.content, fields, names_of(request)),
        "logprobs": logprobs,
        "finish_reason": finish or finish_reason(response.stop_reason, response.content),
    }
    if response.stop_sequence is not None:
        choice["stop_reason"] = response.stop_sequence
    choice.update(prefixed(fields, "choice."))
    body: dict[str, Any] = {
        "id": response.id,
        "object": "chat.completion",
        "created": created if created_json is None else created_json,
        "model": response.model,
        "choices": [choice],
        "usage": usage_json(response.usage, fields),
    }
    body.update(item for item in fields.items() if not item[0].startswith(PREFIXES))
    return _encode(body)


def prefixed(fields: dict[str, Raw], prefix: str) -> dict[str, Raw]:
    return {name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix)}


def _message(content: Sequence[AnswerPart], fields: dict[str, Raw], custom: frozenset[str]) -> dict[str, Any]:
    """`custom`: names of tools that take free text."""
    texts: list[str] = []
    refusals: list[str] = []
    thoughts: list[Reasoning] = []
    calls: list[Any] = []
    for index, part in enumerate(content):
        match part:
            case Text():
                texts.append(part.text)
            case Refusal():
                refusals.append(part.text)
            case Reasoning():
                thoughts.append(part)
            case ToolCall():
                calls.append(_client_call(part, custom))
            case _:
                raise refused_in_answer(part, index)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts) if texts or not (calls or refusals) else None,
        "refusal": "".join(refusals) if refusals else None,
    }
    if thoughts:
        message["reasoning_content"] = "".join(thought.text for thought in thoughts)
        message["reasoning_details"] = details_of(thoughts)
    if calls:
        message["tool_calls"] = calls
    message.update(prefixed(fields, "message."))
    return message


def _client_call(call: ToolCall, custom: frozenset[str]) -> Any:
    if is_custom_call(call, custom):
        return told(call) | dict(call_fields(call))
    shape = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    fields = call_fields(call)
    return spliced(_encode(shape), fields) if fields else shape


def refused_in_answer(part: AnswerPart, index: int) -> Unsupported:
    what = f"{part.wire}'s {part.type}" if isinstance(part, Carried) else type(part).__name__.lower()
    return Unsupported(f"{NAME} cannot tell its client of {what}", field=f"content[{index}]")
