"""Providers: embeddings of Bedrock's models, through InvokeModel in their makers' own bodies: Titan, Nova, Cohere.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html. Not here: the bodies (wires/bedrock_*_embed).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from msgspec import Struct, structs

from freehold.core.embeddings import EmbeddingRequest, EmbeddingResponse
from freehold.core.errors import FreeholdError, Unsupported
from freehold.core.messages import ModelRequest, Usage
from freehold.core.ports import EmbeddingWire, ModelInfo
from freehold.providers._http import HeaderBlock
from freehold.providers._upstream import Call, Forward, Upstream
from freehold.wires import bedrock_cohere_embed, bedrock_nova_embed, bedrock_titan_embed

AT_ONCE_MAX: Final = 8
"""Calls for one request under way at the same time: most of these models take one text a call."""

TOKENS_HEADER: Final = "x-amzn-bedrock-input-token-count"


class _Family(Struct, frozen=True):
    mark: str
    wire: EmbeddingWire
    texts_max: int
    """In one call."""


FAMILIES: Final = (
    _Family("cohere.embed", bedrock_cohere_embed.EMBEDDINGS, bedrock_cohere_embed.TEXTS_MAX),
    _Family("multimodal-embeddings", bedrock_nova_embed.EMBEDDINGS, 1),
    _Family("titan-embed", bedrock_titan_embed.EMBEDDINGS, 1),
)
"""`mark` is what ids of its models hold, profiles and ARNs too."""

WIRES: Final = {family.wire.name: family.wire for family in FAMILIES}

Sign: TypeAlias = Callable[[str, bytes], HeaderBlock]
PathOf: TypeAlias = Callable[[str], str]


class BedrockEmbeddings:
    """A client of `wire` has its bytes passed; for one of any other wire, the model's id says how it is asked."""

    is_language_model = True

    def __init__(self, wire: EmbeddingWire, upstream: Upstream, sign: Sign, path_of: PathOf) -> None:
        self.wire: str | None = wire.name
        self.name = upstream.name
        self._upstream = upstream
        self._sign = sign
        self._path_of = path_of

    def call(self, request: ModelRequest) -> Call:
        raise Unsupported(f"{request.model} makes embeddings and does not write", field="model")

    def forward(self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]) -> Forward:
        path = self._path_of(model)
        return Forward(self._upstream, body, self._sign(path, body), stream=stream, path=path)

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResponse:
        family = _family_of(request.model)
        inputs = request.inputs
        parts = [inputs[at : at + family.texts_max] for at in range(0, len(inputs), family.texts_max)]
        # All are written before the first is sent: what cannot be said costs nothing.
        bodies = [family.wire.encode_request(structs.replace(request, inputs=part)) for part in parts]
        path, turns = self._path_of(request.model), asyncio.Semaphore(AT_ONCE_MAX)

        async def ask(body: bytes) -> EmbeddingResponse:
            async with turns:
                return await self._ask(family.wire, path, body)

        try:
            async with asyncio.TaskGroup() as group:
                asking = [group.create_task(ask(body)) for body in bodies]
        except* FreeholdError as failed:
            raise _first(failed) from failed
        usage, vectors = Usage(), list[bytes]()
        for task in asking:
            made = task.result()
            usage = usage.plus(made.usage)
            vectors += made.vectors
        return EmbeddingResponse(model=request.model, vectors=tuple(vectors), usage=usage)

    async def _ask(self, wire: EmbeddingWire, path: str, body: bytes) -> EmbeddingResponse:
        upstream = self._upstream
        async with await upstream.send(body, self._sign(path, body), path) as reply:
            made = wire.decode_response(await upstream.read(reply))
        counted = reply.headers.get(TOKENS_HEADER, "")
        if made.usage.input_tokens or not counted.isdecimal():
            return made
        return structs.replace(made, usage=Usage(input_tokens=int(counted)))

    async def models(self) -> Sequence[ModelInfo]:
        return ()


def _family_of(model: str) -> _Family:
    name = model.lower()
    family = next((one for one in FAMILIES if one.mark in name), None)
    if family is None:
        known = ", ".join(one.mark for one in FAMILIES)
        raise Unsupported(
            f"{model} is not known to make embeddings: Bedrock's that do hold {known} in their ids",
            field="model",
        )
    return family


def _first(failed: BaseExceptionGroup[FreeholdError]) -> FreeholdError:
    one = failed.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one
