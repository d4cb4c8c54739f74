"""A scripted Gemini that speaks Google's generateContent.

What it receives is held against the types of the vendor's SDK, which forbid unknown fields. A thought's signature comes on what
follows the thought, as the vendor does it. Sources: https://ai.google.dev/api/generate-content,
https://ai.google.dev/gemini-api/docs/thought-signatures.
"""

from base64 import b64decode
from collections.abc import Sequence
from typing import Any

import msgspec
import pydantic
from google.genai import types
from msgspec import structs

from tests.gateway._vendors import Asked, Step, reply, sse, stream
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

WIRE = "google_generate"
TYPE = "google"
BASE = ""

_FINISH = {
    "end": "STOP",
    "length": "MAX_TOKENS",
    "tools": "STOP",
    "stop_sequence": "STOP",
    "refusal": "SAFETY",
}
_CHOICES = {"AUTO": "auto", "ANY": "required", "NONE": "none"}
_FREE = ("args", "response", "parametersJsonSchema", "responseJsonSchema")
"""What is in these has other people's names."""

_BUDGETS = ((2048, "low"), (8192, "medium"))


class _Request(pydantic.BaseModel):
    """The top level, which the SDK has no type for; its parts are the SDK's own."""

    model_config = pydantic.ConfigDict(extra="forbid")

    contents: list[types.Content]
    systemInstruction: types.Content | None = None  # noqa: N815  # the vendor's name
    tools: list[types.Tool] | None = None
    toolConfig: types.ToolConfig | None = None  # noqa: N815
    generationConfig: types.GenerationConfig | None = None  # noqa: N815
    safetySettings: list[types.SafetySetting] | None = None  # noqa: N815


def path(model: str, *, stream: bool) -> str:
    return f"/v1beta/models/{model}:{'streamGenerateContent?alt=sse' if stream else 'generateContent'}"


def wrong(asked: Asked) -> list[Violation]:
    try:
        _Request.model_validate_json(asked.body)
    except pydantic.ValidationError as error:
        return [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors()]
    return []


def heard(asked: Asked) -> Ask:
    body = _in_camels(asked.json)
    settings = body.get("generationConfig", {})
    declared = [one for tool in body.get("tools", ()) for one in tool["functionDeclarations"]]
    return Ask(
        turns=_turns(body["contents"]),
        system="".join(part["text"] for part in body.get("systemInstruction", {}).get("parts", ())),
        tools=tuple(_tool(one) for one in declared),
        choice=_choice(body.get("toolConfig", {}).get("functionCallingConfig")),
        schema=settings.get("responseJsonSchema"),
        effort=_effort(settings.get("thinkingConfig", {})),
        stop=tuple(settings.get("stopSequences", ())),
        tokens_max=settings.get("maxOutputTokens", 0),
        stream="streamGenerateContent" in asked.path,
    )


def _in_camels(value: Any) -> Any:
    """This vendor takes both spellings of its names, and its own SDK sends both."""
    if isinstance(value, list):
        return [_in_camels(one) for one in value]
    if not isinstance(value, dict):
        return value
    named = {_camel(name): inner for name, inner in value.items()}
    return {name: inner if name in _FREE else _in_camels(inner) for name, inner in named.items()}


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(map(str.capitalize, tail))


def _tool(declared: dict[str, Any]) -> Tool:
    schema = declared.get("parametersJsonSchema") or {}
    return Tool(
        declared["name"], declared.get("description", ""), schema if schema.get("properties") else None
    )


def _choice(calling: Any) -> str | None:
    if not calling:
        return None
    names = calling.get("allowedFunctionNames")
    return str(names[0]) if names else _CHOICES[calling["mode"]]


def _effort(thinking: dict[str, Any]) -> Any:
    if "thinkingLevel" in thinking:
        return thinking["thinkingLevel"].lower()
    budget = thinking.get("thinkingBudget")
    return None if not budget else next((name for most, name in _BUDGETS if budget <= most), "high")


def _turns(contents: Sequence[dict[str, Any]]) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    for content in contents:
        parts = content["parts"]
        if content["role"] == "model":
            turns.append(_assistant(parts))
            continue
        results = [_result(part["functionResponse"]) for part in parts if "functionResponse" in part]
        rest = [_part(part) for part in parts if "functionResponse" not in part]
        turns += [Results(tuple(results))] if results else []
        turns += [User(tuple(rest))] if rest else []
    return tuple(turns)


def _assistant(parts: Sequence[dict[str, Any]]) -> Assistant:
    thought = "".join(part.get("text", "") for part in parts if part.get("thought"))
    seals = [
        part["thoughtSignature"] for part in parts if "thoughtSignature" in part and not _unchecked(part)
    ]
    return Assistant(
        "".join(part.get("text", "") for part in parts if not part.get("thought")),
        tuple(_call(part["functionCall"]) for part in parts if "functionCall" in part),
        (Thought(thought, seals[0] if seals else ""),) if thought or seals else (),
    )


def _unchecked(part: dict[str, Any]) -> bool:
    """What stands in for a signature where a call is another model's."""
    return bool(part["thoughtSignature"] == "skip_thought_signature_validator")


def _call(call: dict[str, Any]) -> Call:
    given = call.get("args", {})
    arguments = given["INVALID_JSON"] if "INVALID_JSON" in given else msgspec.json.encode(given).decode()
    return Call(call.get("id", ""), call["name"], arguments)


def _result(told: dict[str, Any]) -> Result:
    response = told["response"]
    text = response.get("output", response.get("error", response.get("result", "")))
    images = tuple(_part(part) for part in told.get("parts", ()))
    return Result(told.get("id", ""), (*([text] if text else []), *images), "error" in response)


def _part(part: dict[str, Any]) -> Any:
    if "text" in part:
        return part["text"]
    if "fileData" in part:
        return Image(url=part["fileData"]["fileUri"])
    data = part["inlineData"]
    if data["mimeType"] == "application/pdf":
        return Document(b64decode(data["data"]), data.get("displayName", ""))
    assert data["mimeType"] == "image/png"
    return Image(b64decode(data["data"]))


def can_hear(ask: Ask, client: str) -> Ask:
    """Arguments are an object; empty texts are left out; it caches by itself."""
    return structs.replace(ask, marked=False, turns=tuple(_hearable(turn) for turn in ask.turns))


def _hearable(turn: Turn) -> Turn:
    match turn:
        case Results():
            results = (structs.replace(one, content=tuple(filter(None, one.content))) for one in turn.results)
            return Results(tuple(results))
        case Assistant():
            calls = tuple(structs.replace(call, arguments=call.arguments or "{}") for call in turn.calls)
            return structs.replace(turn, calls=calls)
        case _:
            return turn


def can_tell(answer: Answer) -> Answer:
    """Not which stop sequence it was, nor what was written to a cache; a refusal's words are text; arguments are an object."""
    calls = tuple(structs.replace(call, arguments=call.arguments or "{}") for call in answer.calls)
    usage = structs.replace(answer.usage, written=0)
    stop = "end" if answer.stop == "stop_sequence" else answer.stop
    text = answer.text + answer.refusal
    return structs.replace(
        answer, text=text, refusal="", calls=calls, stop=stop, stop_sequence="", usage=usage
    )


def whole(answer: Answer) -> list[Step]:
    return reply(msgspec.json.encode(_body(answer, _parts(answer), finish=True)))


def _body(answer: Answer, parts: Sequence[Any], *, finish: bool) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if finish:
        candidate["finishReason"] = _FINISH[answer.stop]
    told = {"candidates": [candidate], "modelVersion": "the-model", "responseId": "r-1"}
    return {**told, "usageMetadata": _usage(answer)} if finish else told


def _usage(answer: Answer) -> dict[str, int]:
    usage = answer.usage
    return {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": usage.output - usage.reasoning,
        "thoughtsTokenCount": usage.reasoning,
        "cachedContentTokenCount": usage.cached,
        "totalTokenCount": usage.input + usage.output,
    }


def _parts(answer: Answer) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"text": one.text, "thought": True} for one in answer.thoughts]
    said: list[dict[str, Any]] = [{"text": text} for text in (answer.text, answer.refusal) if text]
    said += [
        {"functionCall": {"id": call.id, "name": call.name, "args": _args(call)}} for call in answer.calls
    ]
    for thought in answer.thoughts:
        sealed = next((part for part in said if "functionCall" in part), said[-1])
        sealed["thoughtSignature"] = thought.seal
    return parts + said


def _args(call: Call) -> Any:
    try:
        return msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError:
        return {"INVALID_JSON": call.arguments}


def pieces(answer: Answer) -> list[bytes]:
    """Texts come in two pieces, the signature with the last; calls come whole."""
    told: list[bytes] = []
    for part in _parts(answer):
        text = part.get("text", "")
        if len(text) > 1:
            first = {name: value for name, value in part.items() if name != "thoughtSignature"}
            told.append(sse(_body(answer, [{**first, "text": text[: len(text) // 2]}], finish=False)))
            part = {**part, "text": text[len(text) // 2 :]}
        told.append(sse(_body(answer, [part], finish=False)))
    return [*told, sse(_body(answer, [{"text": ""}], finish=True))]


def streamed(pieces: Sequence[Step]) -> list[Step]:
    return stream(*pieces)


def comment() -> bytes:
    """This vendor sends none: its own SDK takes them for broken JSON."""
    return b""


_ERRORS: dict[Cause, tuple[int, str]] = {
    "bad_request": (400, "INVALID_ARGUMENT"),
    "context_too_long": (400, "INVALID_ARGUMENT"),
    "unauthenticated": (401, "UNAUTHENTICATED"),
    "not_found": (404, "NOT_FOUND"),
    "too_large": (413, "INVALID_ARGUMENT"),
    "rate_limited": (429, "RESOURCE_EXHAUSTED"),
    "failed": (500, "INTERNAL"),
    "overloaded": (503, "UNAVAILABLE"),
}


def fault(cause: Cause, message: str, headers: str) -> list[Step]:
    status, kind = _ERRORS[cause]
    if cause == "context_too_long":
        message = f"The input token count exceeds the maximum number of tokens allowed: {message}"
    body = {"error": {"code": status, "message": message, "status": kind}}
    return reply(msgspec.json.encode(body), status=status, headers=headers)


def fault_piece(message: str) -> bytes:
    return sse({"error": {"code": 503, "message": message, "status": "UNAVAILABLE"}})
