"""Wires: Cohere's embeddings (v3, v4) as Bedrock's InvokeModel takes them, both directions.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed.html, model-parameters-embed-v4.html there. What
only this dialect has rides in `extra["bedrock_cohere_embed"]`. Not here: vectors of integers or bits (`embedding_types` other than
float) and of images, which are refused.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Struct

from freehold.core.embeddings import EmbeddingRequest, EmbeddingResponse, EmbeddingTask
from freehold.core.errors import BadRequest, FreeholdError, Unsupported
from freehold.core.messages import Usage
from freehold.core.ports import EmbeddingWire, ErrorBody
from freehold.core.validation import decode
from freehold.wires._aws_embed import answered, texts_of, told
from freehold.wires._aws_errors import decode_error
from freehold.wires._fields import OBJECT, Advisory, check_foreign, extra_of, is_null, own
from freehold.wires._vectors import numbers, packed

NAME: Final = "bedrock_cohere_embed"
TEXTS_MAX: Final = 96
"""In one call, as the vendor has it."""

TASKS: Final[tuple[EmbeddingTask, ...]] = ("search_document", "search_query", "classification", "clustering")
"""The vendor's words are the heart's."""

ADVISORY: Final[Advisory] = {
    "request.truncate": "how to cut a text that is too long; others refuse it, or cut its end",
    "request.embedding_types": "only float is taken, which all vendors give",
    "request.max_tokens": "where a text is cut",
}
UNSAID: Final[Mapping[str, str]] = {"user": "a label of the caller's user"}
"""Fields of the heart that are left out, and why."""

_TYPES: Final = "embedding_types"
_WORDS: Final = {"task": "input_type", "dimensions": "output_dimension", "inputs": "texts"}
_encode: Final = msgspec.json.Encoder().encode
_ONLY_FLOAT: Final = b'["float"]'
_NAMES: Final[msgspec.json.Decoder[list[str]]] = msgspec.json.Decoder(list[str])


class _Request(Struct):
    texts: list[str]
    input_type: str
    output_dimension: int | None = None


class _ByType(Struct):
    float: list[list[float]]


class _Listed(Struct):
    embeddings: list[list[float]]


class _Typed(Struct):
    embeddings: _ByType


_REQUEST: Final = msgspec.json.Decoder(_Request)
_LISTED: Final = msgspec.json.Decoder(_Listed)
_TYPED: Final = msgspec.json.Decoder(_Typed)


class CohereEmbed:
    name: ClassVar[str] = NAME

    def decode_request(self, body: bytes) -> EmbeddingRequest:
        fields = {name: value for name, value in decode(body, OBJECT).items() if not is_null(value)}
        if "images" in fields or "inputs" in fields:
            raise Unsupported(
                "expected texts: vectors of images are not carried",
                field="images" if "images" in fields else "inputs",
            )
        shape = decode(_encode(fields), _REQUEST)
        task = next((one for one in TASKS if one == shape.input_type), None)
        if task is None:
            raise BadRequest(
                f"expected one of {', '.join(TASKS)}, got {shape.input_type[:40]!r}", field="input_type"
            )
        if not 0 < len(shape.texts) <= TEXTS_MAX:
            raise BadRequest(f"expected 1 to {TEXTS_MAX} texts, got {len(shape.texts)}", field="texts")
        rest = {
            name: value for name, value in fields.items() if name not in _Request.__struct_encode_fields__
        }
        types = decode(bytes(rest.get(_TYPES, _ONLY_FLOAT)), _NAMES, root=_TYPES)
        if any(one != "float" for one in types):
            raise Unsupported(
                "expected float alone: vectors of integers and bits are not carried", field=_TYPES
            )
        return EmbeddingRequest(
            model="",
            inputs=tuple(shape.texts),
            dimensions=shape.output_dimension,
            task=task,
            extra=extra_of(NAME, rest),
        )

    def encode_request(self, request: EmbeddingRequest) -> bytes:
        """The vendor must be told what vectors are for: without a word, they are for documents."""
        check_foreign(request.extra, NAME, "request", "")
        task = request.task or "search_document"
        if task not in TASKS:
            raise Unsupported(f"Cohere makes no vectors for {task}", field="task")
        body: dict[str, Any] = {"texts": texts_of(request), "input_type": task}
        if request.dimensions is not None:
            body["output_dimension"] = request.dimensions
        return _encode(body | dict(own(request.extra, NAME)))

    def decode_response(self, body: bytes) -> EmbeddingResponse:
        """Plain lists, or by type. Tokens are counted in a header alone."""
        try:
            vectors = _LISTED.decode(body).embeddings
        except (msgspec.DecodeError, UnicodeDecodeError):
            vectors = answered(body, _TYPED).embeddings.float
        return EmbeddingResponse(model="", vectors=tuple(packed(one) for one in vectors))

    def encode_response(self, response: EmbeddingResponse, *, request: EmbeddingRequest) -> bytes:
        vectors = [numbers(vector) for vector in response.vectors]
        typed = _TYPES in own(request.extra, NAME)
        return _encode({
            "id": "",
            "texts": texts_of(request),
            "embeddings": {"float": vectors} if typed else vectors,
            "response_type": "embeddings_by_type" if typed else "embeddings_floats",
        })

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
        return decode_error(status, headers, body)

    def encode_error(self, error: FreeholdError, request_id: str) -> ErrorBody:
        return told(error, request_id, _WORDS)

    def usage_of(self, body: bytes) -> Usage | None:
        return None


EMBEDDINGS: EmbeddingWire = CohereEmbed()
