"""The server's application: model calls (exchange.py), all else as ASGI, and a stop that loses nobody's answer.

How it comes onto a socket: listener.py. What a request's path means: routing.py.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import cache, partial
from typing import Any, Final, Protocol

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from freehold.core import ids
from freehold.core.errors import BadRequest, FreeholdError, NotFound
from freehold.server.exchange import Answer, Exchange
from freehold.server.front import Front
from freehold.server.openapi import document
from freehold.server.operations import (
    Call,
    Door,
    Endpoint,
    Operation,
    endpoint,
    error_response,
    json_response,
    stopping,
)
from freehold.server.routing import Refused, Route, Router

OPENAPI_PATH: Final = "/openapi.json"
CANCELLED_S_MAX: Final = 1.0
"""What is cut short at a stop has this long to say so to its client."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Health = Callable[[], Awaitable["HealthShown"]]


class HealthShown(Struct, frozen=True):
    """`status`: `ok`, `warning` where everything is served and yet somebody should look, `degraded` where not everything is.

    `checks`: name to `ok` or to what is wrong.
    """

    status: str
    version: str
    checks: dict[str, str]


class VendorDoor(Protocol):
    """Model calls at addresses that say more than which wire is spoken there."""

    def takes(self, raw_path: bytes) -> bool: ...
    async def serve(self, exchange: Exchange) -> None: ...


class Server:
    """ASGI, but for what it takes over itself. Lifespan events mean nothing here: what must be opened was opened in app.py."""

    def __init__(
        self, front: Front, vendor_doors: Sequence[VendorDoor], door: Door, router: "Router[Endpoint]"
    ) -> None:
        self._front = front
        self._vendor_doors = vendor_doors
        self._door = door
        self._router = router
        self._running: set[asyncio.Task[Any] | None] = set()

    def takes(self, raw_path: bytes) -> bool:
        """Whether requests there are for `answer` and not for ASGI."""
        return raw_path in self._front.paths or any(one.takes(raw_path) for one in self._vendor_doors)

    def begin(self, exchange: Exchange) -> None:
        """Starts to answer, in a task where something has to be waited for. Of its body, only what came with the head is there."""
        if exchange.more_body or exchange.head.path not in self._front.paths:
            exchange.start(self.answer)
        elif (rest := self._front.begin(exchange)) is not None:
            exchange.start(partial(self._finish, rest))

    async def _finish(self, rest: Answer, exchange: Exchange) -> None:
        self._running.add(exchange.task)
        try:
            await rest(exchange)
        finally:
            self._running.discard(exchange.task)

    async def answer(self, exchange: Exchange) -> None:
        self._running.add(exchange.task)
        try:
            if exchange.path in self._front.paths:
                await self._front.serve(exchange)
            else:
                await next(one for one in self._vendor_doors if one.takes(exchange.path)).serve(exchange)
        finally:
            self._running.discard(exchange.task)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        task = asyncio.current_task()
        self._running.add(task)
        try:
            await self._operate(Request(scope, receive), send)
        finally:
            self._running.discard(task)

    async def leave(self, grace_s: float) -> None:
        """Event streams end at once, whatever else runs within `grace_s`; what then still runs tells its client and ends."""
        self._door.leaving.set()
        running = {task for task in self._running if task is not None}
        begun = self._front.ends()
        if running or begun:
            _, late = await asyncio.wait([*running, *begun], timeout=grace_s)
            stopped = self._front.stop()
            for task in running & late:
                task.cancel()
            if late:
                await asyncio.wait([*(running & late), *stopped], timeout=CANCELLED_S_MAX)

    async def _operate(self, request: Request, send: Send) -> None:
        method, path = request.method, request.scope["raw_path"]
        try:
            if self._door.leaving.is_set():
                raise stopping()
            found = self._router.find(method, path)
            if not isinstance(found, Refused):
                request.scope["path_params"] = found.values
                response = await found.target(request)
            else:
                response = self._refused(found, method, path)
        except FreeholdError as error:
            response = error_response(error, self._door.dialect, ids.new("req", self._door.clock))
        await response(request.scope, request.receive, send)

    def _refused(self, refused: Refused, method: str, path: bytes) -> Response:
        shown = path[:200].decode("ascii", "replace")
        request_id = ids.new("req", self._door.clock)
        if not refused.methods:
            error = NotFound(f"there is nothing at {shown}; {OPENAPI_PATH} lists what there is")
            return error_response(error, self._door.dialect, request_id)
        allowed = ", ".join(refused.methods)
        response = error_response(
            BadRequest(f"{shown} takes {allowed}, not {method}"), self._door.dialect, request_id
        )
        response.status_code = 405
        response.headers["allow"] = allowed
        return response


def build(
    front: Front,
    vendor_doors: Sequence[VendorDoor],
    door: Door,
    operations: Sequence[Operation],
    health: Health,
) -> Server:
    every = [*operations, *_common(operations, front, health)]
    routes = [Route(one.method, one.path, endpoint(one, door)) for one in every]
    return Server(front, vendor_doors, door, Router(routes))


def _common(operations: Sequence[Operation], front: Front, health: Health) -> list[Operation]:
    async def healthz(call: Call) -> Response:
        shown = await health()
        return json_response(
            shown, status=503 if shown.status == "degraded" else 200, request_id=call.request_id
        )

    @cache
    def described() -> dict[str, Any]:
        return document([*operations, *common], front.paths)

    async def openapi(_: Call) -> dict[str, Any]:
        """Made when somebody asks: it takes 30 ms, more than all else of a server's start on a database that is there."""
        return await asyncio.to_thread(described)

    common = [
        Operation(method="GET", path="/healthz", id="health", tag="server", summary="Whether the server works.",
                  handler=healthz, open_to_all=True, answer=HealthShown),
        Operation(method="GET", path=OPENAPI_PATH, id="openapi", tag="server", summary="This API's OpenAPI document.",
                  handler=openapi, open_to_all=True),
    ]  # fmt: skip
    return common
