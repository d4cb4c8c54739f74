"""Wires: embeddings by Vertex AI's `predict`, both directions: the form of its models that are not called Gemini.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api. The model stands in the address. What
only this dialect has rides in `extra["google_predict"]` by its path (`instances[1].title`). Not here: `embedContent` (google_embed.py),
and whatever else is predicted there.
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
from freehold.wires._google_names import ANY_TASK, TASK_OF, TASKS
from freehold.wires._vectors import numbers, packed

NAME: Final = "google_predict"
INPUTS_MAX: Final = 250
"""As the vendor has it."""

ADVISORY: Final[Advisory] = {}
UNSAID: Final[Mapping[str, str]] = {"user": "a label of the caller's user"}
"""Fields of the heart that are left out, and why."""

_INSTANCES: Final = "instances"
_PARAMETERS: Final = "parameters"
_SIZE: Final = "outputDimensionality"
_AT: Final = re.compile(rf"{_INSTANCES}\[(\d+)\]\.(.+)")
_ITS_WORDS: Final = {"task": "task_type", "inputs": "content"}
_HEARTS: Final = re.compile(rf"({'|'.join(_ITS_WORDS)})(?:\[(\d+)\])?")

_encode: Final = msgspec.json.Encoder().encode
_INT: Final = msgspec.json.Decoder(int)


class _Statistics(Struct, frozen=True):
    token_count: float = 0


class _Vector(Struct):
    values: list[float]
    statistics: _Statistics = _Statistics()


class _Prediction(Struct):
    embeddings: _Vector


class _Answer(Struct):
    predictions: list[_Prediction]


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class GooglePredict:
    name: ClassVar[str] = NAME

    def decode_request(self, body: bytes) -> EmbeddingRequest:
        fields = _object(body, "")
        given = fields.pop(_INSTANCES, None)
        if given is None:
            raise BadRequest("required, but missing", field=_INSTANCES)
        items = decode(bytes(given), ARRAY, root=_INSTANCES)
        if not 0 < len(items) <= INPUTS_MAX:
            raise BadRequest(
                f"expected 1 to INPUTS_MAX = {INPUTS_MAX} instances, got {len(items)}", field=_INSTANCES
            )
        parameters = _object(bytes(fields.pop(_PARAMETERS, Raw(b"{}"))), _PARAMETERS)
        size = parameters.pop(_SIZE, None)
        ones = [_instance(bytes(item), f"{_INSTANCES}[{index}]") for index, item in enumerate(items)]
        rest = {**fields, **{f"{_PARAMETERS}.{name}": value for name, value in parameters.items()}}
        for one in ones:
            rest |= one.rest
        tasks = {one.task for one in ones}
        if len(tasks) > 1:
            rest |= {
                f"{_INSTANCES}[{index}].task_type": Raw(_encode(TASKS[one.task]))
                for index, one in enumerate(ones)
                if one.task is not None
            }
        return EmbeddingRequest(
            model="",
            inputs=tuple(one.text for one in ones),
            task=ones[0].task if len(tasks) == 1 else None,
            dimensions=None if size is None else decode(bytes(size), _INT, root=f"{_PARAMETERS}.{_SIZE}"),
            extra=extra_of(NAME, rest),
        )

    def encode_request(self, request: EmbeddingRequest) -> bytes:
        check_foreign(request.extra, NAME, "request", "")
        instances = [_said(request, index) for index in range(len(request.inputs))]
        parameters: dict[str, Any] = {} if request.dimensions is None else {_SIZE: request.dimensions}
        body: dict[str, Any] = {_INSTANCES: instances}
        for path, value in own(request.extra, NAME).items():
            at = _AT.fullmatch(path)
            if at is not None and int(at[1]) < len(instances):
                instances[int(at[1])][at[2]] = value
            elif path.startswith(f"{_PARAMETERS}."):
                parameters[path.removeprefix(f"{_PARAMETERS}.")] = value
            else:
                body[path] = value
        return _encode({**body, _PARAMETERS: parameters} if parameters else body)

    def decode_response(self, body: bytes) -> EmbeddingResponse:
        """The vendor does not say which model answered."""
        try:
            predictions = decode(body, _ANSWER).predictions
        except BadRequest as error:
            said = f"answered with something that is no list of embeddings: {error}"
            raise Unavailable(said, detail=body[:1000].decode("utf-8", "replace")) from error
        return EmbeddingResponse(
            model="",
            vectors=tuple(packed(one.embeddings.values) for one in predictions),
            usage=Usage(input_tokens=_tokens(predictions)),
        )

    def encode_response(self, response: EmbeddingResponse, *, request: EmbeddingRequest) -> bytes:
        """Tokens are told of each text, and we know their sum only: the first one has them all."""
        told: list[dict[str, Any]] = [{"embeddings": {"values": numbers(one)}} for one in response.vectors]
        if response.usage.input_tokens and not response.usage.estimated:
            counts = [response.usage.input_tokens, *[0] * (len(told) - 1)]
            for one, count in zip(told, counts, strict=True):
                one["embeddings"]["statistics"] = {"token_count": count, "truncated": False}
        return _encode({"predictions": told})

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
        return _google_errors.decode_error(status, headers, body)

    def encode_error(self, error: FreeholdError, request_id: str) -> ErrorBody:
        """In another wire's refusal, a field has the heart's name."""
        if error.field == "dimensions":
            error.field = f"{_PARAMETERS}.{_SIZE}"
        elif (at := _HEARTS.fullmatch(error.field or "")) is not None:
            error.field = f"{_INSTANCES}[{at[2] or 0}].{_ITS_WORDS[at[1]]}"
        return _google_errors.encode_error(error, request_id)

    def usage_of(self, body: bytes) -> Usage | None:
        try:
            count = _tokens(_ANSWER.decode(body).predictions)
        except UNREADABLE:
            return None
        return Usage(input_tokens=count) if count else None


class _Instance(Struct):
    text: str
    task: EmbeddingTask | None
    rest: dict[str, Raw]


def _instance(item: bytes, path: str) -> _Instance:
    fields = _object(item, path)
    text = text_in(fields.pop("content", None))
    if text is None:
        raise BadRequest("expected a text", field=f"{path}.content")
    word = text_in(fields.get("task_type"))
    if word in TASK_OF or word == ANY_TASK:
        del fields["task_type"]
    return _Instance(
        text, TASK_OF.get(word or ""), {f"{path}.{name}": value for name, value in fields.items()}
    )


def _said(request: EmbeddingRequest, index: int) -> dict[str, Any]:
    text = request.inputs[index]
    if not isinstance(text, str):
        raise Unsupported("Google's models take texts here, not tokens", field=f"inputs[{index}]")
    return {"content": text} | ({} if request.task is None else {"task_type": TASKS[request.task]})


def _object(body: bytes, path: str) -> dict[str, Raw]:
    return {name: value for name, value in decode(body, OBJECT, root=path).items() if not is_null(value)}


def _tokens(predictions: Sequence[_Prediction]) -> int:
    return int(sum(one.embeddings.statistics.token_count for one in predictions))


EMBEDDINGS: EmbeddingWire = GooglePredict()
