"""Server: the door of Amazon Bedrock's runtime, for AWS's SDKs: Converse and InvokeModel, whole and streamed, answered by any model.

The model stands in the path, percent-encoded (an ARN has slashes, ids have colons), so paths are read raw; `/bedrock` may stand before
it. A request is signed (SigV4, in the name of an API key: governance/keys.py, AccessPair) or bears the key itself, which SDKs send over
TLS only. Not here: what the bodies mean (wires/bedrock_converse, bedrock_invoke.py), how a call goes its way (front.py).
"""

from collections.abc import Callable
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes

from msgspec import Struct, structs

from freehold.core.errors import BadRequest, FreeholdError, NotFound, Unauthenticated
from freehold.core.messages import Extra, ModelRequest, ModelResponse, raw
from freehold.core.policy import Principal
from freehold.core.ports import StreamEncoder
from freehold.core.stream import Finished, StreamEvent
from freehold.gateway.passing import Envelope
from freehold.server.bedrock_invoke import ElapsedMs, InvokedWire
from freehold.server.exchange import Exchange
from freehold.server.front import Front
from freehold.wires._aws_refused import unknown_key
from freehold.wires._aws_sigv4 import ALGORITHM
from freehold.wires._aws_sigv4_verify import Head, claimed
from freehold.wires.bedrock_converse import BedrockConverse

PREFIXES: Final = (b"/model/", b"/bedrock/model/")
CONVERSE: Final = {b"converse": False, b"converse-stream": True}
INVOKE: Final = {b"invoke": False, b"invoke-with-response-stream": True}
OPERATIONS: Final = CONVERSE | INVOKE
"""To whether it streams."""

SERVICES: Final = frozenset({"bedrock"})
"""What a signature may be for; the runtime's endpoints are signed for so, too."""

REQUEST_ID: Final = "x-amzn-requestid"

FindSigner: TypeAlias = Callable[[str], tuple[Principal, str]]
"""Access key id to who signs with it, and the secret. Raises Unauthenticated. Never waits."""


class Address(Struct, frozen=True):
    model: str
    stream: bool


class BedrockDoor(Struct, frozen=True, kw_only=True):
    front: Front
    signer: FindSigner

    def takes(self, raw_path: bytes) -> bool:
        return raw_path.startswith(PREFIXES)

    async def serve(self, exchange: Exchange) -> None:
        async def ask() -> tuple[Principal, Envelope]:
            address = address_of(exchange.path)
            principal, body = await self._read(exchange)
            return principal, Envelope(body or b"{}", model=address.model, stream=address.stream)

        clock = self.front.door.clock
        started_s = clock.monotonic_s()

        def elapsed_ms() -> int:
            return round((clock.monotonic_s() - started_s) * 1000)

        invoked = exchange.path.rpartition(b"/")[2] in INVOKE
        wire = InvokedWire(elapsed_ms) if invoked else TimedConverse(elapsed_ms)
        await self.front.answer(wire, ask, exchange, request_id_as=REQUEST_ID)

    async def _read(self, exchange: Exchange) -> tuple[Principal, bytes]:
        """Who asks, and the body. Nobody without a known key makes us read one."""
        door = self.front.door
        if not exchange.headers.get("authorization", "").startswith(ALGORITHM):
            return door.authenticate(exchange.headers), await exchange.read(door.body_bytes_max)
        pairs = [(_text(name), _text(value)) for name, value in exchange.pairs]
        head = Head(exchange.method.decode(), _text(exchange.target), pairs)
        claim = claimed(head, now_s=door.clock.now_ms() / 1000, services=SERVICES)
        if claim.session_token is not None:
            raise unknown_key()  # Nobody here hands out session tokens.
        try:
            principal, secret = self.signer(claim.access_key_id)
        except Unauthenticated as error:
            raise unknown_key() from error
        return principal, claim.check(secret, await exchange.read(door.body_bytes_max))


def address_of(raw_path: bytes) -> Address:
    """Raises NotFound for operations that are not served, BadRequest for a model's name that is no UTF-8."""
    _, _, rest = raw_path.partition(b"/model/")
    encoded, _, operation = rest.partition(b"/")
    if not encoded or operation not in OPERATIONS:
        served = ", ".join(f"/model/{{modelId}}/{name.decode()}" for name in OPERATIONS)
        shown = raw_path[:200].decode("ascii", "replace")
        raise NotFound(
            f"{shown} is not served; of Bedrock's runtime there are: {served} (modelId percent-encoded)"
        )
    try:
        return Address(unquote_to_bytes(encoded).decode(), OPERATIONS[operation])
    except UnicodeDecodeError as error:
        raise BadRequest("expected UTF-8, percent-encoded", field="modelId") from error


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


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
