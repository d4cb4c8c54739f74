"""Wires: OpenAI's Responses, both directions, without anything kept on either side.

Sources: https://platform.openai.com/docs/api-reference/responses and its OpenAPI document. Fields that only this dialect has ride in
`extra["openai_responses"]`; its own items and tools (searches, computers, shells, MCP, references to items, compaction) are
Carried. Custom and namespaced tools are functions to everybody else. Not here: chat completions, conversations, responses that run in the background.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

from freehold.core.errors import FreeholdError
from freehold.core.messages import ModelRequest, ModelResponse
from freehold.core.messages import Usage as Usage
from freehold.core.ports import ErrorBody, StreamDecoder, StreamEncoder, UsageTap, Wire
from freehold.wires import _openai_errors
from freehold.wires._fields import Advisory
from freehold.wires.openai_responses import _request_decode, _request_encode, _response
from freehold.wires.openai_responses._request_encode import UNSAID as UNSAID
from freehold.wires.openai_responses._stream_decode import ResponsesStreamDecoder
from freehold.wires.openai_responses._stream_encode import ResponsesStreamEncoder
from freehold.wires.openai_responses._usage import ResponsesUsageTap, usage_of

_LABEL: Final = "a label for the vendor's own records"
_CACHING: Final = "steers caching only: the same answer, at another price"
_ITS_NAME: Final = "what the vendor calls the item, which stands whole without"
_SPARES: Final = "spares the model what it may not need; without it, it is given everything"
_FREEFORM: Final = (
    "told as a function whose only argument is the text, and its grammar in that argument's description"
)
_NAMESPACE: Final = "told as a part of the function's name"
_EARLIER: Final = "what the vendor said besides of an earlier answer's text, which stands without"

ADVISORY: Advisory = {
    "request.client_metadata": _LABEL,
    "request.metadata": _LABEL,
    "request.safety_identifier": _LABEL,
    "request.store": "whether OpenAI keeps the answer",
    "request.service_tier": "price and speed of the same answer",
    "request.prompt_cache_key": _CACHING,
    "request.prompt_cache_options": _CACHING,
    "request.prompt_cache_retention": _CACHING,
    "request.stream_options": "how the stream is padded",
    "request.truncation": "what to leave out of a conversation that is too long: without it, such a one is refused",
    "request.context_management": _SPARES,
    "request.max_tool_calls": "limits the vendor's own tools, and those leave through this wire only",
    "request.reasoning.summary": "how thoughts are shown",
    "request.reasoning.generate_summary": "how thoughts are shown",
    "request.reasoning.context": _SPARES,
    "message.role": "`developer` is OpenAI's later word for `system`",
    "message.id": _ITS_NAME,
    "message.phase": "whether an earlier text was on the way or the end",
    "text.message.role": "`developer` is OpenAI's later word for `system`",
    "text.message.id": _ITS_NAME,
    "text.message.phase": "whether an earlier text was on the way or the end",
    "text.annotations": _EARLIER,
    "text.logprobs": _EARLIER,
    "text.prompt_cache_breakpoint": _CACHING,
    "media.prompt_cache_breakpoint": _CACHING,
    "tool.custom": _FREEFORM,
    "tool.namespace": _NAMESPACE,
    "tool.namespace.spec": _NAMESPACE,
    "tool.name": _NAMESPACE,
    "tool.defer_loading": _SPARES,
    "tool.output_schema": "what the tool's results look like, which they show themselves",
    "tool_call.id": _ITS_NAME,
    "tool_call.type": _FREEFORM,
    "tool_call.namespace": _NAMESPACE,
    "tool_call.name": _NAMESPACE,
    "tool_result.type": _FREEFORM,
    "tool_result.id": _ITS_NAME,
    "tool_result.name": "the tool's name again, which the call itself says",
}


class OpenAIResponses:
    name: ClassVar[str] = "openai_responses"
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
        return ResponsesStreamDecoder(provider)

    def stream_encoder(self, request: ModelRequest, *, created: int = 0) -> StreamEncoder:
        return ResponsesStreamEncoder(request, created)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
        return _openai_errors.decode_error(status, headers, body)

    def encode_error(self, error: FreeholdError, request_id: str) -> ErrorBody:
        return _openai_errors.encode_error(error, request_id)

    usage_of = staticmethod(usage_of)

    def usage_tap(self) -> UsageTap:
        return ResponsesUsageTap()


WIRE: Wire = OpenAIResponses()
