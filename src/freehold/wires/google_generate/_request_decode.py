"""Wires, Google: a client's request to the heart's. Model and `stream` are in the address: whoever reads it sets them.

The quick way is one strict decode. A body with fields that nobody has told us of, or in snake_case, goes the careful one (_tidy.py).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import UNSET, Raw

from freehold.core.errors import BadRequest
from freehold.core.messages import (
    CarriedTool,
    JsonOutput,
    Message,
    ModelRequest,
    Part,
    ReasoningSetting,
    Role,
    Text,
    ToolChoice,
    ToolSpec,
    raw,
)
from freehold.wires._fields import NO_FIELDS, UNREADABLE, extra_of
from freehold.wires.google_generate import _parts_decode as parts
from freehold.wires.google_generate._calls import joined
from freehold.wires.google_generate._schema import json_schema
from freehold.wires.google_generate._shapes import (
    CALLING,
    CARRIED,
    GENERATION,
    NAME,
    PERMISSIVE,
    THINKING,
    TOOL_CONFIG,
    ContentShape,
    DeclarationShape,
    GenerationShape,
    RequestShape,
    ThinkingShape,
    ToolConfigShape,
    ToolShape,
    says_something,
)
from freehold.wires.google_generate._tidy import NONE_UNKNOWN, Unknown, tidied

JSON: Final = "application/json"
_STRICT: Final = msgspec.json.Decoder(RequestShape)
_NO_GENERATION: Final = GenerationShape()
_NO_THINKING: Final = ThinkingShape()
_ROLES: Final[Mapping[str, Role]] = {"user": "user", "model": "assistant", "function": "user", "": "user"}
_FALSE: Final = Raw(b"false")
_OFF: Final = frozenset({"BLOCK_NONE", "OFF", "HARM_BLOCK_THRESHOLD_UNSPECIFIED"})


def decode_request(body: bytes) -> ModelRequest:
    try:
        return _decode(body)
    except UNREADABLE as error:
        raise BadRequest("expected JSON in UTF-8, got other bytes in a string") from error


def _decode(body: bytes) -> ModelRequest:
    unknown = NONE_UNKNOWN
    try:
        shape = _STRICT.decode(body)
    except UNREADABLE:
        shape, unknown = tidied(body)
    generation = shape.generation_config or _NO_GENERATION
    extra = _carried(shape, unknown)
    choice = _choice(shape.tool_config, extra)
    output = _output(generation, extra)
    return ModelRequest(
        model="",
        messages=joined(_messages(shape.contents, unknown)),
        instructions=_instructions(shape.system_instruction, unknown),
        tools=_tools(shape.tools or (), unknown, strict=_validated(shape.tool_config)),
        tool_choice=choice,
        output=output,
        reasoning=_reasoning(generation, extra),
        tokens_max=generation.max_output_tokens,
        temperature=generation.temperature,
        top_p=generation.top_p,
        top_k=_whole(generation.top_k),
        stop=tuple(generation.stop_sequences or ()),
        seed=generation.seed,
        extra=extra_of(NAME, extra),
    )


def _carried(shape: RequestShape, unknown: Unknown) -> dict[str, Raw]:
    given = (shape.safety_settings, shape.cached_content, shape.labels, shape.service_tier, shape.store)
    extra = {
        name: value
        for name, value in zip(CARRIED, given, strict=True)
        if isinstance(value, Raw) and says_something(name, value)
    }
    if "safetySettings" in extra and _permissive(extra["safetySettings"]):
        extra[PERMISSIVE] = extra.pop("safetySettings")
    if unknown:
        extra |= unknown.get("", NO_FIELDS)
        for place, prefix in (
            ("generationConfig", GENERATION),
            ("generationConfig.thinkingConfig", THINKING),
            ("toolConfig", TOOL_CONFIG),
            ("toolConfig.functionCallingConfig", CALLING),
        ):
            extra |= {prefix + name: value for name, value in unknown.get(place, NO_FIELDS).items()}
    return extra


class _Safety(msgspec.Struct):
    threshold: str = ""


_SAFETY: Final = msgspec.json.Decoder(list[_Safety])


def _permissive(settings: Raw) -> bool:
    try:
        return all(one.threshold in _OFF for one in _SAFETY.decode(settings))
    except UNREADABLE as error:
        raise BadRequest(
            "expected a list of objects with category and threshold", field="safetySettings"
        ) from error


# --------------------------------------------------------------------------------------------- messages


def _instructions(shape: ContentShape | None, unknown: Unknown) -> tuple[Text, ...]:
    texts: list[Text] = []
    for index, one in enumerate(shape.parts if shape is not None else ()):
        path = f"systemInstruction.parts[{index}]"
        for part in parts.part(one, unknown, path):
            if not isinstance(part, Text):
                raise BadRequest("expected text: instructions have nothing else", field=path)
            texts.append(part)
    return tuple(texts)


def _messages(contents: Sequence[ContentShape], unknown: Unknown) -> list[Message]:
    messages: list[Message] = []
    for index, content in enumerate(contents):
        role = _ROLES.get(content.role or "")
        if role is None:
            said = f"expected user, model or function; got {content.role!r}"
            raise BadRequest(said, field=f"contents[{index}].role")
        path = f"contents[{index}]"
        found: list[Part] = []
        for place, one in enumerate(content.parts):
            found += parts.part(one, unknown, f"{path}.parts[{place}]")
        extra = extra_of(NAME, unknown.get(path)) if unknown else {}
        messages.append(Message(role, tuple(found), None, extra))
    return messages


# --------------------------------------------------------------------------------------- tools and settings


def _tools(
    shapes: Sequence[ToolShape], unknown: Unknown, *, strict: bool
) -> tuple[ToolSpec | CarriedTool, ...]:
    tools: list[ToolSpec | CarriedTool] = []
    for index, shape in enumerate(shapes):
        path = f"tools[{index}]"
        for place, one in enumerate(shape.function_declarations or ()):
            tools.append(_tool(one, unknown, f"{path}.functionDeclarations[{place}]", strict=strict))
        for name, value in unknown.get(path, NO_FIELDS).items() if unknown else ():
            tools.append(CarriedTool(NAME, name, raw({name: value})))
    return tuple(tools)


_NO_PARAMETERS: Final = ToolSpec("").parameters


def _tool(shape: DeclarationShape, unknown: Unknown, path: str, *, strict: bool) -> ToolSpec:
    parameters = _NO_PARAMETERS
    if says_something("", shape.parameters_json_schema) and shape.parameters_json_schema is not UNSET:
        parameters = shape.parameters_json_schema
    elif says_something("", shape.parameters) and shape.parameters is not UNSET:
        parameters = json_schema(shape.parameters, f"{path}.parameters")
    extra = extra_of(NAME, unknown.get(path)) if unknown else {}
    return ToolSpec(shape.name, shape.description or "", parameters, strict or None, None, extra)


def _validated(shape: ToolConfigShape | None) -> bool:
    """The mode that leaves the choice to the model and holds its calls to their schemas: what others call strict."""
    calling = None if shape is None else shape.function_calling_config
    return calling is not None and calling.mode == "VALIDATED"


def _choice(shape: ToolConfigShape | None, extra: dict[str, Raw]) -> ToolChoice | None:
    calling = None if shape is None else shape.function_calling_config
    if calling is None:
        return None
    allowed = calling.allowed_function_names or []
    match calling.mode:
        case "ANY" if len(allowed) == 1:
            return ToolChoice("named", allowed[0])
        case "ANY" | "VALIDATED" | "AUTO" | None | "MODE_UNSPECIFIED" as mode:
            if allowed:
                extra[CALLING + "allowedFunctionNames"] = raw(allowed)
            if mode is None or mode == "MODE_UNSPECIFIED":
                return None
            return ToolChoice("required" if mode == "ANY" else "auto")
        case "NONE":
            return ToolChoice("none")
        case other:
            said = f"expected AUTO, ANY, NONE or VALIDATED; got {other!r}"
            raise BadRequest(said, field="toolConfig.functionCallingConfig.mode")


def _output(shape: GenerationShape, extra: dict[str, Raw]) -> JsonOutput | None:
    schema: Raw | None = None
    if shape.response_json_schema is not UNSET and says_something("", shape.response_json_schema):
        schema = shape.response_json_schema
    elif shape.response_schema is not UNSET and says_something("", shape.response_schema):
        schema = json_schema(shape.response_schema, "generationConfig.responseSchema")
    kind = shape.response_mime_type
    if kind == JSON:
        return JsonOutput(schema)
    if kind not in (None, "", "text/plain"):
        extra[GENERATION + "responseMimeType"] = raw(kind)
    if schema is not None:
        extra[GENERATION + "responseJsonSchema"] = schema
    return None


def _reasoning(shape: GenerationShape, extra: dict[str, Raw]) -> ReasoningSetting | None:
    """Thoughts are shown where they are set at all; what a client says otherwise rides along."""
    thinking = shape.thinking_config
    if thinking is None or thinking == _NO_THINKING:
        return None
    budget, level = thinking.thinking_budget, thinking.thinking_level
    if level == "THINKING_LEVEL_UNSPECIFIED":
        level = None
    setting = ReasoningSetting(
        enabled=budget != 0,
        effort=level.lower() if level else None,
        budget_tokens=budget if budget is not None and budget > 0 else None,
    )
    if thinking.include_thoughts is not True and setting.enabled:
        extra[THINKING + "includeThoughts"] = _FALSE
    return setting


def _whole(number: float | None) -> int | None:
    if number is None:
        return None
    if not number.is_integer():
        raise BadRequest(f"expected a whole number, got {number}", field="generationConfig.topK")
    return int(number)
