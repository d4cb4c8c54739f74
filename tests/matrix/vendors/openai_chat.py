"""A scripted vendor that speaks OpenAI's chat completions, as OpenAI and those who follow it do.

Reasoning is told as OpenRouter tells it (`reasoning_details`), which OpenAI's own service does not have.
Sources: https://platform.openai.com/docs/api-reference/chat, https://openrouter.ai/docs/use-cases/reasoning-tokens.
"""

from base64 import b64decode
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import structs
from openai.types.chat import completion_create_params as params

from tests.gateway._vendors import Asked, Step, reply, sse, stream
from tests.matrix._typed import Violation, violations
from tests.matrix._words import (
    Answer,
    Ask,
    Assistant,
    Call,
    Content,
    Document,
    Image,
    Result,
    Results,
    Thought,
    Tool,
    Turn,
    User,
)
from tests.matrix.vendors import _openai

WIRE = "openai_chat"
TYPE = "openai"
BASE = "/v1"
BEYOND = {
    "reasoning_details": "OpenRouter's, and given back to whom it came from only",
    "reasoning_content": "DeepSeek's, and given back to whom it came from only",
}
"""Fields that may come though OpenAI's types don't have them."""

_FINISH = {
    "end": "stop",
    "length": "length",
    "tools": "tool_calls",
    "stop_sequence": "stop",
    "refusal": "stop",
}


# ------------------------------------------------------------------------------------------ what it was asked


def path(model: str, *, stream: bool) -> str:
    return "/v1/chat/completions"


def wrong(asked: Asked) -> list[Violation]:
    body = asked.json
    kind = (
        params.CompletionCreateParamsStreaming
        if body.get("stream")
        else params.CompletionCreateParamsNonStreaming
    )
    found = violations(body, kind)
    return [one for one in found if one[0].rpartition(".")[2] not in BEYOND]


def heard(asked: Asked) -> Ask:
    body = asked.json
    messages = list(body["messages"])
    system, marked = "", False
    while messages and messages[0]["role"] in ("system", "developer"):
        content = messages.pop(0)["content"]
        marked = isinstance(content, list) and "prompt_cache_breakpoint" in content[-1]
        system += content if isinstance(content, str) else "".join(part["text"] for part in content)
    return Ask(
        turns=_turns(messages),
        system=system,
        marked=marked,
        tools=tuple(_tool(tool["function"]) for tool in body.get("tools", ())),
        choice=_choice(body.get("tool_choice")),
        parallel=body.get("parallel_tool_calls"),
        schema=body.get("response_format", {}).get("json_schema", {}).get("schema"),
        effort=body.get("reasoning_effort"),
        stop=tuple(body.get("stop", ())),
        tokens_max=body.get("max_completion_tokens", 0),
        stream=body.get("stream", False),
    )


def _tool(function: dict[str, Any]) -> Tool:
    parameters = function.get("parameters")
    takes_none = parameters is None or not parameters.get("properties")
    return Tool(function["name"], function.get("description", ""), None if takes_none else parameters)


def _choice(given: Any) -> str | None:
    return given["function"]["name"] if isinstance(given, dict) else given


def _turns(messages: Sequence[dict[str, Any]]) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    results: list[Result] = []
    for message in messages:
        if message["role"] == "tool":
            results.append(Result(message["tool_call_id"], ("".join(_content(message["content"])),)))
            continue
        if results:
            turns.append(Results(tuple(results)))
            results = []
        turns.append(
            _assistant(message) if message["role"] == "assistant" else User(_content(message["content"]))
        )
    return (*turns, Results(tuple(results))) if results else tuple(turns)


def _assistant(message: dict[str, Any]) -> Assistant:
    details = message.get("reasoning_details") or ()
    return Assistant(
        "".join(_content(message.get("content") or "")),
        tuple(
            Call(call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls") or ()
        ),
        tuple(Thought(detail["text"], detail["signature"]) for detail in details),
    )


def _content(given: Any) -> Content:
    return (given,) if isinstance(given, str) else tuple(_part(part) for part in given)


def _part(part: dict[str, Any]) -> Any:
    match part["type"]:
        case "text":
            return part["text"]
        case "image_url":
            url = part["image_url"]["url"]
            head, _, data = url.partition(";base64,")
            return Image(b64decode(data)) if head == "data:image/png" else Image(url=url)
        case "file":
            head, _, data = part["file"]["file_data"].partition(";base64,")
            assert head == "data:application/pdf"
            return Document(b64decode(data), part["file"]["filename"])
    raise AssertionError(part)


def can_hear(ask: Ask, client: str) -> Ask:
    """A failed result is told in words; images of a result follow in a user's message; others' marks of what is to be cached
    are left out, since most who follow OpenAI know none. Who limits parallel calls elsewhere says the mode, too.
    """
    if client != WIRE and ask.parallel is not None and ask.choice is None:
        ask = structs.replace(ask, choice="auto")
    return structs.replace(ask, marked=ask.marked and client == WIRE, turns=_hearable(ask.turns))


def _hearable(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    told: list[Turn] = []
    for turn in turns:
        if not isinstance(turn, Results):
            told.append(turn)
            continue
        told.append(Results(tuple(_in_words(result) for result in turn.results)))
        shown: list[Any] = []
        for result in turn.results:
            images = [part for part in result.content if isinstance(part, Image)]
            shown += [f"From the result of tool call {result.call_id}:", *images] if images else []
        if shown:
            told.append(User(tuple(shown)))
    return tuple(told)


def _in_words(result: Result) -> Result:
    text = "".join(part for part in result.content if isinstance(part, str))
    return Result(result.call_id, (f"Error: {text}" if result.failed else text,))


# ------------------------------------------------------------------------------------------ what it answers


def can_tell(answer: Answer) -> Answer:
    """Not which stop sequence it was."""
    stop = "end" if answer.stop == "stop_sequence" else answer.stop
    return structs.replace(answer, stop=stop, stop_sequence="")


def whole(answer: Answer) -> list[Step]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": answer.text or None,
        "refusal": answer.refusal or None,
    }
    if answer.thoughts:
        message["reasoning"] = "".join(thought.text for thought in answer.thoughts)
        message["reasoning_details"] = [
            _detail(thought, index) for index, thought in enumerate(answer.thoughts)
        ]
    if answer.calls:
        message["tool_calls"] = [_call(call) for call in answer.calls]
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "the-model",
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": _FINISH[answer.stop]}
        ],
        "usage": _usage(answer),
    }
    return reply(msgspec.json.encode(body))


def _detail(thought: Thought, index: int) -> dict[str, Any]:
    return {"type": "reasoning.text", "text": thought.text, "signature": thought.seal, "index": index}


def _call(call: Call) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.written},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "the-model"}
    return sse({**head, "choices": choices, "usage": None, **more})


def pieces(answer: Answer) -> list[bytes]:
    """Parallel calls come by turns, as OpenAI's own stream may have them."""
    told = [_chunk({"role": "assistant", "content": ""})]
    for index, thought in enumerate(answer.thoughts):
        told += [_chunk({"reasoning": thought.text[:3]}), _chunk({"reasoning": thought.text[3:]})]
        told.append(_chunk({"reasoning_details": [_detail(thought, index)]}))
    told += [_chunk({"content": piece}) for piece in _halves(answer.text)]
    told += [_chunk({"refusal": piece}) for piece in _halves(answer.refusal)]
    told += [_chunk({"tool_calls": [_begun(call, index)]}) for index, call in enumerate(answer.calls)]
    for half in (0, 1):
        for index, call in enumerate(answer.calls):
            if arguments := _halves(call.arguments):
                told.append(
                    _chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments[half]}}]})
                )
    told.append(_chunk({}, _FINISH[answer.stop]))
    return [*told, _chunk({}, choices=[], usage=_usage(answer)) + b"data: [DONE]\n\n"]


def _begun(call: Call, index: int) -> dict[str, Any]:
    function = {"name": call.name, "arguments": ""}
    return {"index": index, "id": call.id, "type": "function", "function": function}


def _halves(text: str) -> list[str]:
    return [text[: len(text) // 2], text[len(text) // 2 :]] if text else []


def streamed(pieces: Sequence[Step]) -> list[Step]:
    return stream(*pieces)


def comment() -> bytes:
    """What keeps a connection alive: https://openrouter.ai/docs/api-reference/streaming."""
    return b": OPENROUTER PROCESSING\n\n"


fault = _openai.fault


def fault_piece(message: str) -> bytes:
    return sse({"error": {"message": message, "type": "server_error", "param": None, "code": "overloaded"}})
