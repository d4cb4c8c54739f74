"""Wires: errors as OpenAI tells them at all of its addresses, both directions. Source: https://platform.openai.com/docs/guides/error-codes"""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw, Struct

from freehold.core.errors import (
    BadRequest,
    BrokenOff,
    Conflict,
    ContentRefused,
    ContextTooLong,
    Forbidden,
    FreeholdError,
    Internal,
    LimitReached,
    NotFound,
    Overloaded,
    RateLimited,
    TimedOut,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from freehold.core.ports import ErrorBody
from freehold.wires._fields import UNREADABLE
from freehold.wires._refusals import Refusal, refused, retry_headers

_SAID: Final[dict[type[FreeholdError], tuple[int, str, str | None]]] = {
    BadRequest: (400, "invalid_request_error", None),
    Unsupported: (400, "invalid_request_error", "unsupported"),
    ContextTooLong: (400, "invalid_request_error", "context_length_exceeded"),
    ContentRefused: (400, "invalid_request_error", "content_policy_violation"),
    Unauthenticated: (401, "invalid_request_error", "invalid_api_key"),
    Forbidden: (403, "permission_error", "insufficient_permissions"),
    NotFound: (404, "invalid_request_error", "not_found"),
    Conflict: (409, "invalid_request_error", "conflict"),
    TooLarge: (413, "invalid_request_error", "request_too_large"),
    RateLimited: (429, "rate_limit_error", "rate_limit_exceeded"),
    LimitReached: (429, "insufficient_quota", "insufficient_quota"),
    Internal: (500, "server_error", "internal"),
    BrokenOff: (502, "server_error", "broken_off"),
    Overloaded: (503, "server_error", "overloaded"),
    Unavailable: (503, "server_error", "unavailable"),
    TimedOut: (504, "server_error", "timed_out"),
}

_CAUSES: Final[dict[str, type[FreeholdError]]] = {
    "context_length_exceeded": ContextTooLong,
    "string_above_max_length": TooLarge,
    "content_policy_violation": ContentRefused,
    "content_filter": ContentRefused,
    "moderation_blocked": ContentRefused,
    "insufficient_quota": Unavailable,
    "billing_hard_limit_reached": Unavailable,
    "invalid_api_key": Unauthenticated,
    "model_not_found": NotFound,
    "rate_limit_exceeded": RateLimited,
    "tokens": RateLimited,
    "requests": RateLimited,
    "rate_limit_error": RateLimited,
    "overloaded": Overloaded,
    "overloaded_error": Overloaded,
}
"""By `code`, then by `type`. Out of quota is not a matter of waiting: somebody else may be asked."""

_STATUS_OF_TYPE: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "timeout": 504,
}
"""For errors in the middle of a stream, which have no status."""


class _Error(Struct):
    message: str | None = None
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class _Loose(Struct):
    """`error` is an object at OpenAI; a string at Ollama and some proxies; others have `message` or `detail` alone."""

    error: Raw = Raw(b"null")
    message: Raw = Raw(b"null")
    detail: Raw = Raw(b"null")
    code: Raw = Raw(b"null")
    type: Raw = Raw(b"null")


_LOOSE: Final = msgspec.json.Decoder(_Loose | list[_Loose])
_encode: Final = msgspec.json.Encoder().encode


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
    found = _found(body)
    code = found.code if isinstance(found.code, str) else ""
    cause = _CAUSES.get(code) or _CAUSES.get(found.type or "")
    return refused(Refusal(status, found.message or "", found.param, cause), headers, body)


def error_in_stream(body: bytes) -> FreeholdError:
    """An error after status 200. OpenRouter says the status as `error.code`."""
    found = _found(body)
    status = _STATUS_OF_TYPE.get(found.type or "", 500)
    if isinstance(found.code, int) and 400 <= found.code <= 599:
        status = found.code
    elif isinstance(found.code, str) and found.code.isdecimal() and len(found.code) == 3:
        status = int(found.code)
    return decode_error(status, {}, body)


def _found(body: bytes) -> _Error:
    try:
        loose = _LOOSE.decode(body)
    except UNREADABLE:
        return _Error()
    if isinstance(loose, list):
        loose = loose[0] if loose else _Loose()
    if bytes(loose.error).startswith(b"{"):
        try:
            return msgspec.json.decode(loose.error, type=_Error)
        except UNREADABLE:
            return _Error()
    for given in (loose.error, loose.message, loose.detail):
        if bytes(given).startswith(b'"'):
            text = msgspec.json.decode(given)
            return _Error(text, _text(loose.type), None, _text(loose.code))
    return _Error()


def _text(given: Raw) -> str | None:
    return msgspec.json.decode(given) if bytes(given).startswith(b'"') else None


def error_fields(error: FreeholdError) -> tuple[int, dict[str, str | None]]:
    status, kind, code = _SAID.get(type(error), _SAID[Internal])
    if isinstance(error, NotFound) and error.field == "model":
        code = "model_not_found"
    if isinstance(error, NotFound) and error.field == "previous_response_id":
        # As a fault of the request, by which clients know to send their conversation whole.
        status, code = 400, "previous_response_not_found"
    return status, {"message": str(error), "type": kind, "param": error.field, "code": code}


def error_object(error: FreeholdError) -> tuple[int, bytes]:
    status, fields = error_fields(error)
    return status, _encode({"error": fields})


def encode_error(error: FreeholdError, request_id: str) -> ErrorBody:
    status, body = error_object(error)
    headers = {"content-type": "application/json", "x-request-id": request_id, **retry_headers(error)}
    return ErrorBody(status, headers, body)
