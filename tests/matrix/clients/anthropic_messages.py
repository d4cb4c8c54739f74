"""Anthropic's SDK, unmodified, at its Messages."""

from base64 import b64encode
from typing import Any

import msgspec
from anthropic import APIError, APIStatusError, AsyncAnthropic
from jiter import from_json
from msgspec import structs

from tests.matrix._words import (
    Again,
    Answer,
    Ask,
    Assistant,
    Call,
    Cause,
    Content,
    Document,
    Failure,
    Image,
    Result,
    Results,
    Said,
    Thought,
    Tool,
    Turn,
    Usage,
    User,
)

WIRE = "anthropic_messages"
CANNOT: dict[str, str] = {}
"""Features that this SDK has no way to ask for."""

ERROR = APIError
GIVES_BACK: frozenset[str] = frozenset()

REFUSALS: dict[Cause, tuple[str, int]] = {
    "bad_request": ("BadRequestError", 400),
    "context_too_long": ("BadRequestError", 400),
    "unauthenticated": ("PermissionDeniedError", 403),
    "not_found": ("NotFoundError", 404),
    "too_large": ("ContentTooLargeError", 413),
    "rate_limited": ("RateLimitError", 429),
    "failed": ("ServiceUnavailableError", 503),
    "overloaded": ("OverloadedError", 529),
}
"""What the SDK raises for each cause that a provider refuses with. (A refused key is ours, not the client's: 403.)"""

_STOPS: dict[str, Any] = {
    "end_turn": "end",
    "max_tokens": "length",
    "tool_use": "tools",
    "stop_sequence": "stop_sequence",
    "refusal": "refusal",
}
_BUDGETS = {"low": 2048, "medium": 4096, "high": 7000}
_CHOICES = {"auto": "auto", "required": "any", "none": "none"}


def opened(url: str, made: dict[str, str]) -> AsyncAnthropic:
    return AsyncAnthropic(base_url=url, api_key=made["key"], max_retries=0)


async def ask(sdk: AsyncAnthropic, model: str, ask: Ask) -> Said:
    messages = [_turn(turn) for turn in ask.turns]
    given: dict[str, Any] = {
        "model": model,
        "max_tokens": ask.tokens_max,
        "messages": messages,
        **_settings(ask),
    }
    if not ask.stream:
        return said(await sdk.messages.create(**given))
    async with sdk.messages.stream(**given) as events:
        return said(await events.get_final_message())


def _settings(ask: Ask) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if ask.system:
        mark = {"cache_control": {"type": "ephemeral"}} if ask.marked else {}
        given["system"] = [{"type": "text", "text": ask.system, **mark}]
    if ask.tools:
        given["tools"] = [_tool(tool) for tool in ask.tools]
    if ask.choice or ask.parallel is not None:
        given["tool_choice"] = _choice(ask)
    if ask.schema is not None:
        given["output_config"] = {"format": {"type": "json_schema", "schema": ask.schema}}
    if ask.effort:
        given["thinking"] = {"type": "enabled", "budget_tokens": _BUDGETS[ask.effort]}
    if ask.stop:
        given["stop_sequences"] = list(ask.stop)
    return given


def _tool(tool: Tool) -> dict[str, Any]:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    return {"name": tool.name, "description": tool.description, "input_schema": parameters}


def _choice(ask: Ask) -> dict[str, Any]:
    mode = _CHOICES.get(ask.choice or "auto")
    choice = {"type": mode} if mode else {"type": "tool", "name": ask.choice}
    return choice if ask.parallel is None else {**choice, "disable_parallel_tool_use": not ask.parallel}


def _turn(turn: Turn) -> dict[str, Any]:
    match turn:
        case User():
            return {"role": "user", "content": _content(turn.content)}
        case Assistant():
            texts = [{"type": "text", "text": turn.text}] if turn.text else []
            return {"role": "assistant", "content": [*texts, *map(_call, turn.calls)]}
        case Results():
            return {"role": "user", "content": [_result(result) for result in turn.results]}
        case Again():
            return {"role": "assistant", "content": turn.native}


def _call(call: Call) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": call.id,
        "name": call.name,
        "input": msgspec.json.decode(call.arguments or "{}"),
    }


def _result(result: Result) -> dict[str, Any]:
    told = {"type": "tool_result", "tool_use_id": result.call_id, "content": _content(result.content)}
    return {**told, "is_error": True} if result.failed else told


def _content(content: Content) -> Any:
    if len(content) == 1 and isinstance(content[0], str):
        return content[0]
    return [_part(part) for part in content]


def _part(part: str | Image | Document) -> dict[str, Any]:
    match part:
        case str():
            return {"type": "text", "text": part}
        case Image():
            source = {"type": "url", "url": part.url} if part.url else _base64("image/png", part.data)
            return {"type": "image", "source": source}
        case Document():
            return {"type": "document", "title": part.name, "source": _base64("application/pdf", part.data)}


def _base64(kind: str, data: bytes) -> dict[str, str]:
    return {"type": "base64", "media_type": kind, "data": b64encode(data).decode()}


def can_ask(ask: Ask) -> Ask:
    """How tools are chosen has one place: whoever says something of parallel calls says the mode, too. Arguments are an object."""
    choice = "auto" if ask.parallel is not None and ask.choice is None else ask.choice
    return structs.replace(ask, choice=choice, turns=tuple(_sayable(turn) for turn in ask.turns))


def _sayable(turn: Turn) -> Turn:
    if not isinstance(turn, Assistant):
        return turn
    calls = tuple(structs.replace(call, arguments=call.arguments or "{}") for call in turn.calls)
    return structs.replace(turn, calls=calls)


def can_tell(answer: Answer, *, stream: bool) -> Answer:
    """A refusal is a reason to stop, and its words are text. Arguments are an object: of invalid ones the SDK's stream makes
    what it can, and nothing shows that they were.
    """
    calls = tuple(structs.replace(call, arguments=_object(call.arguments, stream)) for call in answer.calls)
    return structs.replace(answer, text=answer.text + answer.refusal, refusal="", calls=calls)


def _object(arguments: str, stream: bool) -> str:
    if not stream:
        return arguments or "{}"
    return msgspec.json.encode(from_json((arguments or "{}").encode(), partial_mode=True)).decode()


def said(message: Any) -> Said:
    blocks = message.content
    answer = Answer(
        text="".join(block.text for block in blocks if block.type == "text"),
        calls=tuple(
            Call(block.id, block.name, _arguments(block.input))
            for block in blocks
            if block.type == "tool_use"
        ),
        thoughts=tuple(
            Thought(block.thinking, block.signature) for block in blocks if block.type == "thinking"
        ),
        stop=_STOPS[message.stop_reason],
        stop_sequence=message.stop_sequence or "",
        usage=_usage(message.usage),
    )
    return Said(answer, blocks)


def _arguments(given: Any) -> str:
    return given["INVALID_JSON"] if "INVALID_JSON" in given else msgspec.json.encode(given).decode()


def _usage(usage: Any) -> Usage:
    read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    details = usage.output_tokens_details
    return Usage(
        usage.input_tokens + read + written,
        usage.output_tokens,
        read,
        written,
        (details.thinking_tokens or 0) if details else 0,
    )


def failure(error: APIError) -> Failure:
    status = error.status_code if isinstance(error, APIStatusError) else None
    headers = error.response.headers if isinstance(error, APIStatusError) else {}
    return Failure(type(error).__name__, status, headers.get("retry-after"), error.message)
