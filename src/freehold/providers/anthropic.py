"""Providers: Anthropic's Messages. `base_url` is without `/v1`, as their SDK takes it.

Sources: https://docs.anthropic.com/en/api/overview, https://docs.anthropic.com/en/api/beta-headers.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from freehold.catalog.catalog import ProviderRow
from freehold.core.messages import ModelRequest
from freehold.core.ports import ModelInfo, Provider
from freehold.providers._answer_limit import limited
from freehold.providers._counts import anthropic_counted, count_in
from freehold.providers._http import HeaderBlock, HttpPool, Target, Timeouts, header_block
from freehold.providers._model_list import ModelList
from freehold.providers._upstream import TIMEOUTS, Call, Forward, Upstream, fixed_headers
from freehold.wires.anthropic_messages import WIRE

VERSION: Final = "2023-06-01"
CLIENT_HEADERS: Final = ("anthropic-version", "anthropic-beta")
"""What a client may say beside the body. A request in another wire cannot say them, so it speaks plain `VERSION`."""

_PLAIN: Final = header_block(((b"anthropic-version", VERSION.encode()),))


class Anthropic:
    wire: str | None = WIRE.name
    is_language_model = True

    def __init__(
        self, name: str, upstream: Upstream, counting: Upstream, models: ModelList, *, known_by: str
    ) -> None:
        """`known_by` is the price list under which the models' limits are found."""
        self.name = name
        self._known_by = known_by
        self._upstream = upstream
        self._counting = counting
        self._models = models

    def call(self, request: ModelRequest) -> Call:
        body = WIRE.encode_request(limited(request, self._known_by), provider=self.name)
        return Call(self._upstream, body, _PLAIN, stream=request.stream)

    def forward(self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]) -> Forward:
        return Forward(self._upstream, body, _spoken(headers), stream=stream)

    async def count(self, request: ModelRequest) -> int:
        return await self._count(WIRE.encode_request(request, provider=self.name), _PLAIN)

    async def count_passed(self, body: bytes, *, model: str, headers: Mapping[str, str]) -> int:
        return await self._count(body, _spoken(headers))

    async def _count(self, body: bytes, headers: HeaderBlock) -> int:
        upstream = self._counting
        async with await upstream.send(msgspec.json.encode(anthropic_counted(body)), headers) as reply:
            return count_in(await upstream.read(reply), "input_tokens", provider=self.name)

    async def models(self) -> Sequence[ModelInfo]:
        return await self._models.get()


def _spoken(headers: Mapping[str, str]) -> HeaderBlock:
    """Raises BadRequest for a value that could break out of its line."""
    said = [(name, headers[name]) for name in CLIENT_HEADERS if headers.get(name)]
    if not said or said == [("anthropic-version", VERSION)]:
        return _PLAIN
    if "anthropic-version" not in headers:
        said.append(("anthropic-version", VERSION))
    return header_block([(name.encode(), value.encode("latin-1", "replace")) for name, value in said])


def create(
    row: ProviderRow,
    key: str | None,
    *,
    headers: Mapping[str, str],
    pool: HttpPool,
    timeouts: Timeouts = TIMEOUTS,
) -> Provider:
    fixed = fixed_headers((b"x-api-key", key) if key else None, headers)
    target, credential = Target(row.base_url, headers=fixed), " or ".join(row.api_key) or "api_key"
    upstream, counting = (
        Upstream(row.name, WIRE, pool, target, path=path, credential=credential, timeouts=timeouts)
        for path in ("/v1/messages", "/v1/messages/count_tokens")
    )
    listing = Target(row.base_url, headers=[*fixed, (b"anthropic-version", VERSION.encode())])
    path = f"/v1{row.models_path}?limit=1000" if row.models_path else ""
    listed = ModelList(row.name, pool, listing, path)
    return Anthropic(row.name, upstream, counting, listed, known_by=row.prices or "")
