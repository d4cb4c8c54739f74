"""Wires: Amazon Nova's multimodal embeddings as Bedrock's InvokeModel takes them, both directions: one text a call.

Source: https://docs.aws.amazon.com/nova/latest/userguide/embeddings-schema.html. What only this dialect has rides in
`extra["bedrock_nova_embed"]` by its path (`singleEmbeddingParams.image`). Not here: long texts in segments, which are asynchronous
(SEGMENTED_EMBEDDING); images, sound and video pass to Nova alone.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Raw, Struct

from freehold.core.embeddings import EmbeddingRequest, EmbeddingResponse, EmbeddingTask
from freehold.core.errors import BadRequest, FreeholdError, Unsupported
from freehold.core.messages import Usage
from freehold.core.ports import EmbeddingWire, ErrorBody
from freehold.core.validation import decode
from freehold.wires._aws_embed import answered, only_text_of, told
from freehold.wires._aws_errors import decode_error
from freehold.wires._fields import OBJECT, Advisory, check_foreign, extra_of, is_null, own, text_in
from freehold.wires._vectors import numbers, packed

NAME: Final = "bedrock_nova_embed"
SCHEMA: Final = "nova-multimodal-embed-v1"
SINGLE: Final = "SINGLE_EMBEDDING"
PARAMS: Final = "singleEmbeddingParams"
TASKS: Final[Mapping[EmbeddingTask, str]] = {
    "search_document": "GENERIC_INDEX",
    "search_query": "GENERIC_RETRIEVAL",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}
INDEX: Final = "GENERIC_INDEX"
"""What is asked for where a client doesn't say what its vectors are for; this vendor must be told."""

ADVISORY: Final[Advisory] = {
    f"request.{PARAMS}.text.truncationMode": "how to cut a text that is too long; others refuse it, or cut its end",
    f"request.{PARAMS}.embeddingPurpose": "a search among texts, documents or anything: elsewhere it is a search",
}
UNSAID: Final[Mapping[str, str]] = {"user": "a label of the caller's user"}
"""Fields of the heart that are left out, and why."""

_QUERIES: Final = frozenset({"TEXT_RETRIEVAL", "DOCUMENT_RETRIEVAL"})
_TASK_OF: Final = {word: task for task, word in TASKS.items()}
_WORDS: Final = {
    "task": f"{PARAMS}.embeddingPurpose",
    "dimensions": f"{PARAMS}.embeddingDimension",
    "inputs": f"{PARAMS}.text.value",
}
_REFUSED: Final = "NONE"
_encode: Final = msgspec.json.Encoder().encode


class _Text(Struct, rename="camel", forbid_unknown_fields=True):
    value: str
    truncation_mode: str = _REFUSED


class _Params(Struct, rename="camel"):
    text: _Text
    embedding_purpose: str = INDEX
    embedding_dimension: int | None = None


class _Vector(Struct):
    embedding: list[float]


class _Answer(Struct):
    embeddings: list[_Vector]


_PARAMS: Final = msgspec.json.Decoder(_Params)
_ANSWER: Final = msgspec.json.Decoder(_Answer)


class NovaEmbed:
    name: ClassVar[str] = NAME

    def decode_request(self, body: bytes) -> EmbeddingRequest:
        fields = {name: value for name, value in decode(body, OBJECT).items() if not is_null(value)}
        _check(fields)
        given = fields.get(PARAMS, Raw(b"{}"))
        params = decode(bytes(given), _PARAMS, root=PARAMS)
        known = _Params.__struct_encode_fields__
        rest = {
            f"{PARAMS}.{name}": value
            for name, value in decode(bytes(given), OBJECT, root=PARAMS).items()
            if name not in known and not is_null(value)
        }
        if params.text.truncation_mode != _REFUSED:
            rest[f"{PARAMS}.text.truncationMode"] = Raw(_encode(params.text.truncation_mode))
        purpose = params.embedding_purpose
        task = "search_query" if purpose in _QUERIES else _TASK_OF.get(purpose)
        if purpose in _QUERIES:
            rest[f"{PARAMS}.embeddingPurpose"] = Raw(_encode(purpose))
        elif task is None:
            known_words = ", ".join(sorted({*_TASK_OF, *_QUERIES}))
            raise Unsupported(
                f"{purpose[:40]!r} is no purpose of a text's vector here; known: {known_words}",
                field=f"{PARAMS}.embeddingPurpose",
            )
        rest |= {
            name: value for name, value in fields.items() if name not in {"schemaVersion", "taskType", PARAMS}
        }
        return EmbeddingRequest(
            model="",
            inputs=(params.text.value,),
            dimensions=params.embedding_dimension,
            task=task,
            extra=extra_of(NAME, rest),
        )

    def encode_request(self, request: EmbeddingRequest) -> bytes:
        check_foreign(request.extra, NAME, "request", "")
        task = request.task or "search_document"
        if task not in TASKS:
            raise Unsupported(f"Nova makes no vectors for {task}", field="task")
        text: dict[str, Any] = {"truncationMode": _REFUSED, "value": only_text_of(request)}
        params: dict[str, Any] = {"embeddingPurpose": TASKS[task], "text": text}
        if request.dimensions is not None:
            params["embeddingDimension"] = request.dimensions
        body: dict[str, Any] = {"schemaVersion": SCHEMA, "taskType": SINGLE, PARAMS: params}
        for path, value in own(request.extra, NAME).items():
            place, _, name = path.rpartition(".")
            within = {PARAMS: params, f"{PARAMS}.text": text}.get(place, body)
            within[name if place else path] = value
        return _encode(body)

    def decode_response(self, body: bytes) -> EmbeddingResponse:
        """Tokens are counted in a header alone."""
        answer = answered(body, _ANSWER)
        return EmbeddingResponse(model="", vectors=tuple(packed(one.embedding) for one in answer.embeddings))

    def encode_response(self, response: EmbeddingResponse, *, request: EmbeddingRequest) -> bytes:
        made = [{"embeddingType": "TEXT", "embedding": numbers(vector)} for vector in response.vectors]
        return _encode({"embeddings": made})

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
        return decode_error(status, headers, body)

    def encode_error(self, error: FreeholdError, request_id: str) -> ErrorBody:
        return told(error, request_id, _WORDS)

    def usage_of(self, body: bytes) -> Usage | None:
        return None


def _check(fields: Mapping[str, Raw]) -> None:
    schema = fields.get("schemaVersion")
    if schema is not None and text_in(schema) != SCHEMA:
        raise BadRequest(f"expected {SCHEMA}", field="schemaVersion")
    if text_in(fields.get("taskType")) != SINGLE:
        raise BadRequest(f"expected {SINGLE}: the other kinds are asynchronous", field="taskType")


EMBEDDINGS: EmbeddingWire = NovaEmbed()
