"""Wires, OpenAI chat: custom tools, which take free text: functions with one text for everybody else, and here as they came.

The tools of the request tell which functions are such. Source: https://platform.openai.com/docs/guides/function-calling#custom-tools
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from freehold.core.messages import ModelRequest, ToolCall, ToolSpec
from freehold.core.validation import decode
from freehold.wires import _freeform
from freehold.wires._fields import own
from freehold.wires.openai_chat._shapes import NAME

CUSTOM: Final = "custom"
_SPEC: Final = "custom"
_CALLED: Final = {"type": Raw(b'"custom"')}
"""On a call: it is one of a custom tool."""


class _Tool(Struct):
    custom: _freeform.Custom


class _Called(Struct):
    name: str = ""
    input: str = ""


_TOOL: Final = msgspec.json.Decoder(_Tool)
_CALL: Final = msgspec.json.Decoder(_Called)


def spec_of(tool: Raw, path: str) -> ToolSpec:
    custom = decode(bytes(tool), _TOOL, root=path).custom
    parameters = _freeform.parameters_of(custom)
    return ToolSpec(custom.name, custom.description or "", parameters, extra={NAME: {_SPEC: tool}})


def as_it_came(tool: ToolSpec) -> Raw | None:
    return own(tool.extra, NAME).get(_SPEC)


def call_of(call_id: str, custom: Raw, path: str) -> ToolCall:
    called = decode(bytes(custom), _CALL, root=path)
    return ToolCall(call_id, called.name, _freeform.arguments_of(called.input), extra={NAME: dict(_CALLED)})


def is_custom_call(call: ToolCall, names: frozenset[str] = frozenset()) -> bool:
    """`names`: of the custom tools that were offered."""
    return call.name in names or (bool(call.extra) and "type" in own(call.extra, NAME))


def told(call: ToolCall) -> dict[str, Any]:
    custom = {"name": call.name, "input": _freeform.text_in(call.arguments)}
    return {"id": call.id, "type": CUSTOM, "custom": custom}


def names_of(request: ModelRequest | None) -> frozenset[str]:
    tools = () if request is None else request.tools
    return frozenset(
        tool.name
        for tool in tools
        if isinstance(tool, ToolSpec) and tool.extra and as_it_came(tool) is not None
    )
