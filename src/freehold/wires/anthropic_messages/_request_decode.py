"""Wires, Anthropic: a client's request to the heart's.

The quick way is one strict decode. A body with fields or blocks that nobody has told us of takes the careful way: they are taken
out and remembered, and then the same strict decode names what is wrong, with its path.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, structs

from freehold.core.errors import BadRequest
from freehold.core.messages import (
    Carried,
    CarriedTool,
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
    NULL,
    OBJECT,
    UNREADABLE,
    extra_of,
    is_null,
    parted,
    text_in,
)
from freehold.wires.anthropic_messages import _blocks_decode as blocks
from freehold.wires.anthropic_messages._blocks_decode import NO_NOTE, Note, cache_of
from freehold.wires.anthropic_messages._shapes import (
    BLOCKS_BY_TYPE,
    CARRIED,
    NAME,
    RESULT_BLOCKS,
    TOOL_FIELDS,
    Block,
    DocumentBlock,
    ImageBlock,
    MessageShape,
    RedactedThinkingBlock,
    RequestShape,
    TextBlock,
    ThinkingBlock,
    ToolChoiceShape,
    ToolResultBlock,
    ToolShape,
    ToolUseBlock,
    says_something,
)

_STRICT: Final = msgspec.json.Decoder(RequestShape)
_REQUEST_FIELDS: Final = frozenset(RequestShape.__struct_encode_fields__)
_MESSAGE_FIELDS: Final = frozenset(MessageShape.__struct_encode_fields__)
_TOOL_FIELDS: Final = frozenset(ToolShape.__struct_encode_fields__)
_NONE_CARRIED: Final = (UNSET,) * len(CARRIED)
_PLACEHOLDER: Final = Raw(b'{"type":"text","text":""}')
_PLACEHOLDER_TOOL: Final = Raw(b'{"name":"","input_schema":{}}')
OUTPUT_CONFIG: Final = "output_config."

_encode: Final = msgspec.json.Encoder().encode


class _Found(Struct):
    fields: dict[str, Raw] = {}
    blocks: dict[int, Note] = {}


class _Unknown(Struct):
    fields: dict[str, Raw] = {}
    system: dict[int, Note] = {}
    messages: dict[int, _Found] = {}
    tools: dict[int, dict[str, Raw] | CarriedTool] = {}


_NOTHING: Final = _Unknown()
_NOTHING_FOUND: Final = _Found()


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
    extra: dict[str, Raw] = dict(unknown.fields)
    if (carried := structs.astuple(shape)[-len(CARRIED) :]) != _NONE_CARRIED:
        said = zip(CARRIED, carried, strict=True)
        extra = {name: value for name, value in said if says_something(name, value)} | extra
    output, reasoning = None, None
    if shape.output_config or shape.output_format is not UNSET or shape.thinking is not UNSET:
        output, reasoning = _settings(shape, extra)
    return ModelRequest(
        model=shape.model,
        messages=_messages(shape.messages, unknown.messages),
        instructions=_instructions(shape.system, unknown.system),
        tools=_tools(shape.tools, unknown.tools) if shape.tools else (),
        tool_choice=None if shape.tool_choice is None else _tool_choice(shape.tool_choice),
        output=output,
        reasoning=reasoning,
        tokens_max=shape.max_tokens,
        temperature=shape.temperature,
        top_p=shape.top_p,
        top_k=shape.top_k,
        stop=tuple(shape.stop_sequences or ()),
        user=_user(shape.metadata, extra),
        stream=shape.stream or False,
        extra={NAME: extra} if extra else {},
    )


def _instructions(system: str | list[TextBlock] | None, notes: Mapping[int, Note]) -> tuple[Text, ...]:
    if not system:
        return ()
    if isinstance(system, str):
        return (Text(system),)
    return tuple(blocks.text(block, notes.get(place, NO_NOTE)) for place, block in enumerate(system))


def _user(metadata: Mapping[str, Raw] | None, extra: dict[str, Raw]) -> str | None:
    if not metadata:
        return None
    user = text_in(metadata.get("user_id"))
    if user is None or len(metadata) > 1:
        extra["metadata"] = Raw(_encode(metadata))
    return user


# --------------------------------------------------------------------------------------------- messages


def _messages(shapes: Sequence[MessageShape], found: Mapping[int, _Found]) -> tuple[Message, ...]:
    messages: list[Message] = []
    for index, shape in enumerate(shapes):
        content = shape.content
        if not found:  # The short ways, for what most messages are, give what the long one does.
            if type(content) is str and content:
                messages.append(Message(shape.role, (Text(content, None, NO_EXTRA),), None, NO_EXTRA))
                continue
            if len(content) == 1 and type(block := content[0]) is TextBlock:
                messages.append(Message(shape.role, (blocks.text(block, NO_NOTE),), None, NO_EXTRA))
                continue
        note = found.get(index, _NOTHING_FOUND) if found else _NOTHING_FOUND
        extra = extra_of(NAME, note.fields)
        if isinstance(content, str):
            messages.append(Message(shape.role, (Text(content),) if content else (), None, extra))
        elif shape.role == "user":
            _put_user(messages, content, note, f"messages[{index}].content")
        else:
            parts = _parts(content, note, f"messages[{index}].content")
            messages.append(Message(shape.role, parts, None, extra))
    return tuple(messages)


def _parts(content: Sequence[Block], note: _Found, path: str) -> tuple[Part, ...]:
    notes = note.blocks
    return tuple(
        _part(block, notes.get(place, NO_NOTE) if notes else NO_NOTE, f"{path}[{place}]")
        for place, block in enumerate(content)
    )


def _part(block: Block, note: Note, path: str) -> Part:
    if note.carried is not None:
        return note.carried
    if (
        type(block) is ToolResultBlock
    ):  # Quicker than a match, whose isinstance a Struct's type makes slow when it says no.
        return blocks.tool_result(block, note, path)
    if type(block) is ToolUseBlock:
        return blocks.tool_call(block, note)
    match block:
        case TextBlock():
            return blocks.text(block, note)
        case ToolUseBlock():
            return blocks.tool_call(block, note)
        case ToolResultBlock():
            return blocks.tool_result(block, note, path)
        case ThinkingBlock() | RedactedThinkingBlock():
            return blocks.thinking(block)
        case ImageBlock():
            return blocks.image(block, note, path)
        case DocumentBlock():
            return blocks.document(block, note, path)


def _put_user(messages: list[Message], content: Sequence[Block], note: _Found, path: str) -> None:
    """Tool results are a user's blocks here, and messages of their own in the heart; the order stays."""
    extra = extra_of(NAME, note.fields)
    run: list[Part] = []
    results = False
    for part in _parts(content, note, path):
        is_result = isinstance(part, ToolResult)
        if run and is_result != results:
            _put_run(messages, run, results=results)
            run = []
        results = is_result
        run.append(part)
    if run or not content:
        _put_run(messages, run, results=results)
    if extra:
        last = messages[-1]
        messages[-1] = Message(last.role, last.content, last.name, extra)


def _put_run(messages: list[Message], run: list[Part], *, results: bool) -> None:
    if results and messages and messages[-1].role == "tool":
        run = [*messages.pop().content, *run]
    messages.append(Message("tool" if results else "user", tuple(run)))


# --------------------------------------------------------------------------------------- tools and settings


def _tools(
    shapes: Sequence[ToolShape], unknown: Mapping[int, dict[str, Raw] | CarriedTool]
) -> tuple[ToolSpec | CarriedTool, ...]:
    tools: list[ToolSpec | CarriedTool] = []
    for index, shape in enumerate(shapes):
        note = unknown.get(index)
        if isinstance(note, CarriedTool):
            tools.append(note)
            continue
        fields = {name: value for name in TOOL_FIELDS if says_something(name, value := getattr(shape, name))}
        if note:
            fields.update(note)
        tools.append(
            ToolSpec(
                shape.name,
                shape.description or "",
                shape.input_schema,
                shape.strict,
                cache_of(shape.cache_control),
                extra_of(NAME, fields),
            )
        )
    return tuple(tools)


_MODES: Final[dict[str, Literal["auto", "none", "required", "named"]]] = {
    "auto": "auto",
    "any": "required",
    "tool": "named",
    "none": "none",
}


def _tool_choice(shape: ToolChoiceShape) -> ToolChoice:
    if shape.type == "tool" and not shape.name:
        raise BadRequest("required with type tool, but missing", field="tool_choice.name")
    disabled = shape.disable_parallel_tool_use
    return ToolChoice(
        _MODES[shape.type],
        shape.name if shape.type == "tool" else None,
        None if disabled is None else not disabled,
    )


def _settings(
    shape: RequestShape, extra: dict[str, Raw]
) -> tuple[JsonOutput | None, ReasoningSetting | None]:
    config = dict(shape.output_config or {})
    output = _output(config, shape.output_format)
    reasoning = _reasoning(config, shape.thinking, extra)
    if config:
        extra.update((OUTPUT_CONFIG + name, value) for name, value in config.items() if not is_null(value))
    return output, reasoning


class _Format(Struct):
    type: str
    schema: Raw | msgspec.UnsetType = UNSET


_FORMAT: Final = msgspec.json.Decoder(_Format)


def _output(config: dict[str, Raw], older: Raw | msgspec.UnsetType) -> JsonOutput | None:
    given, path = config.pop("format", None), "output_config.format"
    if (given is None or is_null(given)) and older is not UNSET:
        given, path = older, "output_format"
    if given is None or is_null(given):
        return None
    shape = decode(bytes(given), _FORMAT, root=path)
    if shape.type != "json_schema":
        raise BadRequest(f"expected json_schema, got {shape.type!r}", field=f"{path}.type")
    if shape.schema is UNSET:
        raise BadRequest("required, but missing", field=f"{path}.schema")
    return JsonOutput(shape.schema)


class _Thinking(Struct):
    type: str
    budget_tokens: int | None = None


_THINKING: Final = msgspec.json.Decoder(_Thinking)
_PLAIN_FIELDS: Final = {"enabled": 2, "adaptive": 1, "disabled": 1}


def _reasoning(
    config: dict[str, Raw], thinking: Raw | msgspec.UnsetType, extra: dict[str, Raw]
) -> ReasoningSetting | None:
    """What the heart's setting does not say of `thinking` (its display; that there is none) rides along and goes first."""
    effort = text_in(config.get("effort"))
    if effort is not None:
        del config["effort"]
    if thinking is UNSET or is_null(thinking):
        if effort is None:
            return None
        extra["thinking"] = Raw(NULL)
        return ReasoningSetting(effort=effort)
    shape = decode(bytes(thinking), _THINKING, root="thinking")
    if _PLAIN_FIELDS.get(shape.type) != len(OBJECT.decode(thinking)):
        extra["thinking"] = thinking
    enabled = shape.type in ("enabled", "adaptive")
    budget = shape.budget_tokens if shape.type == "enabled" else None
    return ReasoningSetting(enabled=enabled, effort=effort, budget_tokens=budget)


# ------------------------------------------------------------------------------------------ the careful way


def _carefully(body: bytes) -> tuple[RequestShape, _Unknown]:
    fields, rest = parted(body, _REQUEST_FIELDS, "")
    unknown = _Unknown({name: value for name, value in rest.items() if not is_null(value)}, {}, {}, {})
    cleaned: dict[str, Any] = dict(fields)
    if _is_array(fields.get("messages")):
        messages = decode(bytes(fields["messages"]), ARRAY, root="messages")
        cleaned["messages"] = [_clean_message(one, index, unknown) for index, one in enumerate(messages)]
    if _is_array(fields.get("system")):
        system = decode(bytes(fields["system"]), ARRAY, root="system")
        cleaned["system"] = [_clean_text(block, place, unknown) for place, block in enumerate(system)]
    if _is_array(fields.get("tools")):
        tools = decode(bytes(fields["tools"]), ARRAY, root="tools")
        cleaned["tools"] = [_clean_tool(one, index, unknown) for index, one in enumerate(tools)]
    return decode(_encode(cleaned), _STRICT), unknown


def _is_array(value: Raw | None) -> bool:
    return value is not None and bytes(value).startswith(b"[")


def _clean_message(message: Raw, index: int, unknown: _Unknown) -> Any:
    path = f"messages[{index}]"
    if not bytes(message).startswith(b"{"):
        return message
    found = _Found({}, {})
    fields = decode(bytes(message), OBJECT, root=path)
    cleaned: dict[str, Any] = _without(fields, _MESSAGE_FIELDS, found.fields)
    if _is_array(fields.get("content")):
        known = tuple(BLOCKS_BY_TYPE)
        cleaned["content"] = _clean_blocks(fields["content"], known, found.blocks, f"{path}.content")
    unknown.messages[index] = found
    return cleaned


def _clean_text(block: Raw, place: int, unknown: _Unknown) -> Any:
    if not bytes(block).startswith(b"{"):
        return block
    note = unknown.system[place] = Note({}, None, {})
    names = frozenset({"type", *TextBlock.__struct_encode_fields__})
    return _without(OBJECT.decode(block), names, note.fields)


def _clean_blocks(content: Raw, known: Sequence[str], notes: dict[int, Note], path: str) -> list[Any]:
    cleaned: list[Any] = []
    items = decode(bytes(content), ARRAY, root=path)
    for place, block in enumerate(items):
        if not bytes(block).startswith(b"{"):
            cleaned.append(block)
            continue
        note = notes[place] = Note({}, None, {})
        cleaned.append(_clean_block(block, known, note, f"{path}[{place}]"))
    return cleaned


def _clean_block(block: Raw, known: Sequence[str], note: Note, path: str) -> Any:
    """A block of a type that is not ours to read is carried whole; a placeholder keeps the others' indexes."""
    fields = decode(bytes(block), OBJECT, root=path)
    kind = text_in(fields.get("type"))
    if kind is None:
        return block
    if kind not in known:
        note.carried = Carried(NAME, kind, block)
        return _PLACEHOLDER
    names = frozenset({"type", *BLOCKS_BY_TYPE[kind].__struct_encode_fields__})
    cleaned: dict[str, Any] = _without(fields, names, note.fields)
    if kind == "tool_result" and _is_array(fields.get("content")):
        cleaned["content"] = _clean_blocks(fields["content"], RESULT_BLOCKS, note.inner, f"{path}.content")
    elif kind in ("thinking", "redacted_thinking") and note.fields:
        note.carried = Carried(NAME, kind, block)
    return cleaned


def _without(fields: dict[str, Raw], known: frozenset[str], rest: dict[str, Raw]) -> dict[str, Raw]:
    rest.update((name, value) for name, value in fields.items() if name not in known and not is_null(value))
    return {name: value for name, value in fields.items() if name in known}


def _clean_tool(tool: Raw, index: int, unknown: _Unknown) -> Any:
    if not bytes(tool).startswith(b"{"):
        return tool
    fields = OBJECT.decode(tool)
    kind = text_in(fields.get("type")) or "custom"
    if kind != "custom":
        unknown.tools[index] = CarriedTool(NAME, kind, tool)
        return _PLACEHOLDER_TOOL
    rest: dict[str, Raw] = {}
    cleaned = _without(fields, _TOOL_FIELDS, rest)
    unknown.tools[index] = rest
    return cleaned
