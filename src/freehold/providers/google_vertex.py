"""Providers: Google's and Anthropic's models on Vertex AI. `base_url` says where, and whose project it is:

    https://europe-west4-aiplatform.googleapis.com/v1/projects/PROJECT/locations/europe-west4

A place's own host is found where only `aiplatform.googleapis.com` stands. The credential is a service account's JSON key, or what
`gcloud auth application-default login` wrote, for which tokens are fetched; or an access token, as it is. A model is Google's, or its
publisher's who stands before it (`meta/llama-4`), or one tuned here (`endpoints/123`). Sources:
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference,
https://cloud.google.com/vertex-ai/generative-ai/docs/learn/locations,
https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai. Not here: AI Studio (google.py).
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec
from msgspec import Raw, structs

from freehold.catalog.catalog import ProviderRow
from freehold.core.embeddings import EmbeddingRequest, EmbeddingResponse
from freehold.core.errors import BadRequest, Unsupported
from freehold.core.messages import ModelRequest
from freehold.core.ports import ModelInfo, Provider, Wire
from freehold.providers import _google_token
from freehold.providers._answer_limit import limited
from freehold.providers._counts import anthropic_counted, count_in
from freehold.providers._google_embeddings import ALONE, BATCH, BATCH_MAX, in_batches
from freehold.providers._http import HeaderBlock, HttpPool, Target, Timeouts, header_block
from freehold.providers._token import Bearer
from freehold.providers._upstream import TIMEOUTS, Call, Forward, Upstream, fixed_headers
from freehold.wires import anthropic_messages, google_embed, google_generate, google_predict

ANTHROPIC_VERSION: Final = "vertex-2023-10-16"
"""Said in the body, where the model is at Anthropic's own address."""

COUNTER: Final = "anthropic/count-tokens"
"""The model that stands in the address where Anthropic's requests are counted."""

PREDICTED_MAX: Final = 250
"""Texts in one `predict`, as the vendor has it."""

BEARERS_MAX: Final = 64
COUNTED: Final = ("contents", "systemInstruction", "tools", "generationConfig")
"""The fields of a request that count, of those that a count's request has.

https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/projects.locations.endpoints/countTokens
"""

_GOOGLE: Final = "google"
_ANTHROPIC: Final = "anthropic"
_TUNED: Final = "endpoints/"
_BETA: Final = "anthropic-beta"
_ANY_PLACE: Final = "aiplatform.googleapis.com"
_PLACE: Final = re.compile(r"/v[0-9a-z]+/projects/[^/]+/locations/(?P<location>[a-z0-9-]+)")
_PUBLISHER: Final = re.compile(r"[a-z0-9][a-z0-9-]*")
_NO_HEADERS: Final = header_block(())
_FIELDS: Final = msgspec.json.Decoder(dict[str, Raw])
_encode: Final = msgspec.json.Encoder().encode


class Vertex:
    """Google's models, and those of others that speak as they do."""

    wire: str | None = google_generate.WIRE.name
    is_language_model = True

    def __init__(self, upstream: Upstream) -> None:
        self.name = upstream.name
        self._upstream = upstream

    def call(self, request: ModelRequest) -> Call:
        body = google_generate.WIRE.encode_request(request, provider=self.name)
        path = path_of(request.model, _generating(stream=request.stream))
        return Call(self._upstream, body, _NO_HEADERS, stream=request.stream, path=path)

    def forward(self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]) -> Forward:
        """None of the client's headers go along."""
        path = path_of(model, _generating(stream=stream))
        return Forward(self._upstream, body, _NO_HEADERS, stream=stream, path=path)

    async def count(self, request: ModelRequest) -> int:
        body = google_generate.WIRE.encode_request(request, provider=self.name)
        return await self.count_passed(body, model=request.model, headers={})

    async def count_passed(self, body: bytes, *, model: str, headers: Mapping[str, str]) -> int:
        fields = _FIELDS.decode(body)
        counted = _encode({name: fields[name] for name in COUNTED if name in fields})
        upstream = self._upstream
        async with await upstream.send(counted, _NO_HEADERS, path_of(model, "countTokens")) as reply:
            return count_in(await upstream.read(reply), "totalTokens", provider=self.name)

    async def models(self) -> Sequence[ModelInfo]:
        """Its list is of all that anybody publishes there; what a declaration or the price list names is what there is."""
        return ()


class VertexAnthropic:
    """Anthropic's models, in their own wire: the body has no model but a version."""

    wire: str | None = anthropic_messages.WIRE.name
    is_language_model = True

    def __init__(self, upstream: Upstream) -> None:
        self.name = upstream.name
        self._upstream = upstream

    def call(self, request: ModelRequest) -> Call:
        body = _versioned(anthropic_messages.WIRE.encode_request(limited(request), provider=self.name))
        path = path_of(request.model, _predicting(stream=request.stream), _ANTHROPIC)
        return Call(self._upstream, body, _NO_HEADERS, stream=request.stream, path=path)

    def forward(self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]) -> Forward:
        path = path_of(model, _predicting(stream=stream), _ANTHROPIC)
        return Forward(self._upstream, _versioned(body), _betas(headers), stream=stream, path=path)

    async def count(self, request: ModelRequest) -> int:
        body = anthropic_messages.WIRE.encode_request(request, provider=self.name)
        return await self.count_passed(body, model=request.model, headers={})

    async def count_passed(self, body: bytes, *, model: str, headers: Mapping[str, str]) -> int:
        """Here the model does stand in the body."""
        name = model.removeprefix(f"{_ANTHROPIC}/")
        counted = {**anthropic_counted(body), "model": name, "anthropic_version": ANTHROPIC_VERSION}
        upstream = self._upstream
        path = path_of(COUNTER, _predicting(stream=False))
        async with await upstream.send(_encode(counted), _betas(headers), path) as reply:
            return count_in(await upstream.read(reply), "input_tokens", provider=self.name)

    async def models(self) -> Sequence[ModelInfo]:
        return ()


class VertexEmbeddings:
    """Embeddings. Nothing passes as it came: AI Studio's bodies, which clients send, are not quite Vertex AI's."""

    wire: str | None = None
    is_language_model = True

    def __init__(self, upstream: Upstream) -> None:
        self.name = upstream.name
        self._upstream = upstream

    def call(self, request: ModelRequest) -> Call:
        raise Unsupported("a model call is no embedding: this is the way to embeddings alone")

    def forward(self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]) -> Forward:
        raise Unsupported("embeddings don't pass as they came here")

    async def embed(self, request: EmbeddingRequest) -> EmbeddingResponse:
        """Models that are called Gemini take contents, the older ones instances."""
        if "gemini" not in request.model:
            wire, method, size_max = google_predict.EMBEDDINGS, "predict", PREDICTED_MAX
        elif len(request.inputs) == 1:
            wire, method, size_max = google_embed.ALONE_ON_VERTEX, ALONE, 1
        else:
            wire, method, size_max = google_embed.ON_VERTEX, BATCH, BATCH_MAX

        def sent(body: bytes) -> Forward:
            path = path_of(request.model, method)
            return Forward(self._upstream, body, _NO_HEADERS, stream=False, path=path)

        made = await in_batches(structs.replace(request, model=""), wire, size_max, sent)
        return structs.replace(made, model=request.model)

    async def models(self) -> Sequence[ModelInfo]:
        return ()


def path_of(model: str, method: str, publisher: str = _GOOGLE) -> str:
    """Names come from callers: nothing in one can lead out of its place in the path. Raises BadRequest."""
    if model.startswith(_TUNED):
        return f"/{_TUNED}{quote(model.removeprefix(_TUNED), safe='')}:{method}"
    given, slash, name = model.rpartition("/")
    publisher = given if slash else publisher
    if _PUBLISHER.fullmatch(publisher) is None:
        raise BadRequest(f"expected PUBLISHER/MODEL, got the publisher {publisher[:80]!r}", field="model")
    return f"/publishers/{publisher}/models/{quote(name, safe='@')}:{method}"


def _generating(*, stream: bool) -> str:
    return "streamGenerateContent?alt=sse" if stream else "generateContent"


def _predicting(*, stream: bool) -> str:
    return "streamRawPredict" if stream else "rawPredict"


def _versioned(body: bytes) -> bytes:
    fields: dict[str, Any] = dict(_FIELDS.decode(body))
    fields.pop("model", None)
    return _encode({**fields, "anthropic_version": ANTHROPIC_VERSION})


def _betas(headers: Mapping[str, str]) -> HeaderBlock:
    """Raises BadRequest for a value that could break out of its line."""
    said = headers.get(_BETA)
    if not said:
        return _NO_HEADERS
    return header_block([(_BETA.encode(), said.encode("latin-1", "replace"))])


def address(url: str) -> str:
    """With the host of the place that the path names. Raises BadRequest for one that names none."""
    parts = urlsplit(url)
    at = _PLACE.fullmatch(parts.path.rstrip("/"))
    if at is None or parts.query:
        said = f"expected https://{_ANY_PLACE}/v1/projects/PROJECT/locations/LOCATION, got the path {parts.path[:120]!r}"
        raise BadRequest(said, field="base_url")
    if parts.hostname != _ANY_PLACE:
        return url
    location = at["location"]
    if location == "global":
        host = _ANY_PLACE
    elif location in {"us", "eu"}:
        host = f"aiplatform.{location}.rep.googleapis.com"
    else:
        host = f"{location}-{_ANY_PLACE}"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


@lru_cache(maxsize=BEARERS_MAX)
def _bearer(provider: str, key: str, pool: HttpPool) -> Bearer:
    """One for all the ways of a provider."""
    return Bearer(_google_token.fetching(provider, key, pool))


_Way = tuple[Wire, type[Vertex] | type[VertexAnthropic] | type[VertexEmbeddings]]
_WAYS: Final[Mapping[str, _Way]] = {
    google_generate.WIRE.name: (google_generate.WIRE, Vertex),
    anthropic_messages.WIRE.name: (anthropic_messages.WIRE, VertexAnthropic),
    google_embed.NAME: (google_generate.WIRE, VertexEmbeddings),
}
"""The wire reads errors."""


def create(
    row: ProviderRow,
    key: str | None,
    *,
    headers: Mapping[str, str],
    pool: HttpPool,
    timeouts: Timeouts = TIMEOUTS,
) -> Provider:
    way = _WAYS.get(row.wire or google_generate.WIRE.name)
    if way is None:
        raise BadRequest(f"expected one of {', '.join(_WAYS)}; got {row.wire!r}", field="wire")
    wire, adapter = way
    bearer, credential = None, None
    if key and "authorization" not in {name.lower() for name in headers}:
        if _google_token.is_file(key):
            bearer = _bearer(row.name, key, pool)
        else:
            credential = (b"authorization", f"Bearer {key}")
    upstream = Upstream(
        row.name,
        wire,
        pool,
        Target(address(row.base_url), headers=fixed_headers(credential, headers)),
        path="",
        credential=" or ".join(row.api_key) or "api_key",
        timeouts=timeouts,
        bearer=bearer,
    )
    return adapter(upstream)
