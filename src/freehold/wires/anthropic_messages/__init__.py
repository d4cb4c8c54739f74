"""Wires: Anthropic's Messages, both directions.

Sources: https://platform.claude.com/docs/en/api/messages, https://platform.claude.com/docs/en/build-with-claude/streaming, and the types
of the vendor's SDK. Fields that only this dialect has ride in `extra["anthropic_messages"]`; its own blocks and tools (server tools,
search results, containers, compaction) are Carried. Not here: counting tokens, batches, beta headers.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

from freehold.core.errors import FreeholdError
from freehold.core.messages import ModelRequest, ModelResponse
from freehold.core.messages import Usage as Usage
from freehold.core.ports import ErrorBody, StreamDecoder, StreamEncoder, UsageTap, Wire
from freehold.wires._fields import Advisory
from freehold.wires.anthropic_messages import _errors, _request_decode, _request_encode, _response
from freehold.wires.anthropic_messages._request_encode import UNSAID as UNSAID
from freehold.wires.anthropic_messages._stream_decode import AnthropicStreamDecoder
from freehold.wires.anthropic_messages._stream_encode import AnthropicStreamEncoder
from freehold.wires.anthropic_messages._usage import AnthropicUsageTap, usage_of

_LABEL: Final = "a label for the vendor's own records"
_WHOLE: Final = "spares the model what it may not need; without it, it is given everything"

ADVISORY: Advisory = {
    "request.betas": "switches at the vendor; what they switch on comes in fields of its own",
    "request.cache_control": "steers caching only: the same answer, at another price",
    "request.context_management": _WHOLE,
    "request.diagnostics": _LABEL,
    "request.metadata": _LABEL,
    "request.service_tier": "price and speed of the same answer",
    "request.speed": "price and speed of the same answer",
    "request.thinking": "that there is thinking, and how much, the reasoning setting says; this is how it is shown",
    "request.user_profile_id": _LABEL,
    "request.workspace_id": _LABEL,
    "text.citations": "where an earlier answer's text has its facts from: the text stands without",
    "tool.defer_loading": _WHOLE,
    "tool.eager_input_streaming": "how finely arguments are streamed",
    "tool.input_examples": "examples beside the schema, which says what is meant",
}


class AnthropicMessages:
    name: ClassVar[str] = "anthropic_messages"
    stream_content_type: ClassVar[str] = "text/event-stream"

    def decode_request(self, body: bytes) -> ModelRequest:
        return _request_decode.decode_request(body)

    def encode_request(self, request: ModelRequest, *, provider: str) -> bytes:
        return _request_encode.encode_request(request, provider)

    def decode_response(self, body: bytes, *, provider: str) -> ModelResponse:
        return _response.decode_response(body, provider)

    def encode_response(
        self, response: ModelResponse, *, created: int = 0, request: ModelRequest | None = None
    ) -> bytes:
        return _response.encode_response(response)

    def stream_decoder(self, *, provider: str) -> StreamDecoder:
        return AnthropicStreamDecoder(provider)

    def stream_encoder(self, request: ModelRequest, *, created: int = 0) -> StreamEncoder:
        return AnthropicStreamEncoder()

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
        return _errors.decode_error(status, headers, body)

    def encode_error(self, error: FreeholdError, request_id: str) -> ErrorBody:
        return _errors.encode_error(error, request_id)

    usage_of = staticmethod(usage_of)

    def usage_tap(self) -> UsageTap:
        return AnthropicUsageTap()


WIRE: Wire = AnthropicMessages()
