"""Providers: OpenAI, and every address that speaks its chat completions (`catalog/providers.toml` has the rows).

Sources: https://platform.openai.com/docs/api-reference/chat; what the others do differently is in their rows' `docs`.
Not here: the Responses API, embeddings, Azure's addresses.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from freehold.catalog.catalog import ProviderRow
from freehold.core.messages import ModelRequest
from freehold.core.ports import ModelInfo, Provider
from freehold.providers._http import HttpPool, Target, Timeouts, header_block
from freehold.providers._model_list import ModelList
from freehold.providers._upstream import TIMEOUTS, Call, Forward, Upstream, fixed_headers
from freehold.wires.openai_chat import WIRE

_NO_HEADERS: Final = header_block(())
_WITH_USAGE: Final = Raw(b'{"include_usage":true}')
_TOKENS_MAX_FIELDS: Final = ("max_tokens", "max_completion_tokens")


class OpenAI:
    wire: str | None = WIRE.name
    is_language_model = True

    def __init__(self, upstream: Upstream, row: ProviderRow, models: ModelList) -> None:
        self.name = row.name
        self._upstream = upstream
        self._models = models
        self._stream_options = row.stream_options
        self._tokens_max_field = row.tokens_max_field
        (other,) = (field for field in _TOKENS_MAX_FIELDS if field != row.tokens_max_field)
        self._other_field = other
        self._other_field_json = f'"{other}"'.encode()

    def call(self, request: ModelRequest) -> Call:
        body = self._fitted(WIRE.encode_request(request, provider=self.name), metered=request.stream)
        return Call(self._upstream, body, _NO_HEADERS, stream=request.stream)

    def forward(self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]) -> Forward:
        """None of the client's headers go along: organisation and project belong to the key, and the key is ours."""
        return Forward(self._upstream, self._fitted(body, metered=False), _NO_HEADERS, stream=stream)

    async def models(self) -> Sequence[ModelInfo]:
        return await self._models.get()

    def _fitted(self, body: bytes, *, metered: bool) -> bytes:
        """The body in this address's own words; untouched, and not even parsed, where it has none of the differing fields."""
        rename = self._other_field_json in body
        options = b'"stream_options"' in body
        add, drop = metered and self._stream_options and not options, options and not self._stream_options
        if not (rename or add or drop):
            return body
        fields = msgspec.json.decode(body, type=dict[str, Raw])
        if self._other_field in fields:
            limit = fields.pop(self._other_field)
            fields.setdefault(self._tokens_max_field, limit)
        if drop:
            fields.pop("stream_options", None)
        if add:
            fields.setdefault("stream_options", _WITH_USAGE)
        return msgspec.json.encode(fields)


def create(
    row: ProviderRow,
    key: str | None,
    *,
    headers: Mapping[str, str],
    pool: HttpPool,
    timeouts: Timeouts = TIMEOUTS,
) -> Provider:
    credential = (b"authorization", f"Bearer {key}") if key else None
    target = Target(row.base_url, headers=fixed_headers(credential, headers))
    upstream = Upstream(
        row.name,
        WIRE,
        pool,
        target,
        path="/chat/completions",
        credential=" or ".join(row.api_key) or "api_key",
        timeouts=timeouts,
    )
    return OpenAI(upstream, row, ModelList(row.name, pool, target, row.models_path))
