"""OpenAI's SDK, unmodified, at its Responses. Nothing is kept by the server: the conversation comes along each time."""

from collections.abc import Sequence
from typing import Any

from msgspec import structs
from openai import AsyncOpenAI

from tests.matrix._words import (
    Again,
    Answer,
    Ask,
    Assistant,
    Content,
    Document,
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
from tests.matrix.clients import openai_chat
from tests.matrix.clients.openai_chat import data_url

WIRE = "openai_responses"
CANNOT: dict[str, str] = {}
"""Features that this SDK has no way to ask for."""

ERROR = openai_chat.ERROR
GIVES_BACK = frozenset({"annotations", "logprobs", "parsed", "parsed_arguments"})
"""Fields beyond its own types that this SDK sends with an item that it gave."""

REFUSALS = openai_chat.REFUSALS
opened = openai_chat.opened
failure = openai_chat.failure

_INCOMPLETE: dict[str, Any] = {"max_output_tokens": "length", "content_filter": "refusal"}


async def ask(sdk: AsyncOpenAI, model: str, ask: Ask) -> Said:
    given = {"model": model, "input": _input(ask), "max_output_tokens": ask.tokens_max, **_settings(ask)}
    if not ask.stream:
        return said(await sdk.responses.create(**given))
    last = None
    async with sdk.responses.stream(**given) as events:
        async for event in events:
            if event.type in {"response.completed", "response.incomplete"}:
                last = event.response
    assert last is not None
    return said(last)


def _settings(ask: Ask) -> dict[str, Any]:
    given: dict[str, Any] = {"store": False, "include": ["reasoning.encrypted_content"]}
    if ask.system and not ask.marked:
        given["instructions"] = ask.system
    if ask.tools:
        given["tools"] = [_tool(tool) for tool in ask.tools]
    if ask.choice:
        plain = ask.choice in ("auto", "none", "required")
        given["tool_choice"] = ask.choice if plain else {"type": "function", "name": ask.choice}
    if ask.parallel is not None:
        given["parallel_tool_calls"] = ask.parallel
    if ask.schema is not None:
        given["text"] = {
            "format": {"type": "json_schema", "name": "answer", "schema": ask.schema, "strict": True}
        }
    if ask.effort:
        given["reasoning"] = {"effort": ask.effort, "summary": "auto"}
    return given


def _tool(tool: Tool) -> dict[str, Any]:
    shape = {"type": "function", "name": tool.name, "description": tool.description, "strict": False}
    return {**shape, "parameters": tool.parameters or {"type": "object", "properties": {}}}


def _input(ask: Ask) -> list[Any]:
    marked = {"type": "input_text", "text": ask.system, "prompt_cache_breakpoint": {"mode": "explicit"}}
    system = [{"role": "system", "content": [marked]}] if ask.marked else []
    return [*system, *(item for turn in ask.turns for item in _items(turn))]


def _items(turn: Turn) -> list[Any]:
    match turn:
        case User():
            return [{"role": "user", "content": _content(turn.content)}]
        case Assistant():
            texts = [{"role": "assistant", "content": turn.text}] if turn.text else []
            calls = [
                {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
                for call in turn.calls
            ]
            return [*texts, *calls]
        case Results():
            return [
                {"type": "function_call_output", "call_id": one.call_id, "output": _content(one.content)}
                for one in turn.results
            ]
        case Again():
            return list(turn.native)


def _content(content: Content) -> Any:
    if len(content) == 1 and isinstance(content[0], str):
        return content[0]
    return [_part(part) for part in content]


def _part(part: str | Image | Document) -> dict[str, Any]:
    match part:
        case str():
            return {"type": "input_text", "text": part}
        case Image():
            url = part.url or data_url("image/png", part.data)
            return {"type": "input_image", "image_url": url, "detail": "auto"}
        case Document():
            return {
                "type": "input_file",
                "filename": part.name,
                "file_data": data_url("application/pdf", part.data),
            }


def can_ask(ask: Ask) -> Ask:
    """There are no stop sequences here, and a result cannot be marked as failed."""
    return structs.replace(ask, stop=(), turns=_sayable(ask.turns))


def _sayable(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    return tuple(
        Results(tuple(Result(one.call_id, one.content) for one in turn.results))
        if isinstance(turn, Results)
        else turn
        for turn in turns
    )


def can_tell(answer: Answer, *, stream: bool) -> Answer:
    """Not which stop sequence it was, nor that it was one."""
    return structs.replace(
        answer, stop="end" if answer.stop == "stop_sequence" else answer.stop, stop_sequence=""
    )


def said(response: Any) -> Said:
    calls = tuple(
        openai_chat.Call(item.call_id, item.name, item.arguments)
        for item in response.output
        if item.type == "function_call"
    )
    thoughts = tuple(
        Thought("".join(piece.text for piece in item.summary), item.encrypted_content or "")
        for item in response.output
        if item.type == "reasoning"
    )
    content = [part for item in response.output if item.type == "message" for part in item.content]
    refusal = "".join(part.refusal for part in content if part.type == "refusal")
    answer = Answer(
        text=response.output_text,
        calls=calls,
        thoughts=thoughts,
        refusal=refusal,
        stop=_stop(response, calls=bool(calls), refused=bool(refusal)),
        usage=_usage(response.usage),
    )
    return Said(answer, response.output)


def _stop(response: Any, *, calls: bool, refused: bool) -> Any:
    if response.status == "incomplete":
        return _INCOMPLETE[response.incomplete_details.reason]
    assert response.status == "completed"
    return "refusal" if refused else "tools" if calls else "end"


def _usage(usage: Any) -> Usage:
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    return Usage(
        usage.input_tokens,
        usage.output_tokens,
        usage.input_tokens_details.cached_tokens,
        usage.input_tokens_details.cache_write_tokens,
        usage.output_tokens_details.reasoning_tokens,
    )
