"""Server: InvokeModel at Bedrock's door: a body in a model vendor's own dialect, within AWS's paths, frames and errors.

Which dialect it is, the body says: Anthropic's has `anthropic_version`, OpenAI's has `messages` without; Titan's, Nova's and Cohere's
for embeddings have `inputText`, `taskType` and `texts`. The codecs are those wires'.
Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html,
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html. Not here: Nova's and
Titan's bodies for texts to write; asking Bedrock itself in this way (providers).
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, Final

import msgspec
from msgspec import Raw, structs

from freehold.core.errors import FreeholdError, Internal, Unsupported
from freehold.core.messages import ModelRequest, ModelResponse, Usage
from freehold.core.ports import EmbeddingWire, ErrorBody, StreamDecoder, StreamEncoder, UsageTap, Wire
from freehold.core.stream import StreamEvent, UsageReported
from freehold.core.validation import decode
from freehold.server.exchange import header_lines
from freehold.wires import bedrock_cohere_embed, bedrock_nova_embed, bedrock_titan_embed, named
from freehold.wires._aws_errors import decode_error, encode_error, encode_error_in_stream
from freehold.wires._aws_eventstream import CONTENT_TYPE, encode_event
from freehold.wires._fields import OBJECT, UNREADABLE, text_in
from freehold.wires._media import base64_of

NAME: Final = "bedrock_invoke"
ANTHROPIC: Final = "anthropic_messages"
OPENAI: Final = "openai_chat"
INPUT_TOKENS: Final = "x-amzn-bedrock-input-token-count"
METRICS: Final = "amazon-bedrock-invocationMetrics"
BETAS: Final = "additionalModelRequestFields.anthropic_beta"
"""How Converse says what is `anthropic_beta` here; to vendors who have neither it means nothing."""

_NOVA_TASKS: Final = frozenset({"SINGLE_EMBEDDING", "SEGMENTED_EMBEDDING"})
_NO_MODEL: Final = Raw(b'""')
_encode: Final = msgspec.json.Encoder().encode

ElapsedMs = Callable[[], int]


class InvokedWire:
    """For one call, since its answer is in the dialect of its body."""

    name: ClassVar[str] = NAME
    stream_content_type: ClassVar[str] = CONTENT_TYPE

    def __init__(self, elapsed_ms: ElapsedMs) -> None:
        self._elapsed_ms = elapsed_ms
        self._chosen: Wire | None = None
        self._usage: Usage | None = None

    def usage_lines(self) -> bytes:
        """Of a whole answer: clients read what it took off AWS's headers, whatever the body's dialect."""
        if self._usage is None:
            return b""
        return header_lines([
            (INPUT_TOKENS, str(self._usage.input_tokens)),
            ("x-amzn-bedrock-output-token-count", str(self._usage.output_tokens)),
            ("x-amzn-bedrock-invocation-latency", str(self._elapsed_ms())),
        ])

    @property
    def _dialect(self) -> Wire:
        if self._chosen is None:
            raise Internal("an answer before its request was read")
        return self._chosen

    def decode_request(self, body: bytes) -> ModelRequest:
        name, cleaned, betas = dialect_of(body)
        self._chosen = named(name)
        request = self._chosen.decode_request(cleaned)
        if betas is None:
            return request
        return structs.replace(request, extra={**request.extra, "bedrock_converse": {BETAS: betas}})

    def encode_request(self, request: ModelRequest, *, provider: str) -> bytes:
        raise Unsupported("no provider is asked in this way")

    def decode_response(self, body: bytes, *, provider: str) -> ModelResponse:
        raise Unsupported("no provider answers in this way")

    def encode_response(
        self, response: ModelResponse, *, created: int = 0, request: ModelRequest | None = None
    ) -> bytes:
        self._usage = response.usage
        return self._dialect.encode_response(response, created=created, request=request)

    def stream_decoder(self, *, provider: str) -> StreamDecoder:
        raise Unsupported("no provider answers in this way")

    def stream_encoder(self, request: ModelRequest, *, created: int = 0) -> StreamEncoder:
        return ChunkEncoder(self._dialect.stream_encoder(request, created=created), self._elapsed_ms)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
        return decode_error(status, headers, body)

    def encode_error(self, error: FreeholdError, request_id: str) -> ErrorBody:
        return encode_error(error, request_id)

    def usage_of(self, body: bytes) -> Usage | None:
        return self._dialect.usage_of(body)

    def usage_tap(self) -> UsageTap:
        raise Unsupported("no provider answers in this way")


def dialect_of(body: bytes) -> tuple[str, bytes, Raw | None]:
    """The wire's name, a body that it reads (the model is in the address), and Anthropic's beta flags."""
    fields = decode(body, OBJECT)
    if "anthropic_version" in fields:
        del fields["anthropic_version"]
        name = ANTHROPIC
    elif "messages" in fields and "inferenceConfig" not in fields and "schemaVersion" not in fields:
        name = OPENAI
    else:
        raise Unsupported(
            "expected a body in Anthropic's shape (with anthropic_version) or OpenAI's (with messages), or for embeddings in Titan's"
            " (inputText), Nova's (taskType) or Cohere's (texts); Converse takes any model",
            field="body",
        )
    betas = fields.pop("anthropic_beta", None)
    return name, _encode({**fields, "model": _NO_MODEL}), betas


def embedding_dialect_of(body: bytes) -> EmbeddingWire | None:
    """None for a body that asks for no embeddings. Titan's older models for texts have `inputText`, too, and settings beside it."""
    try:
        fields = OBJECT.decode(body)
    except UNREADABLE:
        return None  # Whoever reads it next says what is wrong.
    if "inputText" in fields and "textGenerationConfig" not in fields:
        return bedrock_titan_embed.EMBEDDINGS
    if text_in(fields.get("taskType")) in _NOVA_TASKS:
        return bedrock_nova_embed.EMBEDDINGS
    return bedrock_cohere_embed.EMBEDDINGS if "texts" in fields or "input_type" in fields else None


class ChunkEncoder:
    """The dialect's events, each in a frame instead of a line. The last one waits for the end, since metrics ride on it."""

    __slots__ = ("_elapsed_ms", "_first_ms", "_inner", "_last", "_usage")

    def __init__(self, inner: StreamEncoder, elapsed_ms: ElapsedMs) -> None:
        self._inner = inner
        self._elapsed_ms = elapsed_ms
        self._first_ms: int | None = None
        self._last: bytes | None = None
        self._usage = Usage()

    def encode(self, event: StreamEvent) -> bytes:
        if isinstance(event, UsageReported):
            self._usage = event.usage
        return self._framed(self._inner.encode(event))

    def _framed(self, lines: bytes) -> bytes:
        told = b""
        for line in lines.split(b"\n"):
            json = line[5:].strip() if line.startswith(b"data:") else b""
            if not json.startswith(b"{"):
                continue  # Names of events, empty lines, and OpenAI's [DONE].
            if self._first_ms is None:
                self._first_ms = self._elapsed_ms()
            told += _chunk(self._last)
            self._last = json
        return told

    def error(self, error: FreeholdError, request_id: str) -> bytes:
        return _chunk(self._last) + encode_error_in_stream(error)

    def end(self) -> bytes:
        told = self._framed(self._inner.end())
        if self._last is None:
            return told
        elapsed_ms = self._elapsed_ms()
        metrics = {
            "inputTokenCount": self._usage.input_tokens,
            "outputTokenCount": self._usage.output_tokens,
            "invocationLatency": elapsed_ms,
            "firstByteLatency": elapsed_ms if self._first_ms is None else self._first_ms,
        }
        last = OBJECT.decode(self._last)
        return told + _chunk(_encode({**last, METRICS: metrics}))


def _chunk(json: bytes | None) -> bytes:
    return b"" if json is None else encode_event("chunk", _encode({"bytes": base64_of(json)}))
