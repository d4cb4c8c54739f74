"""Wires: OpenAI chat completions, both directions, as OpenAI and the many who follow it speak it.

Sources: https://platform.openai.com/docs/api-reference/chat and its OpenAPI document; where others differ is said where it is dealt
with. Fields that only this dialect has ride in `extra["openai_chat"]`; a message of role `function` is Carried; custom tools are
functions to everybody else. Not here: the Responses API, embeddings, addresses and credentials.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

from freehold.core.errors import FreeholdError
from freehold.core.messages import ModelRequest, ModelResponse
from freehold.core.messages import Usage as Usage
from freehold.core.ports import ErrorBody, StreamDecoder, StreamEncoder, UsageTap, Wire
from freehold.wires import _openai_errors
from freehold.wires._fields import Advisory
from freehold.wires.openai_chat import _request_decode, _request_encode, _response
from freehold.wires.openai_chat._request_encode import UNSAID as UNSAID
from freehold.wires.openai_chat._stream_decode import OpenAIStreamDecoder
from freehold.wires.openai_chat._stream_encode import OpenAIStreamEncoder
from freehold.wires.openai_chat._usage import OpenAIUsageTap, usage_of

_LABEL: Final = "a label for the vendor's own records"
_READ_AGAIN: Final = (
    "what OpenAI's own SDK has read out of the field beside it, and sends along with its message"
)
_CACHING: Final = "steers caching only: the same answer, at another price"
_FREEFORM: Final = (
    "told as a function whose only argument is the text, and its grammar in that argument's description"
)

ADVISORY: Advisory = {
    "request.metadata": _LABEL,
    "request.safety_identifier": _LABEL,
    "request.store": "whether OpenAI keeps the answer for its dashboard",
    "request.service_tier": "price and speed of the same answer",
    "request.prediction": "makes the same answer come sooner",
    "request.prompt_cache_key": _CACHING,
    "request.prompt_cache_options": _CACHING,
    "request.prompt_cache_retention": _CACHING,
    "request.stream_options": "what the client's stream tells: the encoder for the client sees to it",
    "message.role": "`developer` is OpenAI's later word for `system`",
    "message.annotations": "an earlier answer's citations, which its text stands without",
    "message.parsed": _READ_AGAIN,
    "tool_call.function.parsed_arguments": _READ_AGAIN,
    "tool_call.type": _FREEFORM,
    "tool.custom": _FREEFORM,
    "text.message.role": "`developer` is OpenAI's later word for `system`",
    "text.message.name": "a label of an instruction",
    "text.prompt_cache_breakpoint": _CACHING,
    "text.cache_control": _CACHING,
    "tool.cache_control": _CACHING,
    "media.prompt_cache_breakpoint": _CACHING,
    "tool_result.name": "the tool's name again, which the call itself says",
}


class OpenAIChat:
    name: ClassVar[str] = "openai_chat"
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
        return _response.encode_response(response, created, request)

    def stream_decoder(self, *, provider: str) -> StreamDecoder:
        return OpenAIStreamDecoder(provider)

    def stream_encoder(self, request: ModelRequest, *, created: int = 0) -> StreamEncoder:
        return OpenAIStreamEncoder(request, created)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
        return _openai_errors.decode_error(status, headers, body)

    def encode_error(self, error: FreeholdError, request_id: str) -> ErrorBody:
        return _openai_errors.encode_error(error, request_id)

    usage_of = staticmethod(usage_of)

    def usage_tap(self) -> UsageTap:
        return OpenAIUsageTap()


WIRE: Wire = OpenAIChat()
