"""Wires: Google's embeddings, both directions: a batch of requests (`batchEmbedContents`), and one alone (`embedContent`).

AI Studio's form, and Vertex AI's, which says what it wants of the vectors in `embedContentConfig`; both are read. Sources:
https://ai.google.dev/api/embeddings, and the types of the vendor's SDK. The model stands in the address, too. What only this dialect
has rides in `extra["google_embed"]` by its path (`requests[1].title`): contents that are more than one text, and settings that differ
from one request of a batch to another, among them. Not here: Vertex AI's older `predict` (google_predict.py).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Raw, Struct

from freehold.core.embeddings import EmbeddingRequest, EmbeddingResponse, EmbeddingTask
from freehold.core.errors import BadRequest, FreeholdError, Unavailable, Unsupported
from freehold.core.messages import Usage
from freehold.core.ports import EmbeddingWire, ErrorBody
from freehold.core.validation import decode
from freehold.wires import _google_errors
from freehold.wires._fields import (
    ARRAY,
    OBJECT,
    UNREADABLE,
    Advisory,
    check_foreign,
    extra_of,
    is_null,
    own,
    text_in,
)
from freehold.wires._google_names import ANY_TASK, TASK_OF, TASKS, camel
from freehold.wires._vectors import numbers, packed

NAME: Final = "google_embed"
INPUTS_MAX: Final = 2_048
ADVISORY: Final[Advisory] = {}
"""Every field of its own says which vector is meant."""

UNSAID: Final[Mapping[str, str]] = {"user": "a label of the caller's user"}
"""Fields of the heart that are left out, and why."""

NESTED: Final = "embedContentConfig"
_REQUESTS: Final = "requests"
_MODELS: Final = "models/"
_ITS_WORDS: Final = {"task": "taskType", "dimensions": "outputDimensionality", "inputs": "content"}
_HEARTS: Final = re.compile(rf"({'|'.join(_ITS_WORDS)})(?:\[(\d+)\])?")
_AT: Final = re.compile(rf"{_REQUESTS}\[(\d+)\]\.(.+)")

_encode: Final = msgspec.json.Encoder().encode
_INT: Final = msgspec.json.Decoder(int)


class _Vector(Struct):
    values: list[float]


class _Counted(Struct, rename="camel"):
    prompt_token_count: int | None = None


class _Answer(Struct, rename="camel"):
    embeddings: list[_Vector] | None = None
    embedding: _Vector | None = None
    usage_metadata: _Counted | None = None


class _OnlyUsage(Struct, rename="camel"):
    usage_metadata: _Counted | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_ONLY_USAGE: Final = msgspec.json.Decoder(_OnlyUsage)


class GoogleEmbed:
    """`batch` is which of its two forms is written; `nested`, Vertex AI's."""

    name: ClassVar[str] = NAME

    def __init__(self, *, batch: bool, nested: bool = False) -> None:
        self._batch = batch
        self._nested = nested

    def decode_request(self, body: bytes) -> EmbeddingRequest:
        fields = _named(body, "")
        if not self._batch:
            ones = [_one(fields, "")]
            rest = ones[0].rest
        else:
            given = _items(fields.pop(_REQUESTS, None))
            ones = [
                _one(_named(bytes(one), f"{_REQUESTS}[{i}]"), f"{_REQUESTS}[{i}]")
                for i, one in enumerate(given)
            ]
            rest = {
                f"{_REQUESTS}[{i}].{name}": value
                for i, one in enumerate(ones)
                for name, value in one.rest.items()
            }
            rest |= {name: value for name, value in fields.items() if name != "model"}
        tasks, sizes = {one.task for one in ones}, {one.dimensions for one in ones}
        if len(tasks) > 1:
            rest |= _apart("taskType", [None if one.task is None else TASKS[one.task] for one in ones])
        if len(sizes) > 1:
            rest |= _apart("outputDimensionality", [one.dimensions for one in ones])
        return EmbeddingRequest(
            model=ones[0].model,
            inputs=tuple(one.text for one in ones),
            task=ones[0].task if len(tasks) == 1 else None,
            dimensions=ones[0].dimensions if len(sizes) == 1 else None,
            extra=extra_of(NAME, rest),
        )

    def encode_request(self, request: EmbeddingRequest) -> bytes:
        check_foreign(request.extra, NAME, "request", "")
        carried = own(request.extra, NAME)
        if not self._batch:
            if len(request.inputs) != 1:
                raise Unsupported(f"expected one text, got {len(request.inputs)}", field="inputs")
            said = self._said(request, 0)
            for name, value in carried.items():
                self._put(said, name, value)
            return _encode(said)
        requests = [self._said(request, index) for index in range(len(request.inputs))]
        body: dict[str, Any] = {_REQUESTS: requests}
        for path, value in carried.items():
            at = _AT.fullmatch(path)
            if at is not None and int(at[1]) < len(requests):
                self._put(requests[int(at[1])], at[2], value)
            else:
                body[path] = value
        return _encode(body)

    def _said(self, request: EmbeddingRequest, index: int) -> dict[str, Any]:
        text = request.inputs[index]
        if not isinstance(text, str):
            raise Unsupported("Google's models take texts here, not tokens", field=f"inputs[{index}]")
        said: dict[str, Any] = {"model": full_name(request.model)} if request.model else {}
        said["content"] = {"parts": [{"text": text}]}
        if request.task is not None:
            self._put(said, "taskType", TASKS[request.task])
        if request.dimensions is not None:
            self._put(said, "outputDimensionality", request.dimensions)
        return said

    def _put(self, said: dict[str, Any], name: str, value: Any) -> None:
        """A setting where this form has it."""
        setting = name.removeprefix(f"{NESTED}.")
        if setting != name or (self._nested and name != "content"):
            said.setdefault(NESTED, {})[setting] = value
        else:
            said[name] = value

    def decode_response(self, body: bytes) -> EmbeddingResponse:
        """Of either form. The vendor does not say which model answered."""
        try:
            answer = decode(body, _ANSWER)
        except BadRequest as error:
            said = f"answered with something that is no list of embeddings: {error}"
            raise Unavailable(said, detail=body[:1000].decode("utf-8", "replace")) from error
        vectors = answer.embeddings or ([] if answer.embedding is None else [answer.embedding])
        return EmbeddingResponse(
            model="",
            vectors=tuple(packed(one.values) for one in vectors),
            usage=_usage(answer.usage_metadata) or Usage(),
        )

    def encode_response(self, response: EmbeddingResponse, *, request: EmbeddingRequest) -> bytes:
        vectors = [{"values": numbers(vector)} for vector in response.vectors]
        body: dict[str, Any] = {"embeddings": vectors} if self._batch else {"embedding": vectors[0]}
        if response.usage.input_tokens and not response.usage.estimated:
            body["usageMetadata"] = {"promptTokenCount": response.usage.input_tokens}
        return _encode(body)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
        return _google_errors.decode_error(status, headers, body)

    def encode_error(self, error: FreeholdError, request_id: str) -> ErrorBody:
        """In another wire's refusal, a field has the heart's name."""
        at = _HEARTS.fullmatch(error.field or "")
        if at is not None:
            place = f"{_REQUESTS}[{at[2] or 0}]." if self._batch else ""
            error.field = place + _ITS_WORDS[at[1]]
        return _google_errors.encode_error(error, request_id)

    def usage_of(self, body: bytes) -> Usage | None:
        try:
            return _usage(_ONLY_USAGE.decode(body).usage_metadata)
        except UNREADABLE:
            return None


def full_name(model: str) -> str:
    """What its bodies call a model: with its kind, `models/` for the vendor's own."""
    return model if model.startswith((_MODELS, "tunedModels/")) else _MODELS + model


class _One(Struct):
    """A request of a batch. `rest` is what only this dialect can say, by its path within."""

    model: str
    text: str
    task: EmbeddingTask | None
    dimensions: int | None
    rest: dict[str, Raw]


def _one(fields: dict[str, Raw], path: str) -> _One:
    content = fields.pop("content", None)
    if content is None:
        raise BadRequest("required, but missing", field=f"{path}.content".lstrip("."))
    rest: dict[str, Raw] = {}
    text = _only_text(content)
    if text is None:
        rest["content"] = content
    model = (text_in(fields.pop("model", None)) or "").removeprefix(_MODELS)
    if (nested := fields.pop(NESTED, None)) is not None:
        inner = _named(bytes(nested), f"{path}.{NESTED}".lstrip("."))
        fields = {**{f"{NESTED}.{name}": value for name, value in inner.items()}, **fields}
    task, size = _setting(fields, "taskType"), _setting(fields, "outputDimensionality")
    rest |= fields
    word = text_in(task)
    if task is not None and word not in TASK_OF and word != ANY_TASK:
        rest["taskType"] = task  # One that we don't know yet: this vendor may.
    return _One(
        model=model,
        text=text or "",
        task=TASK_OF.get(word or ""),
        dimensions=None
        if size is None
        else decode(bytes(size), _INT, root=f"{path}.outputDimensionality".lstrip(".")),
        rest=rest,
    )


def _setting(fields: dict[str, Raw], name: str) -> Raw | None:
    nested, plain = fields.pop(f"{NESTED}.{name}", None), fields.pop(name, None)
    return plain if nested is None else nested


class _Part(Struct, forbid_unknown_fields=True):
    text: str


class _Content(Struct, forbid_unknown_fields=True):
    """`role` says nothing here: whoever spoke, the vector is the text's."""

    parts: _Part | list[_Part]
    role: str | None = None


_CONTENT: Final = msgspec.json.Decoder(_Content)


def _only_text(content: Raw) -> str | None:
    """The text, where the content is just one."""
    try:
        parts = _CONTENT.decode(content).parts
    except UNREADABLE:
        return None
    listed = [parts] if isinstance(parts, _Part) else parts
    return listed[0].text if len(listed) == 1 else None


def _named(body: bytes, path: str) -> dict[str, Raw]:
    fields = decode(body, OBJECT, root=path)
    return {camel(name): value for name, value in fields.items() if not is_null(value)}


def _items(given: Raw | None) -> Sequence[Raw]:
    if given is None:
        raise BadRequest("required, but missing", field=_REQUESTS)
    items = decode(bytes(given), ARRAY, root=_REQUESTS)
    if not 0 < len(items) <= INPUTS_MAX:
        raise BadRequest(
            f"expected 1 to INPUTS_MAX = {INPUTS_MAX} requests, got {len(items)}", field=_REQUESTS
        )
    return items


def _apart(name: str, values: Sequence[str | int | None]) -> dict[str, Raw]:
    """Settings that differ: of each request its own."""
    return {
        f"{_REQUESTS}[{index}].{name}": Raw(_encode(value))
        for index, value in enumerate(values)
        if value is not None
    }


def _usage(counted: _Counted | None) -> Usage | None:
    if counted is None or counted.prompt_token_count is None:
        return None
    return Usage(input_tokens=counted.prompt_token_count)


EMBEDDINGS: EmbeddingWire = GoogleEmbed(batch=True)
ALONE: EmbeddingWire = GoogleEmbed(batch=False)
ON_VERTEX: EmbeddingWire = GoogleEmbed(batch=True, nested=True)
ALONE_ON_VERTEX: EmbeddingWire = GoogleEmbed(batch=False, nested=True)
