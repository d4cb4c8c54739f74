"""Providers: Google's embeddings at AI Studio, alone (`embedContent`) and in batches (`batchEmbedContents`).

Sources: https://ai.google.dev/api/embeddings, https://ai.google.dev/gemini-api/docs/embeddings. Not here: their wire
(wires/google_embed), Vertex AI's addresses.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Raw, structs

from freehold.core.embeddings import EmbeddingRequest, EmbeddingResponse
from freehold.core.errors import BadRequest, Unsupported
from freehold.core.messages import ModelRequest, Usage
from freehold.core.ports import EmbeddingWire, ModelInfo
from freehold.providers._http import header_block
from freehold.providers._model_list import ModelList
from freehold.providers._upstream import Call, Forward, Upstream
from freehold.wires._fields import own
from freehold.wires.google_embed import EMBEDDINGS, full_name

BATCH_MAX: Final = 100
"""Texts in one call, as the vendor has it. More go in several calls, one after the other."""

ALONE: Final = "embedContent"
BATCH: Final = "batchEmbedContents"
_REQUESTS: Final = "requests"
_NO_HEADERS: Final = header_block(())
_BODY: Final = msgspec.json.Decoder(dict[str, Raw])
_BATCH: Final = msgspec.json.Decoder(list[dict[str, Raw]])

PathOf: TypeAlias = Callable[[str, str], str]
"""A model and a method to the path of both."""


class GoogleEmbeddings:
    """The way to its embeddings alone."""

    wire: str | None = EMBEDDINGS.name
    is_language_model = True

    def __init__(self, upstream: Upstream, models: ModelList, path_of: PathOf) -> None:
        self.name = upstream.name
        self._upstream = upstream
        self._models = models
        self._path_of = path_of

    def call(self, request: ModelRequest) -> Call:
        raise Unsupported("a model call is no embedding: this is the wire of embeddings alone")

    def forward(self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]) -> Forward:
        """The body says which of the two methods it is for; the model's name in it becomes the provider's own."""
        fields, method = _named_anew(body, model)
        return self._sent(fields, model, method)

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResponse:
        def sent(body: bytes) -> Forward:
            return self._sent(body, request.model, BATCH)

        return await in_batches(request, EMBEDDINGS, BATCH_MAX, sent)

    async def models(self) -> Sequence[ModelInfo]:
        return await self._models.get()

    def _sent(self, body: bytes, model: str, method: str) -> Forward:
        path = self._path_of(model, method)
        return Forward(self._upstream, body, _NO_HEADERS, stream=False, path=path)


async def in_batches(
    request: EmbeddingRequest, wire: EmbeddingWire, size_max: int, sent: Callable[[bytes], Forward]
) -> EmbeddingResponse:
    """One call after the other. All are written before the first is sent: what cannot be said costs nothing."""
    inputs = request.inputs
    parts = [inputs[start : start + size_max] for start in range(0, len(inputs), size_max)]
    if len(parts) > 1 and (fields := own(request.extra, wire.name)):
        raise Unsupported(
            f"can be said of {size_max} texts at most, got {len(inputs)}", field=next(iter(fields))
        )
    bodies = [wire.encode_request(structs.replace(request, inputs=part)) for part in parts]
    vectors: list[bytes] = []
    usage = Usage()
    for body in bodies:
        async with sent(body) as answer:
            made = wire.decode_response(await answer.read())
        vectors += made.vectors
        usage = usage.plus(made.usage)
    return EmbeddingResponse(model=request.model, vectors=tuple(vectors), usage=usage)


def _named_anew(body: bytes, model: str) -> tuple[bytes, str]:
    """Raises BadRequest for requests that are none: the wire has looked at them, but may have been another."""
    name = Raw(msgspec.json.encode(full_name(model)))
    fields: dict[str, Any] = dict(_BODY.decode(body))
    if _REQUESTS not in fields:
        return msgspec.json.encode({**fields, "model": name}), ALONE
    try:
        requests = _BATCH.decode(fields[_REQUESTS])
    except msgspec.DecodeError as error:
        raise BadRequest("expected a list of objects", field=_REQUESTS) from error
    fields[_REQUESTS] = [{**one, "model": name} for one in requests]
    fields.pop("model", None)
    return msgspec.json.encode(fields), BATCH
