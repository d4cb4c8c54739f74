"""Providers: OpenAI's models on Azure. What a caller names as the model is a deployment.

`base_url` is either form that Microsoft documents, with its `api-version` as a query where one is wanted:

    https://RESOURCE.openai.azure.com?api-version=2024-10-21     a path for each deployment, API_VERSION without a query
    https://RESOURCE.openai.azure.com/openai/v1                  the newer one: the deployment stands in the body

Responses are at the newer form, and at the older one since RESPONSES_SINCE: one path for all deployments.

The credential is a resource's key; an app registration of Microsoft Entra, for which tokens are fetched (_entra_token.py); or such a
token as it is (a JWT), which lasts about an hour. Azure lists models, not deployments: a declaration's `models` says which there are. Sources:
https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference,
https://learn.microsoft.com/en-us/azure/ai-foundry/openai/api-version-lifecycle.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

from msgspec import Struct

from freehold.catalog.catalog import ProviderRow
from freehold.core.errors import BadRequest, Unsupported
from freehold.core.messages import ModelRequest
from freehold.core.ports import ModelInfo, Provider
from freehold.providers import _entra_token
from freehold.providers._http import HttpPool, Target, Timeouts, header_block
from freehold.providers._openai_body import Fitting
from freehold.providers._upstream import TIMEOUTS, Call, Forward, Upstream, fixed_headers
from freehold.wires import openai_chat, openai_responses

API_VERSION: Final = "2024-10-21"
"""The last one that is not a preview, of the addresses that want one."""

STREAM_OPTIONS_SINCE: Final = "2024-09-01"
"""Versions before this refuse `stream_options` and `max_completion_tokens`."""

RESPONSES_SINCE: Final = "2025-03-01"
"""The first version, of the addresses that want one, that has Responses."""

_CHAT: Final = openai_chat.WIRE
_RESPONSES: Final = openai_responses.WIRE
_WIRES: Final = {wire.name: wire for wire in (_CHAT, _RESPONSES)}
_V1: Final = "/openai/v1"
_NO_HEADERS: Final = header_block(())
_QUERY: Final = re.compile(r"[A-Za-z0-9._~=&%-]*")
_VERSION: Final = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?|preview|latest|v1")
_JWT: Final = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


class Azure:
    is_language_model = True

    def __init__(self, upstream: Upstream, address: "Address") -> None:
        self.name = upstream.name
        self.wire: str | None = upstream.wire.name
        self._upstream = upstream
        self._address = address
        self._fitting: Fitting | None = None
        if upstream.wire is _CHAT:
            modern = address.takes_stream_options
            self._fitting = Fitting(stream_options=modern, tokens_max_field=None if modern else "max_tokens")

    def call(self, request: ModelRequest) -> Call:
        body = self._upstream.wire.encode_request(request, provider=self.name)
        body = self._fitted(body, metered=request.stream)
        path = self._path(request.model)
        return Call(self._upstream, body, _NO_HEADERS, stream=request.stream, path=path)

    def forward(self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]) -> Forward:
        """None of the client's headers go along."""
        body = self._fitted(body, metered=False)
        return Forward(self._upstream, body, _NO_HEADERS, stream=stream, path=self._path(model))

    def _fitted(self, body: bytes, *, metered: bool) -> bytes:
        return body if self._fitting is None else self._fitting.fitted(body, metered=metered)

    def _path(self, model: str) -> str:
        return self._address.responses if self._fitting is None else self._address.path(model)

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

    @property
    def has_responses(self) -> bool:
        return not self.by_deployment or self.version >= RESPONSES_SINCE

    @property
    def responses(self) -> str:
        return f"{'/openai' if self.by_deployment else ''}/responses{self.query}"

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
    """Raises Unsupported for a wire that the address has not."""
    found, wire = address(row.base_url), _WIRES.get(row.wire or _CHAT.name)
    if wire is None:
        raise BadRequest(f"expected one of {', '.join(_WIRES)}; got {row.wire!r}", field="wire")
    if wire is _RESPONSES and not found.has_responses:
        said = f"this address has Responses since {RESPONSES_SINCE}, and its version is {found.version}"
        raise Unsupported(said, field="base_url")
    credential, bearer = None, None
    if key and _entra_token.is_app(key):
        if "authorization" not in {name.lower() for name in headers}:
            bearer = _entra_token.bearer(row.name, key, found.base, pool)
    elif key:
        is_token = _JWT.fullmatch(key) is not None
        credential = (b"authorization", f"Bearer {key}") if is_token else (b"api-key", key)
    upstream = Upstream(
        row.name,
        wire,
        pool,
        Target(found.base, headers=fixed_headers(credential, headers)),
        path=found.responses if wire is _RESPONSES else found.path(""),
        credential=" or ".join(row.api_key) or "api_key",
        timeouts=timeouts,
        bearer=bearer,
    )
    return Azure(upstream, found)
