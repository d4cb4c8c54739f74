"""Wires, Bedrock Converse: a client's request to the heart's. Model and `stream` are not in the body: whoever reads the address sets them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, structs

from freehold.core.errors import BadRequest
from freehold.core.messages import (
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
from freehold.wires._fields import extra_of, is_null, text_in
from freehold.wires.bedrock_converse._blocks_decode import cache_of, guarded, one_of, parts_of
from freehold.wires.bedrock_converse._shapes import (
    INFERENCE,
    MESSAGE,
    NAME,
    REQUEST,
    TEXT,
    TEXT_FORMAT,
    TOOL_SPEC,
    Block,
    InferenceConfig,
    ToolChoiceShape,
)

ADDITIONAL: Final = "additionalModelRequestFields."
OUTPUT_CONFIG: Final = "outputConfig."
INFERENCE_CONFIG: Final = "inferenceConfig."
"""Objects whose own fields ride in `extra` one by one, under these prefixes: some are translated, the others carried."""

_NO_INFERENCE: Final = InferenceConfig()
_encode: Final = msgspec.json.Encoder().encode


def decode_request(body: bytes) -> ModelRequest:
    shape, rest = REQUEST.read(body or b"{}", "")
    extra = dict(rest)
    additional = _present(shape.additional_model_request_fields)
    config = _present(shape.output_config)
    inference = _inference(shape.inference_config, extra)
    output = _output(config)
    reasoning = _reasoning(config, additional, extra)
    top_k = _top_k(additional)
    extra.update((ADDITIONAL + name, value) for name, value in additional.items())
    extra.update((OUTPUT_CONFIG + name, value) for name, value in config.items())
    tools = shape.tool_config
    return ModelRequest(
        model="",
        messages=_messages(shape.messages or ()),
        instructions=_instructions(shape.system or ()),
        tools=() if tools is None else _tools(tools.tools),
        tool_choice=None if tools is None or tools.tool_choice is None else _tool_choice(tools.tool_choice),
        output=output,
        reasoning=reasoning,
        tokens_max=inference.max_tokens,
        temperature=inference.temperature,
        top_p=inference.top_p,
        top_k=top_k,
        stop=tuple(inference.stop_sequences or ()),
        extra=extra_of(NAME, extra),
    )


def _present(fields: Mapping[str, Raw] | None) -> dict[str, Raw]:
    return {name: value for name, value in (fields or {}).items() if not is_null(value)}


def _inference(given: Raw | UnsetType, extra: dict[str, Raw]) -> InferenceConfig:
    if given is UNSET or is_null(given):
        return _NO_INFERENCE
    config, rest = INFERENCE.read(given, "inferenceConfig")
    extra.update((INFERENCE_CONFIG + name, value) for name, value in rest.items())
    return config


# --------------------------------------------------------------------------------------------- messages


def _instructions(blocks: Sequence[Block]) -> tuple[Text, ...]:
    texts: list[Text] = []
    for place, block in enumerate(blocks):
        path = f"system[{place}]"
        kind, json = one_of(block, path)
        if kind == "text":
            texts.append(Text(decode(bytes(json), TEXT, root=f"{path}.text")))
        elif kind == "cachePoint" and texts and texts[-1].cache is None:
            texts[-1] = structs.replace(texts[-1], cache=cache_of(json, f"{path}.cachePoint"))
        else:
            text = guarded(json) if kind == "guardContent" else None
            # What is no text rides on an empty one: only this wire says it, and another refuses it.
            texts.append(text or Text("", extra={NAME: {kind: json}}))
    return tuple(texts)


def _messages(messages: Sequence[Raw]) -> tuple[Message, ...]:
    decoded: list[Message] = []
    for index, json in enumerate(messages):
        path = f"messages[{index}]"
        shape, rest = MESSAGE.read(json, path)
        parts = parts_of(shape.content, f"{path}.content")
        extra = extra_of(NAME, rest)
        if shape.role == "user":
            _put_user(decoded, parts)
            if extra:
                decoded[-1] = structs.replace(decoded[-1], extra=extra)
        else:
            decoded.append(Message(shape.role, tuple(parts), None, extra))
    return tuple(decoded)


def _put_user(messages: list[Message], parts: Sequence[Part]) -> None:
    """Tool results are a user's blocks here, and messages of their own in the heart; the order stays."""
    run: list[Part] = []
    results = False
    for part in parts:
        is_result = isinstance(part, ToolResult)
        if run and is_result != results:
            _put_run(messages, run, results=results)
            run = []
        results = is_result
        run.append(part)
    if run or not parts:
        _put_run(messages, run, results=results)


def _put_run(messages: list[Message], run: list[Part], *, results: bool) -> None:
    if results and messages and messages[-1].role == "tool":
        run = [*messages.pop().content, *run]
    messages.append(Message("tool" if results else "user", tuple(run)))


# --------------------------------------------------------------------------------------- tools and settings


def _tools(blocks: Sequence[Block]) -> tuple[ToolSpec | CarriedTool, ...]:
    tools: list[ToolSpec | CarriedTool] = []
    for place, block in enumerate(blocks):
        path = f"toolConfig.tools[{place}]"
        kind, json = one_of(block, path)
        last = tools[-1] if tools else None
        if kind == "toolSpec":
            tools.append(_tool(json, f"{path}.toolSpec"))
        elif kind == "cachePoint" and isinstance(last, ToolSpec) and last.cache is None:
            tools[-1] = structs.replace(last, cache=cache_of(json, f"{path}.cachePoint"))
        else:
            tools.append(CarriedTool(NAME, kind, Raw(_encode({kind: json}))))
    return tuple(tools)


def _tool(json: Raw, path: str) -> ToolSpec:
    shape, rest = TOOL_SPEC.read(json, path)
    parameters = shape.input_schema.json
    return ToolSpec(shape.name, shape.description or "", parameters, shape.strict, extra=extra_of(NAME, rest))


def _tool_choice(shape: ToolChoiceShape) -> ToolChoice:
    if shape.tool is not None:
        return ToolChoice("named", shape.tool.name)
    return ToolChoice("required" if shape.any is not None else "auto")


def _output(config: dict[str, Raw]) -> JsonOutput | None:
    given = config.pop("textFormat", None)
    if given is None:
        return None
    said = decode(bytes(given), TEXT_FORMAT, root="outputConfig.textFormat").structure.json_schema
    schema = said.schema.strip().encode("utf-8", "replace")
    try:
        msgspec.json.decode(schema, type=dict[str, Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        path = "outputConfig.textFormat.structure.jsonSchema.schema"
        raise BadRequest(f"expected a JSON schema in a string: {error}", field=path) from error
    return JsonOutput(Raw(schema), said.name or "answer", said.description)


class _Thinking(Struct):
    type: str = ""
    budget_tokens: int | None = None


_THINKING: Final = msgspec.json.Decoder(_Thinking)


def _reasoning(
    config: dict[str, Raw], additional: dict[str, Raw], extra: dict[str, Raw]
) -> ReasoningSetting | None:
    """Effort is this API's own word; `thinking` is Anthropic's, in the model's fields. As it came it rides along, and goes first."""
    effort = text_in(config.get("effort"))
    if effort is not None:
        del config["effort"]
    thinking = additional.get("thinking")
    shape = None if thinking is None else _thinking(thinking)
    if thinking is None or shape is None:
        return None if effort is None else ReasoningSetting(effort=effort)
    del additional["thinking"]
    enabled = shape.type != "disabled"
    setting = ReasoningSetting(enabled=enabled, effort=effort, budget_tokens=shape.budget_tokens)
    if msgspec.json.decode(thinking) != thinking_of(setting):
        extra["thinking"] = thinking
    return setting


def _thinking(json: Raw) -> _Thinking | None:
    try:
        shape = _THINKING.decode(json)
    except msgspec.DecodeError:
        return None
    return shape if shape.type in {"enabled", "adaptive", "disabled"} else None


def thinking_of(setting: ReasoningSetting) -> dict[str, Any] | None:
    """What is said of a setting in `additionalModelRequestFields.thinking`; an effort alone needs none."""
    if not setting.enabled:
        return {"type": "disabled"}
    if setting.budget_tokens is not None:
        return {"type": "enabled", "budget_tokens": setting.budget_tokens}
    return {"type": "adaptive"} if setting.effort is None else None


def _top_k(additional: dict[str, Raw]) -> int | None:
    """Most of the vendors here call it so."""
    given = additional.get("top_k")
    if given is None or not bytes(given).isdigit():
        return None
    del additional["top_k"]
    return int(bytes(given))
