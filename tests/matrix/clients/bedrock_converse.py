"""AWS's SDK (boto3), unmodified, at Bedrock's Converse and ConverseStream, signed. It waits, so each call has a thread."""

import asyncio
from typing import Any

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import ClientError
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

WIRE = "bedrock_converse"
CANNOT: dict[str, str] = {
    "image, address": "images are bytes, or lie in Amazon S3",
}
"""Features that this SDK has no way to ask for."""

ERROR = ClientError
GIVES_BACK: frozenset[str] = frozenset()

REFUSALS: dict[Cause, tuple[str, int]] = {
    "bad_request": ("ValidationException", 400),
    "context_too_long": ("ValidationException", 400),
    "unauthenticated": ("AccessDeniedException", 403),
    "not_found": ("ResourceNotFoundException", 404),
    "too_large": ("ValidationException", 400),
    "rate_limited": ("ThrottlingException", 429),
    "failed": ("ServiceUnavailableException", 503),
    "overloaded": ("ServiceUnavailableException", 503),
}
"""The error's code for each cause that a provider refuses with. (A refused key is ours, not the client's: 403.)"""

_SESSION = boto3.session.Session()
_STOPS: dict[str, Any] = {
    "end_turn": "end",
    "max_tokens": "length",
    "tool_use": "tools",
    "stop_sequence": "stop_sequence",
    "content_filtered": "refusal",
}
_BUDGETS = {"low": 2048, "medium": 4096, "high": 7000}


class Sdk:
    def __init__(self, url: str, made: dict[str, str]) -> None:
        self.client = _SESSION.client(
            "bedrock-runtime",
            endpoint_url=url,
            region_name="eu-central-1",
            aws_access_key_id=made["access_key_id"],
            aws_secret_access_key=made["secret_access_key"],
            config=Config(retries={"total_max_attempts": 1}),
        )

    async def close(self) -> None:
        self.client.close()


def opened(url: str, made: dict[str, str]) -> Sdk:
    return Sdk(url, made)


async def ask(sdk: Sdk, model: str, ask: Ask) -> Said:
    return await asyncio.to_thread(_asked, sdk.client, {"modelId": model, **_given(ask)}, stream=ask.stream)


def _asked(client: Any, given: dict[str, Any], *, stream: bool) -> Said:
    if not stream:
        whole = client.converse(**given)
        return said(
            whole["output"]["message"],
            whole["stopReason"],
            whole["usage"],
            whole.get("additionalModelResponseFields"),
        )
    events = client.converse_stream(**given)["stream"]
    try:
        return _gathered(events)
    finally:
        events.close()


def _given(ask: Ask) -> dict[str, Any]:
    given: dict[str, Any] = {
        "messages": [_turn(turn) for turn in ask.turns],
        "inferenceConfig": {"maxTokens": ask.tokens_max},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
    }
    if ask.stop:
        given["inferenceConfig"]["stopSequences"] = list(ask.stop)
    if ask.system:
        mark = [{"cachePoint": {"type": "default"}}] if ask.marked else []
        given["system"] = [{"text": ask.system}, *mark]
    if ask.tools and ask.choice != "none":
        given["toolConfig"] = {"tools": [_tool(tool) for tool in ask.tools]}
        if ask.choice:
            named = {"tool": {"name": ask.choice}}
            given["toolConfig"]["toolChoice"] = {"required": {"any": {}}, "auto": {"auto": {}}}.get(
                ask.choice, named
            )
    if ask.schema is not None:
        schema = {"jsonSchema": {"schema": msgspec.json.encode(ask.schema).decode(), "name": "answer"}}
        given["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": schema}}
    if ask.effort:
        thinking = {"type": "enabled", "budget_tokens": _BUDGETS[ask.effort]}
        given["additionalModelRequestFields"] = {"thinking": thinking}
    return given


def _tool(tool: Tool) -> dict[str, Any]:
    schema = {"json": tool.parameters or {"type": "object", "properties": {}}}
    return {"toolSpec": {"name": tool.name, "description": tool.description, "inputSchema": schema}}


def _turn(turn: Turn) -> dict[str, Any]:
    match turn:
        case User():
            return {"role": "user", "content": _content(turn.content)}
        case Assistant():
            texts = [{"text": turn.text}] if turn.text else []
            return {"role": "assistant", "content": [*texts, *map(_call, turn.calls)]}
        case Results():
            return {"role": "user", "content": [_result(result) for result in turn.results]}
        case Again():
            return turn.native  # type: ignore[no-any-return]


def _call(call: Call) -> dict[str, Any]:
    arguments = msgspec.json.decode(call.arguments or "{}")
    return {"toolUse": {"toolUseId": call.id, "name": call.name, "input": arguments}}


def _result(result: Result) -> dict[str, Any]:
    shape = {"toolUseId": result.call_id, "content": _content(result.content)}
    return {"toolResult": {**shape, "status": "error"} if result.failed else shape}


def _content(content: Content) -> list[Any]:
    return [_part(part) for part in content]


def _part(part: str | Image | Document) -> dict[str, Any]:
    match part:
        case str():
            return {"text": part}
        case Image():
            return {"image": {"format": "png", "source": {"bytes": part.data}}}
        case Document():
            name = part.name.removesuffix(".pdf")
            return {"document": {"format": "pdf", "name": name, "source": {"bytes": part.data}}}


def can_ask(ask: Ask) -> Ask:
    """Parallel calls cannot be limited here; tools that must not be called are left out; a document's name has no dot."""
    tools, choice = ((), None) if ask.choice == "none" else (ask.tools, ask.choice)
    turns = tuple(_sayable(turn) for turn in ask.turns)
    return structs.replace(ask, parallel=None, tools=tools, choice=choice, turns=turns)


def _sayable(turn: Turn) -> Turn:
    if isinstance(turn, User):
        return User(tuple(_named(part) for part in turn.content))
    if not isinstance(turn, Assistant):
        return turn
    calls = tuple(structs.replace(call, arguments=call.arguments or "{}") for call in turn.calls)
    return structs.replace(turn, calls=calls)


def _named(part: Any) -> Any:
    return structs.replace(part, name=part.name.removesuffix(".pdf")) if isinstance(part, Document) else part


def can_tell(answer: Answer, *, stream: bool) -> Answer:
    """A refusal's words are text; arguments are an object; thinking is not counted by itself."""
    calls = tuple(structs.replace(call, arguments=call.arguments or "{}") for call in answer.calls)
    usage = structs.replace(answer.usage, reasoning=0)
    text = answer.text + answer.refusal
    return structs.replace(answer, text=text, refusal="", calls=calls, usage=usage)


def said(message: Any, stop: str, usage: Any, more: Any) -> Said:
    blocks = message["content"]
    thoughts = [block["reasoningContent"]["reasoningText"] for block in blocks if "reasoningContent" in block]
    answer = Answer(
        text="".join(block.get("text", "") for block in blocks),
        calls=tuple(_said_call(block["toolUse"]) for block in blocks if "toolUse" in block),
        thoughts=tuple(Thought(one["text"], one.get("signature", "")) for one in thoughts),
        stop=_STOPS[stop],
        stop_sequence=(more or {}).get("stop_sequence") or "",
        usage=_usage(usage),
    )
    return Said(answer, message)


def _said_call(use: Any) -> Call:
    given = use["input"]
    arguments = given["INVALID_JSON"] if "INVALID_JSON" in given else msgspec.json.encode(given).decode()
    return Call(use["toolUseId"], use["name"], arguments)


def _usage(usage: Any) -> Usage:
    read, written = usage.get("cacheReadInputTokens", 0), usage.get("cacheWriteInputTokens", 0)
    total = usage["inputTokens"] + read + written
    assert usage["totalTokens"] == total + usage["outputTokens"]
    return Usage(total, usage["outputTokens"], read, written)


def _gathered(events: Any) -> Said:
    """This SDK leaves it to the application to put a stream's events together."""
    blocks: dict[int, dict[str, Any]] = {}
    end: dict[str, Any] = {}
    for event in events:
        for kind, told in event.items():
            if kind == "contentBlockStart":
                blocks[told["contentBlockIndex"]] = {"toolUse": {**told["start"]["toolUse"], "input": ""}}
            elif kind == "contentBlockDelta":
                _join(blocks.setdefault(told["contentBlockIndex"], {}), told["delta"])
            else:
                end |= told
    content = [blocks[index] for index in sorted(blocks)]
    for block in content:
        if "toolUse" in block:
            block["toolUse"]["input"] = _object(block["toolUse"]["input"])
    message = {"role": "assistant", "content": content}
    return said(message, end["stopReason"], end["usage"], end.get("additionalModelResponseFields"))


def _join(block: dict[str, Any], delta: dict[str, Any]) -> None:
    if "text" in delta:
        block["text"] = block.get("text", "") + delta["text"]
    elif "toolUse" in delta:
        block["toolUse"]["input"] += delta["toolUse"]["input"]
    else:
        inner = block.setdefault("reasoningContent", {}).setdefault("reasoningText", {"text": ""})
        for name, piece in delta["reasoningContent"].items():
            inner[name] = inner.get(name, "") + piece


def _object(json: str) -> Any:
    try:
        return msgspec.json.decode(json or "{}")
    except msgspec.DecodeError:
        return {"INVALID_JSON": json}


def failure(error: ClientError) -> Failure:
    response = error.response
    metadata = response.get("ResponseMetadata", {})
    headers = metadata.get("HTTPHeaders", {})
    told = response["Error"]
    return Failure(told["Code"], metadata.get("HTTPStatusCode"), headers.get("retry-after"), told["Message"])
