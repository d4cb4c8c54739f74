"""OpenAI's SDK, unmodified, at its chat completions."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from msgspec import structs
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    ContentFilterFinishReasonError,
    LengthFinishReasonError,
)

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

WIRE = "openai_chat"
CANNOT: dict[str, str] = {}
"""Features that this SDK has no way to ask for."""

ERROR = APIError
GIVES_BACK = frozenset({"annotations", "index", "parsed", "parsed_arguments", "reasoning", "tool_calls"})
"""Fields beyond its own types that this SDK sends with a message that it gave. To a vendor of this wire they pass."""

REFUSALS: dict[Cause, tuple[str, int]] = {
    "bad_request": ("BadRequestError", 400),
    "context_too_long": ("BadRequestError", 400),
    "unauthenticated": ("PermissionDeniedError", 403),
    "not_found": ("NotFoundError", 404),
    "too_large": ("APIStatusError", 413),
    "rate_limited": ("RateLimitError", 429),
    "failed": ("InternalServerError", 503),
    "overloaded": ("InternalServerError", 503),
}
"""What the SDK raises for each cause that a provider refuses with. (A refused key is ours, not the client's: 403.)"""

_STOPS: dict[str, Any] = {
    "stop": "end",
    "length": "length",
    "tool_calls": "tools",
    "content_filter": "refusal",
}


def opened(url: str, made: dict[str, str]) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key=made["key"], max_retries=0)


async def ask(sdk: AsyncOpenAI, model: str, ask: Ask) -> Said:
    given = {
        "model": model,
        "messages": _messages(ask),
        "max_completion_tokens": ask.tokens_max,
        **_settings(ask),
    }
    if not ask.stream:
        return said(await sdk.chat.completions.create(**given))
    wanted = {"stream_options": {"include_usage": True}}
    async with sdk.chat.completions.stream(**given, **wanted) as events:
        stopped_by, snapshot = "", None
        try:
            async for event in events:
                if event.type == "chunk":
                    snapshot = event.snapshot
                    for choice in event.chunk.choices:
                        stopped_by = getattr(choice, "stop_reason", None) or stopped_by
            return said(await events.get_final_completion(), stopped_by)
        except (LengthFinishReasonError, ContentFilterFinishReasonError):
            return said(snapshot)  # So do this SDK's streams tell of these two ends.


def _settings(ask: Ask) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if ask.tools:
        given["tools"] = [_tool(tool) for tool in ask.tools]
    if ask.choice:
        named = {"type": "function", "function": {"name": ask.choice}}
        given["tool_choice"] = ask.choice if ask.choice in ("auto", "none", "required") else named
    if ask.parallel is not None:
        given["parallel_tool_calls"] = ask.parallel
    if ask.schema is not None:
        schema = {"name": "answer", "schema": ask.schema, "strict": True}
        given["response_format"] = {"type": "json_schema", "json_schema": schema}
    if ask.effort:
        given["reasoning_effort"] = ask.effort
    if ask.stop:
        given["stop"] = list(ask.stop)
    return given


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description}
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    return {"type": "function", "function": function}


def _messages(ask: Ask) -> list[Any]:
    mark = {"prompt_cache_breakpoint": {"mode": "explicit"}} if ask.marked else {}
    system = (
        [{"role": "system", "content": [{"type": "text", "text": ask.system, **mark}]}] if ask.system else []
    )
    return [*system, *(message for turn in _sayable(ask.turns) for message in _turn(turn))]


def _turn(turn: Turn) -> list[Any]:
    match turn:
        case User():
            return [{"role": "user", "content": _content(turn.content)}]
        case Assistant():
            return [
                {
                    "role": "assistant",
                    "content": turn.text or None,
                    "tool_calls": list(map(_call, turn.calls)),
                }
            ]
        case Results():
            return [
                {"role": "tool", "tool_call_id": result.call_id, "content": _content(result.content)}
                for result in turn.results
            ]
        case Again():
            return [turn.native]


def _call(call: Call) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _content(content: Content) -> Any:
    if len(content) == 1 and isinstance(content[0], str):
        return content[0]
    return [_part(part) for part in content]


def _part(part: str | Image | Document) -> dict[str, Any]:
    match part:
        case str():
            return {"type": "text", "text": part}
        case Image():
            return {"type": "image_url", "image_url": {"url": part.url or data_url("image/png", part.data)}}
        case Document():
            file = {"filename": part.name, "file_data": data_url("application/pdf", part.data)}
            return {"type": "file", "file": file}


def data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{b64encode(data).decode()}"


def can_ask(ask: Ask) -> Ask:
    """A result is text, and cannot be marked as failed: an application shows its images in a message of its own."""
    return structs.replace(ask, turns=_sayable(ask.turns))


def _sayable(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    said: list[Turn] = []
    for turn in turns:
        if not isinstance(turn, Results):
            said.append(turn)
            continue
        images = [part for result in turn.results for part in result.content if isinstance(part, Image)]
        said.append(Results(tuple(_text_only(result) for result in turn.results)))
        if images:
            said.append(User(("Here is what it shows:", *images)))
    return tuple(said)


def _text_only(result: Result) -> Result:
    return Result(result.call_id, tuple(part for part in result.content if isinstance(part, str)))


def can_tell(answer: Answer, *, stream: bool) -> Answer:
    return answer


def said(completion: Any, stopped_by: str = "") -> Said:
    (choice,) = completion.choices
    message = choice.message
    thoughts = getattr(message, "reasoning_details", None) or ()
    reason = _STOPS[choice.finish_reason]
    stopped_by = stopped_by or getattr(choice, "stop_reason", None) or ""
    if message.refusal:
        reason = "refusal"
    answer = Answer(
        text=message.content or "",
        calls=tuple(
            Call(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()
        ),
        thoughts=tuple(
            Thought(one.get("text", ""), one.get("signature") or one.get("data", "")) for one in thoughts
        ),
        refusal=message.refusal or "",
        stop="stop_sequence" if stopped_by else reason,
        stop_sequence=stopped_by,
        usage=_usage(completion.usage),
    )
    return Said(answer, message)


def _usage(usage: Any) -> Usage:
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    return Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.prompt_tokens_details.cached_tokens,
        usage.prompt_tokens_details.cache_write_tokens,
        usage.completion_tokens_details.reasoning_tokens,
    )


def failure(error: APIError) -> Failure:
    status = error.status_code if isinstance(error, APIStatusError) else None
    headers = error.response.headers if isinstance(error, APIStatusError) else {}
    return Failure(type(error).__name__, status, headers.get("retry-after"), error.message)
