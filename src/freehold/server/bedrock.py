"""Server: the door of Amazon Bedrock's runtime, for AWS's SDKs: Converse and InvokeModel, whole and streamed, answered by any model.

The model stands in the path, percent-encoded (an ARN has slashes, ids have colons), so paths are read raw; `/bedrock` may stand before
it. Not here: who asks (aws_signed.py), what the bodies mean (wires/bedrock_*, bedrock_invoke.py), how a call goes its way
(front.py), what no model is asked for (bedrock_asides.py), what there is nothing of (bedrock_unserved.py).
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes

from msgspec import Struct, structs

from freehold.core import ids
from freehold.core.errors import BadRequest, FreeholdError, NotFound
from freehold.core.messages import Extra, ModelRequest, ModelResponse, raw
from freehold.core.policy import Principal
from freehold.core.ports import EmbeddingWire, StreamEncoder
from freehold.core.stream import Finished, StreamEvent
from freehold.gateway.passing import Envelope
from freehold.server import bedrock_asides, bedrock_unserved
from freehold.server.aws_signed import FindSigner, read_signed
from freehold.server.bedrock_invoke import INPUT_TOKENS, ElapsedMs, InvokedWire, embedding_dialect_of
from freehold.server.edge import at_the_edge
from freehold.server.exchange import Exchange, header_lines, printable
from freehold.server.front import Ask, Front
from freehold.server.operations import stopping, told_in
from freehold.wires.bedrock_converse import WIRE, BedrockConverse

PREFIXES: Final = (b"/model/", b"/bedrock/model/")
OURS: Final = b"/bedrock"
ASIDES: Final = tuple(
    prefix + path for prefix in (b"", OURS) for path in (bedrock_asides.MODELS, *bedrock_unserved.PATHS)
)
COUNT_TOKENS: Final = b"count-tokens"
CONVERSE: Final = {b"converse": False, b"converse-stream": True}
INVOKE: Final = {b"invoke": False, b"invoke-with-response-stream": True}
OPERATIONS: Final = CONVERSE | INVOKE
"""To whether it streams."""

REQUEST_ID: Final = "x-amzn-requestid"


Tell: TypeAlias = Callable[[Exchange], Awaitable[bedrock_asides.Told | None]]


class Address(Struct, frozen=True):
    model: str
    stream: bool


class BedrockDoor(Struct, frozen=True, kw_only=True):
    front: Front
    signer: FindSigner

    def takes(self, raw_path: bytes) -> bool:
        return raw_path.startswith(PREFIXES + ASIDES)

    async def serve(self, exchange: Exchange) -> None:
        if exchange.path.startswith(ASIDES) or exchange.path.endswith(b"/" + COUNT_TOKENS):
            await self._aside(exchange, self._told)
        elif exchange.path.rpartition(b"/")[2] in INVOKE and exchange.method == b"POST":
            await self._aside(exchange, self._invoked)
        else:
            await self._call(exchange, partial(self._asked, exchange))

    async def _asked(self, exchange: Exchange) -> tuple[Principal, Envelope]:
        address = address_of(exchange.path)
        principal, body = await read_signed(exchange, self.front.door, self.signer)
        return principal, Envelope(body or b"{}", model=address.model, stream=address.stream)

    async def _call(self, exchange: Exchange, ask: Ask) -> None:
        clock = self.front.door.clock
        started_s = clock.monotonic_s()

        def elapsed_ms() -> int:
            return round((clock.monotonic_s() - started_s) * 1000)

        if exchange.path.rpartition(b"/")[2] in INVOKE:
            wire = InvokedWire(elapsed_ms)
            more = wire.usage_lines
            await self.front.answer(wire, ask, exchange, request_id_as=REQUEST_ID, more_lines=more)
        else:
            await self.front.answer(TimedConverse(elapsed_ms), ask, exchange, request_id_as=REQUEST_ID)

    async def _aside(self, exchange: Exchange, tell: Tell) -> None:
        """Answers that no model writes, within the same bounds and in the same dialect."""
        door = self.front.door
        request_id = ids.new("req", door.clock)

        async def work() -> None:
            if (told := await tell(exchange)) is not None:
                body, more = told
                lines = header_lines([("content-type", "application/json"), (REQUEST_ID, request_id), *more])
                await exchange.respond(200, lines, body)

        async def refuse(error: FreeholdError) -> None:
            told = told_in(WIRE, error, request_id)
            await exchange.respond(told.status, header_lines(told.headers.items()), told.body)

        await at_the_edge(work(), refuse, exchange=exchange, door=door, request_id=request_id)

    async def _invoked(self, exchange: Exchange) -> bedrock_asides.Told | None:
        """What is asked for is known once the body is here. None: a model has been called, and all is answered."""
        if self.front.door.leaving.is_set():
            raise stopping()
        principal, envelope = asked = await self._asked(exchange)
        wire = embedding_dialect_of(envelope.body)
        if wire is None:

            async def ask() -> tuple[Principal, Envelope]:
                return asked

            await self._call(exchange, ask)
            return None
        if envelope.stream:
            raise BadRequest("embeddings are not streamed: call InvokeModel")
        await self._embed(exchange, principal, envelope, wire)
        return None

    async def _embed(
        self, exchange: Exchange, principal: Principal, envelope: Envelope, wire: EmbeddingWire
    ) -> None:
        request_id = ids.new("req", self.front.door.clock)
        try:
            made = await self.front.gateway.embed(principal, envelope, wire=wire, headers=exchange.headers)
        except FreeholdError as error:
            told = told_in(wire, error, request_id)
            await exchange.respond(told.status, header_lines(told.headers.items()), told.body)
            return
        headers = {
            "content-type": "application/json",
            REQUEST_ID: request_id,
            "x-freehold-model": printable(f"{made.provider}/{made.model}"),
        }
        if made.usage is not None:
            headers[INPUT_TOKENS] = str(made.usage.input_tokens)
        await exchange.respond(200, header_lines(headers.items()), made.body)

    async def _told(self, exchange: Exchange) -> bedrock_asides.Told:
        door, gateway = self.front.door, self.front.gateway
        if door.leaving.is_set():
            raise stopping()
        principal, body = await read_signed(exchange, door, self.signer)
        path = exchange.path.removeprefix(OURS)
        if path.startswith(bedrock_unserved.PATHS):
            return bedrock_unserved.answer(exchange.method, path), []
        if exchange.path.endswith(COUNT_TOKENS) and exchange.method == b"POST":
            model = address_of(exchange.path, {COUNT_TOKENS: False}).model
            return await bedrock_asides.count(gateway, principal, model, body)
        if exchange.method == b"GET" and bedrock_asides.MODELS in exchange.path:
            return await bedrock_asides.models(gateway, principal, door.clock, exchange.target)
        shown = exchange.method.decode("ascii", "replace")
        raise NotFound(f"{shown} is not served at {exchange.path[:200].decode('ascii', 'replace')}")


def address_of(raw_path: bytes, operations: Mapping[bytes, bool] = OPERATIONS) -> Address:
    """Raises NotFound for operations that are not served, BadRequest for a model's name that is no UTF-8."""
    _, _, rest = raw_path.partition(b"/model/")
    encoded, _, operation = rest.partition(b"/")
    if not encoded or operation not in operations:
        served = ", ".join(f"/model/{{modelId}}/{name.decode()}" for name in OPERATIONS)
        shown = raw_path[:200].decode("ascii", "replace")
        raise NotFound(
            f"{shown} is not served; of Bedrock's runtime there are: {served} (modelId percent-encoded)"
        )
    try:
        return Address(unquote_to_bytes(encoded).decode(), operations[operation])
    except UnicodeDecodeError as error:
        raise BadRequest("expected UTF-8, percent-encoded", field="modelId") from error


class TimedConverse(BedrockConverse):
    """For one call: tells its client how long it took, as far as the provider did not (`metrics.latencyMs` is required)."""

    def __init__(self, elapsed_ms: ElapsedMs) -> None:
        self._elapsed_ms = elapsed_ms

    def timed(self, extra: Extra) -> Extra:
        own = extra.get(self.name, {})
        if "metrics" in own:
            return extra
        metrics = {"latencyMs": self._elapsed_ms()}
        return {**extra, self.name: {**own, "metrics": raw(metrics)}}

    def encode_response(
        self, response: ModelResponse, *, created: int = 0, request: ModelRequest | None = None
    ) -> bytes:
        timed = structs.replace(response, extra=self.timed(response.extra))
        return super().encode_response(timed, created=created, request=request)

    def stream_encoder(self, request: ModelRequest, *, created: int = 0) -> StreamEncoder:
        return _TimedEncoder(super().stream_encoder(request, created=created), self)


class _TimedEncoder:
    __slots__ = ("_encoder", "_wire")

    def __init__(self, encoder: StreamEncoder, wire: TimedConverse) -> None:
        self._encoder = encoder
        self._wire = wire

    def encode(self, event: StreamEvent) -> bytes:
        if isinstance(event, Finished):
            event = structs.replace(event, extra=self._wire.timed(event.extra))
        return self._encoder.encode(event)

    def error(self, error: FreeholdError, request_id: str) -> bytes:
        return self._encoder.error(error, request_id)

    def end(self) -> bytes:
        return self._encoder.end()
