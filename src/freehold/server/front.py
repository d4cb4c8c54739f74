"""The hot path: model calls, as plain ASGI. One coroutine a request; nothing here waits for the database.

Same wire on both sides: bytes pass through. Otherwise the client's wire decodes the request and encodes the answer. A client
that hangs up hangs up the provider. ASGI: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from msgspec import Struct

from freehold.core import ids
from freehold.core.errors import BadRequest, FreeholdError
from freehold.core.messages import ModelRequest
from freehold.core.policy import Principal
from freehold.core.ports import StreamEncoder, Wire
from freehold.core.stream import Folding
from freehold.gateway.passing import Envelope
from freehold.gateway.pipeline import Gateway
from freehold.server.operations import Door, internal, stopping, told_in, too_large

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

WATCH_AFTER_S: Final = 0.02
"""From when on it is watched whether the client is still there. Quick answers are spared the watching: a tenth of their cost."""

_JSON: Final = b"application/json"
_NO_REQUEST: Final = ModelRequest(model="", messages=())


class _Gone(Exception):
    """The client hung up before its request was whole."""


class Front(Struct, frozen=True, kw_only=True):
    """`paths` maps a raw path to the wire that is spoken there. POST only. Of the door, the dialect is not used."""

    paths: dict[bytes, Wire]
    gateway: Gateway
    door: Door

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = _Call(self, self.paths[scope["raw_path"]], send)
        try:
            if scope["method"] != "POST":
                await call.refuse_method(scope["method"])
                return
            if self.door.leaving.is_set():
                raise stopping()
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            principal = self.door.authenticate(headers)
            envelope = Envelope(await _read(receive, headers, self.door.body_bytes_max))
            await _unless_hung_up(receive, call.answer(principal, envelope, headers))
        except FreeholdError as error:
            await call.refuse(error)
        except _Gone:
            await call.refuse(BadRequest("the request broke off"))
        except asyncio.CancelledError:
            if not self.door.leaving.is_set():
                raise
            await call.refuse(stopping())
        except Exception:  # The task's outermost edge.
            log.exception("request.failed", extra={"request_id": call.request_id})
            await call.refuse(internal(call.request_id))


class _Call:
    """One call on its way through. Holds what its parts share."""

    __slots__ = ("_encoder", "_front", "_send", "_started", "_wire", "request_id")

    def __init__(self, front: Front, wire: Wire, send: Send) -> None:
        self._front = front
        self._wire = wire
        self._send = send
        self._started = False
        self._encoder: StreamEncoder | None = None
        self.request_id = ids.new("req", front.door.clock)

    async def answer(self, principal: Principal, envelope: Envelope, headers: dict[str, str]) -> None:
        """The last piece goes out when the gateway is done: whoever has the whole answer finds its record."""
        if await self._front.gateway.passes(principal, wire=self._wire.name, model=envelope.model):
            last = await self._forward(principal, envelope, headers)
        else:
            last = await self._translate(principal, self._wire.decode_request(envelope.body))
        await self._send({"type": "http.response.body", "body": last})

    async def _forward(self, principal: Principal, envelope: Envelope, headers: dict[str, str]) -> bytes:
        async with self._front.gateway.forward(
            principal, envelope, wire=self._wire.name, headers=headers
        ) as passing:
            served = f"{passing.provider}/{passing.model}"
            if envelope.stream:
                await self._start(served)
                async for chunk in passing.chunks():
                    await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
                return b""
            body = await passing.read()
        await self._start(served, body=body)
        return body

    async def _translate(self, principal: Principal, request: ModelRequest) -> bytes:
        created = self._front.door.clock.now_ms() // 1000
        async with self._front.gateway.call(principal, request, wire=self._wire.name) as answer:
            served = f"{answer.provider}/{answer.model}"
            if request.stream:
                self._encoder = encoder = self._wire.stream_encoder(request, created=created)
                await self._start(served)
                async for event in answer:
                    if data := encoder.encode(event):
                        await self._send({"type": "http.response.body", "body": data, "more_body": True})
                return encoder.end()
            folding = Folding()
            async for event in answer:
                folding.add(event)
        body = self._wire.encode_response(folding.response(), created=created)
        await self._start(served, body=body)
        return body

    async def _start(self, served: str, *, body: bytes | None = None) -> None:
        """Without a body, a stream."""
        request_id = self.request_id.encode()
        headers = [
            (b"content-type", _JSON if body is not None else self._wire.stream_content_type.encode()),
            (b"request-id", request_id),
            (b"x-request-id", request_id),
            (b"x-freehold-model", served.encode("ascii", "replace")),
        ]
        if body is not None:
            headers.append((b"content-length", b"%d" % len(body)))
        else:
            headers += [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        self._started = True
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def refuse(self, error: FreeholdError) -> None:
        """In the client's dialect; also in the middle of a stream, which ends here."""
        if self._started:
            encoder = self._encoder or self._wire.stream_encoder(_NO_REQUEST)
            if error.detail is not None:
                extra = {"request_id": self.request_id, "code": error.code, "detail": error.detail}
                log.warning("stream.broken", extra=extra)
            await self._send({
                "type": "http.response.body",
                "body": encoder.error(error, self.request_id),
            })
        else:
            await self._refuse(error)

    async def refuse_method(self, method: str) -> None:
        await self._refuse(BadRequest(f"expected POST, got {method}"), 405, {"allow": "POST"})

    async def _refuse(
        self, error: FreeholdError, status: int | None = None, more: dict[str, str] | None = None
    ) -> None:
        told = told_in(self._wire, error, self.request_id)
        headers = {"content-length": str(len(told.body))} | told.headers | (more or {})
        await self._send({
            "type": "http.response.start",
            "status": status or told.status,
            "headers": [
                (name.encode("latin-1"), value.encode("latin-1", "replace"))
                for name, value in headers.items()
            ],
        })
        await self._send({"type": "http.response.body", "body": told.body})


async def _unless_hung_up(receive: Receive, work: Awaitable[None]) -> None:
    """Carries out `work`; cancels it when the client goes away first."""
    watch = _Watch(receive)
    try:
        await work
    except asyncio.CancelledError:
        if not watch.gone():
            raise
    finally:
        watch.end()


class _Watch:
    """Cancels the task that made it once the client has hung up. asyncio.TaskGroup would cost several times as much."""

    __slots__ = ("_hung_up", "_mine", "_receive", "_receiving", "_timer")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._mine = asyncio.current_task()
        self._receiving: asyncio.Future[Message] | None = None
        self._hung_up = False
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._begin)

    def gone(self) -> bool:
        """Whether it was this, and nothing else, that cancelled the task."""
        return self._hung_up and self._mine is not None and self._mine.uncancel() == 0

    def end(self) -> None:
        self._timer.cancel()
        if self._receiving is not None:
            self._receiving.remove_done_callback(self._received)
            self._receiving.cancel()

    def _begin(self) -> None:
        self._receiving = asyncio.ensure_future(self._receive())
        self._receiving.add_done_callback(self._received)

    def _received(self, receiving: "asyncio.Future[Message]") -> None:
        if receiving.cancelled() or receiving.exception() is not None or self._mine is None:
            return
        if receiving.result()["type"] == "http.disconnect":
            self._hung_up = True
            self._mine.cancel()


async def _read(receive: Receive, headers: dict[str, str], size_max: int) -> bytes:
    """Raises TooLarge before more than `size_max` bytes are held."""
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > size_max:
        raise too_large(size_max)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        whole: bytes = message.get("body", b"")
        return whole
    pieces, size = [], 0
    while True:
        if message["type"] != "http.request":
            raise _Gone
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > size_max:
            raise too_large(size_max)
        if not message.get("more_body"):
            return b"".join(pieces)
        message = await receive()
