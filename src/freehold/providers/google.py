"""Providers: Google's generateContent at AI Studio. `base_url` is without a version, as their SDK takes it.

The model stands in the path, and whether to stream. Sources: https://ai.google.dev/api, https://ai.google.dev/api/models,
https://ai.google.dev/api/tokens. Not here: Vertex AI (vertex.py), embeddings (_google_embeddings.py), files, caches.
"""

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from freehold.catalog.catalog import ProviderRow
from freehold.core.messages import ModelRequest
from freehold.core.ports import ModelInfo, Provider
from freehold.providers._counts import count_in
from freehold.providers._google_embeddings import ALONE, BATCH, GoogleEmbeddings
from freehold.providers._http import HttpPool, Target, Timeouts, header_block
from freehold.providers._model_list import MODELS_MAX, ModelList
from freehold.providers._upstream import TIMEOUTS, Call, Forward, Upstream, fixed_headers
from freehold.wires.google_embed import EMBEDDINGS, full_name
from freehold.wires.google_generate import WIRE

VERSION: Final = "/v1beta"
KINDS: Final = ("models/", "tunedModels/")
"""What a model's name may begin with; without any, it is one of the vendor's own."""

METHOD: Final = "generateContent"
STREAM: Final = "streamGenerateContent?alt=sse"
COUNT: Final = "countTokens"
_USED: Final = frozenset({METHOD, ALONE, BATCH})
_NO_HEADERS: Final = header_block(())


class Google:
    wire: str | None = WIRE.name
    is_language_model = True

    def __init__(self, name: str, upstream: Upstream, models: ModelList) -> None:
        self.name = name
        self._upstream = upstream
        self._models = models

    def call(self, request: ModelRequest) -> Call:
        body = WIRE.encode_request(request, provider=self.name)
        path = path_of(request.model, STREAM if request.stream else METHOD)
        return Call(self._upstream, body, _NO_HEADERS, stream=request.stream, path=path)

    def forward(self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]) -> Forward:
        """None of the client's headers go along: they tell of its SDK and its project, and the key is ours."""
        path = path_of(model, STREAM if stream else METHOD)
        return Forward(self._upstream, body, _NO_HEADERS, stream=stream, path=path)

    async def count(self, request: ModelRequest) -> int:
        return await self._count(WIRE.encode_request(request, provider=self.name), request.model)

    async def count_passed(self, body: bytes, *, model: str, headers: Mapping[str, str]) -> int:
        return await self._count(body, model)

    async def _count(self, body: bytes, model: str) -> int:
        """The whole request counts, with its instructions and tools, which only this form has."""
        counted = {**msgspec.json.decode(body, type=dict[str, Raw]), "model": full_name(model)}
        upstream = self._upstream
        asked = msgspec.json.encode({"generateContentRequest": counted})
        async with await upstream.send(asked, _NO_HEADERS, path_of(model, COUNT)) as reply:
            return count_in(await upstream.read(reply), "totalTokens", provider=self.name)

    async def models(self) -> Sequence[ModelInfo]:
        return await self._models.get()


def path_of(model: str, method: str) -> str:
    """Names come from callers: nothing in one can lead out of its place in the path."""
    kind = next((kind for kind in KINDS if model.startswith(kind)), "")
    name = quote(model.removeprefix(kind), safe="")
    return f"{VERSION}/{kind or KINDS[0]}{name}:{method}"


class _Model(Struct, rename="camel"):
    name: str
    display_name: str = ""
    input_token_limit: int | None = None
    output_token_limit: int | None = None
    supported_generation_methods: tuple[str, ...] = (METHOD,)
    thinking: bool | None = None


class _List(Struct):
    models: list[_Model] = []


_LIST: Final = msgspec.json.Decoder(_List)


def listed(provider: str, body: bytes) -> Sequence[ModelInfo]:
    """Those that write, and those that make embeddings. Raises msgspec.DecodeError."""
    return [
        ModelInfo(
            provider=provider,
            name=model.name.removeprefix(KINDS[0]),
            display_name=model.display_name,
            context_tokens=model.input_token_limit,
            output_tokens_max=model.output_token_limit,
            reasoning=model.thinking,
            embeds=METHOD not in model.supported_generation_methods,
        )
        for model in _LIST.decode(body).models[:MODELS_MAX]
        if not _USED.isdisjoint(model.supported_generation_methods)
    ]


def create(
    row: ProviderRow,
    key: str | None,
    *,
    headers: Mapping[str, str],
    pool: HttpPool,
    timeouts: Timeouts = TIMEOUTS,
) -> Provider:
    target = Target(row.base_url, headers=fixed_headers((b"x-goog-api-key", key) if key else None, headers))
    upstream = Upstream(
        row.name,
        WIRE,
        pool,
        target,
        path="",
        credential=" or ".join(row.api_key) or "api_key",
        timeouts=timeouts,
    )
    path = f"{VERSION}{row.models_path}?pageSize=1000" if row.models_path else ""
    models = ModelList(row.name, pool, target, path, read=listed)
    if row.wire == EMBEDDINGS.name:
        return GoogleEmbeddings(upstream, models, path_of)
    return Google(row.name, upstream, models)
