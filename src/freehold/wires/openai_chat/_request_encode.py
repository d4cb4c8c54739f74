"""Wires, OpenAI chat: the heart's request to a provider's body.

What the vendor cannot say is refused with its path. Three things are said in other words, since the conversation would not hold
without them: a failed tool result begins with "Error: "; media of a tool result follow in a user message; and a budget for
reasoning becomes an effort.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from freehold.core.errors import Unsupported
from freehold.core.messages import (
    CarriedTool,
    JsonOutput,
    Media,
    Message,
    ModelRequest,
    ReasoningSetting,
    Text,
    ToolChoice,
    ToolResult,
    ToolSpec,
    text_of,
)
from freehold.wires._fields import NO_FIELDS, UNREADABLE, check_foreign, own, spliced
from freehold.wires.openai_chat._custom import CUSTOM, as_it_came, names_of
from freehold.wires.openai_chat._parts_encode import (
    WholeMessage,
    assistant_message,
    is_plain,
    of_function,
    refuse_part,
    text_shape,
    user_part,
)
from freehold.wires.openai_chat._shapes import (
    NAME,
    DeveloperMessage,
    Function,
    PlainMessage,
    SystemMessage,
    ToolMessage,
    ToolShape,
    UserMessage,
)

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
LOW_BUDGET_TOKENS: Final = 2_048
MEDIUM_BUDGET_TOKENS: Final = 8_192
"""Up to these a reasoning budget counts as `low` and `medium` effort; above, as `high`."""

UNSAID: Final[Mapping[str, str]] = {
    "*.cache": "prefixes are cached without being asked; marks that came in this wire's own words leave as they came",
    "reasoning.budget_tokens": f"said as an effort: low up to {LOW_BUDGET_TOKENS}, medium up to {MEDIUM_BUDGET_TOKENS}, then high",
    "reasoning": "reasoning that is on without saying how much is the model's own default",
    "tool_choice": "left out where there are no tools to choose from",
    "messages.tool_result.failed": 'said in words: the result begins with "Error: "',
    "messages.tool_result.media": "shown in a user message that follows the results",
}
"""Fields of the heart that are left out or said in other words, and why."""

_MESSAGE_PREFIX: Final = "message."
_USAGE_WANTED: Final = Raw(b'{"include_usage":true}')
_DEVELOPER: Final = b'"developer"'
_SPEAKERS: Final = ("user", "assistant")
_JSON_OBJECT: Final = Raw(b'{"type":"json_object"}')

_encode: Final = msgspec.json.Encoder().encode


def encode_request(request: ModelRequest, provider: str) -> bytes:
    carried = own(request.extra, NAME)
    if request.extra:
        check_foreign(request.extra, NAME, "request", "")
    body: dict[str, Any] = {"model": request.model, "messages": _messages(request, provider)}
    if request.tools:
        body["tools"] = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(request.tools)]
    if request.tool_choice is not None:
        _put_tool_choice(body, request.tool_choice, request, carried_choice="tool_choice" in carried)
    if request.output is not None:
        body["response_format"] = _format(request.output)
    if request.reasoning is not None:
        _put_reasoning(body, request.reasoning)
    _put_numbers(body, request)
    if carried:
        _refuse_several(carried)
        body.update(carried)
    if request.stream:
        body["stream"] = True
        body["stream_options"] = _stream_options(carried)
    else:
        body.pop("stream_options", None)
    return _encode(body)


def _put_numbers(body: dict[str, Any], request: ModelRequest) -> None:
    if request.tokens_max is not None:
        body["max_completion_tokens"] = request.tokens_max
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.top_k is not None:
        body["top_k"] = request.top_k
    if request.stop:
        body["stop"] = request.stop
    if request.seed is not None:
        body["seed"] = request.seed
    if request.user is not None:
        body["user"] = request.user


def _refuse_several(carried: Any) -> None:
    """The heart's answer is one. (Between an OpenAI client and an OpenAI-like provider the bytes can pass through.)"""
    wanted = carried.get("n")
    if wanted is not None and bytes(wanted) not in (b"1", b"null"):
        raise Unsupported("only one answer can be translated; ask for n = 1", field="n")


def _stream_options(carried: Any) -> Raw:
    """We meter every answer, so usage is always asked for; whether the client sees it is the encoder's business."""
    given = carried.get("stream_options")
    if given is None:
        return _USAGE_WANTED
    try:
        options = msgspec.json.decode(given, type=dict[str, Raw])
    except UNREADABLE:
        return _USAGE_WANTED
    options["include_usage"] = Raw(b"true")
    return Raw(_encode(options))


def _put_tool_choice(
    body: dict[str, Any], choice: ToolChoice, request: ModelRequest, *, carried_choice: bool
) -> None:
    if choice.parallel is not None and request.tools:
        body["parallel_tool_calls"] = choice.parallel
    if carried_choice or not request.tools:
        return  # Without tools the vendor refuses both fields, and nothing hangs on them.
    if choice.mode == "named":
        kind = CUSTOM if choice.name in names_of(request) else "function"
        body["tool_choice"] = {"type": kind, kind: {"name": choice.name or ""}}
    else:
        body["tool_choice"] = choice.mode


def _format(output: JsonOutput) -> Any:
    if output.schema is None:
        return _JSON_OBJECT
    schema: dict[str, Any] = {"name": output.name, "schema": output.schema}
    if output.description is not None:
        schema["description"] = output.description
    if output.strict is not None:
        schema["strict"] = output.strict
    return {"type": "json_schema", "json_schema": schema}


def _put_reasoning(body: dict[str, Any], setting: ReasoningSetting) -> None:
    """Reasoning that is switched on without saying how much is the vendor's own default: nothing to say."""
    if not setting.enabled:
        body["reasoning_effort"] = "none"
    elif setting.effort is not None:
        if setting.effort not in EFFORTS:
            said = f"expected one of {', '.join(EFFORTS)}; got {setting.effort!r}"
            raise Unsupported(said, field="reasoning.effort")
        body["reasoning_effort"] = setting.effort
    elif setting.budget_tokens is not None:
        body["reasoning_effort"] = _effort(setting.budget_tokens)


def _effort(budget_tokens: int) -> str:
    if budget_tokens <= LOW_BUDGET_TOKENS:
        return "low"
    return "medium" if budget_tokens <= MEDIUM_BUDGET_TOKENS else "high"


def _tool(tool: ToolSpec | CarriedTool, path: str) -> Any:
    if isinstance(tool, CarriedTool):
        if tool.wire != NAME:
            raise Unsupported(
                f"{tool.type} is {tool.wire}'s own tool; {NAME} has none that is the same", field=path
            )
        return tool.spec
    function = Function(tool.name, tool.description or None, tool.parameters, tool.strict)
    if not tool.extra:
        return ToolShape(function=function)
    check_foreign(tool.extra, NAME, "tool", path)
    if (whole := as_it_came(tool)) is not None:
        return whole
    inner, outer = of_function(own(tool.extra, NAME))
    return spliced(_encode({"type": "function", "function": spliced(_encode(function), inner)}), outer)


# --------------------------------------------------------------------------------------------- messages


def _messages(request: ModelRequest, provider: str) -> list[Any]:
    encoded = _instructions(request.instructions) if request.instructions else []
    pending: list[Any] = []
    for index, message in enumerate(request.messages):
        content, role = message.content, message.role
        # One text and nothing else, as most messages are: what the long way gives, too.
        if (
            len(content) == 1
            and type(text := content[0]) is Text
            and role in _SPEAKERS
            and not (pending or text.extra or message.extra)
        ):
            encoded.append(PlainMessage(role, text.text, message.name))
            continue
        if role == "tool":
            pending = _put_results(encoded, message, f"messages[{index}]")
            continue
        if role == "user" and pending and not message.extra and message.name is None:
            # Media of the results go first in the user's own next message, so that no turn is made up.
            encoded.append(_user(message, f"messages[{index}]", pending))
            pending = []
            continue
        if pending:
            encoded.append(UserMessage(pending))
            pending = []
        encoded.append(_message(message, f"messages[{index}]", provider))
    if pending:
        encoded.append(UserMessage(pending))
    return encoded


def _message(message: Message, path: str, provider: str) -> Any:
    if message.extra:
        check_foreign(message.extra, NAME, "message", path)
    match message.role:
        case "user":
            return _user(message, path, [])
        case "assistant":
            return assistant_message(message, path, provider)
        case "system":
            return _late_instruction(message, path)
        case "tool":
            raise AssertionError("tool messages are told by _put_results")


def _instructions(texts: Sequence[Text]) -> list[Any]:
    """Texts that came in one message leave in one: their fields of the message are the same."""
    encoded: list[Any] = []
    group: list[Text] = []
    before: dict[str, Raw] = {}
    for index, text in enumerate(texts):
        if text.extra:
            check_foreign(text.extra, NAME, "text", f"instructions[{index}]")
        fields = {
            name.removeprefix(_MESSAGE_PREFIX): value
            for name, value in own(text.extra, NAME).items()
            if name.startswith(_MESSAGE_PREFIX)
        }
        if group and fields != before:
            encoded.append(_system(group, before, None))
            group = []
        group.append(text)
        before = fields
    if group:
        encoded.append(_system(group, before, None))
    return encoded


def _system(texts: Sequence[Text], fields: dict[str, Raw], name: str | None) -> Any:
    developer = bytes(fields.get("role", b"")) == _DEVELOPER
    rest = {field: value for field, value in fields.items() if field != "role"}
    plain = len(texts) == 1 and not _part_fields(texts[0])
    content: Any = texts[0].text if plain else [text_shape(_without_message_fields(text)) for text in texts]
    shape = (DeveloperMessage if developer else SystemMessage)(content, name)
    return spliced(_encode(shape), rest) if rest else shape


def _part_fields(text: Text) -> bool:
    return any(not name.startswith(_MESSAGE_PREFIX) for name in own(text.extra, NAME))


def _without_message_fields(text: Text) -> Text:
    if not text.extra:
        return text
    fields = {
        name: value for name, value in own(text.extra, NAME).items() if not name.startswith(_MESSAGE_PREFIX)
    }
    return Text(text.text, text.cache, {NAME: fields} if fields else {})


def _late_instruction(message: Message, path: str) -> Any:
    texts: list[Text] = []
    for place, part in enumerate(message.content):
        if not isinstance(part, Text):
            raise refuse_part(part, "system", f"{path}.content[{place}]")
        texts.append(part)
    return _system(texts or [Text("")], dict(own(message.extra, NAME)), message.name)


def _user(message: Message, path: str, before: list[Any]) -> Any:
    content = message.content
    if not before and len(content) == 1 and isinstance(content[0], Text) and not content[0].extra:
        shape = UserMessage(content[0].text, message.name)
        return spliced(_encode(shape), own(message.extra, NAME)) if message.extra else shape
    parts = before
    for place, part in enumerate(content):
        told = user_part(part, f"{path}.content[{place}]")
        if isinstance(told, WholeMessage):
            return told.json
        parts.append(told)
    shape = UserMessage(parts or "", message.name)
    return spliced(_encode(shape), own(message.extra, NAME)) if message.extra else shape


def _put_results(encoded: list[Any], message: Message, path: str) -> list[Any]:
    """Appends a message for every result; returns the parts of a user message that must follow them all."""
    following: list[Any] = []
    for place, result in enumerate(message.content):
        at = f"{path}.content[{place}]"
        if not isinstance(result, ToolResult):
            raise refuse_part(result, "tool", at)
        encoded.append(_result(result, at, following))
    return following


def _result(result: ToolResult, path: str, following: list[Any]) -> Any:
    texts: list[Text] = []
    shown = 0
    for place, part in enumerate(result.content):
        match part:
            case Text():
                texts.append(part)
            case Media():
                following += (
                    [] if shown else [text_shape(Text(f"From the result of tool call {result.call_id}:"))]
                )
                following.append(user_part(part, f"{path}.content[{place}]"))
                shown += 1
            case _:
                raise refuse_part(part, "tool", f"{path}.content[{place}]")
    if shown and not texts:
        texts.append(Text(f"{shown} attached in the next message."))
    if result.failed and not text_of(tuple(texts)).lower().startswith("error"):
        texts.insert(0, Text("Error: "))
    told = [text_shape(text, path) for text in texts]
    content: Any = "" if not texts else texts[0].text
    if len(texts) > 1 or (texts and not is_plain(texts[0])):
        content = told
    fields = NO_FIELDS
    if result.extra:
        check_foreign(result.extra, NAME, "tool_result", path)
        fields = own(result.extra, NAME)
    shape = ToolMessage(result.call_id, content)
    return spliced(_encode(shape), fields) if fields else shape
