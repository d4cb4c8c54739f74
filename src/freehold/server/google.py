"""Server: the door of Google's generateContent, for the vendor's SDKs, answered by any model.

Model and method stand in the path: `/v1beta/models/{model}:generateContent`, and so under `/v1/`. The model may be any name that the
gateway knows, with its slash. Counts of tokens and lists of models are answered here, without asking a model. The key comes as `x-goog-api-key` (or Bearer), never in the address, which gets into logs. Not here: what
the bodies mean (wires/google_generate), how a call goes its way (front.py).
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, unquote_to_bytes

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from freehold.core import ids
from freehold.core.errors import BadRequest, FreeholdError, NotFound
from freehold.core.policy import Principal
from freehold.core.ports import ModelInfo, Wire
from freehold.core.validation import decode
from freehold.gateway import listing
from freehold.gateway.passing import Envelope
from freehold.server.edge import at_the_edge
from freehold.server.exchange import Exchange, header_lines
from freehold.server.front import Front
from freehold.server.operations import stopping, told_in
from freehold.wires.google_generate import ArrayForm

PREFIXES: Final = (b"/v1beta/models/", b"/v1/models/")
METHODS: Final = {"generateContent": False, "streamGenerateContent": True}
COUNT: Final = "countTokens"
MODELS: Final = b"/v1beta/models"
ESTIMATED: Final = ("x-freehold-estimated", "true")
_ENDINGS: Final = tuple(f":{method}".encode() for method in (*METHODS, COUNT))
_OWN: Final = b"/v1beta/"
"""All of it is the vendor's; under `/v1/` there are others' addresses too."""


_encode: Final = msgspec.json.Encoder().encode

Told = tuple[bytes, list[tuple[str, str]]]
"""A body and further headers."""


class Address(Struct, frozen=True):
    model: str
    stream: bool


class GoogleDoor(Struct, frozen=True, kw_only=True):
    wire: Wire
    front: Front

    def takes(self, raw_path: bytes) -> bool:
        if raw_path.startswith(_OWN):
            return True
        return raw_path.startswith(PREFIXES) and unquote_to_bytes(raw_path).endswith(_ENDINGS)

    async def serve(self, exchange: Exchange) -> None:
        if exchange.method == b"GET" or unquote_to_bytes(exchange.path).endswith(f":{COUNT}".encode()):
            await self._aside(exchange)
        else:
            await self._call(exchange)

    async def _call(self, exchange: Exchange) -> None:
        async def ask() -> tuple[Principal, Envelope]:
            address = address_of(exchange.target)
            door = self.front.door
            principal = door.authenticate(exchange.headers)
            body = await exchange.read(door.body_bytes_max)
            return principal, Envelope(body, model=address.model, stream=address.stream)

        form = None if asks_for_events(exchange.target) else ArrayForm()
        await self.front.answer(self.wire, ask, exchange, form=form)

    async def _aside(self, exchange: Exchange) -> None:
        """Answers that no model gives, within the same bounds and in the same dialect."""
        request_id = ids.new("req", self.front.door.clock)

        async def work() -> None:
            body, more = await self._told(exchange)
            lines = header_lines([("content-type", "application/json"), ("x-request-id", request_id), *more])
            await exchange.respond(200, lines, body)

        async def refuse(error: FreeholdError) -> None:
            told = told_in(self.wire, error, request_id)
            await exchange.respond(told.status, header_lines(told.headers.items()), told.body)

        await at_the_edge(work(), refuse, exchange=exchange, door=self.front.door, request_id=request_id)

    async def _told(self, exchange: Exchange) -> Told:
        door = self.front.door
        if door.leaving.is_set():
            raise stopping()
        principal = door.authenticate(exchange.headers)
        if exchange.method == b"POST":
            model = address_of(exchange.target, {COUNT: False}).model
            return await self._counted(principal, model, await exchange.read(door.body_bytes_max))
        return await self._listed(principal, exchange.path), []

    async def _counted(self, principal: Principal, model: str, body: bytes) -> Told:
        """The request itself is in the body, or under `generateContentRequest` there."""
        given = decode(body, _COUNTED).request
        envelope = Envelope(bytes(given) if isinstance(given, Raw) else body, model=model)
        counted = await self.front.gateway.count(principal, envelope, wire=self.wire.name)
        return _encode({"totalTokens": counted.input_tokens}), [ESTIMATED] if counted.estimated else []

    async def _listed(self, principal: Principal, path: bytes) -> bytes:
        """All models, or the one that the path names."""
        if path != MODELS and not path.startswith(MODELS + b"/"):
            raise _unknown(path)
        models = await listing.visible(self.front.gateway.models, principal, clock=self.front.door.clock)
        if path == MODELS:
            return _encode({"models": [_model_json(one) for one in models]})
        wanted = unquote_to_bytes(path.removeprefix(MODELS + b"/")).decode("utf-8", "replace")
        for one in models:
            if wanted == f"{one.provider}/{one.name}":
                return _encode(_model_json(one))
        raise NotFound(f"no model {wanted[:200]!r} is listed", field="name")


class _Counted(Struct):
    request: Raw | UnsetType = msgspec.field(default=UNSET, name="generateContentRequest")


_COUNTED: Final = msgspec.json.Decoder(_Counted)


def _model_json(info: ModelInfo) -> dict[str, Any]:
    name = f"{info.provider}/{info.name}"
    told = {
        "name": f"models/{name}",
        "displayName": info.display_name or name,
        "supportedGenerationMethods": [*METHODS, COUNT],
        "inputTokenLimit": info.context_tokens,
        "outputTokenLimit": info.output_tokens_max,
        "thinking": info.reasoning,
    }
    return {field: value for field, value in told.items() if value is not None}


def address_of(target: bytes, methods: Mapping[str, bool] = METHODS) -> Address:
    """Raises NotFound for what is not served, BadRequest for a name that is no UTF-8."""
    path, _, _ = target.partition(b"?")
    prefix = next((one for one in PREFIXES if path.startswith(one)), None)
    if prefix is None:
        raise _unknown(path)
    try:
        rest = unquote_to_bytes(path.removeprefix(prefix)).decode()
    except UnicodeDecodeError as error:
        raise BadRequest("expected UTF-8, percent-encoded", field="model") from error
    model, _, method = rest.rpartition(":")
    if not model or method not in methods:
        raise _unknown(path)
    return Address(model, methods[method])


def asks_for_events(target: bytes) -> bool:
    _, _, query = target.partition(b"?")
    return parse_qs(query.decode("latin-1")).get("alt") == ["sse"]


def _unknown(path: bytes) -> NotFound:
    served = ", ".join(f"/v1beta/models/{{model}}:{method}" for method in (*METHODS, COUNT))
    shown = path[:200].decode("ascii", "replace")
    return NotFound(f"{shown} is not served; of Google's API there are: {served}")
