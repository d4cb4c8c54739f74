"""Wires, OpenAI responses: the heart's request to a provider's body.

What the vendor cannot say is refused with its path, apart from `UNSAID`. Nothing is left with the vendor: answers are not stored,
and reasoning is asked for sealed, so that the conversation can return with it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from freehold.core.errors import Unsupported
from freehold.core.messages import (
    CarriedTool,
    JsonOutput,
    ModelRequest,
    ReasoningSetting,
    ToolChoice,
    ToolSpec,
)
from freehold.wires._fields import check_foreign, own
from freehold.wires.openai_responses._items_encode import instruction_items, is_plain, items
from freehold.wires.openai_responses._request_decode import REASONING, TEXT
from freehold.wires.openai_responses._shapes import NAME
from freehold.wires.openai_responses._tools import CUSTOM, is_custom, specs

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
LOW_BUDGET_TOKENS: Final = 2_048
MEDIUM_BUDGET_TOKENS: Final = 8_192
"""Up to these a reasoning budget counts as `low` and `medium` effort; above, as `high`."""

UNSAID: Final[Mapping[str, str]] = {
    "*.cache": "prefixes are cached without being asked; marks that came in this wire's own words leave as they came",
    "seed": "a wish that vendors who have it grant as far as they can: no answer's meaning hangs on it",
    "reasoning.budget_tokens": f"said as an effort: low up to {LOW_BUDGET_TOKENS}, medium up to {MEDIUM_BUDGET_TOKENS}, then high",
    "reasoning": "reasoning that is on without saying how much is the model's own default",
    "tool_choice": "left out where there are no tools to choose from",
    "messages.name": "told as a line of its own before a user's words; of other roles left out",
    "messages.tool_result.failed": 'said in words: the result begins with "Error: "',
}
"""Fields of the heart that are left out or said in other words, and why."""

_SEALED_REASONING: Final = Raw(b'["reasoning.encrypted_content"]')
_JSON_OBJECT: Final = Raw(b'{"type":"json_object"}')

_encode: Final = msgspec.json.Encoder().encode


def encode_request(request: ModelRequest, provider: str) -> bytes:
    if request.extra:
        check_foreign(request.extra, NAME, "request", "")
    _refuse_unsayable(request)
    carried = own(request.extra, NAME)
    body: dict[str, Any] = {"model": request.model}
    _put_conversation(body, request, provider)
    if request.tools:
        body["tools"] = [*specs(request.tools, tool_json)]
    if request.tool_choice is not None and request.tools:
        _put_tool_choice(body, request.tool_choice, request.tools)
    text, reasoning = text_json(request), _reasoning(request)
    if text:
        body["text"] = text
    if reasoning:
        body["reasoning"] = reasoning
    _put_settings(body, request)
    body |= {"store": False, "include": _SEALED_REASONING}
    body |= {name: value for name, value in carried.items() if not name.startswith((TEXT, REASONING))}
    return _encode(body)


def _refuse_unsayable(request: ModelRequest) -> None:
    for name, given in (("top_k", request.top_k is not None), ("stop", bool(request.stop))):
        if given:
            raise Unsupported(f"{NAME} has no {name}", field=name)


def _put_conversation(body: dict[str, Any], request: ModelRequest, provider: str) -> None:
    """The first instruction is the request's own field, unless it came as a message."""
    texts = request.instructions
    if texts and is_plain(texts[0]):
        check_foreign(texts[0].extra, NAME, "text", "instructions[0]")
        body["instructions"] = texts[0].text
        texts = texts[1:]
    body["input"] = [*instruction_items(texts), *items(request.messages, provider)]


def _put_settings(body: dict[str, Any], request: ModelRequest) -> None:
    said = {
        "max_output_tokens": request.tokens_max,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "user": request.user,
    }
    body.update((name, value) for name, value in said.items() if value is not None)
    if request.stream:
        body["stream"] = True


def _put_tool_choice(
    body: dict[str, Any], choice: ToolChoice, tools: Sequence[ToolSpec | CarriedTool]
) -> None:
    body["tool_choice"] = tool_choice_json(choice, tools)
    if choice.parallel is not None:
        body["parallel_tool_calls"] = choice.parallel


def tool_choice_json(choice: ToolChoice, tools: Sequence[ToolSpec | CarriedTool]) -> Any:
    if choice.mode != "named":
        return choice.mode
    return {"type": CUSTOM if is_custom(tools, choice.name) else "function", "name": choice.name or ""}


def tool_json(tool: ToolSpec | CarriedTool, path: str) -> Any:
    """`strict` is always said: to leave it out means yes here, and no everywhere else."""
    if isinstance(tool, CarriedTool):
        if tool.wire != NAME:
            said = f"{tool.type} is {tool.wire}'s own tool; {NAME} has none that is the same"
            raise Unsupported(said, field=path)
        return tool.spec
    shape: dict[str, Any] = {
        "type": "function",
        "name": tool.name,
        "description": tool.description or None,
        "parameters": tool.parameters,
        "strict": tool.strict or False,
    }
    if not tool.extra:
        return shape
    check_foreign(tool.extra, NAME, "tool", path)
    return shape | dict(own(tool.extra, NAME))


def text_json(request: ModelRequest) -> dict[str, Any]:
    text: dict[str, Any] = _prefixed(request, TEXT)
    if request.output is not None:
        text["format"] = _format(request.output)
    return text


def _format(output: JsonOutput) -> Any:
    if output.schema is None:
        return _JSON_OBJECT
    format_: dict[str, Any] = {"type": "json_schema", "name": output.name, "schema": output.schema}
    if output.description is not None:
        format_["description"] = output.description
    if output.strict is not None:
        format_["strict"] = output.strict
    return format_


def _reasoning(request: ModelRequest) -> dict[str, Any]:
    told: dict[str, Any] = _prefixed(request, REASONING)
    effort = None if request.reasoning is None else effort_of(request.reasoning)
    if effort is not None:
        told["effort"] = effort
    return told


def effort_of(setting: ReasoningSetting) -> str | None:
    if not setting.enabled:
        return "none"
    if setting.effort is not None:
        if setting.effort not in EFFORTS:
            said = f"expected one of {', '.join(EFFORTS)}; got {setting.effort!r}"
            raise Unsupported(said, field="reasoning.effort")
        return setting.effort
    if setting.budget_tokens is None:
        return None
    if setting.budget_tokens <= LOW_BUDGET_TOKENS:
        return "low"
    return "medium" if setting.budget_tokens <= MEDIUM_BUDGET_TOKENS else "high"


def _prefixed(request: ModelRequest, prefix: str) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): value
        for name, value in own(request.extra, NAME).items()
        if name.startswith(prefix)
    }
