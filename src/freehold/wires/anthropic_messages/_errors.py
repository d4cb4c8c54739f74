"""Wires, Anthropic: errors in both directions. Source: https://platform.claude.com/docs/en/api/errors"""

from collections.abc import Mapping
from typing import Final

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
from freehold.wires._refusals import Refusal, refused, retry_headers

_SAID: Final[dict[type[FreeholdError], tuple[int, str]]] = {
    BadRequest: (400, "invalid_request_error"),
    Unsupported: (400, "invalid_request_error"),
    ContextTooLong: (400, "invalid_request_error"),
    ContentRefused: (400, "invalid_request_error"),
    Unauthenticated: (401, "authentication_error"),
    Forbidden: (403, "permission_error"),
    NotFound: (404, "not_found_error"),
    Conflict: (409, "invalid_request_error"),
    TooLarge: (413, "request_too_large"),
    RateLimited: (429, "rate_limit_error"),
    LimitReached: (402, "billing_error"),
    Internal: (500, "api_error"),
    BrokenOff: (502, "api_error"),
    Unavailable: (503, "api_error"),
    TimedOut: (504, "timeout_error"),
    Overloaded: (529, "overloaded_error"),
}
_STATUS_OF_TYPE: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_CAUSES: Final[dict[str, type[FreeholdError]]] = {
    "billing_error": Unavailable,
    "request_too_large": TooLarge,
    "overloaded_error": Overloaded,
    "rate_limit_error": RateLimited,
    "authentication_error": Unauthenticated,
}
_BILLING_WORDS: Final = "credit balance is too low"
_FILTER_WORDS: Final = "blocked by content filtering"


class _Error(Struct):
    type: str = ""
    message: str = ""


class _Body(Struct):
    error: _Error | None = None


_BODY: Final = msgspec.json.Decoder(_Body)
_encode: Final = msgspec.json.Encoder().encode


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
    found = _found(body)
    cause = _CAUSES.get(found.type)
    if _BILLING_WORDS in found.message:
        cause = Unavailable  # Said as an invalid request; somebody else may be asked.
    elif _FILTER_WORDS in found.message:
        cause = ContentRefused
    return refused(Refusal(status, found.message, None, cause), headers, body)


def error_in_stream(body: bytes) -> FreeholdError:
    return decode_error(_STATUS_OF_TYPE.get(_found(body).type, 500), {}, body)


def _found(body: bytes) -> _Error:
    try:
        return _BODY.decode(body).error or _Error()
    except UNREADABLE:
        return _Error()


def error_object(error: FreeholdError, request_id: str) -> tuple[int, bytes]:
    status, kind = _SAID.get(type(error), _SAID[Internal])
    message = str(error)
    if isinstance(error, ContextTooLong) and "too long" not in message:
        message = f"prompt is too long: {message}"  # Clients of this vendor look for these words.
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
    return status, _encode(body)


def encode_error(error: FreeholdError, request_id: str) -> ErrorBody:
    status, body = error_object(error, request_id)
    headers = {"content-type": "application/json", "request-id": request_id, **retry_headers(error)}
    return ErrorBody(status, headers, body)
