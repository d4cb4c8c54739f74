"""Wires: OpenAI's embeddings, both directions, as OpenAI and the many who follow it speak them.

Source: https://platform.openai.com/docs/api-reference/embeddings. Fields that only this dialect has ride in
`extra["openai_embeddings"]`, `encoding_format` among them: whether a client wants numbers, or their bytes in base64, which its SDK
asks for by itself. Not here: what embeddings are used for.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Raw, Struct

from freehold.core.embeddings import SEARCHES, EmbeddingRequest, EmbeddingResponse
from freehold.core.errors import BadRequest, FreeholdError, Unavailable, Unsupported
from freehold.core.messages import Usage
from freehold.core.ports import EmbeddingWire, ErrorBody
from freehold.core.validation import decode
from freehold.wires import _openai_errors
from freehold.wires._fields import OBJECT, UNREADABLE, Advisory, check_foreign, extra_of, own
from freehold.wires._media import base64_of, from_base64
from freehold.wires._vectors import FLOAT_BYTES, numbers, packed

NAME: Final = "openai_embeddings"
INPUTS_MAX: Final = 2_048
"""As the vendor has it."""

_FORMAT: Final = "encoding_format"
_BASE64: Final = b'"base64"'
_NUMBERS: Final = (b'"float"', b"null")

ADVISORY: Final[Advisory] = {
    f"request.{_FORMAT}": "how the client reads the numbers, not how they are made",
}

_encode: Final = msgspec.json.Encoder().encode


class _Request(Struct):
    """msgspec takes one kind of array in a union, so an input is read by what it begins with."""

    model: str
    input: Raw
    dimensions: int | None = None
    user: str | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None


class _Vector(Struct):
    embedding: str | list[float]
    index: int = 0


class _Answer(Struct):
    data: list[_Vector]
    model: str = ""
    usage: _Usage | None = None


class _OnlyUsage(Struct):
    usage: _Usage | None = None


_REQUEST: Final = msgspec.json.Decoder(_Request)
_ANSWER: Final = msgspec.json.Decoder(_Answer)
_ONLY_USAGE: Final = msgspec.json.Decoder(_OnlyUsage)
_TEXT: Final = msgspec.json.Decoder(str)
_ITEMS: Final = msgspec.json.Decoder(list[str | int | list[int]])
_FIELDS: Final = frozenset(_Request.__struct_encode_fields__)


class OpenAIEmbeddings:
    name: ClassVar[str] = NAME

    def decode_request(self, body: bytes) -> EmbeddingRequest:
        shape = decode(body, _REQUEST, known=sorted(_FIELDS))
        fields = {
            name: value
            for name, value in decode(body, OBJECT).items()
            if name not in _FIELDS and bytes(value) not in _NUMBERS
        }
        _check_format(fields)
        return EmbeddingRequest(
            model=shape.model,
            inputs=_inputs(shape.input),
            dimensions=shape.dimensions,
            user=shape.user,
            extra=extra_of(NAME, fields),
        )

    def encode_request(self, request: EmbeddingRequest) -> bytes:
        check_foreign(request.extra, NAME, "request", "")
        if request.task is not None and request.task not in SEARCHES:
            said = f"{NAME} cannot say what the vectors are for ({request.task}): leave it out, or ask a model that is told"
            raise Unsupported(said, field="task")
        body: dict[str, Any] = {"model": request.model, "input": request.inputs}
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        if request.user is not None:
            body["user"] = request.user
        return _encode(body | dict(own(request.extra, NAME)))

    def decode_response(self, body: bytes) -> EmbeddingResponse:
        """Numbers or base64, whatever was asked for: not everybody looks."""
        try:
            answer = decode(body, _ANSWER)
            data = sorted(answer.data, key=_by_index)
            vectors = tuple(_bytes(one.embedding, f"data[{one.index}].embedding") for one in data)
        except BadRequest as error:
            said = f"answered with something that is no list of embeddings: {error}"
            raise Unavailable(said, detail=body[:1000].decode("utf-8", "replace")) from error
        return EmbeddingResponse(model=answer.model, vectors=vectors, usage=_usage(answer.usage))

    def encode_response(self, response: EmbeddingResponse, *, request: EmbeddingRequest) -> bytes:
        in_base64 = bytes(own(request.extra, NAME).get(_FORMAT, b"")) == _BASE64
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64_of(vector) if in_base64 else numbers(vector),
            }
            for index, vector in enumerate(response.vectors)
        ]
        tokens = response.usage.input_tokens
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _encode({"object": "list", "data": data, "model": response.model, "usage": usage})

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
        return _openai_errors.decode_error(status, headers, body)

    def encode_error(self, error: FreeholdError, request_id: str) -> ErrorBody:
        if error.field is not None and error.field.startswith("inputs"):
            error.field = "input" + error.field.removeprefix("inputs")
        return _openai_errors.encode_error(error, request_id)

    def usage_of(self, body: bytes) -> Usage | None:
        try:
            shape = _ONLY_USAGE.decode(body).usage
        except UNREADABLE:
            return None
        return None if shape is None else _usage(shape)


def _by_index(vector: _Vector) -> int:
    return vector.index


def _usage(shape: _Usage | None) -> Usage:
    return Usage(input_tokens=0 if shape is None else shape.prompt_tokens or 0)


def _check_format(fields: Mapping[str, Raw]) -> None:
    given = fields.get(_FORMAT)
    if given is not None and bytes(given) != _BASE64:
        raise BadRequest(
            f"expected float or base64, got {bytes(given)[:40].decode('utf-8', 'replace')}", field=_FORMAT
        )


def _inputs(given: Raw) -> tuple[str | tuple[int, ...], ...]:
    """A text, its tokens, or a list of either."""
    if bytes(given).startswith(b'"'):
        return (decode(bytes(given), _TEXT, root="input"),)
    items = decode(bytes(given), _ITEMS, root="input")
    if not 0 < len(items) <= INPUTS_MAX:
        raise BadRequest(f"expected 1 to INPUTS_MAX = {INPUTS_MAX} inputs, got {len(items)}", field="input")
    one = [item for item in items if isinstance(item, int)]
    if not one:
        return tuple(
            item if isinstance(item, str) else tuple(item) for item in items if not isinstance(item, int)
        )
    if len(one) < len(items):
        raise BadRequest("expected texts, or tokens; got both in one list", field="input")
    return (tuple(one),)


def _bytes(embedding: str | list[float], path: str) -> bytes:
    if isinstance(embedding, str):
        vector = from_base64(embedding, path)
        if not vector or len(vector) % FLOAT_BYTES:
            raise BadRequest(f"expected floats of {FLOAT_BYTES} bytes, got {len(vector)} bytes", field=path)
        return vector
    return packed(embedding)


EMBEDDINGS: EmbeddingWire = OpenAIEmbeddings()
