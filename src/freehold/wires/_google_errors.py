"""Wires, Google: errors in both directions. Sources: https://ai.google.dev/gemini-api/docs/troubleshooting,
https://cloud.google.com/apis/design/errors (the statuses, and RetryInfo, ErrorInfo and BadRequest among the details).
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

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
from freehold.wires._refusals import RETRY_AFTER_S_MAX, Refusal, refused, retry_headers

_SAID: Final[dict[type[FreeholdError], tuple[int, str]]] = {
    BadRequest: (400, "INVALID_ARGUMENT"),
    Unsupported: (400, "INVALID_ARGUMENT"),
    ContextTooLong: (400, "INVALID_ARGUMENT"),
    ContentRefused: (400, "INVALID_ARGUMENT"),
    Unauthenticated: (401, "UNAUTHENTICATED"),
    Forbidden: (403, "PERMISSION_DENIED"),
    NotFound: (404, "NOT_FOUND"),
    Conflict: (409, "ABORTED"),
    TooLarge: (413, "OUT_OF_RANGE"),
    RateLimited: (429, "RESOURCE_EXHAUSTED"),
    LimitReached: (429, "RESOURCE_EXHAUSTED"),
    Internal: (500, "INTERNAL"),
    BrokenOff: (502, "UNAVAILABLE"),
    Unavailable: (503, "UNAVAILABLE"),
    Overloaded: (503, "UNAVAILABLE"),
    TimedOut: (504, "DEADLINE_EXCEEDED"),
}
_STATUSES: Final = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_KEY_REASONS: Final = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED", "ACCESS_TOKEN_EXPIRED"})
_CONTEXT_WORDS: Final = "exceeds the maximum number of tokens"
_TYPE: Final = "type.googleapis.com/google.rpc."
_DOMAIN: Final = "freehold"


class _Violation(Struct):
    field: str = ""


class _Detail(Struct, rename="camel"):
    type: str = msgspec.field(default="", name="@type")
    reason: str | None = None
    retry_delay: str | None = None
    field_violations: list[_Violation] | None = None


class _Error(Struct):
    code: int | None = None
    message: str = ""
    status: str = ""
    details: list[_Detail] | None = None


class _Body(Struct):
    error: _Error | None = None


_BODY: Final = msgspec.json.Decoder(_Body | list[_Body])
_encode: Final = msgspec.json.Encoder().encode


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
    found = _found(body)
    details = found.details or []
    violations = [one for detail in details for one in detail.field_violations or ()]
    refusal = Refusal(
        status=status,
        message=found.message,
        field=violations[0].field or None if violations else None,
        cause=_cause(found, details),
    )
    error = refused(refusal, headers, body)
    if error.retry_after_s is None:
        error.retry_after_s = _delay_s(details)
    return error


def _cause(found: _Error, details: list[_Detail]) -> type[FreeholdError] | None:
    if any(detail.reason in _KEY_REASONS for detail in details):
        return Unauthenticated  # Said as an invalid request.
    if _CONTEXT_WORDS in found.message:
        return ContextTooLong
    if found.status == "FAILED_PRECONDITION":
        return Unavailable  # No billing, or not in this country: somebody else may be asked.
    return None


def _delay_s(details: list[_Detail]) -> float | None:
    """`34.07s`."""
    for detail in details:
        given = (detail.retry_delay or "").removesuffix("s")
        if given.replace(".", "", 1).isdecimal() and given.isascii():
            return min(float(given), RETRY_AFTER_S_MAX)
    return None


def error_inside(body: bytes) -> FreeholdError | None:
    """The error that came in an answer's place; None where there is none."""
    found = _found(body)
    if found == _Error():
        return None
    code = found.code or _STATUSES.get(found.status, 500)
    return decode_error(code if 400 <= code <= 599 else 500, {}, body)


def _found(body: bytes) -> _Error:
    """The vendor wraps it in a list where a stream was asked for."""
    try:
        shape = _BODY.decode(body)
    except UNREADABLE:
        return _Error()
    first = shape if isinstance(shape, _Body) else next(iter(shape), None)
    return _Error() if first is None or first.error is None else first.error


def error_object(error: FreeholdError, request_id: str) -> tuple[int, bytes]:
    code, status = _SAID.get(type(error), _SAID[Internal])
    message = str(error)
    if isinstance(error, ContextTooLong) and _CONTEXT_WORDS not in message:
        message = f"The input token count {_CONTEXT_WORDS} allowed: {message}"  # Clients of this vendor look for these words.
    told = {"code": code, "message": message, "status": status, "details": _details(error, request_id)}
    return code, _encode({"error": told})


def _details(error: FreeholdError, request_id: str) -> list[dict[str, Any]]:
    info = {"reason": error.code.upper(), "domain": _DOMAIN, "metadata": {"requestId": request_id}}
    details: list[dict[str, Any]] = [{"@type": _TYPE + "ErrorInfo", **info}]
    if error.field:
        violation = {"field": error.field, "description": error.message}
        details.append({"@type": _TYPE + "BadRequest", "fieldViolations": [violation]})
    if error.retry_after_s is not None:
        details.append({"@type": _TYPE + "RetryInfo", "retryDelay": f"{max(0.0, error.retry_after_s):g}s"})
    return details


def encode_error(error: FreeholdError, request_id: str) -> ErrorBody:
    status, body = error_object(error, request_id)
    return ErrorBody(
        status, {"content-type": "application/json; charset=UTF-8", **retry_headers(error)}, body
    )
