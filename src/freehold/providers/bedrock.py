"""Providers: Amazon Bedrock's Converse, ConverseStream and CountTokens, with SigV4 or a bearer key.

The credential is one string: `ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]`, as the catalog's row puts it together from AWS's usual
variables, or a Bedrock API key as it is. The region is read off the address. Sources:
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html,
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CountTokens.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys-use.html. Not here: embeddings (_bedrock_embeddings.py), roles and instance profiles (no credential is fetched),
the regions' own endpoints of OpenAI's and Anthropic's dialects (rows of those adapters can have them).
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Raw, Struct, structs

from freehold.catalog.catalog import ProviderRow
from freehold.core.errors import BadRequest, NotFound, Unavailable
from freehold.core.messages import ModelRequest
from freehold.core.ports import ModelInfo, Provider
from freehold.core.stream import Started, StreamEvent
from freehold.providers._bedrock_embeddings import WIRES, BedrockEmbeddings
from freehold.providers._http import HeaderBlock, HttpPool, Target, Timeouts, header_block
from freehold.providers._model_list import KEPT_S, LIST_BYTES_MAX, MODELS_MAX
from freehold.providers._model_list import TIMEOUTS as LIST_TIMEOUTS
from freehold.providers._upstream import TIMEOUTS, Call, Forward, Upstream, fixed_headers
from freehold.wires._aws_sigv4 import Credentials, Signer
from freehold.wires.bedrock_converse import WIRE

SERVICE: Final = "bedrock"
REGION_DEFAULT: Final = "us-east-1"
"""What is signed for at an address that names no region: a gateway or a test server, which rarely looks at it."""

INVOKE: Final = "invoke"
COUNT_TOKENS: Final = "count-tokens"
COUNTED: Final = frozenset({"messages", "system", "toolConfig", "additionalModelRequestFields"})
"""Fields of a Converse request that CountTokens takes; it refuses the others, which count for nothing."""

_NOT_COUNTED: Final = re.compile(r"support\w* .*\bcount|count\w* .*support", re.IGNORECASE)
"""How a model says that it has no counter: in words alone, as a ValidationException."""

_REGION: Final = re.compile(r"\.([a-z]{2}(?:-[a-z]+)+-\d)\.")
_BEGINNINGS: Final = (b"\x00",)
"""Of an event stream: the first byte of a length under 16 MB."""


class Bedrock:
    wire: str | None = WIRE.name
    is_language_model = True

    def __init__(self, name: str, upstream: Upstream, signing: "Signing", models: "FoundationModels") -> None:
        self.name = name
        self._upstream = upstream
        self._signing = signing
        self._models = models

    def call(self, request: ModelRequest) -> "Named":
        body = WIRE.encode_request(request, provider=self.name)
        path = _path(request.model, _converse(stream=request.stream))
        headers = self._signing.headers("POST", path, body)
        call = Call(self._upstream, body, headers, stream=request.stream, path=path)
        return Named(call, request.model)

    def forward(self, body: bytes, *, model: str, stream: bool, headers: Mapping[str, str]) -> Forward:
        """None of the client's headers go along: what they say of guardrails or tracing, this API says in the body."""
        path = _path(model, _converse(stream=stream))
        signed = self._signing.headers("POST", path, body)
        return Forward(self._upstream, body, signed, stream=stream, path=path)

    async def count(self, request: ModelRequest) -> int:
        return await self._count(WIRE.encode_request(request, provider=self.name), request.model)

    async def count_passed(self, body: bytes, *, model: str, headers: Mapping[str, str]) -> int:
        return await self._count(body, model)

    async def _count(self, body: bytes, model: str) -> int:
        fields = msgspec.json.decode(body, type=dict[str, Raw])
        converse = {name: value for name, value in fields.items() if name in COUNTED}
        asked = msgspec.json.encode({"input": {"converse": converse}})
        path = _path(model, COUNT_TOKENS)
        try:
            reply = await self._upstream.send(asked, self._signing.headers("POST", path, asked), path)
        except BadRequest as error:
            if _NOT_COUNTED.search(error.message):
                raise NotFound(error.message) from error
            raise
        async with reply:
            answer = await self._upstream.read(reply)
        try:
            return msgspec.json.decode(answer, type=_Count).input_tokens
        except msgspec.DecodeError as error:
            said = f"{self.name} answered with something that is no count of tokens"
            raise Unavailable(said, detail=str(error)) from error

    async def models(self) -> Sequence[ModelInfo]:
        return await self._models.get()


class _Count(Struct, rename="camel"):
    input_tokens: int


def _path(model: str, operation: str) -> str:
    """An id may hold `:` and, being an ARN, `/`: both are encoded, as AWS's SDKs do."""
    return f"/model/{quote(model, safe='')}/{operation}"


def _converse(*, stream: bool) -> str:
    return "converse-stream" if stream else "converse"


class Signing:
    """Headers for each request; a bearer key is among the fixed ones, and then there is nothing to add."""

    __slots__ = ("_base", "_now_s", "_signer")

    def __init__(self, signer: Signer | None, base: str, now_s: Callable[[], float]) -> None:
        self._signer = signer
        self._base = base
        self._now_s = now_s

    def headers(self, method: str, path: str, body: bytes) -> HeaderBlock:
        if self._signer is None:
            return _NOTHING
        return header_block(self._signer.headers(method, self._base + path, body, at_s=int(self._now_s())))


_NOTHING: Final = header_block(())


class Named:
    """A call whose answer says neither its id nor its model: both are known here."""

    __slots__ = ("_call", "_model")

    def __init__(self, call: Call, model: str) -> None:
        self._call = call
        self._model = model

    async def __aenter__(self) -> AsyncIterator[StreamEvent]:
        events = await self._call.__aenter__()
        return _NamedEvents(events, self._call.headers.get("x-amzn-requestid", ""), self._model)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return await self._call.__aexit__(kind, error, trace)


class _NamedEvents:
    __slots__ = ("_events", "_id", "_model")

    def __init__(self, events: AsyncIterator[StreamEvent], answer_id: str, model: str) -> None:
        self._events = events
        self._id = answer_id
        self._model = model

    def __aiter__(self) -> "_NamedEvents":
        return self

    async def __anext__(self) -> StreamEvent:
        event = await self._events.__anext__()
        if isinstance(event, Started):
            return structs.replace(event, id=self._id, model=self._model)
        return event


# -------------------------------------------------------------------------------------- what models there are


class _Summary(Struct, rename="camel"):
    model_id: str
    model_name: str = ""
    input_modalities: tuple[str, ...] = ()
    output_modalities: tuple[str, ...] = ("TEXT",)


class _Summaries(Struct, rename="camel"):
    model_summaries: list[_Summary]


_SERVED: Final = frozenset({"TEXT", "EMBEDDING"})
_SUMMARIES: Final = msgspec.json.Decoder(_Summaries)


class FoundationModels:
    """ListFoundationModels, of the control plane: models that write text, and those that make embeddings. Kept for a while."""

    __slots__ = ("_kept", "_kept_until", "_path", "_pool", "_provider", "_signing", "_target")

    def __init__(self, provider: str, pool: HttpPool, target: Target, signing: Signing, path: str) -> None:
        self._provider = provider
        self._pool = pool
        self._target = target
        self._signing = signing
        self._path = path
        self._kept: Sequence[ModelInfo] = ()
        self._kept_until = 0.0

    async def get(self) -> Sequence[ModelInfo]:
        """Raises Unavailable, TimedOut, TooLarge. Empty where the address has no list."""
        now = asyncio.get_running_loop().time()
        if self._path and now >= self._kept_until:
            self._kept = await self._fetch()
            self._kept_until = now + KEPT_S
        return self._kept

    async def _fetch(self) -> Sequence[ModelInfo]:
        headers = self._signing.headers("GET", self._path, b"")
        reply = await self._pool.request(
            self._target, path=self._path, method="GET", headers=headers, timeouts=LIST_TIMEOUTS
        )
        async with reply:
            body = await reply.read(LIST_BYTES_MAX)
        if reply.status != 200:
            said = f"{self._provider} did not list its models (status {reply.status})"
            raise Unavailable(said, detail=body[:500].decode("utf-8", "replace"))
        try:
            summaries = _SUMMARIES.decode(body).model_summaries[:MODELS_MAX]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            said = f"{self._provider} answered with something that is no list of models"
            raise Unavailable(said, detail=str(error)) from error
        return [self._info(one) for one in summaries if not _SERVED.isdisjoint(one.output_modalities)]

    def _info(self, summary: _Summary) -> ModelInfo:
        return ModelInfo(
            provider=self._provider,
            name=summary.model_id,
            display_name=summary.model_name,
            images="IMAGE" in summary.input_modalities if summary.input_modalities else None,
            embeds="TEXT" not in summary.output_modalities,
        )


# ------------------------------------------------------------------------------------------------ opening it


def _credentials(key: str) -> Credentials | None:
    """None for a bearer key. Raises BadRequest, never showing the key."""
    access_key_id, colon, rest = key.partition(":")
    if not colon:
        return None
    secret, _, token = rest.partition(":")
    if not access_key_id or not secret:
        said = "expected ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN], or a Bedrock API key"
        raise BadRequest(said, field="api_key")
    return Credentials(access_key_id, secret, token or None)


def signing(url: str, key: str | None, now_s: Callable[[], float]) -> Signing:
    credentials = None if key is None else _credentials(key)
    parts = urlsplit(url)
    found = _REGION.search(f".{parts.hostname}.")
    signer = None
    if credentials is not None:
        usual = parts.port is None or parts.port == (443 if parts.scheme == "https" else 80)
        host = (parts.hostname or "") if usual else f"{parts.hostname}:{parts.port}"
        region = found[1] if found else REGION_DEFAULT
        signer = Signer(credentials, host=host, region=region, service=SERVICE)
    return Signing(signer, parts.path.rstrip("/"), now_s)


def create(
    row: ProviderRow,
    key: str | None,
    *,
    headers: Mapping[str, str],
    pool: HttpPool,
    timeouts: Timeouts = TIMEOUTS,
    now_s: Callable[[], float] = time.time,
) -> Provider:
    bearer = None if key is None or ":" in key else (b"authorization", f"Bearer {key}")
    fixed = fixed_headers(bearer, headers)
    upstream = Upstream(
        row.name,
        WIRE,
        pool,
        Target(row.base_url, headers=fixed),
        path="",
        credential=" or ".join(row.api_key) or "api_key",
        timeouts=timeouts,
        beginnings=_BEGINNINGS,
    )
    signed = signing(row.base_url, key, now_s)
    if row.wire in WIRES:

        def sign(path: str, body: bytes) -> HeaderBlock:
            return signed.headers("POST", path, body)

        return BedrockEmbeddings(WIRES[row.wire], upstream, sign, lambda model: _path(model, INVOKE))
    control = row.base_url.replace("://bedrock-runtime.", "://bedrock.")
    listing = Target(control, headers=fixed)
    models = FoundationModels(row.name, pool, listing, signing(control, key, now_s), row.models_path)
    return Bedrock(row.name, upstream, signed, models)
