"""Wires: Google's generateContent, both directions, as AI Studio speaks it.

Sources: https://ai.google.dev/api/generate-content, https://ai.google.dev/gemini-api/docs/thought-signatures, and the types of the
vendor's SDK. The model and whether to stream stand in the address, not in the body: `decode_request` leaves `model` empty, and whoever
reads the address sets both. Fields that only this dialect has ride in `extra["google_generate"]`; its own parts and tools (code
execution, searches) are Carried. Not here: counting tokens, embeddings, caches, Vertex AI's addresses.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

from freehold.core.errors import FreeholdError
from freehold.core.messages import ModelRequest, ModelResponse
from freehold.core.messages import Usage as Usage
from freehold.core.ports import ErrorBody, StreamDecoder, StreamEncoder, UsageTap, Wire
from freehold.wires import _google_errors
from freehold.wires._fields import Advisory
from freehold.wires.google_generate import _request_decode, _request_encode, _response
from freehold.wires.google_generate._array import ArrayForm as ArrayForm
from freehold.wires.google_generate._request_encode import UNSAID as UNSAID
from freehold.wires.google_generate._stream_decode import GoogleStreamDecoder
from freehold.wires.google_generate._stream_encode import GoogleStreamEncoder
from freehold.wires.google_generate._usage import GoogleUsageTap, usage_of

_LABEL: Final = "a label for the vendor's own records"
_BESIDE: Final = "says what a function gives back, beside how it is called"

ADVISORY: Advisory = {
    "request.labels": _LABEL,
    "request.safetySettings.permissive": "asks for none of this vendor's filters, which no other has",
    "request.serviceTier": "price and speed of the same answer",
    "request.store": "whether the vendor keeps the answer for its dashboard",
    "request.generationConfig.thinkingConfig.includeThoughts": "how thinking is shown, not whether there is any",
    "request.generationConfig.mediaResolution": "how finely this vendor looks at media: price and detail",
    "media.mediaResolution": "how finely this vendor looks at media: price and detail",
    "media.partMetadata": _LABEL,
    "text.partMetadata": _LABEL,
    "tool.response": _BESIDE,
    "tool.responseJsonSchema": _BESIDE,
    "tool_result.name": "the tool's name again, which the call itself says",
    "tool_result.thoughtSignature": "a seal on what the client itself said",
}


class GoogleGenerate:
    name: ClassVar[str] = "google_generate"
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
        return GoogleStreamDecoder(provider)

    def stream_encoder(self, request: ModelRequest, *, created: int = 0) -> StreamEncoder:
        return GoogleStreamEncoder()

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
        return _google_errors.decode_error(status, headers, body)

    def encode_error(self, error: FreeholdError, request_id: str) -> ErrorBody:
        return _google_errors.encode_error(error, request_id)

    usage_of = staticmethod(usage_of)

    def usage_tap(self) -> UsageTap:
        return GoogleUsageTap()


WIRE: Wire = GoogleGenerate()
