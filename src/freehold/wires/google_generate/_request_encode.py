"""Wires, Google: the heart's request to a provider's body. The model and whether it streams are the address's business.

What the vendor cannot say is refused with its path, apart from `UNSAID`.
"""

import re
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
from freehold.wires._fields import check_foreign, own, parted, spliced
from freehold.wires.google_generate._calls import names_of
from freehold.wires.google_generate._parts_encode import Parts
from freehold.wires.google_generate._request_decode import JSON
from freehold.wires.google_generate._seals import checks_signatures
from freehold.wires.google_generate._shapes import (
    CALLING,
    GENERATION,
    NAME,
    PERMISSIVE,
    THINKING,
    TOOL_CONFIG,
    DeclarationShape,
)

UNSAID: Final[Mapping[str, str]] = {
    "cache": "this vendor caches by itself: the same answer, at another price",
    "user": "a label of the caller's user",
    "media.detail": "how finely OpenAI looks at an image; here images are looked at as they are",
    "messages.name": "told as a line of its own before a user's words; of other roles left out",
    "messages.system": "in the middle of a conversation: told as a user's words, in its place",
    "output.name": "a label of the schema",
    "output.strict": "every answer with a schema is strict here",
    "tools.strict": "how closely arguments keep to their schema is the model's own affair here",
}
"""Fields of the heart that are left out or said in other words, and why."""

_LEVELS: Final = {
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "XHIGH",
    "max": "XHIGH",
}
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
"""For the models that know no levels; the figures of the vendor's own OpenAI door: https://ai.google.dev/gemini-api/docs/openai"""

_BY_BUDGET: Final = re.compile(r"gemini-2\.5")
_MODES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY", "named": "ANY"}
_ROLES: Final = {"user": "user", "tool": "user", "assistant": "model", "system": "user"}
_NO_PARAMETERS: Final = ToolSpec("").parameters

_encode: Final = msgspec.json.Encoder().encode


def encode_request(request: ModelRequest, provider: str) -> bytes:
    if request.extra:
        check_foreign(request.extra, NAME, "request", "")
    carried = dict(own(request.extra, NAME))
    body: dict[str, Any] = {"contents": _contents(request, provider)}
    if texts := [_instruction(text, index) for index, text in enumerate(request.instructions) if text.text]:
        body["systemInstruction"] = {"parts": texts}
    if request.tools:
        body["tools"] = _tools(request.tools)
    calling = _taken(carried, CALLING) | _choice(request.tool_choice)
    config = _taken(carried, TOOL_CONFIG) | ({"functionCallingConfig": calling} if calling else {})
    if config:
        body["toolConfig"] = config
    thinking = _thinking(request.reasoning, request.model) | _taken(carried, THINKING)
    generation = _generation(request) | ({"thinkingConfig": thinking} if thinking else {})
    generation |= _taken(carried, GENERATION)
    if generation:
        body["generationConfig"] = generation
    if PERMISSIVE in carried:
        body["safetySettings"] = carried.pop(PERMISSIVE)
    body.update(carried)
    return _encode(body)


def _taken(carried: dict[str, Raw], prefix: str) -> dict[str, Any]:
    names = [name for name in carried if name.startswith(prefix)]
    return {name.removeprefix(prefix): carried.pop(name) for name in names}


def _instruction(text: Text, index: int) -> Any:
    check_foreign(text.extra, NAME, "text", f"instructions[{index}]")
    return spliced(_encode({"text": text.text}), own(text.extra, NAME))


# --------------------------------------------------------------------------------------------- messages


def _contents(request: ModelRequest, provider: str) -> list[Any]:
    names: dict[str, str] = {}  # Of the calls so far: some vendors' ids are used again in later turns.
    checks = checks_signatures(request.model)
    contents: list[Any] = []
    for index, message in enumerate(request.messages):
        path = f"messages[{index}]"
        names |= names_of(message)
        check_foreign(message.extra, NAME, "message", path)
        parts = Parts(message.role, provider, names, checks=checks)
        told = _told(message, parts, path)
        if told:
            content = _encode({"parts": told, "role": _ROLES[message.role]})
            contents.append(spliced(content, own(message.extra, NAME)))
    return contents


def _told(message: Message, parts: Parts, path: str) -> list[Any]:
    if message.name is not None and message.role == "user":
        parts.add(Text(f"{message.name}:"), path)
    for place, part in enumerate(message.content):
        if not (isinstance(part, Text) and not part.text):  # An empty text says nothing, and is refused here.
            parts.add(part, f"{path}.content[{place}]")
    return parts.told


# --------------------------------------------------------------------------------------- tools and settings


def _tools(tools: tuple[ToolSpec | CarriedTool, ...]) -> list[Any]:
    """Functions that stand side by side share one object, as the vendor has it."""
    told: list[Any] = []
    functions: list[Any] = []
    for index, tool in enumerate(tools):
        if isinstance(tool, CarriedTool):
            if tool.wire != NAME:
                said = f"{tool.type} is {tool.wire}'s own tool; {NAME} has none that is the same"
                raise Unsupported(said, field=f"tools[{index}]")
            functions = []
            told.append(tool.spec)
            continue
        if not functions:
            told.append({"functionDeclarations": functions})
        functions.append(_declaration(tool, f"tools[{index}]"))
    return told


def _declaration(tool: ToolSpec, path: str) -> Any:
    shape = DeclarationShape(tool.name, tool.description or None)
    if bytes(tool.parameters) != bytes(_NO_PARAMETERS):
        shape.parameters_json_schema = tool.parameters
    if not tool.extra:
        return shape
    check_foreign(tool.extra, NAME, "tool", path)
    return spliced(_encode(shape), own(tool.extra, NAME))


def _choice(choice: ToolChoice | None) -> dict[str, Any]:
    if choice is None:
        return {}
    if choice.parallel is False and choice.mode != "none":
        raise Unsupported(
            f"{NAME} cannot be kept from calling several tools at once", field="tool_choice.parallel"
        )
    names = {"allowedFunctionNames": [choice.name or ""]} if choice.mode == "named" else {}
    return {"mode": _MODES[choice.mode], **names}


def _generation(request: ModelRequest) -> dict[str, Any]:
    settings = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "topK": request.top_k,
        "maxOutputTokens": request.tokens_max,
        "stopSequences": request.stop or None,
        "seed": request.seed,
    }
    told: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    if request.output is not None:
        told["responseMimeType"] = JSON
        if request.output.schema is not None:
            told["responseJsonSchema"] = _described(request.output, request.output.schema)
    return told


def _described(output: JsonOutput, schema: Raw) -> Raw:
    """What the answer is for: said in the schema itself here."""
    if output.description is None:
        return schema
    fields, _ = parted(schema, frozenset({"description"}), "output.schema")
    if fields:
        return schema
    return spliced(bytes(schema).rstrip(), {"description": Raw(_encode(output.description))})


def _thinking(setting: ReasoningSetting | None, model: str) -> dict[str, Any]:
    if setting is None:
        return {}
    if not setting.enabled or setting.effort == "none":
        return {"thinkingBudget": 0}
    told: dict[str, Any] = {"includeThoughts": True}
    if setting.effort is not None:
        if setting.effort not in _LEVELS:
            said = f"expected one of {', '.join(_LEVELS)}; got {setting.effort!r}"
            raise Unsupported(said, field="reasoning.effort")
        if _BY_BUDGET.match(model):
            told["thinkingBudget"] = _BUDGETS[setting.effort]
        else:
            told["thinkingLevel"] = _LEVELS[setting.effort]
    if setting.budget_tokens is not None:
        told.pop("thinkingLevel", None)  # Either may be said, not both.
        told["thinkingBudget"] = setting.budget_tokens
    return told
