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
from freehold.core.errors import BadRequest, FreeholdError, Internal, TooLarge
from freehold.core.messages import ModelRequest
from freehold.core.policy import Principal
from freehold.core.ports import Clock, StreamEncoder, Wire
from freehold.core.stream import Folding
from freehold.gateway.passing import Envelope
from freehold.gateway.pipeline import Gateway
from freehold.server.operations import Authenticate

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON: Final = b"application/json"
_NO_REQUEST: Final = ModelRequest(model="", messages=())


class _Started(Exception):
    """The answer had begun: its error went down the stream, there is no status left to change."""


class Front(Struct, frozen=True, kw_only=True):
    """`paths` maps a path to the wire that is spoken there. POST only."""

    paths: dict[str, Wire]
    gateway: Gateway
    authenticate: Authenticate
    clock: Clock
    body_bytes_max: int

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        wire = self.paths[scope["path"]]
        request_id = ids.new("req", self.clock)
        try:
            if scope["method"] != "POST":
                raise BadRequest(f"expected POST, got {scope['method']}")
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            principal = self.authenticate(headers)
            body = await _read(receive, headers, self.body_bytes_max)
            call = _Call(self, wire, request_id, send)
            await _unless_hung_up(receive, call.answer(principal, Envelope(body), headers))
        except _Started:
            pass
        except FreeholdError as error:
            await _refuse(error, wire, request_id, send)
        except Exception:  # The task's outermost edge.
            log.exception("request.failed", extra={"request_id": request_id, "path": scope["path"]})
            await _refuse(_internal(request_id), wire, request_id, send)


class _Call:
    """One call on its way through. Holds what its parts share."""

    __slots__ = ("_front", "_request_id", "_send", "_wire")

    def __init__(self, front: Front, wire: Wire, request_id: str, send: Send) -> None:
        self._front = front
        self._wire = wire
        self._request_id = request_id
        self._send = send

    async def answer(self, principal: Principal, envelope: Envelope, headers: dict[str, str]) -> None:
        gateway, name = self._front.gateway, self._wire.name
        if await gateway.passes(principal, wire=name, model=envelope.model):
            await self._forward(principal, envelope, headers)
        else:
            await self._translate(principal, self._wire.decode_request(envelope.body))

    async def _forward(self, principal: Principal, envelope: Envelope, headers: dict[str, str]) -> None:
        async with self._front.gateway.forward(
            principal, envelope, wire=self._wire.name, headers=headers
        ) as passing:
            served = f"{passing.provider}/{passing.model}"
            if not envelope.stream:
                await self._whole(await passing.read(), served)
                return
            await self._start(200, self._wire.stream_content_type.encode(), served)
            try:
                async for chunk in passing.chunks():
                    await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            except Exception as error:
                raise await self._broken(error, self._wire.stream_encoder(_NO_REQUEST)) from error
            await self._send({"type": "http.response.body", "body": b""})

    async def _translate(self, principal: Principal, request: ModelRequest) -> None:
        created = self._front.clock.now_ms() // 1000
        async with self._front.gateway.call(principal, request, wire=self._wire.name) as answer:
            served = f"{answer.provider}/{answer.model}"
            if not request.stream:
                folding = Folding()
                async for event in answer:
                    folding.add(event)
                await self._whole(self._wire.encode_response(folding.response(), created=created), served)
                return
            encoder = self._wire.stream_encoder(request, created=created)
            await self._start(200, self._wire.stream_content_type.encode(), served)
            try:
                async for event in answer:
                    if data := encoder.encode(event):
                        await self._send({"type": "http.response.body", "body": data, "more_body": True})
            except Exception as error:
                raise await self._broken(error, encoder) from error
            await self._send({"type": "http.response.body", "body": encoder.end()})

    async def _whole(self, body: bytes, served: str) -> None:
        await self._start(200, _JSON, served, length=len(body))
        await self._send({"type": "http.response.body", "body": body})

    async def _start(
        self, status: int, content_type: bytes, served: str, *, length: int | None = None
    ) -> None:
        request_id = self._request_id.encode()
        headers = [
            (b"content-type", content_type),
            (b"request-id", request_id),
            (b"x-request-id", request_id),
            (b"x-freehold-model", served.encode("ascii", "replace")),
        ]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        else:
            headers.append((b"cache-control", b"no-store"))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _broken(self, error: Exception, encoder: StreamEncoder) -> _Started:
        """Tells the client, in its dialect, that the answer ends here."""
        if not isinstance(error, FreeholdError):
            log.error("stream.failed", exc_info=error, extra={"request_id": self._request_id})
            error = _internal(self._request_id)
        await self._send({"type": "http.response.body", "body": encoder.error(error, self._request_id)})
        return _Started()


async def _unless_hung_up(receive: Receive, work: Awaitable[None]) -> None:
    """Carries out `work`; cancels it when the client goes away first.

    `receive` is watched in a task of its own that never outlives this call: asyncio.TaskGroup would cost as much again.
    """
    mine = asyncio.current_task()
    watch = asyncio.ensure_future(receive())
    gone = False

    def hang_up(watched: "asyncio.Future[MutableMapping[str, Any]]") -> None:
        nonlocal gone
        if not watched.cancelled() and mine is not None:
            gone = True
            mine.cancel()

    watch.add_done_callback(hang_up)
    try:
        await work
    except asyncio.CancelledError:
        if not gone or mine is None or mine.uncancel() > 0:
            raise
    finally:
        watch.remove_done_callback(hang_up)
        watch.cancel()


async def _read(receive: Receive, headers: dict[str, str], size_max: int) -> bytes:
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > size_max:
        raise _too_large(size_max)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return body
    pieces, size = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > size_max:
            raise _too_large(size_max)
    return b"".join(pieces)


def _too_large(size_max: int) -> TooLarge:
    return TooLarge(f"a request body may have {size_max} bytes at most (server.body_bytes_max)")


def _internal(request_id: str) -> Internal:
    return Internal(f"something went wrong here; the log has it under {request_id}")


async def _refuse(error: FreeholdError, wire: Wire, request_id: str, send: Send) -> None:
    told = wire.encode_error(error, request_id)
    if error.detail is not None:
        log.warning(
            "call.refused", extra={"request_id": request_id, "code": error.code, "detail": error.detail}
        )
    headers = {
        "request-id": request_id,
        "x-request-id": request_id,
        "content-length": str(len(told.body)),
        **told.headers,
    }
    await send({
        "type": "http.response.start",
        "status": told.status,
        "headers": [
            (name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()
        ],
    })
    await send({"type": "http.response.body", "body": told.body})
