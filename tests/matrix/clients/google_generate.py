"""Google's SDK (google-genai), unmodified, at its generateContent."""

from base64 import b64encode
from typing import Any

import msgspec
from google import genai
from google.genai import errors, types
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

WIRE = "google_generate"
CANNOT: dict[str, str] = {}
"""Features that this SDK has no way to ask for."""

ERROR = errors.APIError
GIVES_BACK: frozenset[str] = frozenset()

REFUSALS: dict[Cause, tuple[str, int]] = {
    "bad_request": ("ClientError", 400),
    "context_too_long": ("ClientError", 400),
    "unauthenticated": ("ClientError", 403),
    "not_found": ("ClientError", 404),
    "too_large": ("ClientError", 413),
    "rate_limited": ("ClientError", 429),
    "failed": ("ServerError", 503),
    "overloaded": ("ServerError", 503),
}
"""What the SDK raises for each cause that a provider refuses with. (A refused key is ours, not the client's: 403.)"""

_STOPS: dict[str, Any] = {"STOP": "end", "MAX_TOKENS": "length", "SAFETY": "refusal"}
_CHOICES = {"auto": "AUTO", "required": "ANY", "none": "NONE"}
_BUDGETS = {"low": 2048, "medium": 4096, "high": 7000}


class Sdk:
    def __init__(self, url: str, key: str) -> None:
        self.client = genai.Client(api_key=key, http_options={"base_url": url})

    async def close(self) -> None:
        await self.client.aio.aclose()
        self.client.close()


def opened(url: str, made: dict[str, str]) -> Sdk:
    return Sdk(url, made["key"])


async def ask(sdk: Sdk, model: str, ask: Ask) -> Said:
    models = sdk.client.aio.models
    given: dict[str, Any] = {"model": model, "contents": _contents(ask), "config": _config(ask)}
    if not ask.stream:
        return said([await models.generate_content(**given)])
    return said([chunk async for chunk in await models.generate_content_stream(**given)])


def _config(ask: Ask) -> dict[str, Any]:
    given: dict[str, Any] = {"max_output_tokens": ask.tokens_max}
    if ask.system:
        given["system_instruction"] = ask.system
    if ask.tools:
        given["tools"] = [{"function_declarations": [_tool(tool) for tool in ask.tools]}]
        given["automatic_function_calling"] = {"disable": True}
    if ask.choice:
        named = {"mode": "ANY", "allowed_function_names": [ask.choice]}
        calling = {"mode": _CHOICES[ask.choice]} if ask.choice in _CHOICES else named
        given["tool_config"] = {"function_calling_config": calling}
    if ask.schema is not None:
        given |= {"response_mime_type": "application/json", "response_json_schema": ask.schema}
    if ask.effort:
        given["thinking_config"] = {"thinking_budget": _BUDGETS[ask.effort], "include_thoughts": True}
    if ask.stop:
        given["stop_sequences"] = list(ask.stop)
    return given


def _tool(tool: Tool) -> dict[str, Any]:
    shape = {"name": tool.name, "description": tool.description}
    return shape if tool.parameters is None else {**shape, "parameters_json_schema": tool.parameters}


def _contents(ask: Ask) -> list[Any]:
    """A result names its tool."""
    names: dict[str, str] = {}
    contents = []
    for turn in ask.turns:
        told = turn.turn if isinstance(turn, Again) else turn
        if isinstance(told, Assistant):
            names |= {call.id: call.name for call in told.calls}
        contents.append(_turn(turn, names))
    return contents


def _turn(turn: Turn, names: dict[str, str]) -> Any:
    match turn:
        case User():
            return {"role": "user", "parts": _parts(turn.content)}
        case Assistant():
            texts = [{"text": turn.text}] if turn.text else []
            return {"role": "model", "parts": [*texts, *map(_call, turn.calls)]}
        case Results():
            return {"role": "user", "parts": [_result(result, names) for result in turn.results]}
        case Again():
            return turn.native


def _call(call: Call) -> dict[str, Any]:
    arguments = msgspec.json.decode(call.arguments or "{}")
    return {"function_call": {"id": call.id, "name": call.name, "args": arguments}}


def _result(result: Result, names: dict[str, str]) -> dict[str, Any]:
    text = "".join(part for part in result.content if isinstance(part, str))
    shape: dict[str, Any] = {"id": result.call_id, "name": names[result.call_id]}
    shape["response"] = {"error" if result.failed else "output": text}
    images = [part for part in result.content if isinstance(part, Image)]
    if images:
        shape["parts"] = _parts(tuple(images))
    return {"function_response": shape}


def _parts(content: Content) -> list[Any]:
    return [_part(part) for part in content]


def _part(part: str | Image | Document) -> dict[str, Any]:
    match part:
        case str():
            return {"text": part}
        case Image() if part.url:
            return {"file_data": {"file_uri": part.url, "mime_type": "image/png"}}
        case Image():
            return {"inline_data": {"mime_type": "image/png", "data": part.data}}
        case Document():
            shape = {"mime_type": "application/pdf", "data": part.data, "display_name": part.name}
            return {"inline_data": shape}


def can_ask(ask: Ask) -> Ask:
    """Parallel calls cannot be limited here, and nothing marks what is to be cached. Arguments are an object."""
    turns = tuple(_sayable(turn) for turn in ask.turns)
    return structs.replace(ask, parallel=None, marked=False, turns=turns)


def _sayable(turn: Turn) -> Turn:
    if not isinstance(turn, Assistant):
        return turn
    calls = tuple(structs.replace(call, arguments=call.arguments or "{}") for call in turn.calls)
    return structs.replace(turn, calls=calls)


def can_tell(answer: Answer, *, stream: bool) -> Answer:
    """Not which stop sequence it was, nor what was written to a cache; a refusal's words are text; arguments are an object."""
    calls = tuple(structs.replace(call, arguments=call.arguments or "{}") for call in answer.calls)
    usage = structs.replace(answer.usage, written=0)
    stop = "end" if answer.stop == "stop_sequence" else answer.stop
    text = answer.text + answer.refusal
    return structs.replace(
        answer, text=text, refusal="", calls=calls, stop=stop, stop_sequence="", usage=usage
    )


def said(chunks: list[Any]) -> Said:
    """This SDK leaves it to the application to put a stream's chunks together."""
    parts = [
        part
        for chunk in chunks
        for one in chunk.candidates or ()
        for part in (one.content and one.content.parts) or ()
    ]
    calls = tuple(
        Call(part.function_call.id or "", part.function_call.name, _arguments(part.function_call.args))
        for part in parts
        if part.function_call
    )
    reasons = [
        one.finish_reason.value for chunk in chunks for one in chunk.candidates or () if one.finish_reason
    ]
    thought = "".join(part.text or "" for part in parts if part.thought)
    seals = [b64encode(part.thought_signature).decode() for part in parts if part.thought_signature]
    answer = Answer(
        text="".join(part.text or "" for part in parts if part.text and not part.thought),
        calls=calls,
        thoughts=(Thought(thought, seals[0] if seals else ""),) if thought or seals else (),
        stop="tools" if calls and reasons[-1] == "STOP" else _STOPS[reasons[-1]],
        usage=_usage(chunks[-1].usage_metadata),
    )
    return Said(answer, types.Content(role="model", parts=parts))


def _arguments(given: Any) -> str:
    given = given or {}
    return given["INVALID_JSON"] if "INVALID_JSON" in given else msgspec.json.encode(given).decode()


def _usage(usage: Any) -> Usage:
    """What was thought counts beside the candidates here."""
    thought = usage.thoughts_token_count or 0
    output = (usage.candidates_token_count or 0) + thought
    assert usage.total_token_count == usage.prompt_token_count + output
    return Usage(usage.prompt_token_count, output, usage.cached_content_token_count or 0, 0, thought)


def failure(error: errors.APIError) -> Failure:
    headers = getattr(error.response, "headers", None) or {}
    return Failure(type(error).__name__, error.code, headers.get("retry-after"), error.message or "")
