"""Wires: Amazon Bedrock's Converse and ConverseStream, both directions.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, API_runtime_ConverseStream.html there, and
botocore's service model `bedrock-runtime`. The model and whether to stream are in the address, not in the body: `decode_request` leaves
both empty for the door to set, and answers come without id and model for the provider to add. Fields that only this dialect has ride in
`extra["bedrock_converse"]`; its own blocks and tools (search results, audio guards, system tools) are Carried. Not here: SigV4
(_aws_sigv4.py), InvokeModel, counting tokens.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

from freehold.core.errors import FreeholdError
from freehold.core.messages import ModelRequest, ModelResponse
from freehold.core.messages import Usage as Usage
from freehold.core.ports import ErrorBody, StreamDecoder, StreamEncoder, UsageTap, Wire
from freehold.wires import _aws_errors
from freehold.wires._aws_eventstream import CONTENT_TYPE
from freehold.wires._fields import Advisory
from freehold.wires.bedrock_converse import _request_decode, _request_encode, _response
from freehold.wires.bedrock_converse._request_encode import UNSAID as UNSAID
from freehold.wires.bedrock_converse._stream_decode import ConverseStreamDecoder
from freehold.wires.bedrock_converse._stream_encode import ConverseStreamEncoder
from freehold.wires.bedrock_converse._usage import ConverseUsageTap, usage_of

_LABEL: Final = "a label for the vendor's own records"

ADVISORY: Advisory = {
    "request.requestMetadata": _LABEL,
    "request.performanceConfig": "price and speed of the same answer",
    "request.serviceTier": "price and speed of the same answer",
    "request.additionalModelResponseFieldPaths": "asks to be told more of the same answer",
    "request.thinking": "that there is thinking, and how much, the reasoning setting says; this is how it was written",
    "request.additionalModelRequestFields.anthropic_beta": "switches at the vendor; what they switch on comes in fields of its own",
    "text.citations": "where an earlier answer's text has its facts from: the text stands without",
    "text.guardContent": "which text a guardrail looks at; the guardrail itself is a field of its own",
    "text.json": "that a tool's result is JSON, which its text shows",
}


class BedrockConverse:
    name: ClassVar[str] = "bedrock_converse"
    stream_content_type: ClassVar[str] = CONTENT_TYPE

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
        return ConverseStreamDecoder(provider)

    def stream_encoder(self, request: ModelRequest, *, created: int = 0) -> StreamEncoder:
        return ConverseStreamEncoder()

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
        return _aws_errors.decode_error(status, headers, body)

    def encode_error(self, error: FreeholdError, request_id: str) -> ErrorBody:
        return _aws_errors.encode_error(error, request_id)

    usage_of = staticmethod(usage_of)

    def usage_tap(self) -> UsageTap:
        return ConverseUsageTap()


WIRE: Wire = BedrockConverse()
