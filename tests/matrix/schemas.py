"""Judges of the matrix: what vendors publish of their requests and answers, beyond what a driver's own `wrong` looks at.

`of_request` is for what a scripted vendor received, `of_answer` for the very bytes that our server told a client. Three kinds of
judge: the vendors' SDKs' types (strictly: `_typed`), botocore's service model for Bedrock, and OpenAI's and Anthropic's published
OpenAPI documents, which are no part of this repository: `_openapi`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import anthropic.types
import msgspec
import openai.types.chat
import openai.types.responses
import openai.types.shared
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ParamValidationError
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator
from google.genai import types as google
from msgspec import Struct

from tests.gateway._vendors import Asked
from tests.matrix import _openapi
from tests.matrix._tap import Answered
from tests.matrix._typed import Violation, violations
from tests.wires._botocore import MODEL, unbased


class Dialect(Struct, frozen=True):
    """`answer` and `event` are types of the SDK; `fault` says what is wrong with a refusal's body.

    `beyond`: paths of fields that are ours to say though the types don't have them, each with its reason (`*.name`: anywhere). `unsaid`: those that the
    document requires, and the service leaves out.
    """

    answer: Any
    event: Any
    fault: Callable[[Any], list[Violation]]
    request_schema: str = ""
    answer_schema: str = ""
    event_schema: str = ""
    document: str = ""
    beyond: Mapping[str, str] = {}
    unsaid: Mapping[str, str] = {}


def _openai_fault(body: Any) -> list[Violation]:
    return _inside(body, {"error"}) or violations(body["error"], openai.types.shared.ErrorObject, "error")


def _responses_fault(body: Any) -> list[Violation]:
    """In a stream, errors are events of their own."""
    if "type" in body:
        body = {
            name: value for name, value in body.items() if name not in DIALECTS["openai_responses"].beyond
        }
        return violations(body, openai.types.responses.ResponseErrorEvent)
    return _openai_fault(body)


def _anthropic_fault(body: Any) -> list[Violation]:
    """`request_too_large` is documented, and in no type: https://platform.claude.com/docs/en/api/errors."""
    if body["error"]["type"] == "request_too_large":
        body = {**body, "error": {**body["error"], "type": "invalid_request_error"}}
    return violations(body, anthropic.types.ErrorResponse)


def _google_fault(body: Any) -> list[Violation]:
    """The SDK has no type for it: https://cloud.google.com/apis/design/errors#http_mapping."""
    if found := _inside(body, {"error"}):
        return found
    wanted = {"code": int, "message": str, "status": str}
    found = [(f"error.{name}", "no such field") for name in {*body["error"]} - {*wanted, "details"}]
    return found + [
        wrong
        for name, kind in wanted.items()
        for wrong in violations(body["error"].get(name), kind, f"error.{name}")
    ]


def _aws_fault(body: Any) -> list[Violation]:
    """All of Bedrock's exceptions have a message; `__type` is how AWS's JSON protocols name one in its body."""
    return _inside({**body, "__type": ""}, {"__type", "message"}) or violations(
        body["message"], str, "message"
    )


def _inside(body: Any, names: set[str]) -> list[Violation]:
    right = isinstance(body, dict) and {*body} == names
    return [] if right else [("", f"expected {names}, got {body!r:.100}")]


_REASONING: Final = (
    "of those who follow OpenAI, with reasoning that OpenAI's types do not have: "
    "https://openrouter.ai/docs/use-cases/reasoning-tokens, https://api-docs.deepseek.com/guides/thinking_mode"
)
_INDEX: Final = re.compile(r"\[\d+\]")
_SEAL: Final = "another vendor's seal in our packing, for which the vendor's own types have no place"
_STOPPED_BY: Final = "which stop sequence it was, as vLLM says it"
_GOOGLE: Final = "https://ai.google.dev/gemini-api/docs/openai: a signature of Google's, as its own door for OpenAI's clients has it"
_STORED: Final = "the service says what was asked for"
DIALECTS: Final[Mapping[str, Dialect]] = {
    "openai_chat": Dialect(
        openai.types.chat.ChatCompletion,
        openai.types.chat.ChatCompletionChunk,
        _openai_fault,
        "CreateChatCompletionRequest",
        "CreateChatCompletionResponse",
        "CreateChatCompletionStreamResponse",
        "openai",
        {
            f"choices.{message}.{name}": _REASONING
            for message in ("message", "delta")
            for name in ("reasoning", "reasoning_content", "reasoning_details")
        }
        | {"choices.stop_reason": _STOPPED_BY, "*.extra_content": _GOOGLE},
    ),
    "openai_responses": Dialect(
        openai.types.responses.Response,
        openai.types.responses.ResponseStreamEvent,
        _responses_fault,
        "CreateResponse",
        "Response",
        "ResponseStreamEvent",
        "openai",
        {
            "store": _STORED,
            "response.store": _STORED,
            "*.freehold_seal": _SEAL,
            "name": "the document has it in `response.function_call_arguments.done`, and the SDK's type has not",
            "error": "the document has the fields of an `error` inside, the SDK beside it: of two clients each hears one",
        },
    ),
    "anthropic_messages": Dialect(
        anthropic.types.Message,
        anthropic.types.RawMessageStreamEvent,
        _anthropic_fault,
        "CreateMessageParams",
        "Message",
        "MessageStreamEvent",
        "anthropic",
        {
            "usage.cache_creation": "what was written for an hour is known in the end only, and costs more",
            "*.freehold_seal": _SEAL,
        },
        {"citations": "may be null, is left out by the service, and a client in use cannot read null"},
    ),
    "google_generate": Dialect(google.GenerateContentResponse, google.GenerateContentResponse, _google_fault),
}
"""Bedrock's are botocore's to judge."""

# ----------------------------------------------------------------------------------------------- requests


def of_request(wire: str, asked: Asked) -> list[Violation]:
    """What is wrong with what a vendor of `wire` received. (The SDK's types are the driver's to ask: its `wrong`.)"""
    if wire == "bedrock_converse":
        return _reserialized(asked)
    dialect = DIALECTS[wire]
    return _published(dialect, dialect.request_schema, asked.json)


def _reserialized(asked: Asked) -> list[Violation]:
    """botocore, given what was said, would have sent these very bytes to this very place."""
    operation = "ConverseStream" if asked.path.endswith("-stream") else "Converse"
    told = {"modelId": _model_id(asked.path), **unbased(asked.json)}
    try:
        sent = create_serializer("rest-json").serialize_to_request(told, MODEL.operation_model(operation))
    except ParamValidationError as error:
        return [("", str(error))]
    found = [] if json.loads(sent["body"]) == asked.json else [("", f"botocore would send {sent['body']!r}")]
    if sent["url_path"] != asked.path:
        found.append(("path", f"botocore would ask {sent['url_path']}"))
    return found


def _model_id(path: str) -> str:
    return path.split("/")[2].replace("%3A", ":").replace("%2F", "/")


def _published(dialect: Dialect, schema: str, value: Any) -> list[Violation]:
    """Nothing, where the document is not on this machine: tests/matrix/test_schemas.py tells so. That services say null of what is
    not there, the documents do not always know.
    """
    if not schema or not _openapi.is_there(dialect.document):
        return []
    unsaid = [f"{name!r} is a required property" for name in dialect.unsaid]
    return [
        (path, said)
        for path, said in _openapi.wrong(dialect.document, schema, value)
        if said not in unsaid and not said.startswith("None is not ")
    ]


# ------------------------------------------------------------------------------------------------ answers


def of_answer(wire: str, answered: Answered) -> list[Violation]:
    """What is wrong with what our server told a client of `wire`: a whole answer, a stream, or a refusal."""
    if wire == "bedrock_converse":
        return list(_of_bedrock(answered))
    dialect = DIALECTS[wire]
    if answered.status >= 400:
        return dialect.fault(msgspec.json.decode(answered.body))
    if answered.kind != "text/event-stream":
        body = msgspec.json.decode(answered.body)
        return _strictly(dialect, dialect.answer, dialect.answer_schema, body)
    return [
        (f"event {number}: {path}", said)
        for number, (name, event) in enumerate(_events(answered.body))
        for path, said in _of_event(wire, name, event)
    ] + _in_order(wire, [event for _, event in _events(answered.body)])


def _strictly(dialect: Dialect, kind: Any, schema: str, value: Any) -> list[Violation]:
    found = [one for one in violations(value, kind) if not _is_beyond(dialect, _INDEX.sub("", one[0]))]
    return found + _published(dialect, schema, value)


def _is_beyond(dialect: Dialect, path: str) -> bool:
    return path in dialect.beyond or f"*.{path.rpartition('.')[2]}" in dialect.beyond


def _events(body: bytes) -> Iterator[tuple[str, Any]]:
    """Each event's name and data. Comments are none; what was cut off is left out."""
    *blocks, _ = body.decode().split("\n\n")
    for block in blocks:
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if "data" in fields and fields["data"] != "[DONE]":
            yield fields.get("event", ""), msgspec.json.decode(fields["data"])


def _of_event(wire: str, name: str, event: Any) -> list[Violation]:
    dialect = DIALECTS[wire]
    if wire in ("anthropic_messages", "openai_responses") and name != event.get("type"):
        return [("event", f"is called {name!r}, and says that it is {event.get('type')!r}")]
    if event == {"type": "ping"} and wire == "anthropic_messages":
        return []  # Documented, and in no type: https://platform.claude.com/docs/en/build-with-claude/streaming.
    if "error" in event or event.get("type") == "error":
        return dialect.fault(event)
    return _strictly(dialect, dialect.event, dialect.event_schema, event)


def _in_order(wire: str, events: Sequence[Any]) -> list[Violation]:
    """Events of Responses are counted from 0. (Of a stream that passes as bytes nobody counts them: an error that ends it has 0.)"""
    if wire != "openai_responses":
        return []
    numbers = [event["sequence_number"] for event in events]
    if events[-1]["type"] == "error" and numbers[-1] == 0:
        numbers.pop()
    return [] if numbers == [*range(len(numbers))] else [("sequence_number", f"counted {numbers}")]


# ------------------------------------------------------------------------------------------------ Bedrock


def _of_bedrock(answered: Answered) -> Iterator[Violation]:
    if answered.status >= 400:
        code = answered.headers.get("x-amzn-errortype", "")
        if code not in MODEL.shape_names:
            yield "x-amzn-errortype", f"{code!r} is no exception of Bedrock"
        yield from _aws_fault(msgspec.json.decode(answered.body))
    elif answered.kind == "application/vnd.amazon.eventstream":
        yield from _of_frames(answered.body)
    else:
        shape = MODEL.operation_model("Converse").output_shape
        yield from _held(msgspec.json.decode(answered.body), shape)


def _of_frames(body: bytes) -> Iterator[Violation]:
    """botocore's own reader checks the sums; each payload is held against its event's shape."""
    members = MODEL.operation_model("ConverseStream").output_shape.members["stream"].members
    frames = EventStreamBuffer()
    frames.add_data(body)
    for frame in frames:
        headers = frame.headers
        name = headers[":exception-type" if headers[":message-type"] == "exception" else ":event-type"]
        if headers.get(":content-type") != "application/json":
            yield name, f"content type {headers.get(':content-type')!r}"
        payload = msgspec.json.decode(frame.payload)
        payload.pop("p", None)  # Padding, which hides the length of what is told.
        for path, said in _held(payload, members[name]):
            yield f"{name}: {path}", said


def _held(value: Any, shape: Any) -> Iterator[Violation]:
    report = ParamValidator().validate(unbased(value), shape).generate_report()
    if report:
        yield "", report
