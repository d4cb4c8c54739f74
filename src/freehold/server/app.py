"""The server's ASGI application: the hot path first, everything else through Starlette."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from freehold.core import ids
from freehold.core.errors import BadRequest, FreeholdError, NotFound
from freehold.server.front import Front, Receive, Scope, Send
from freehold.server.openapi import document
from freehold.server.operations import Call, Door, Operation, endpoint, error_response, json_response

OPENAPI_PATH: Final = "/openapi.json"

Health = Callable[[], Awaitable["HealthShown"]]


class HealthShown(Struct, frozen=True):
    """`status`: `ok`, or `degraded` where a check failed. `checks`: name to `ok` or to what is wrong."""

    status: str
    version: str
    checks: dict[str, str]


class Server:
    """ASGI. Lifespan events are answered and mean nothing: what must be opened was opened in app.py."""

    def __init__(self, front: Front, rest: Starlette) -> None:
        self._front = front
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in self._front.paths:
            await self._front.serve(scope, receive, send)
        else:
            await self._rest(scope, receive, send)


def build(front: Front, door: Door, operations: Sequence[Operation], health: Health) -> Server:
    every = [*operations, *_common(operations, health)]
    routes = [Route(one.path, endpoint(one, door), methods=[one.method]) for one in every]
    handlers: dict[Any, Any] = {HTTPException: _no_such_path(door)}
    return Server(front, Starlette(routes=_ordered(routes), exception_handlers=handlers))


def _ordered(routes: Sequence[Route]) -> list[Route]:
    """The more exact path first: Starlette takes the first that matches."""
    return sorted(routes, key=lambda route: (":path" in route.path, route.path.count("{"), route.path))


def _common(operations: Sequence[Operation], health: Health) -> list[Operation]:
    described = document(operations)

    async def healthz(call: Call) -> Response:
        shown = await health()
        return json_response(shown, status=200 if shown.status == "ok" else 503, request_id=call.request_id)

    async def openapi(_: Call) -> dict[str, Any]:
        return described

    return [
        Operation(method="GET", path="/healthz", id="health", tag="server", summary="Whether the server works.",
                  handler=healthz, open_to_all=True, answer=HealthShown),
        Operation(method="GET", path=OPENAPI_PATH, id="openapi", tag="server", summary="This API's OpenAPI document.",
                  handler=openapi, open_to_all=True),
    ]  # fmt: skip


def _no_such_path(door: Door) -> Callable[[Request, HTTPException], Awaitable[Response]]:
    async def answer(request: Request, error: HTTPException) -> Response:
        told: FreeholdError
        if error.status_code == 405:
            told = BadRequest(f"{request.method} is not served at {request.url.path[:200]}")
        else:
            told = NotFound(
                f"there is nothing at {request.url.path[:200]}; {OPENAPI_PATH} lists what there is"
            )
        return error_response(told, door.dialect, ids.new("req", door.clock))

    return answer
