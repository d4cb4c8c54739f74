"""Wires, OpenAI responses: tools that only this wire has and that are functions all the same: `custom` ones (free text), and those
in a `namespace`.

A namespaced function goes by a name of both, and a custom one takes its text as its only argument. The tools of the request say so
when the model calls one. For this wire every spec is kept as it came.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct, structs

from freehold.core.messages import CarriedTool, ModelRequest, ToolCall, ToolSpec
from freehold.core.validation import decode
from freehold.wires import _freeform
from freehold.wires._fields import NO_FIELDS, extra_of, is_null, own
from freehold.wires.openai_responses._parts_decode import read
from freehold.wires.openai_responses._shapes import NAME, FunctionTool, PartHead, fields_of

CUSTOM: Final = "custom"
CUSTOM_CALL: Final = Raw(b'"custom_tool_call"')
NAME_CHARS_MAX: Final = 64
"""Of a function, at every vendor."""

_SPEC: Final = "custom"
_GROUP: Final = "namespace.spec"
_HASH_CHARS: Final = 8
_STRANGE: Final = re.compile(r"[^a-zA-Z0-9_-]")
_HEAD: Final = msgspec.json.Decoder(PartHead)
_FUNCTION: Final = msgspec.json.Decoder(FunctionTool)
_FUNCTION_FIELDS: Final = fields_of(FunctionTool)
_CUSTOM: Final = msgspec.json.Decoder(_freeform.Custom)
_NO_PARAMETERS: Final = ToolSpec("").parameters
_encode: Final = msgspec.json.Encoder().encode


class _Namespace(Struct):
    name: str
    description: str = ""
    tools: list[Raw] = []


_NAMESPACE: Final = msgspec.json.Decoder(_Namespace)


# ---------------------------------------------------------------------------------------- from a client


def tools_of(tools: Sequence[Raw]) -> tuple[ToolSpec | CarriedTool, ...]:
    return tuple(one for place, tool in enumerate(tools) for one in _tools(tool, f"tools[{place}]"))


def _tools(tool: Raw, path: str) -> Sequence[ToolSpec | CarriedTool]:
    kind = decode(bytes(tool), _HEAD, root=path).type
    if kind == "namespace":
        return _spread(tool, path) or [CarriedTool(NAME, kind, tool)]
    return [_function(tool, kind, path) or CarriedTool(NAME, kind, tool)]


def _function(tool: Raw, kind: str, path: str) -> ToolSpec | None:
    """None for what is no function."""
    if kind == CUSTOM:
        custom = decode(bytes(tool), _CUSTOM, root=path)
        parameters = _freeform.parameters_of(custom)
        return ToolSpec(
            custom.name, custom.description or "", parameters, extra=extra_of(NAME, {_SPEC: tool})
        )
    if kind != "function":
        return None
    shape, rest = read(tool, _FUNCTION, _FUNCTION_FIELDS, path)
    parameters = _NO_PARAMETERS if is_null(shape.parameters) else shape.parameters
    return ToolSpec(shape.name, shape.description or "", parameters, shape.strict, None, extra_of(NAME, rest))


def _spread(tool: Raw, path: str) -> list[ToolSpec]:
    """A namespace's functions; none where one of its tools is something else. What it says of itself, the first says."""
    shape = decode(bytes(tool), _NAMESPACE, root=path)
    found: list[ToolSpec] = []
    for place, inner in enumerate(shape.tools):
        at = f"{path}.tools[{place}]"
        function = _function(inner, decode(bytes(inner), _HEAD, root=at).type, at)
        if function is None:
            return []
        fields = {
            **own(function.extra, NAME),
            "namespace": Raw(_encode(shape.name)),
            "name": Raw(_encode(function.name)),
            _GROUP: tool,
        }
        about = f"{shape.name}: {shape.description}\n\n" if shape.description and not found else ""
        found.append(
            structs.replace(
                function,
                name=flat(shape.name, function.name),
                description=about + function.description,
                extra={NAME: fields},
            )
        )
    return found


def flat(namespace: str, name: str) -> str:
    """One name for both, of characters that every vendor takes."""
    joined = f"{namespace.rstrip('_')}__{name}"
    plain = _STRANGE.sub("_", joined)
    if len(plain) <= NAME_CHARS_MAX:
        return plain
    digest = sha256(joined.encode("utf-8", "replace")).hexdigest()[:_HASH_CHARS]
    return f"{plain[: NAME_CHARS_MAX - _HASH_CHARS - 1]}_{digest}"


# ------------------------------------------------------------------------------- as they came, for this wire


def specs(
    tools: Sequence[ToolSpec | CarriedTool], told: Callable[[ToolSpec | CarriedTool, str], Any]
) -> Iterator[Any]:
    """Each tool as it came; what is an ordinary one, as `told` has it. A namespace is said once."""
    before: bytes | None = None
    for place, tool in enumerate(tools):
        fields = own(tool.extra, NAME) if isinstance(tool, ToolSpec) else NO_FIELDS
        group = bytes(fields[_GROUP]) if _GROUP in fields else None
        if group is None:
            yield fields.get(_SPEC) or told(tool, f"tools[{place}]")
        elif group != before:
            yield fields[_GROUP]
        before = group


def is_custom(tools: Sequence[ToolSpec | CarriedTool], name: str | None) -> bool:
    return any(
        isinstance(tool, ToolSpec) and tool.name == name and _SPEC in own(tool.extra, NAME) for tool in tools
    )


# ------------------------------------------------------------------------------------------------ calls


class CalledAs:
    """How a client of this wire names the calls of its tools."""

    __slots__ = ("_fields",)

    def __init__(self, request: ModelRequest | None) -> None:
        self._fields: dict[str, dict[str, Raw]] = {}
        for tool in () if request is None else request.tools:
            fields = own(tool.extra, NAME) if isinstance(tool, ToolSpec) and tool.extra else NO_FIELDS
            named = {name: fields[name] for name in ("name", "namespace") if name in fields}
            if _SPEC in fields:
                named["type"] = CUSTOM_CALL
            if named and isinstance(tool, ToolSpec):
                self._fields[tool.name] = named

    def fields(self, call: ToolCall) -> Mapping[str, Raw]:
        """Fields of the item beside the usual ones, or instead of them."""
        said = own(call.extra, NAME)
        known = self._fields.get(call.name)
        return said if known is None else {**known, **said}


def is_custom_call(fields: Mapping[str, Raw]) -> bool:
    return bytes(fields.get("type", b"")) == bytes(CUSTOM_CALL)
