"""An operation of the native API: declared once, served by Starlette and described in the OpenAPI document.

A handler gets a `Call` whose principal is known and whose body and query are already of their declared types; it gives back
a value (encoded as JSON) or a Starlette response. What it raises becomes an error in the native dialect (Anthropic's shape).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct, field, structs
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from freehold.core import ids
from freehold.core.errors import BadRequest, FreeholdError, Internal, TooLarge, Unavailable
from freehold.core.policy import Principal
from freehold.core.ports import Clock, EmbeddingWire, ErrorBody, Wire
from freehold.core.validation import decode, explained
from freehold.server.authentication import Authentication

log = logging.getLogger(__name__)

ByToken = Callable[[str, Mapping[str, str]], Principal]
"""A token from the query, and what the path says, to who is calling. Raises Unauthenticated. Never waits."""

RETRY_AFTER_S: Final = 1
"""What we advise with a 503 (Anthropic's 529) whose cause doesn't know better."""

_ENCODER: Final = msgspec.json.Encoder()
_QUERY_IGNORED: Final = frozenset({"beta"})


class NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Takes none."""


class Door(Struct, frozen=True, kw_only=True):
    """What every operation is served with. `dialect` says how errors are told; `leaving` is set once the server stops."""

    authenticate: Authentication
    dialect: Wire
    clock: Clock
    body_bytes_max: int
    leaving: asyncio.Event = field(default_factory=asyncio.Event)


class Call(Struct, frozen=True, kw_only=True):
    principal: Principal
    request_id: str
    path: dict[str, str]
    query: Any
    body: Any
    headers: Mapping[str, str]
    leaving: asyncio.Event


Handler = Callable[[Call], Awaitable[Any]]
Endpoint = Callable[[Request], Awaitable[Response]]


class Operation(Struct, frozen=True, kw_only=True):
    """`body` and `query` are msgspec types; `raw_body` hands the bytes over as they are. `answer` documents the answer."""

    method: str
    path: str
    id: str
    summary: str
    handler: Handler
    tag: str
    body: Any = None
    raw_body: bool = False
    query: type[Struct] = NoQuery
    answer: Any = None
    status: int = 200
    media_type: str = "application/json"
    open_to_all: bool = False
    body_bytes_max: int | None = None
    """Of its body, where that is less than the door takes."""

    by_token: ByToken | None = None
    """Who is calling where `token` in the query says so: for clients that can send no header."""

    dialect: Wire | None = None
    """How errors are told, where not as the door does."""


ANYONE: Final = Principal("", "user", "anyone", ())


def endpoint(operation: Operation, door: Door) -> Endpoint:
    decoder = None if operation.body is None else msgspec.json.Decoder(operation.body)
    dialect = operation.dialect or door.dialect

    async def answer(request: Request, request_id: str) -> Response:
        principal = _caller(operation, door, request)
        query = _query(request, operation.query)
        body: Any = None
        if operation.raw_body or decoder is not None:
            data = await read_body(request, operation.body_bytes_max or door.body_bytes_max)
            body = data if decoder is None else decode(data, decoder)
        answered = await operation.handler(
            Call(
                principal=principal,
                request_id=request_id,
                path=request.path_params,
                query=query,
                body=body,
                headers=request.headers,
                leaving=door.leaving,
            )
        )
        if isinstance(answered, Response):
            answered.headers.setdefault("request-id", request_id)
            return answered
        return json_response(answered, status=operation.status, request_id=request_id)

    async def serve(request: Request) -> Response:
        request_id = ids.new("req", door.clock)
        try:
            return await answer(request, request_id)
        except FreeholdError as error:
            return error_response(error, dialect, request_id)
        except ClientDisconnect:
            return Response(status_code=499)
        except asyncio.CancelledError:
            if not door.leaving.is_set():
                raise
            return error_response(stopping(), dialect, request_id)
        except Exception:  # The task's outermost edge: told apart from what callers did wrong, logged once.
            log.exception("request.failed", extra={"request_id": request_id, "operation": operation.id})
            return error_response(internal(request_id), dialect, request_id)

    return serve


def _caller(operation: Operation, door: Door, request: Request) -> Principal:
    if operation.open_to_all:
        return ANYONE
    token = request.query_params.get("token") if operation.by_token is not None else None
    if operation.by_token is not None and token is not None:
        return operation.by_token(token, request.path_params)
    return door.authenticate(request.headers)


def internal(request_id: str) -> Internal:
    return Internal(f"something went wrong here; the log has it under {request_id}")


def json_response(value: object, *, status: int = 200, request_id: str = "") -> Response:
    headers = {"cache-control": "no-store"}
    if request_id:
        headers["request-id"] = request_id
    return Response(_ENCODER.encode(value), status, headers, media_type="application/json")


def error_response(error: FreeholdError, dialect: Wire, request_id: str) -> Response:
    told = told_in(dialect, error, request_id)
    return Response(told.body, told.status, told.headers)


def told_in(dialect: Wire | EmbeddingWire, error: FreeholdError, request_id: str) -> ErrorBody:
    """With the request's id, and when to try again where that is of use. Logs what only the log may know."""
    told = dialect.encode_error(error, request_id)
    if error.detail is not None:
        log.warning(
            "request.refused", extra={"request_id": request_id, "code": error.code, "detail": error.detail}
        )
    headers = {"request-id": request_id, "x-request-id": request_id, "cache-control": "no-store"}
    if told.status in {503, 529}:
        headers["retry-after"] = str(RETRY_AFTER_S)
    return structs.replace(told, headers=headers | told.headers)


async def read_body(request: Request, size_max: int) -> bytes:
    """Raises TooLarge before more than `size_max` bytes are held."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > size_max:
        raise too_large(size_max)
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > size_max:
            raise too_large(size_max)
        pieces.append(piece)
    return b"".join(pieces)


def stopping() -> Unavailable:
    return Unavailable("the server is stopping: send the request again", retry_after_s=RETRY_AFTER_S)


def too_large(size_max: int) -> TooLarge:
    return TooLarge(f"a request body may have {size_max} bytes at most (server.body_bytes_max)")


def _query(request: Request, shape: type[Struct]) -> Struct:
    """Repeated names (`types=a&types=b`, also `types[]=`) are lists."""
    lists = {field.encode_name for field in msgspec.structs.fields(shape) if "tuple" in str(field.type)}
    found: dict[str, Any] = {}
    for key, value in request.query_params.multi_items():
        name = key.removesuffix("[]")
        if name in _QUERY_IGNORED:
            continue
        if name in lists:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise BadRequest("expected once, came several times", field=name)
        else:
            found[name] = value
    try:
        return msgspec.convert(found, shape, strict=False)
    except msgspec.ValidationError as error:
        raise explained(error, shape=shape) from error
