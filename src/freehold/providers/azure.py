"""Providers: OpenAI's models on Azure. What a caller names as the model is a deployment.

`base_url` is either form that Microsoft documents, with its `api-version` as a query where one is wanted:

    https://RESOURCE.openai.azure.com?api-version=2024-10-21     a path for each deployment, API_VERSION without a query
    https://RESOURCE.openai.azure.com/openai/v1                  the newer one: the deployment stands in the body

The credential is a resource's key, or a Microsoft Entra token (a JWT), which goes out as a bearer. Entra's tokens last about an
hour, and none is fetched here. Azure lists models, not deployments: a declaration's `models` says which there are. Sources:
https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference,
https://learn.microsoft.com/en-us/azure/ai-foundry/openai/api-version-lifecycle.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

from msgspec import Struct

from freehold.catalog.catalog import ProviderRow
from freehold.core.errors import BadRequest
from freehold.core.messages import ModelRequest
from freehold.core.ports import ModelInfo, Provider
from freehold.providers._http import HttpPool, Target, Timeouts, header_block
from freehold.providers._openai_body import Fitting
from freehold.providers._upstream import TIMEOUTS, Call, Forward, Upstream, fixed_headers
from freehold.wires.openai_chat import WIRE

API_VERSION: Final = "2024-10-21"
"""The last one that is not a preview, of the addresses that want one."""

STREAM_OPTIONS_SINCE: Final = "2024-09-01"
"""Versions before this refuse `stream_options` and `max_completion_tokens`."""

_V1: Final = "/openai/v1"
_NO_HEADERS: Final = header_block(())
_QUERY: Final = re.compile(r"[A-Za-z0-9._~=&%-]*")
_VERSION: Final = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?|preview|latest|v1")
_JWT: Final = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


class Azure:
    wire: str | None = WIRE.name
    is_language_model = True

    def __init__(self, upstream: Upstream, address: "Address") -> None:
        self.name = upstream.name
        self._upstream = upstream
        self._address = address
        modern = address.takes_stream_options
        self._fitting = Fitting(stream_options=modern, tokens_max_field=None if modern else "max_tokens")

    def call(self, request: ModelRequest) -> Call:
        body = WIRE.encode_request(request, provider=self.name)
        body = self._fitting.fitted(body, metered=request.stream)
        path = self._address.path(request.model)
        return Call(self._upstream, body, _NO_HEADERS, stream=request.stream, path=path)

    def forward(self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]) -> Forward:
        """None of the client's headers go along."""
        body = self._fitting.fitted(body, metered=False)
        return Forward(self._upstream, body, _NO_HEADERS, stream=stream, path=self._address.path(model))

    async def models(self) -> Sequence[ModelInfo]:
        return ()


class Address(Struct, frozen=True):
    """`base` is without query; `query` begins with `?`, or is empty."""

    base: str
    query: str
    version: str
    by_deployment: bool

    @property
    def takes_stream_options(self) -> bool:
        return not self.version[:1].isdigit() or self.version >= STREAM_OPTIONS_SINCE

    def path(self, deployment: str) -> str:
        within = f"/openai/deployments/{quote(deployment, safe='')}" if self.by_deployment else ""
        return f"{within}/chat/completions{self.query}"


def address(url: str) -> Address:
    """Raises BadRequest for a query that is none of Azure's."""
    parts = urlsplit(url)
    versions = parse_qs(parts.query).get("api-version", [])
    if not _QUERY.fullmatch(parts.query) or (versions and not _VERSION.fullmatch(versions[0])):
        raise BadRequest(
            f"expected an api-version like {API_VERSION} as the query, got {parts.query[:80]!r}",
            field="base_url",
        )
    path = parts.path.rstrip("/")
    is_v1 = path.endswith(_V1)
    query = parts.query
    if not is_v1:
        path = path.removesuffix("/openai")
        query = query if versions else "&".join(filter(None, (query, f"api-version={API_VERSION}")))
    version = versions[0] if versions else "" if is_v1 else API_VERSION
    base = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    return Address(base, f"?{query}" if query else "", version, by_deployment=not is_v1)


def create(
    row: ProviderRow,
    key: str | None,
    *,
    headers: Mapping[str, str],
    pool: HttpPool,
    timeouts: Timeouts = TIMEOUTS,
) -> Provider:
    found = address(row.base_url)
    credential = None
    if key:
        is_token = _JWT.fullmatch(key) is not None
        credential = (b"authorization", f"Bearer {key}") if is_token else (b"api-key", key)
    upstream = Upstream(
        row.name,
        WIRE,
        pool,
        Target(found.base, headers=fixed_headers(credential, headers)),
        path=found.path(""),
        credential=" or ".join(row.api_key) or "api_key",
        timeouts=timeouts,
    )
    return Azure(upstream, found)
