"""Server: the door of Google's API, for the vendor's SDKs, answered by any model.

Model and method stand in the path: `/v1beta/models/{model}:generateContent`, and so under `/v1/`. The model may be any name that the
gateway knows, with its slash. Paths of Vertex AI do, too (`/v1beta1/projects/.../publishers/{publisher}/models/{model}:...`): their
project and place are the caller's own affair, and Google's own models go by their bare names. Counts of tokens, embeddings and lists
of models are answered here. The key comes as `x-goog-api-key` (or Bearer), never in the address, which gets into logs. Not here: what
the bodies mean (wires/google_generate, wires/google_embed), how a call goes its way (front.py).
"""

import re
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import parse_qs, unquote_to_bytes

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from freehold.core import ids
from freehold.core.errors import BadRequest, FreeholdError, NotFound
from freehold.core.policy import Principal
from freehold.core.ports import EmbeddingWire, Wire
from freehold.core.validation import decode
from freehold.gateway import listing
from freehold.gateway.passing import Envelope
from freehold.server import google_models
from freehold.server.edge import at_the_edge
from freehold.server.exchange import Exchange, header_lines, printable
from freehold.server.front import Front
from freehold.server.operations import stopping, told_in
from freehold.wires.google_generate import ArrayForm

METHOD: Final = "generateContent"
STREAM: Final = "streamGenerateContent"
COUNT: Final = "countTokens"
MODELS: Final = b"/v1beta/models"
TUNED: Final = b"/v1beta/tunedModels"
ESTIMATED: Final = ("x-freehold-estimated", "true")
_PLAIN: Final = re.compile(rb"/v1(?:beta)?/models/")
_VERTEX: Final = re.compile(
    rb"/v1(?:beta1?)?/(?:projects/[^/]+/locations/[^/]+/)?publishers/(?P<publisher>[^/]+)/models/"
)
_OWN: Final = (b"/v1beta/", b"/v1beta1/", b"/v1/projects/", b"/v1/publishers/")
"""All of it is the vendor's; under `/v1/` there are others' addresses too."""

_GOOGLE: Final = "google"


_encode: Final = msgspec.json.Encoder().encode

Told = tuple[bytes, list[tuple[str, str]]]
"""A body and further headers."""


class Address(Struct, frozen=True):
    model: str
    method: str


class GoogleDoor(Struct, frozen=True, kw_only=True):
    """`embedding` are the methods that make embeddings, each with its form of the wire."""

    wire: Wire
    embedding: Mapping[str, EmbeddingWire]
    front: Front

    def takes(self, raw_path: bytes) -> bool:
        if raw_path.startswith(_OWN):
            return True
        return _PLAIN.match(raw_path) is not None and _method_of(raw_path) in self._methods

    async def serve(self, exchange: Exchange) -> None:
        method = _method_of(exchange.path)
        if exchange.method == b"GET" or method == COUNT or method in self.embedding:
            await self._aside(exchange, self.embedding.get(method, self.wire))
        else:
            await self._call(exchange)

    @property
    def _methods(self) -> tuple[str, ...]:
        return (METHOD, STREAM, COUNT, *self.embedding)

    async def _call(self, exchange: Exchange) -> None:
        async def ask() -> tuple[Principal, Envelope]:
            address = address_of(exchange.path, self._methods)
            door = self.front.door
            principal = door.authenticate(exchange.headers)
            body = await exchange.read(door.body_bytes_max)
            return principal, Envelope(body, model=address.model, stream=address.method == STREAM)

        form = None if asks_for_events(exchange.target) else ArrayForm()
        await self.front.answer(self.wire, ask, exchange, form=form)

    async def _aside(self, exchange: Exchange, dialect: Wire | EmbeddingWire) -> None:
        """What is no model call in words, within the same bounds."""
        request_id = ids.new("req", self.front.door.clock)

        async def work() -> None:
            body, more = await self._told(exchange)
            lines = header_lines([("content-type", "application/json"), ("x-request-id", request_id), *more])
            await exchange.respond(200, lines, body)

        async def refuse(error: FreeholdError) -> None:
            told = told_in(dialect, error, request_id)
            await exchange.respond(told.status, header_lines(told.headers.items()), told.body)

        await at_the_edge(work(), refuse, exchange=exchange, door=self.front.door, request_id=request_id)

    async def _told(self, exchange: Exchange) -> Told:
        door = self.front.door
        if door.leaving.is_set():
            raise stopping()
        principal = door.authenticate(exchange.headers)
        if exchange.method == b"GET":
            return await self._listed(principal, exchange), []
        address = address_of(exchange.path, self._methods)
        body = await exchange.read(door.body_bytes_max)
        if address.method == COUNT:
            return await self._counted(principal, address.model, body)
        envelope = Envelope(body, model=address.model)
        wire = self.embedding[address.method]
        made = await self.front.gateway.embed(principal, envelope, wire=wire, headers=exchange.headers)
        return made.body, [("x-freehold-model", printable(f"{made.provider}/{made.model}"))]

    async def _counted(self, principal: Principal, model: str, body: bytes) -> Told:
        """The request itself is in the body, or under `generateContentRequest` there."""
        given = decode(body, _COUNTED).request
        envelope = Envelope(bytes(given) if isinstance(given, Raw) else body, model=model)
        counted = await self.front.gateway.count(principal, envelope, wire=self.wire.name)
        return _encode({"totalTokens": counted.input_tokens}), [ESTIMATED] if counted.estimated else []

    async def _listed(self, principal: Principal, exchange: Exchange) -> bytes:
        """All models, or the one that the path names."""
        path = exchange.path
        if path == TUNED:
            return _encode({"tunedModels": []})
        if path != MODELS and not path.startswith(MODELS + b"/"):
            raise _unknown(path, self._methods)
        query = _query(exchange.target)
        page = google_models.page_of(query.get("pageSize"), query.get("pageToken"))
        models = await listing.visible(self.front.gateway.models, principal, clock=self.front.door.clock)
        if path == MODELS:
            return _encode(google_models.listed(models, page))
        wanted = unquote_to_bytes(path.removeprefix(MODELS + b"/")).decode("utf-8", "replace")
        return _encode(google_models.found(models, wanted))


class _Counted(Struct):
    request: Raw | UnsetType = msgspec.field(default=UNSET, name="generateContentRequest")


_COUNTED: Final = msgspec.json.Decoder(_Counted)


def address_of(path: bytes, methods: Collection[str]) -> Address:
    """Raises NotFound for what is not served, BadRequest for a name that is no UTF-8."""
    at = _PLAIN.match(path) or _VERTEX.match(path)
    if at is None:
        raise _unknown(path, methods)
    try:
        publisher = unquote_to_bytes(at.groupdict().get("publisher") or _GOOGLE.encode()).decode()
        rest = unquote_to_bytes(path[at.end() :]).decode()
    except UnicodeDecodeError as error:
        raise BadRequest("expected UTF-8, percent-encoded", field="model") from error
    model, _, method = rest.rpartition(":")
    if not model or method not in methods:
        raise _unknown(path, methods)
    return Address(model if publisher == _GOOGLE else f"{publisher}/{model}", method)


def asks_for_events(target: bytes) -> bool:
    return _query(target).get("alt") == "sse"


def _query(target: bytes) -> dict[str, str]:
    _, _, query = target.partition(b"?")
    return {name: values[-1] for name, values in parse_qs(query.decode("latin-1")).items()}


def _method_of(path: bytes) -> str:
    """May be percent-encoded, its colon too."""
    return unquote_to_bytes(path).rpartition(b":")[2].decode("latin-1")


def _unknown(path: bytes, methods: Collection[str]) -> NotFound:
    served = ", ".join(f"/v1beta/models/{{model}}:{method}" for method in methods)
    shown = path[:200].decode("ascii", "replace")
    return NotFound(f"{shown} is not served; of Google's API there are: {served}")
