"""A scripted Amazon Bedrock that speaks Converse and ConverseStream, and has botocore judge what it receives.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, botocore's `bedrock-runtime` service model.
"""

from base64 import b64decode
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import structs

from freehold.wires._aws_eventstream import encode_event, encode_exception
from tests.gateway._vendors import Asked, Step, reply, stream
from tests.matrix._typed import Violation
from tests.matrix._words import (
    Answer,
    Ask,
    Assistant,
    Call,
    Cause,
    Document,
    Image,
    Result,
    Results,
    Thought,
    Tool,
    Turn,
    User,
)
from tests.wires._botocore import valid_for_botocore

WIRE = "bedrock_converse"
TYPE = "bedrock"
BASE = ""

_NAMED = "x-amzn-requestid: 5d6c2a01-8f1c-4a52-9d4b-2f6f0f3a9b7e"
"""All that names an answer here."""

_STOPS = {
    "end": "end_turn",
    "length": "max_tokens",
    "tools": "tool_use",
    "stop_sequence": "stop_sequence",
    "refusal": "content_filtered",
}
_EFFORTS = ((2048, "low"), (8192, "medium"))


def path(model: str, *, stream: bool) -> str:
    return f"/model/{quote(model, safe='')}/{'converse-stream' if stream else 'converse'}"


def wrong(asked: Asked) -> list[Violation]:
    report = valid_for_botocore(asked.json)
    return [("", report)] if report else []


def heard(asked: Asked) -> Ask:
    body = asked.json
    system = body.get("system", [])
    tools = body.get("toolConfig", {})
    return Ask(
        turns=tuple(turn for message in body["messages"] for turn in _turns(message)),
        system="".join(block.get("text", "") for block in system),
        marked="cachePoint" in system[-1] if system else False,
        tools=tuple(_tool(tool["toolSpec"]) for tool in tools.get("tools", ())),
        choice=_choice(tools.get("toolChoice")),
        schema=_schema(body.get("outputConfig")),
        effort=_effort(body),
        stop=tuple(body.get("inferenceConfig", {}).get("stopSequences", ())),
        tokens_max=body.get("inferenceConfig", {}).get("maxTokens", 0),
        stream=asked.path.endswith("-stream"),
    )


def _tool(spec: dict[str, Any]) -> Tool:
    schema = spec["inputSchema"]["json"]
    return Tool(spec["name"], spec.get("description", ""), schema if schema.get("properties") else None)


def _choice(given: Any) -> str | None:
    if given is None:
        return None
    return str(given["tool"]["name"]) if "tool" in given else "required" if "any" in given else "auto"


def _schema(given: Any) -> Any:
    if not given or "textFormat" not in given:
        return None
    return msgspec.json.decode(given["textFormat"]["structure"]["jsonSchema"]["schema"])


def _effort(body: dict[str, Any]) -> Any:
    thinking = body.get("additionalModelRequestFields", {}).get("thinking", {})
    if thinking.get("type") == "enabled":
        return next((name for most, name in _EFFORTS if thinking["budget_tokens"] <= most), "high")
    return body.get("outputConfig", {}).get("effort")


def _turns(message: dict[str, Any]) -> list[Turn]:
    blocks = message["content"]
    if message["role"] == "assistant":
        return [_assistant(blocks)]
    results = [_result(block["toolResult"]) for block in blocks if "toolResult" in block]
    rest = [_part(block) for block in blocks if "toolResult" not in block]
    turns: list[Turn] = [Results(tuple(results))] if results else []
    return [*turns, User(tuple(rest))] if rest else turns


def _assistant(blocks: Sequence[dict[str, Any]]) -> Assistant:
    calls = [block["toolUse"] for block in blocks if "toolUse" in block]
    thoughts = [block["reasoningContent"]["reasoningText"] for block in blocks if "reasoningContent" in block]
    return Assistant(
        "".join(block.get("text", "") for block in blocks),
        tuple(Call(call["toolUseId"], call["name"], _arguments(call["input"])) for call in calls),
        tuple(Thought(one["text"], one.get("signature", "")) for one in thoughts),
    )


def _arguments(given: dict[str, Any]) -> str:
    return given["INVALID_JSON"] if "INVALID_JSON" in given else msgspec.json.encode(given).decode()


def _result(block: dict[str, Any]) -> Result:
    parts = tuple(filter(None, (_part(part) for part in block["content"])))
    return Result(block["toolUseId"], parts, block.get("status") == "error")


def _part(block: dict[str, Any]) -> Any:
    if "text" in block:
        return block["text"]
    if "image" in block:
        assert block["image"]["format"] == "png"
        return Image(b64decode(block["image"]["source"]["bytes"]))
    document = block["document"]
    assert document["format"] == "pdf"
    return Document(b64decode(document["source"]["bytes"]), document["name"])


def can_hear(ask: Ask, client: str) -> Ask:
    """Arguments are an object; empty texts are left out; a document's name has no dot. Tools that must not be called are left out."""
    tools, choice = ((), None) if ask.choice == "none" else (ask.tools, ask.choice)
    return structs.replace(
        ask, tools=tools, choice=choice, turns=tuple(_hearable(turn) for turn in ask.turns)
    )


def _hearable(turn: Turn) -> Turn:
    match turn:
        case Results():
            results = (structs.replace(one, content=tuple(filter(None, one.content))) for one in turn.results)
            return Results(tuple(results))
        case User():
            return User(tuple(_named(part) for part in turn.content))
        case Assistant():
            calls = tuple(structs.replace(call, arguments=call.arguments or "{}") for call in turn.calls)
            return structs.replace(turn, calls=calls)
        case _:
            return turn


def _named(part: Any) -> Any:
    return structs.replace(part, name=part.name.replace(".", "-")) if isinstance(part, Document) else part


def can_tell(answer: Answer) -> Answer:
    """Not how much was thought; which stop sequence it was only where asked to; a refusal's words are text."""
    calls = tuple(structs.replace(call, arguments=call.arguments or "{}") for call in answer.calls)
    usage = structs.replace(answer.usage, reasoning=0)
    text = answer.text + answer.refusal
    return structs.replace(answer, text=text, refusal="", calls=calls, usage=usage)


def whole(answer: Answer) -> list[Step]:
    content: list[Any] = [_thinking(thought) for thought in answer.thoughts]
    content += [{"text": text} for text in (answer.text, answer.refusal) if text]
    content += [
        {"toolUse": {"toolUseId": call.id, "name": call.name, "input": _input(call)}} for call in answer.calls
    ]
    message = {"role": "assistant", "content": content}
    body = {
        "output": {"message": message},
        **_end(answer),
        "usage": _usage(answer),
        "metrics": {"latencyMs": 7},
    }
    return reply(msgspec.json.encode(body), headers=f"{_NAMED}\r\n")


def _end(answer: Answer) -> dict[str, Any]:
    more = (
        {"additionalModelResponseFields": {"stop_sequence": answer.stop_sequence}}
        if answer.stop_sequence
        else {}
    )
    return {"stopReason": _STOPS[answer.stop], **more}


def _thinking(thought: Thought) -> dict[str, Any]:
    return {"reasoningContent": {"reasoningText": {"text": thought.text, "signature": thought.seal}}}


def _input(call: Call) -> Any:
    try:
        return msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError:
        return {"INVALID_JSON": call.arguments}


def _usage(answer: Answer) -> dict[str, int]:
    usage = answer.usage
    return {
        "inputTokens": usage.input - usage.cached - usage.written,
        "outputTokens": usage.output,
        "totalTokens": usage.input + usage.output,
        "cacheReadInputTokens": usage.cached,
        "cacheWriteInputTokens": usage.written,
    }


def pieces(answer: Answer) -> list[bytes]:
    told = [_event("messageStart", {"role": "assistant"})]
    index = 0
    for thought in answer.thoughts:
        deltas = [{"reasoningContent": {"text": half}} for half in _halves(thought.text)]
        deltas.append({"reasoningContent": {"signature": thought.seal}})
        told += _block(index, None, deltas)
        index += 1
    for text in filter(None, (answer.text, answer.refusal)):
        told += _block(index, None, [{"text": half} for half in _halves(text)])
        index += 1
    for call in answer.calls:
        halves = _halves(call.arguments) if call.arguments not in ("", "{}") else []
        start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
        told += _block(index, start, [{"toolUse": {"input": half}} for half in halves])
        index += 1
    told.append(_event("messageStop", _end(answer)))
    return [*told, _event("metadata", {"usage": _usage(answer), "metrics": {"latencyMs": 7}})]


def _block(index: int, start: Any, deltas: Sequence[Any]) -> list[bytes]:
    at = {"contentBlockIndex": index}
    began = [_event("contentBlockStart", {"start": start, **at})] if start else []
    told = [_event("contentBlockDelta", {"delta": delta, **at}) for delta in deltas]
    return [*began, *told, _event("contentBlockStop", at)]


def _halves(text: str) -> list[str]:
    return [text[: len(text) // 2], text[len(text) // 2 :]]


def _event(kind: str, payload: Any) -> bytes:
    return encode_event(kind, msgspec.json.encode(payload))


def streamed(pieces: Sequence[Step]) -> list[Step]:
    head, *steps = stream(*pieces)
    assert isinstance(head, bytes)
    kind = f"application/vnd.amazon.eventstream\r\n{_NAMED}"
    return [head.replace(b"text/event-stream", kind.encode()), *steps]


def comment() -> bytes:
    """This format has none."""
    return b""


_ERRORS: dict[Cause, tuple[int, str]] = {
    "bad_request": (400, "ValidationException"),
    "context_too_long": (400, "ValidationException"),
    "unauthenticated": (403, "UnrecognizedClientException"),
    "not_found": (404, "ResourceNotFoundException"),
    "too_large": (413, "RequestEntityTooLargeException"),
    "rate_limited": (429, "ThrottlingException"),
    "failed": (500, "InternalServerException"),
    "overloaded": (503, "ServiceUnavailableException"),
}


def fault(cause: Cause, message: str, headers: str) -> list[Step]:
    status, kind = _ERRORS[cause]
    if cause == "context_too_long":
        message = f"Input is too long for requested model: prompt is too long: {message}"
    body = msgspec.json.encode({"message": message})
    return reply(body, status=status, headers=f"x-amzn-errortype: {kind}\r\n{headers}")


def fault_piece(message: str) -> bytes:
    return encode_exception("serviceUnavailableException", msgspec.json.encode({"message": message}))
