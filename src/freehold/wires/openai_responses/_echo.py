"""Wires, OpenAI responses: what an answer repeats of its request, for a client."""

from typing import Any, Final

from freehold.core.messages import ModelRequest, ToolSpec
from freehold.wires._fields import own
from freehold.wires.openai_responses._items_encode import is_plain
from freehold.wires.openai_responses._request_decode import REASONING
from freehold.wires.openai_responses._request_encode import text_json, tool_choice_json, tool_json
from freehold.wires.openai_responses._shapes import NAME
from freehold.wires.openai_responses._tools import specs

_NO_REQUEST: Final = ModelRequest(model="", messages=())
_PLAIN_TEXT: Final = {"type": "text"}
_CARRIED: Final[dict[str, Any]] = {
    "background": False,
    "max_tool_calls": None,
    "metadata": {},
    "prompt_cache_key": None,
    "safety_identifier": None,
    "top_logprobs": 0,
    "truncation": "disabled",
}
"""Fields that ride in the request's `extra`, with what holds where it has none."""


def echo(request: ModelRequest | None) -> dict[str, Any]:
    """`service_tier` is what served, not what was asked for. Nothing is stored, so nothing came before."""
    asked = request or _NO_REQUEST
    carried = own(asked.extra, NAME)
    choice, reasoning = asked.tool_choice, asked.reasoning
    said = {name: carried.get(name, usual) for name, usual in _CARRIED.items()}
    instructions = asked.instructions
    return said | {
        "service_tier": "default",
        "instructions": instructions[0].text if instructions and is_plain(instructions[0]) else None,
        "max_output_tokens": asked.tokens_max,
        "parallel_tool_calls": True if choice is None or choice.parallel is None else choice.parallel,
        "previous_response_id": None,
        "reasoning": {
            "effort": _effort(asked) if reasoning is not None else None,
            "summary": carried.get(REASONING + "summary"),
        },
        "store": False,
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "text": {"format": _PLAIN_TEXT} | text_json(asked),
        "tool_choice": carried.get("tool_choice")
        or ("auto" if choice is None else tool_choice_json(choice, asked.tools)),
        "tools": [*specs(asked.tools, _tool)],
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        **({} if asked.user is None else {"user": asked.user}),
    }


def _effort(request: ModelRequest) -> str | None:
    setting = request.reasoning
    if setting is None:
        return None
    return setting.effort if setting.enabled else "none"


def _tool(tool: Any, path: str) -> Any:
    """As it was asked for: fields of another wire, if there are any, are not this client's."""
    if isinstance(tool, ToolSpec):
        plain = ToolSpec(tool.name, tool.description, tool.parameters, tool.strict)
        return tool_json(plain, path) | dict(own(tool.extra, NAME))
    return tool.spec if tool.wire == NAME else {"type": tool.type}
