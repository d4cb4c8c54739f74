"""Wires, OpenAI chat: a client's request to the heart's.

The quick way is one strict decode. A body with fields that nobody has told us of takes the careful way: they are taken out and
remembered, and then the same strict decode names what is wrong, with its path.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Raw, Struct

from freehold.core.errors import BadRequest
from freehold.core.messages import (
    Carried,
    CarriedTool,
    Extra,
    JsonOutput,
    Message,
    ModelRequest,
    Part,
    ReasoningSetting,
    Text,
    ToolChoice,
    ToolResult,
    ToolSpec,
)
from freehold.core.validation import decode
from freehold.wires._fields import (
    ARRAY,
    NO_EXTRA,
    NO_FIELDS,
    OBJECT,
    UNREADABLE,
    extra_of,
    is_null,
    parted,
    text_in,
)
from freehold.wires.openai_chat._custom import CUSTOM, spec_of
from freehold.wires.openai_chat._parts_decode import assistant_parts, marks, part, text_part
from freehold.wires.openai_chat._shapes import (
    CARRIED,
    MESSAGES_BY_ROLE,
    NAME,
    NEUTRAL,
    PARTS_BY_TYPE,
    AssistantMessage,
    CacheControl,
    DeveloperMessage,
    FunctionMessage,
    MessageShape,
    RequestShape,
    SystemMessage,
    ToolCallShape,
    ToolMessage,
    ToolShape,
    UserMessage,
    UserPart,
)

_STRICT: Final = msgspec.json.Decoder(RequestShape)
_REQUEST_FIELDS: Final = frozenset(RequestShape.__struct_encode_fields__)
_TOOL_FIELDS: Final = frozenset(ToolShape.__struct_encode_fields__)
_FUNCTION_FIELDS: Final = frozenset({"name", "description", "parameters", "strict"})
_CALLED_FIELDS: Final = frozenset({"name", "arguments"})
_CALL_FIELDS: Final = frozenset(ToolCallShape.__struct_encode_fields__)
_PLACEHOLDER: Final = Raw(b'{"function":{"name":""}}')

_encode: Final = msgspec.json.Encoder().encode


class Found(Struct):
    """The unknown fields of one message: its own, and by index those of its parts and of its tool calls."""

    fields: dict[str, Raw] = {}
    parts: dict[int, dict[str, Raw]] = {}
    calls: dict[int, dict[str, Raw]] = {}


class _Unknown(Struct):
    """What the careful way has taken out of a body."""

    fields: dict[str, Raw] = {}
    messages: dict[int, Found] = {}
    tools: dict[int, dict[str, Raw] | CarriedTool | ToolSpec] = {}


_NOTHING: Final = _Unknown()
_NOTHING_FOUND: Final = Found()


def decode_request(body: bytes) -> ModelRequest:
    try:
        return _decode(body)
    except UNREADABLE as error:
        raise BadRequest("expected JSON in UTF-8, got other bytes in a string") from error


def _decode(body: bytes) -> ModelRequest:
    unknown = _NOTHING
    try:
        shape = _STRICT.decode(body)
    except UNREADABLE:
        shape, unknown = _carefully(body)
    instructions, messages = _conversation(shape.messages, unknown.messages)
    extra = {name: value for name in CARRIED if (value := getattr(shape, name)) is not UNSET}
    if extra:
        extra = {name: value for name, value in extra.items() if _says_something(name, bytes(value))}
    extra.update(unknown.fields)
    output = None if shape.response_format is UNSET else _output(shape.response_format, extra)
    choice = _tool_choice(shape, extra)
    stop = shape.stop
    return ModelRequest(
        model=shape.model,
        messages=messages,
        instructions=instructions,
        tools=_tools(shape.tools, unknown.tools) if shape.tools else (),
        tool_choice=choice,
        output=output,
        reasoning=_reasoning(shape.reasoning_effort),
        tokens_max=shape.max_tokens if shape.max_completion_tokens is None else shape.max_completion_tokens,
        temperature=shape.temperature,
        top_p=shape.top_p,
        top_k=shape.top_k,
        stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        seed=shape.seed,
        user=shape.user,
        stream=shape.stream or False,
        extra={NAME: extra} if extra else {},
    )


def _says_something(name: str, value: bytes) -> bool:
    return value != b"null" and value not in NEUTRAL.get(name, ())


def _conversation(
    shapes: Sequence[MessageShape], found: Mapping[int, Found]
) -> tuple[tuple[Text, ...], tuple[Message, ...]]:
    instructions: list[Text] = []
    messages: list[Message] = []
    results: list[ToolResult] = []
    leading = True
    for index, shape in enumerate(shapes):
        note = found.get(index, _NOTHING_FOUND) if found else _NOTHING_FOUND
        if (
            type(shape) is ToolMessage
        ):  # Quicker than isinstance, which a Struct's type makes slow when it says no.
            results.append(_result(shape, note, f"messages[{index}]"))
            leading = False
            continue
        if results:
            messages.append(Message("tool", tuple(results)))
            results = []
        if leading and isinstance(shape, SystemMessage | DeveloperMessage):
            instructions += _instructions(shape, note)
            continue
        leading = False
        messages.append(_message(shape, note, index))
    if results:
        messages.append(Message("tool", tuple(results)))
    return tuple(instructions), tuple(messages)


def _instructions(shape: SystemMessage | DeveloperMessage, note: Found) -> list[Text]:
    """Fields of the message ride on its texts, as `message.<field>`, so that the same messages can be made again."""
    fields = {f"message.{name}": value for name, value in note.fields.items()}
    if isinstance(shape, DeveloperMessage):
        fields["message.role"] = Raw(b'"developer"')
    if shape.name is not None:
        fields["message.name"] = Raw(_encode(shape.name))
    if isinstance(shape.content, str):
        return [Text(shape.content, None, extra_of(NAME, fields))]
    return [
        text_part(one, {**fields, **note.parts.get(place, NO_FIELDS)})
        for place, one in enumerate(shape.content)
    ]


def _message(shape: MessageShape, note: Found, index: int) -> Message:
    if type(shape) is AssistantMessage:
        return _assistant(shape, note)
    extra: Extra = {NAME: note.fields} if note.fields else NO_EXTRA
    match shape:
        case UserMessage():
            return Message("user", _user_parts(shape.content, note, index), shape.name, extra)
        case AssistantMessage():
            return _assistant(shape, note)
        case SystemMessage() | DeveloperMessage():
            return _late_instruction(shape, note)
        case FunctionMessage():
            block = Raw(bytes(_encode(shape)))
            return Message("user", (Carried(NAME, "function_message", block),), None, extra)
        case ToolMessage():
            raise AssertionError("tool messages are gathered by the caller")


def _user_parts(content: str | list[UserPart], note: Found, index: int) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Text(content, None, NO_EXTRA),) if content else ()
    at = f"messages[{index}].content"
    return tuple(part(one, note.parts.get(place), f"{at}[{place}]") for place, one in enumerate(content))


def _assistant(shape: AssistantMessage, note: Found) -> Message:
    content = assistant_parts(shape, note.parts, note.calls)
    if note is _NOTHING_FOUND and shape.audio is shape.function_call is shape.annotations is UNSET:
        return Message("assistant", content, shape.name, NO_EXTRA)
    fields = note.fields
    for name in ("audio", "function_call", "annotations"):
        value = getattr(shape, name)
        if value is not UNSET and bytes(value) not in (b"null", b"[]"):
            fields = {**fields, name: value}
    return Message("assistant", content, shape.name, extra_of(NAME, fields))


def _late_instruction(shape: SystemMessage | DeveloperMessage, note: Found) -> Message:
    fields = note.fields
    if isinstance(shape, DeveloperMessage):
        fields = {**fields, "role": Raw(b'"developer"')}
    content = shape.content
    texts = (
        (Text(content),)
        if isinstance(content, str)
        else tuple(text_part(one, note.parts.get(place)) for place, one in enumerate(content))
    )
    return Message("system", texts, shape.name, extra_of(NAME, fields))


def _result(shape: ToolMessage, note: Found, path: str) -> ToolResult:
    fields, content = note.fields, shape.content
    if note is _NOTHING_FOUND and shape.name is None and isinstance(content, str):
        said = (Text(content, None, NO_EXTRA),) if content else ()
        return ToolResult(shape.tool_call_id, said, extra=NO_EXTRA)
    if shape.name is not None:
        fields = {**fields, "name": Raw(_encode(shape.name))}
    if isinstance(content, str):
        return ToolResult(
            shape.tool_call_id, (Text(content),) if content else (), extra=extra_of(NAME, fields)
        )
    parts = tuple(
        part(one, note.parts.get(place), f"{path}.content[{place}]") for place, one in enumerate(content)
    )
    return ToolResult(shape.tool_call_id, parts, extra=extra_of(NAME, fields))


def _tools(
    shapes: Sequence[ToolShape], unknown: Mapping[int, dict[str, Raw] | CarriedTool | ToolSpec]
) -> tuple[ToolSpec | CarriedTool, ...]:
    tools: list[ToolSpec | CarriedTool] = []
    for index, shape in enumerate(shapes):
        note = unknown.get(index)
        if isinstance(note, CarriedTool | ToolSpec):
            tools.append(note)
            continue
        function = shape.function
        parameters = function.parameters
        control = shape.cache_control if isinstance(shape.cache_control, CacheControl) else None
        cache, fields = marks(control)
        tools.append(
            ToolSpec(
                function.name,
                function.description or "",
                _NO_PARAMETERS if parameters is UNSET or is_null(parameters) else parameters,
                function.strict,
                cache,
                extra_of(NAME, {**note, **fields} if note else fields),
            )
        )
    return tuple(tools)


_NO_PARAMETERS: Final = ToolSpec("").parameters


class _Named(Struct):
    name: str


class _Choice(Struct):
    type: str
    function: _Named | None = None
    custom: _Named | None = None


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
            raise BadRequest(
                f"expected one of {', '.join(_MODES)}, or an object; got {choice!r}", field="tool_choice"
            )
        return ToolChoice(_MODES[choice], None, parallel)
    named = {"function": choice.function, CUSTOM: choice.custom}.get(choice.type)
    if named is not None:
        return ToolChoice("named", named.name, parallel)
    extra["tool_choice"] = given
    return None if parallel is None else ToolChoice("auto", None, parallel)


class _Schema(Struct):
    name: str = "answer"
    schema: Raw | msgspec.UnsetType = UNSET
    description: str | None = None
    strict: bool | None = None


class _Format(Struct):
    type: str
    json_schema: _Schema | None = None


_FORMAT: Final = msgspec.json.Decoder(_Format | None)


def _output(given: Raw, extra: dict[str, Raw]) -> JsonOutput | None:
    shape = decode(bytes(given), _FORMAT, root="response_format")
    if shape is None or shape.type == "text":
        return None
    if shape.type == "json_object":
        return JsonOutput()
    if shape.type != "json_schema":
        extra["response_format"] = given
        return None
    wanted = shape.json_schema
    if wanted is None or wanted.schema is UNSET:
        raise BadRequest(
            "required with type json_schema, but missing", field="response_format.json_schema.schema"
        )
    return JsonOutput(wanted.schema, wanted.name, wanted.description, wanted.strict)


def _reasoning(effort: str | None) -> ReasoningSetting | None:
    if effort is None:
        return None
    return ReasoningSetting(enabled=False) if effort == "none" else ReasoningSetting(effort=effort)


# ------------------------------------------------------------------------------------------ the careful way


def _carefully(body: bytes) -> tuple[RequestShape, _Unknown]:
    fields, rest = parted(body, _REQUEST_FIELDS, "")
    unknown = _Unknown({name: value for name, value in rest.items() if not is_null(value)}, {}, {})
    cleaned: dict[str, Any] = dict(fields)
    if bytes(fields.get("messages", b"")).startswith(b"["):
        messages = decode(bytes(fields["messages"]), ARRAY, root="messages")
        cleaned["messages"] = [_clean_message(one, index, unknown) for index, one in enumerate(messages)]
    if bytes(fields.get("tools", b"")).startswith(b"["):
        tools = decode(bytes(fields["tools"]), ARRAY, root="tools")
        cleaned["tools"] = [_clean_tool(one, index, unknown) for index, one in enumerate(tools)]
    try:
        return decode(_encode(cleaned), _STRICT), unknown
    except BadRequest as error:
        raise _worded(error) from error.__cause__


def _worded(error: BadRequest) -> BadRequest:
    """msgspec says that a tag is wrong, but not what would be right."""
    field = error.field or ""
    if not error.message.startswith("invalid value"):
        return error
    got = error.message.removeprefix("invalid value ")
    if field.endswith(".role"):
        known = ", ".join(MESSAGES_BY_ROLE)
    elif ".content[" in field and field.endswith(".type"):
        known = ", ".join(PARTS_BY_TYPE)
    else:
        return error
    return BadRequest(f"expected one of {known}; got {got}", field=field)


def _clean_message(message: Raw, index: int, unknown: _Unknown) -> Raw | dict[str, Any]:
    path = f"messages[{index}]"
    if not bytes(message).startswith(b"{"):
        return message
    fields = decode(bytes(message), OBJECT, root=path)
    shape = MESSAGES_BY_ROLE.get(text_in(fields.get("role")) or "")
    if shape is None:
        return message
    found = Found({}, {}, {})
    cleaned: dict[str, Any] = _without(fields, _known(shape, "role"), found.fields)
    if bytes(fields.get("content", b"")).startswith(b"["):
        parts = decode(bytes(fields["content"]), ARRAY, root=f"{path}.content")
        cleaned["content"] = [_clean_part(one, place, found) for place, one in enumerate(parts)]
    if bytes(cleaned.get("tool_calls", b"")).startswith(b"["):
        calls = decode(bytes(fields["tool_calls"]), ARRAY, root=f"{path}.tool_calls")
        cleaned["tool_calls"] = [
            _clean_call(one, found.calls.setdefault(place, {})) for place, one in enumerate(calls)
        ]
    unknown.messages[index] = found
    return cleaned


def _clean_part(part: Raw, place: int, found: Found) -> Any:
    if not bytes(part).startswith(b"{"):
        return part
    fields = OBJECT.decode(part)
    shape = PARTS_BY_TYPE.get(text_in(fields.get("type")) or "")
    if shape is None:
        return part
    return _without(fields, _known(shape, "type"), found.parts.setdefault(place, {}))


def _clean(item: Raw, known: frozenset[str], rest: dict[str, Raw]) -> Any:
    return _without(OBJECT.decode(item), known, rest) if bytes(item).startswith(b"{") else item


def _clean_call(call: Raw, rest: dict[str, Raw]) -> Any:
    cleaned = _clean(call, _CALL_FIELDS, rest)
    if isinstance(cleaned, dict) and bytes(cleaned.get("function", b"")).startswith(b"{"):
        inner: dict[str, Raw] = {}
        cleaned["function"] = _without(OBJECT.decode(cleaned["function"]), _CALLED_FIELDS, inner)
        rest.update((f"function.{name}", value) for name, value in inner.items())
    return cleaned


def _without(fields: dict[str, Raw], known: frozenset[str], rest: dict[str, Raw]) -> dict[str, Any]:
    rest.update((name, value) for name, value in fields.items() if name not in known and not is_null(value))
    return {name: value for name, value in fields.items() if name in known}


def _known(shape: type[Struct], tag_field: str) -> frozenset[str]:
    return frozenset({tag_field, *shape.__struct_encode_fields__})


def _clean_tool(tool: Raw, index: int, unknown: _Unknown) -> Any:
    """A tool of a type that the heart does not have is carried whole; a placeholder keeps the others' indexes."""
    if not bytes(tool).startswith(b"{"):
        return tool
    fields = OBJECT.decode(tool)
    kind = text_in(fields.get("type")) or "function"
    if kind == CUSTOM:
        unknown.tools[index] = spec_of(tool, f"tools[{index}]")
        return _PLACEHOLDER
    if kind != "function":
        unknown.tools[index] = CarriedTool(NAME, kind, tool)
        return _PLACEHOLDER
    rest: dict[str, Raw] = {}
    cleaned = _without(fields, _TOOL_FIELDS, rest)
    if bytes(fields.get("function", b"")).startswith(b"{"):
        inner: dict[str, Raw] = {}
        cleaned["function"] = _without(OBJECT.decode(fields["function"]), _FUNCTION_FIELDS, inner)
        rest.update((f"function.{name}", value) for name, value in inner.items())
    unknown.tools[index] = rest
    return cleaned
