"""Wires: Amazon Titan's text embeddings (G1 and V2) as Bedrock's InvokeModel takes them, both directions: one text a call.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html. What only this dialect has rides in
`extra["bedrock_titan_embed"]`: `normalize`, which is done here for other vendors' vectors, and the multimodal model's `inputImage` and
`embeddingConfig`. Not here: vectors of bits (`embeddingTypes` other than float), which are refused.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Struct

from freehold.core.embeddings import SEARCHES, EmbeddingRequest, EmbeddingResponse
from freehold.core.errors import FreeholdError, Unsupported
from freehold.core.messages import Usage
from freehold.core.ports import EmbeddingWire, ErrorBody
from freehold.core.validation import decode
from freehold.wires._aws_embed import answered, only_text_of, told
from freehold.wires._aws_errors import decode_error
from freehold.wires._fields import OBJECT, UNREADABLE, Advisory, check_foreign, extra_of, is_null, own
from freehold.wires._vectors import numbers, packed

NAME: Final = "bedrock_titan_embed"
ADVISORY: Final[Advisory] = {
    "request.normalize": "the vectors of other vendors are brought to length one here, or left as they are",
    "request.embeddingTypes": "only float is taken, which all vendors give",
}
UNSAID: Final[Mapping[str, str]] = {"user": "a label of the caller's user"}
"""Fields of the heart that are left out, and why."""

_WORDS: Final = {"task": "task", "dimensions": "dimensions", "inputs": "inputText"}
_TYPES: Final = "embeddingTypes"
_NORMALIZE: Final = "normalize"
_encode: Final = msgspec.json.Encoder().encode
_ONLY_FLOAT: Final = b'["float"]'
_NAMES: Final[msgspec.json.Decoder[list[str]]] = msgspec.json.Decoder(list[str])
_FLAG: Final = msgspec.json.Decoder(bool)


class _Request(Struct, rename="camel"):
    input_text: str
    dimensions: int | None = None


class _Answer(Struct, rename="camel"):
    embedding: list[float]
    input_text_token_count: int | None = None


class _OnlyUsage(Struct, rename="camel"):
    input_text_token_count: int


_REQUEST: Final = msgspec.json.Decoder(_Request)
_ANSWER: Final = msgspec.json.Decoder(_Answer)
_ONLY_USAGE: Final = msgspec.json.Decoder(_OnlyUsage)


class TitanEmbed:
    name: ClassVar[str] = NAME

    def decode_request(self, body: bytes) -> EmbeddingRequest:
        fields = {name: value for name, value in decode(body, OBJECT).items() if not is_null(value)}
        shape = decode(_encode(fields), _REQUEST)
        rest = {
            name: value for name, value in fields.items() if name not in _Request.__struct_encode_fields__
        }
        types = decode(bytes(rest.get(_TYPES, _ONLY_FLOAT)), _NAMES, root=_TYPES)
        if any(one != "float" for one in types):
            raise Unsupported("expected float alone: vectors of bits are not carried", field=_TYPES)
        if _NORMALIZE in rest:
            decode(bytes(rest[_NORMALIZE]), _FLAG, root=_NORMALIZE)
        return EmbeddingRequest(
            model="", inputs=(shape.input_text,), dimensions=shape.dimensions, extra=extra_of(NAME, rest)
        )

    def encode_request(self, request: EmbeddingRequest) -> bytes:
        check_foreign(request.extra, NAME, "request", "")
        if request.task is not None and request.task not in SEARCHES:
            raise Unsupported(f"Titan cannot be told what a vector is for ({request.task})", field="task")
        body: dict[str, Any] = {"inputText": only_text_of(request)}
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        return _encode(body | dict(own(request.extra, NAME)))

    def decode_response(self, body: bytes) -> EmbeddingResponse:
        """The vendor does not say which model answered."""
        answer = answered(body, _ANSWER)
        usage = Usage(input_tokens=answer.input_text_token_count or 0)
        return EmbeddingResponse(model="", vectors=(packed(answer.embedding),), usage=usage)

    def encode_response(self, response: EmbeddingResponse, *, request: EmbeddingRequest) -> bytes:
        said = own(request.extra, NAME)
        vector = numbers(response.vectors[0])
        if bytes(said.get(_NORMALIZE, b"")) == b"true":
            vector = _of_length_one(vector)
        body: dict[str, Any] = {"embedding": vector, "inputTextTokenCount": response.usage.input_tokens}
        if _TYPES in said:
            body["embeddingsByType"] = {"float": vector}
        return _encode(body)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
        return decode_error(status, headers, body)

    def encode_error(self, error: FreeholdError, request_id: str) -> ErrorBody:
        return told(error, request_id, _WORDS)

    def usage_of(self, body: bytes) -> Usage | None:
        try:
            return Usage(input_tokens=_ONLY_USAGE.decode(body).input_text_token_count)
        except UNREADABLE:
            return None


def _of_length_one(vector: list[float]) -> list[float]:
    length = math.sqrt(math.fsum(one * one for one in vector))
    return [one / length for one in vector] if length else vector


EMBEDDINGS: EmbeddingWire = TitanEmbed()
