"""A scripted vendor that speaks Anthropic's Messages.

Sources: https://platform.claude.com/docs/en/api/messages, https://platform.claude.com/docs/en/build-with-claude/streaming.
"""

from base64 import b64decode
from collections.abc import Sequence
from typing import Any

import msgspec
from anthropic.types import message_create_params as params
from msgspec import structs

from tests.gateway._vendors import Asked, Step, reply, sse, stream
from tests.matrix._typed import Violation, violations
from tests.matrix._words import (
    Answer,
    Ask,
    Assistant,
    Call,
    Cause,
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

WIRE = "anthropic_messages"
TYPE = "anthropic"
BASE = ""

_STOPS = {
    "end": "end_turn",
    "length": "max_tokens",
    "tools": "tool_use",
    "stop_sequence": "stop_sequence",
    "refusal": "refusal",
}
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_EFFORTS = ((2048, "low"), (8192, "medium"))


# ------------------------------------------------------------------------------------------ what it was asked


def path(model: str, *, stream: bool) -> str:
    return "/v1/messages"


def wrong(asked: Asked) -> list[Violation]:
    body = asked.json
    found = violations(
        body,
        params.MessageCreateParamsStreaming if body.get("stream") else params.MessageCreateParamsNonStreaming,
    )
    if "anthropic-version" not in asked.headers:
        found.append(("anthropic-version", "required, but missing"))
    return found + _unpaired(body["messages"])


def _unpaired(messages: Sequence[dict[str, Any]]) -> list[Violation]:
    """What the types can't say: every call has its result in the very next message, and every result its call."""
    found: list[Violation] = []
    open_calls: set[str] = set()
    for place, message in enumerate(messages):
        blocks = [] if isinstance(message["content"], str) else message["content"]
        answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        if answered != open_calls:
            found.append((f"messages[{place}]", f"results of {answered}, and open are {open_calls}"))
        open_calls = {block["id"] for block in blocks if block["type"] == "tool_use"}
    return found


def heard(asked: Asked) -> Ask:
    body = asked.json
    system = body.get("system", "")
    blocks = [{"text": system}] if isinstance(system, str) else system
    choice = body.get("tool_choice", {})
    return Ask(
        turns=tuple(turn for message in body["messages"] for turn in _turns(message)),
        system="".join(block["text"] for block in blocks),
        marked="cache_control" in blocks[-1],
        tools=tuple(_tool(tool) for tool in body.get("tools", ())),
        choice=choice.get("name") or _CHOICES.get(choice.get("type")),
        parallel=not choice["disable_parallel_tool_use"] if "disable_parallel_tool_use" in choice else None,
        schema=body.get("output_config", {}).get("format", {}).get("schema"),
        effort=_effort(body),
        stop=tuple(body.get("stop_sequences", ())),
        tokens_max=body["max_tokens"],
        stream=body.get("stream", False),
    )


def _tool(tool: dict[str, Any]) -> Tool:
    schema = tool["input_schema"]
    return Tool(tool["name"], tool.get("description", ""), schema if schema.get("properties") else None)


def _effort(body: dict[str, Any]) -> Any:
    thinking = body.get("thinking", {"type": "disabled"})
    if thinking["type"] == "adaptive":
        return body["output_config"]["effort"]
    if thinking["type"] == "disabled":
        return None
    return next((name for most, name in _EFFORTS if thinking["budget_tokens"] <= most), "high")


def _turns(message: dict[str, Any]) -> list[Turn]:
    content = message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if message["role"] == "assistant":
        return [_assistant(blocks)]
    results = [_result(block) for block in blocks if block["type"] == "tool_result"]
    rest = [_part(block) for block in blocks if block["type"] != "tool_result"]
    turns: list[Turn] = [Results(tuple(results))] if results else []
    return [*turns, User(tuple(rest))] if rest else turns


def _assistant(blocks: Sequence[dict[str, Any]]) -> Assistant:
    return Assistant(
        "".join(block["text"] for block in blocks if block["type"] == "text"),
        tuple(
            Call(block["id"], block["name"], _arguments(block["input"]))
            for block in blocks
            if block["type"] == "tool_use"
        ),
        tuple(
            Thought(block["thinking"], block["signature"]) for block in blocks if block["type"] == "thinking"
        ),
    )


def _arguments(given: dict[str, Any]) -> str:
    """Invalid JSON is told as the vendor's page on fine-grained tool streaming advises."""
    return given["INVALID_JSON"] if "INVALID_JSON" in given else msgspec.json.encode(given).decode()


def _result(block: dict[str, Any]) -> Result:
    content = block.get("content") or ()
    parts: Content = (content,) if isinstance(content, str) else tuple(_part(part) for part in content)
    return Result(block["tool_use_id"], parts, block.get("is_error", False))


def _part(block: dict[str, Any]) -> Any:
    source = block.get("source", {})
    match block["type"], source.get("type"):
        case "text", _:
            return block["text"]
        case "image", "base64":
            assert source["media_type"] == "image/png"
            return Image(b64decode(source["data"]))
        case "image", "url":
            return Image(url=source["url"])
        case "document", "base64":
            assert source["media_type"] == "application/pdf"
            return Document(b64decode(source["data"]), block["title"])
    raise AssertionError(block)


def can_hear(ask: Ask, client: str) -> Ask:
    """Arguments are an object: none at all are an empty one. Empty texts are left out. Who limits parallel calls says the mode, too."""
    choice = "auto" if ask.parallel is not None and ask.choice is None else ask.choice
    return structs.replace(ask, choice=choice, turns=tuple(_hearable(turn) for turn in ask.turns))


def _hearable(turn: Turn) -> Turn:
    if isinstance(turn, Results):
        results = (structs.replace(one, content=tuple(filter(None, one.content))) for one in turn.results)
        return Results(tuple(results))
    if not isinstance(turn, Assistant):
        return turn
    calls = tuple(structs.replace(call, arguments=call.arguments or "{}") for call in turn.calls)
    return structs.replace(turn, calls=calls)


# ------------------------------------------------------------------------------------------ what it answers


def can_tell(answer: Answer) -> Answer:
    """A refusal is a reason to stop, and its words are text; a call's arguments are an object."""
    calls = tuple(structs.replace(call, arguments=call.arguments or "{}") for call in answer.calls)
    return structs.replace(answer, text=answer.text + answer.refusal, refusal="", calls=calls)


def whole(answer: Answer) -> list[Step]:
    content = [*_thinking(answer), *_texts(answer)]
    content += [_tool_use(call, _input(call)) for call in answer.calls]
    return reply(msgspec.json.encode(_message(answer, content, _STOPS[answer.stop])))


def _message(answer: Answer, content: Sequence[Any], stop: str | None) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "the-model",
        "content": content,
        "stop_reason": stop,
        "stop_sequence": answer.stop_sequence or None if stop else None,
        "stop_details": None,
        "container": None,
        "usage": _whole_usage(answer, 1 if stop is None else answer.usage.output),
    }


def _whole_usage(answer: Answer, output: int) -> dict[str, Any]:
    """Of a message; its end in a stream has less."""
    written = {"ephemeral_5m_input_tokens": answer.usage.written, "ephemeral_1h_input_tokens": 0}
    service = {"inference_geo": "not_available", "service_tier": "standard"}
    return {**_usage(answer, output), "cache_creation": written, **service}


def _usage(answer: Answer, output: int) -> dict[str, Any]:
    usage = answer.usage
    told = {
        "input_tokens": usage.input - usage.cached - usage.written,
        "cache_read_input_tokens": usage.cached,
        "cache_creation_input_tokens": usage.written,
        "output_tokens": output,
        "server_tool_use": None,
    }
    return (
        {**told, "output_tokens_details": {"thinking_tokens": usage.reasoning}} if usage.reasoning else told
    )


def _thinking(answer: Answer) -> list[dict[str, Any]]:
    return [{"type": "thinking", "thinking": one.text, "signature": one.seal} for one in answer.thoughts]


def _texts(answer: Answer) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text} for text in (answer.text, answer.refusal) if text]


def _tool_use(call: Call, given: Any) -> dict[str, Any]:
    return {
        "type": "tool_use",
        "id": call.id,
        "name": call.name,
        "input": given,
        "caller": {"type": "direct"},
    }


def _input(call: Call) -> Any:
    try:
        return msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError:
        return {"INVALID_JSON": call.arguments}


def pieces(answer: Answer) -> list[bytes]:
    told = [
        sse({"type": "message_start", "message": _message(answer, [], None)}, {"type": "ping"}, name=True)
    ]
    index = 0
    for thought in answer.thoughts:
        half = len(thought.text) // 2
        deltas: list[Any] = [
            {"type": "thinking_delta", "thinking": thought.text[:half]},
            {"type": "thinking_delta", "thinking": thought.text[half:]},
            {"type": "signature_delta", "signature": thought.seal},
        ]
        told += _block(index, {"type": "thinking", "thinking": "", "signature": ""}, deltas)
        index += 1
    for block in _texts(answer):
        half = len(block["text"]) // 2
        deltas = [
            {"type": "text_delta", "text": text} for text in (block["text"][:half], block["text"][half:])
        ]
        told += _block(index, {"type": "text", "text": ""}, deltas)
        index += 1
    for call in answer.calls:
        json = call.arguments
        halves = ("", json[: len(json) // 2], json[len(json) // 2 :]) if json not in ("", "{}") else ()
        deltas = [{"type": "input_json_delta", "partial_json": half} for half in halves]
        told += _block(index, _tool_use(call, {}), deltas)
        index += 1
    delta = {
        "stop_reason": _STOPS[answer.stop],
        "stop_sequence": answer.stop_sequence or None,
        "stop_details": None,
        "container": None,
    }
    usage = _usage(answer, answer.usage.output)
    end = {"type": "message_delta", "delta": delta, "usage": usage}
    return [*told, sse(end, name=True), sse({"type": "message_stop"}, name=True)]


def _block(index: int, block: dict[str, Any], deltas: Sequence[Any]) -> list[bytes]:
    begin = {"type": "content_block_start", "index": index, "content_block": block}
    between = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [
        sse(event, name=True) for event in (begin, *between, {"type": "content_block_stop", "index": index})
    ]


def streamed(pieces: Sequence[Step]) -> list[Step]:
    return stream(*pieces)


def comment() -> bytes:
    return sse({"type": "ping"}, name=True)


_ERRORS: dict[Cause, tuple[int, str]] = {
    "bad_request": (400, "invalid_request_error"),
    "context_too_long": (400, "invalid_request_error"),
    "unauthenticated": (401, "authentication_error"),
    "not_found": (404, "not_found_error"),
    "too_large": (413, "request_too_large"),
    "rate_limited": (429, "rate_limit_error"),
    "failed": (500, "api_error"),
    "overloaded": (529, "overloaded_error"),
}


def fault(cause: Cause, message: str, headers: str) -> list[Step]:
    status, kind = _ERRORS[cause]
    if cause == "context_too_long":
        message = f"prompt is too long: {message}"
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return reply(msgspec.json.encode(body), status=status, headers=headers)


def fault_piece(message: str) -> bytes:
    return sse({"type": "error", "error": {"type": "overloaded_error", "message": message}}, name=True)
