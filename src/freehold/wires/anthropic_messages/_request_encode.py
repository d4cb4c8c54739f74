"""Wires, Anthropic: the heart's request to a provider's body.

What the vendor cannot say is refused with its path, apart from `UNSAID`. `max_tokens` is required here and optional elsewhere:
without one, TOKENS_MAX_DEFAULT is asked for.
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
    ReasoningSetting,
    Text,
    ToolChoice,
    ToolSpec,
)
from freehold.wires._fields import check_foreign, is_null, own, parted, spliced
from freehold.wires.anthropic_messages._blocks_encode import block, cache_control, text, with_extra
from freehold.wires.anthropic_messages._request_decode import OUTPUT_CONFIG
from freehold.wires.anthropic_messages._shapes import NAME, MessageShape, TextBlock, ToolShape

TOKENS_MAX_DEFAULT: Final = 16_384
"""Beyond what a budget for thinking takes, which counts as output here."""

UNSAID: Final[Mapping[str, str]] = {
    "seed": "a wish that vendors who have it grant as far as they can: no answer's meaning hangs on it",
    "output.strict": "every answer with a schema is strict here",
    "output.name": "a label of the schema",
    "media.detail": "how finely OpenAI looks at an image; here images are looked at as they are",
    "messages.name": "told as a line of its own before a user's words; of other roles left out",
}
"""Fields of the heart that are left out or said in other words, and why."""

_EFFORTS: Final = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}
_ROLES: Final[dict[str, Any]] = {"user": "user", "tool": "user", "assistant": "assistant", "system": "system"}

_encode: Final = msgspec.json.Encoder().encode


def encode_request(request: ModelRequest, provider: str) -> bytes:
    if request.extra:
        check_foreign(request.extra, NAME, "request", "")
    carried = dict(own(request.extra, NAME))
    body: dict[str, Any] = {"model": request.model, "max_tokens": _tokens_max(request)}
    if any(text.text for text in request.instructions):
        body["system"] = _system(request.instructions)
    body["messages"] = _messages(request, provider)
    if request.tools:
        body["tools"] = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(request.tools)]
        if request.tool_choice is not None:
            body["tool_choice"] = _tool_choice(request.tool_choice)
    _put_reasoning(body, request.reasoning, carried)
    config = _output_config(request, carried)
    if config:
        body["output_config"] = config
    _put_settings(body, request, carried)
    body.update(carried)
    return _encode(body)


def _tokens_max(request: ModelRequest) -> int:
    if request.tokens_max is not None:
        return request.tokens_max
    setting = request.reasoning
    return TOKENS_MAX_DEFAULT + (setting.budget_tokens or 0 if setting is not None else 0)


def _put_settings(body: dict[str, Any], request: ModelRequest, carried: dict[str, Raw]) -> None:
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.top_k is not None:
        body["top_k"] = request.top_k
    if request.stop:
        body["stop_sequences"] = request.stop
    if request.user is not None and "metadata" not in carried:
        body["metadata"] = {"user_id": request.user}
    if request.stream:
        body["stream"] = True


def _system(texts: tuple[Text, ...]) -> Any:
    if len(texts) == 1 and texts[0].cache is None and not texts[0].extra:
        return texts[0].text
    return [text(one, f"instructions[{place}]") for place, one in enumerate(texts) if one.text]


# --------------------------------------------------------------------------------------------- messages


def _messages(request: ModelRequest, provider: str) -> list[Any]:
    encoded: list[Any] = []
    after_results = False  # A user's words join the results before them: one turn, results first.
    for index, message in enumerate(request.messages):
        content = _content(message, index, provider)
        if after_results and message.role == "user" and not message.extra:
            encoded[-1].content += _listed(content)
            after_results = False
            continue
        after_results = message.role == "tool" and not message.extra
        if not content:
            if message.role in ("assistant", "tool"):
                after_results = False
                continue  # Nothing was said, or nothing that may go back here; an empty turn is refused.
            content = ""
        shape: Any = MessageShape(_ROLES[message.role], content)
        if message.extra:
            shape = with_extra(shape, message.extra, "message", f"messages[{index}]")
        encoded.append(shape)
    return encoded


def _content(message: Message, index: int, provider: str) -> Any:
    parts = message.content
    named = message.name is not None and message.role == "user"
    if len(parts) == 1 and not named:
        only = parts[0]
        if isinstance(only, Text) and only.cache is None and not only.extra:
            return only.text
    blocks: list[Any] = [TextBlock(f"{message.name}:")] if named else []
    for place, part in enumerate(parts):
        if isinstance(part, Text) and not part.text:
            continue  # Empty texts are refused here, and say nothing.
        told = block(part, message.role, f"messages[{index}].content[{place}]", provider)
        if told is not None:
            blocks.append(told)
    return blocks


def _listed(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [TextBlock(content)] if content else []
    return list(content)


# --------------------------------------------------------------------------------------- tools and settings


def _tool(tool: ToolSpec | CarriedTool, path: str) -> Any:
    if isinstance(tool, CarriedTool):
        if tool.wire != NAME:
            said = f"{tool.type} is {tool.wire}'s own tool; {NAME} has none that is the same"
            raise Unsupported(said, field=path)
        return tool.spec
    shape = ToolShape(
        tool.name,
        tool.parameters,
        tool.description or None,
        cache_control=cache_control(tool.cache),
        strict=tool.strict,
    )
    return with_extra(shape, tool.extra, "tool", path) if tool.extra else shape


def _tool_choice(choice: ToolChoice) -> dict[str, Any]:
    told: dict[str, Any] = {"type": _CHOICES[choice.mode]}
    if choice.mode == "named":
        told["name"] = choice.name or ""
    if choice.parallel is not None and choice.mode != "none":
        told["disable_parallel_tool_use"] = not choice.parallel
    return told


def _put_reasoning(body: dict[str, Any], setting: ReasoningSetting | None, carried: dict[str, Raw]) -> None:
    verbatim = carried.pop("thinking", None)
    if verbatim is not None:
        if not is_null(verbatim):
            body["thinking"] = verbatim
    elif setting is not None:
        if not setting.enabled:
            body["thinking"] = {"type": "disabled"}
        elif setting.budget_tokens is not None:
            body["thinking"] = {"type": "enabled", "budget_tokens": setting.budget_tokens}
        else:
            body["thinking"] = {"type": "adaptive"}


def _output_config(request: ModelRequest, carried: dict[str, Raw]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if request.reasoning is not None and request.reasoning.effort is not None:
        effort = request.reasoning.effort
        if effort not in _EFFORTS:
            raise Unsupported(
                f"expected one of {', '.join(_EFFORTS)}; got {effort!r}", field="reasoning.effort"
            )
        config["effort"] = _EFFORTS[effort]
    if request.output is not None:
        config["format"] = _format(request.output)
    for name in [name for name in carried if name.startswith(OUTPUT_CONFIG)]:
        config[name.removeprefix(OUTPUT_CONFIG)] = carried.pop(name)
    return config


def _format(output: JsonOutput) -> dict[str, Any]:
    if output.schema is None:
        said = f"{NAME} cannot promise a JSON object without a schema: give response_format.json_schema"
        raise Unsupported(said, field="response_format.type")
    return {"type": "json_schema", "schema": _described(output.schema, output.description)}


def _described(schema: Raw, description: str | None) -> Raw:
    """What the answer is for: said in the schema itself here."""
    if description is None:
        return schema
    fields, _ = parted(schema, frozenset({"description"}), "output.schema")
    if fields:
        return schema
    return spliced(bytes(schema).rstrip(), {"description": Raw(_encode(description))})
