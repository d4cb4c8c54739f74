"""Wires, OpenAI responses: a client's request to the heart's."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from msgspec import UNSET, Raw, Struct

from freehold.core.errors import BadRequest
from freehold.core.messages import (
    JsonOutput,
    Message,
    ModelRequest,
    ReasoningSetting,
    Text,
    ToolChoice,
)
from freehold.core.validation import decode
from freehold.wires._fields import extra_of, is_null
from freehold.wires.openai_responses._items_decode import Conversation
from freehold.wires.openai_responses._parts_decode import others, read
from freehold.wires.openai_responses._shapes import (
    NAME,
    NEUTRAL,
    Field,
    RequestShape,
    fields_of,
)
from freehold.wires.openai_responses._tools import CUSTOM, tools_of

TEXT: Final = "text."
REASONING: Final = "reasoning."
"""Before those fields of `text` and of `reasoning` that only this wire knows."""

_REQUEST: Final = msgspec.json.Decoder(RequestShape)
_REQUEST_FIELDS: Final = fields_of(RequestShape)


def decode_request(body: bytes) -> ModelRequest:
    shape = decode(body, _REQUEST, known=sorted(_REQUEST_FIELDS))
    extra = {
        name: value
        for name, value in others(Raw(body), _REQUEST_FIELDS, "").items()
        if bytes(value) not in NEUTRAL.get(name, ())
    }
    instructions, messages = _conversation(shape)
    choice = _tool_choice(shape, extra)
    output = _output(shape.text, extra)
    reasoning = _reasoning(shape.reasoning, extra)
    return ModelRequest(
        model=shape.model,
        messages=messages,
        instructions=instructions,
        tools=tools_of(shape.tools or ()),
        tool_choice=choice,
        output=output,
        reasoning=reasoning,
        tokens_max=shape.max_output_tokens,
        temperature=shape.temperature,
        top_p=shape.top_p,
        user=shape.user,
        stream=shape.stream or False,
        extra=extra_of(NAME, extra),
    )


def _conversation(shape: RequestShape) -> tuple[tuple[Text, ...], tuple[Message, ...]]:
    conversation = Conversation(shape.instructions)
    if isinstance(shape.input, str):
        conversation.messages.append(Message("user", (Text(shape.input),) if shape.input else ()))
    else:
        _add(conversation, shape.input)
    return tuple(conversation.instructions), tuple(conversation.messages)


def _add(conversation: Conversation, items: Sequence[Raw]) -> None:
    for place, item in enumerate(items):
        conversation.add(item, f"input[{place}]")
    conversation.close()


class _Choice(Struct):
    type: str
    name: str | None = None


_CHOICE: Final = msgspec.json.Decoder(str | _Choice)
_MODES: Final[dict[str, Literal["auto", "none", "required"]]] = {
    "auto": "auto",
    "none": "none",
    "required": "required",
}


def _tool_choice(shape: RequestShape, extra: dict[str, Raw]) -> ToolChoice | None:
    given, parallel = shape.tool_choice, shape.parallel_tool_calls
    if given is UNSET or is_null(given):
        return None if parallel is None else ToolChoice("auto", None, parallel)
    choice = decode(bytes(given), _CHOICE, root="tool_choice")
    if isinstance(choice, str):
        if choice not in _MODES:
            said = f"expected one of {', '.join(_MODES)}, or an object; got {choice!r}"
            raise BadRequest(said, field="tool_choice")
        return ToolChoice(_MODES[choice], None, parallel)
    if choice.type in ("function", CUSTOM) and choice.name is not None:
        return ToolChoice("named", choice.name, parallel)
    extra["tool_choice"] = given
    return None if parallel is None else ToolChoice("auto", None, parallel)


class _Format(Struct):
    type: str
    name: str = "answer"
    schema: Field = UNSET
    description: str | None = None
    strict: bool | None = None


class _Text(Struct, forbid_unknown_fields=True):
    format: Raw = Raw(b"null")


_TEXT: Final = msgspec.json.Decoder(_Text)
_FORMAT: Final = msgspec.json.Decoder(_Format)
_USUAL_VERBOSITY: Final = b'"medium"'


def _output(given: Field, extra: dict[str, Raw]) -> JsonOutput | None:
    if given is UNSET or is_null(given):
        return None
    shape, rest = read(given, _TEXT, fields_of(_Text), "text")
    if bytes(rest.get("verbosity", b"")) == _USUAL_VERBOSITY:
        del rest["verbosity"]
    extra.update((TEXT + name, value) for name, value in rest.items())
    if is_null(shape.format):
        return None
    wanted = decode(bytes(shape.format), _FORMAT, root="text.format")
    match wanted.type:
        case "text":
            return None
        case "json_object":
            return JsonOutput()
        case "json_schema":
            if wanted.schema is UNSET:
                raise BadRequest("required with type json_schema, but missing", field="text.format.schema")
            return JsonOutput(wanted.schema, wanted.name, wanted.description, wanted.strict)
        case _:
            extra[TEXT + "format"] = shape.format
            return None


class _Reasoning(Struct, forbid_unknown_fields=True):
    effort: str | None = None


_REASONING: Final = msgspec.json.Decoder(_Reasoning)


def _reasoning(given: Field, extra: dict[str, Raw]) -> ReasoningSetting | None:
    if given is UNSET or is_null(given):
        return None
    shape, rest = read(given, _REASONING, fields_of(_Reasoning), "reasoning")
    extra.update((REASONING + name, value) for name, value in rest.items())
    if shape.effort is None:
        return None
    return (
        ReasoningSetting(enabled=False) if shape.effort == "none" else ReasoningSetting(effort=shape.effort)
    )
