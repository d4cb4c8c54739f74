"""Wires, Bedrock Converse: the heart's request to a provider's body. Model and `stream` are said in the address.

What the vendor cannot say is refused with its path, apart from `UNSAID`. What only some of its models know (`top_k`, a budget for
thinking) goes into `additionalModelRequestFields`, under the name that most of them have for it.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from freehold.core.errors import Unsupported
from freehold.core.messages import (
    CarriedTool,
    JsonOutput,
    Message,
    ModelRequest,
    Text,
    ToolChoice,
    ToolResult,
    ToolSpec,
)
from freehold.core.messages import ToolCall as Call
from freehold.wires._fields import check_foreign, own, spliced
from freehold.wires.bedrock_converse._blocks_encode import blocks_of, cache_point
from freehold.wires.bedrock_converse._blocks_encode import text as text_block
from freehold.wires.bedrock_converse._request_decode import (
    ADDITIONAL,
    INFERENCE_CONFIG,
    OUTPUT_CONFIG,
    thinking_of,
)
from freehold.wires.bedrock_converse._shapes import NAME, InputSchema, ToolSpecification

UNSAID: Final[Mapping[str, str]] = {
    "seed": "a wish that vendors who have it grant as far as they can: no answer's meaning hangs on it",
    "user": "a label for the vendor's own records",
    "output.strict": "every answer with a schema is strict here",
    "media.detail": "how finely OpenAI looks at an image; here images are looked at as they are",
    "messages.name": "told as a line of its own before a user's words; of other roles left out",
}
"""Fields of the heart that are left out or said in other words, and why."""

_ROLES: Final = {"user": "user", "tool": "user", "assistant": "assistant", "system": "system"}
_encode: Final = msgspec.json.Encoder().encode


def encode_request(request: ModelRequest, provider: str) -> bytes:
    if request.extra:
        check_foreign(request.extra, NAME, "request", "")
    carried = dict(own(request.extra, NAME))
    body: dict[str, Any] = {"messages": _messages(request, provider)}
    if request.instructions and (system := _system(request.instructions)):
        body["system"] = system
    inference = _inference(request) | _taken(carried, INFERENCE_CONFIG)
    if inference:
        body["inferenceConfig"] = inference
    if tools := _tool_config(request):
        body["toolConfig"] = tools
    additional = _additional(request, carried)
    if additional:
        body["additionalModelRequestFields"] = additional
    if config := _output_config(request, carried):
        body["outputConfig"] = config
    body.update(carried)
    return _encode(body)


def _taken(carried: dict[str, Raw], prefix: str) -> dict[str, Any]:
    names = [name for name in carried if name.startswith(prefix)]
    return {name.removeprefix(prefix): carried.pop(name) for name in names}


def _inference(request: ModelRequest) -> dict[str, Any]:
    told = {
        "maxTokens": request.tokens_max,
        "temperature": request.temperature,
        "topP": request.top_p,
        "stopSequences": request.stop or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _system(texts: tuple[Text, ...]) -> list[Any]:
    blocks: list[Any] = []
    for place, one in enumerate(texts):
        if one.text or own(one.extra, NAME):
            blocks.append(text_block(one, f"instructions[{place}]"))
        if one.cache is not None and blocks:
            blocks.append(cache_point(one.cache))
    return blocks


# --------------------------------------------------------------------------------------------- messages


def _messages(request: ModelRequest, provider: str) -> list[Any]:
    """Roles must take turns here: what stands side by side in one role is told as one message."""
    encoded: list[dict[str, Any]] = []
    open_to_more = False
    for index, message in enumerate(request.messages):
        content = _content(message, f"messages[{index}]", provider)
        role = _ROLES[message.role]
        if message.extra:
            check_foreign(message.extra, NAME, "message", f"messages[{index}]")
        fields = own(message.extra, NAME)
        if open_to_more and encoded[-1]["role"] == role and not fields:
            encoded[-1]["content"] += content
        elif content or message.role in {"user", "system"}:
            encoded.append({"role": role, "content": content, **fields})
            open_to_more = not fields
    return encoded


def _content(message: Message, path: str, provider: str) -> list[Any]:
    blocks = blocks_of(message.content, message.role, f"{path}.content", provider)
    if message.name is not None and message.role == "user":
        return [{"text": f"{message.name}:"}, *blocks]
    return blocks


# --------------------------------------------------------------------------------------- tools and settings


def _tool_config(request: ModelRequest) -> dict[str, Any] | None:
    choice = request.tool_choice
    if not request.tools:
        return None
    if choice is not None and choice.mode == "none":
        if any(isinstance(part, Call | ToolResult) for one in request.messages for part in one.content):
            said = f"{NAME} cannot forbid tools in a conversation that has used some: leave tool_choice out"
            raise Unsupported(said, field="tool_choice")
        return None  # Tools that may not be called are no tools.
    tools: list[Any] = []
    for index, tool in enumerate(request.tools):
        tools.append(_tool(tool, f"tools[{index}]"))
        if isinstance(tool, ToolSpec) and tool.cache is not None:
            tools.append(cache_point(tool.cache))
    config: dict[str, Any] = {"tools": tools}
    if choice is not None:
        config["toolChoice"] = _tool_choice(choice)
    return config


def _tool(tool: ToolSpec | CarriedTool, path: str) -> Any:
    if isinstance(tool, CarriedTool):
        if tool.wire != NAME:
            said = f"{tool.type} is {tool.wire}'s own tool; {NAME} has none that is the same"
            raise Unsupported(said, field=path)
        return tool.spec
    shape = ToolSpecification(tool.name, InputSchema(tool.parameters), tool.description or None, tool.strict)
    if not tool.extra:
        return {"toolSpec": shape}
    check_foreign(tool.extra, NAME, "tool", path)
    return {"toolSpec": spliced(_encode(shape), own(tool.extra, NAME))}


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    if choice.parallel is False:
        said = f"{NAME} cannot hold a model to one tool call at a time"
        raise Unsupported(said, field="tool_choice.parallel")
    if choice.mode == "named":
        return {"tool": {"name": choice.name or ""}}
    return {"any": {}} if choice.mode == "required" else {"auto": {}}


def _additional(request: ModelRequest, carried: dict[str, Raw]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if request.top_k is not None:
        told["top_k"] = request.top_k
    verbatim = carried.pop("thinking", None)
    thinking = None if request.reasoning is None else thinking_of(request.reasoning)
    if verbatim is not None or thinking is not None:
        told["thinking"] = verbatim if verbatim is not None else thinking
    return told | _taken(carried, ADDITIONAL)


def _output_config(request: ModelRequest, carried: dict[str, Raw]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if request.output is not None:
        config["textFormat"] = _text_format(request.output)
    if request.reasoning is not None and request.reasoning.effort is not None:
        config["effort"] = request.reasoning.effort
    return config | _taken(carried, OUTPUT_CONFIG)


def _text_format(output: JsonOutput) -> dict[str, Any]:
    if output.schema is None:
        said = f"{NAME} cannot promise a JSON object without a schema: give response_format.json_schema"
        raise Unsupported(said, field="response_format.type")
    schema = {
        "schema": bytes(output.schema).decode("utf-8", "replace"),
        "name": None if output.name == "answer" else output.name,
        "description": output.description,
    }
    told = {name: value for name, value in schema.items() if value is not None}
    return {"type": "json_schema", "structure": {"jsonSchema": told}}
