"""Providers: OpenAI, and every address that speaks one of its wires (`catalog/providers.toml` has the rows).

A row is opened for one wire, chat completions if it names none: the same address speaks each at a path of its own. Which model is
asked by which is data, too (`[[way]]` in the catalog, `wire` of a declared provider).
Sources: https://platform.openai.com/docs/api-reference; what the others do differently is in their rows' `docs`.
Not here: Azure's addresses (azure.py).
"""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from freehold.catalog.catalog import ProviderRow
from freehold.core.embeddings import EmbeddingRequest, EmbeddingResponse
from freehold.core.errors import BadRequest, Unsupported
from freehold.core.messages import ModelRequest
from freehold.core.ports import ModelInfo, Provider, Wire
from freehold.providers._http import HttpPool, Target, Timeouts, header_block
from freehold.providers._model_list import ModelList
from freehold.providers._openai_body import Fitting
from freehold.providers._upstream import TIMEOUTS, Call, Forward, Upstream, fixed_headers
from freehold.wires import openai_chat, openai_responses
from freehold.wires.openai_embeddings import EMBEDDINGS

_NO_HEADERS: Final = header_block(())


class _Spoken(Struct, frozen=True):
    """`wire` reads the errors too, which are the same at all of these."""

    path: str
    wire: Wire = openai_chat.WIRE


_CHAT: Final = "openai_chat"
_SPOKEN: Final = {
    _CHAT: _Spoken("/chat/completions"),
    "openai_responses": _Spoken("/responses", openai_responses.WIRE),
    EMBEDDINGS.name: _Spoken("/embeddings"),
}


class OpenAI:
    is_language_model = True

    def __init__(self, upstream: Upstream, row: ProviderRow, models: ModelList) -> None:
        self.name = row.name
        self.wire: str | None = row.wire or _CHAT
        self._upstream = upstream
        self._models = models
        self._fitting: Fitting | None = None
        if self.wire == _CHAT:
            self._fitting = Fitting(stream_options=row.stream_options, tokens_max_field=row.tokens_max_field)

    def call(self, request: ModelRequest) -> Call:
        body = self._upstream.wire.encode_request(request, provider=self.name)
        if self._fitting is not None:
            body = self._fitting.fitted(body, metered=request.stream)
        return Call(self._upstream, body, _NO_HEADERS, stream=request.stream)

    def forward(self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]) -> Forward:
        """None of the client's headers go along: organisation and project belong to the key, and the key is ours."""
        if self._fitting is not None:
            body = self._fitting.fitted(body, metered=False)
        return Forward(self._upstream, body, _NO_HEADERS, stream=stream)

    async def models(self) -> Sequence[ModelInfo]:
        return await self._models.get()


class OpenAIEmbeddings(OpenAI):
    """The way to its embeddings alone: whoever else is asked there speaks the other wires."""

    def call(self, request: ModelRequest) -> Call:
        raise Unsupported("a model call is no embedding: this is the wire of embeddings alone")

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResponse:
        body = EMBEDDINGS.encode_request(request)
        async with self.forward(body, model=request.model, stream=False, headers={}) as answer:
            return EMBEDDINGS.decode_response(await answer.read())


def create(
    row: ProviderRow,
    key: str | None,
    *,
    headers: Mapping[str, str],
    pool: HttpPool,
    timeouts: Timeouts = TIMEOUTS,
) -> Provider:
    spoken = _SPOKEN.get(row.wire or _CHAT)
    if spoken is None:
        raise BadRequest(f"expected one of {', '.join(_SPOKEN)}; got {row.wire!r}", field="wire")
    credential = (b"authorization", f"Bearer {key}") if key else None
    target = Target(row.base_url, headers=fixed_headers(credential, headers))
    upstream = Upstream(
        row.name,
        spoken.wire,
        pool,
        target,
        path=spoken.path,
        credential=" or ".join(row.api_key) or "api_key",
        timeouts=timeouts,
    )
    adapter = OpenAIEmbeddings if row.wire == EMBEDDINGS.name else OpenAI
    return adapter(upstream, row, ModelList(row.name, pool, target, row.models_path))
