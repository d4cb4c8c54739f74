"""Wires: errors of Amazon Bedrock, in both directions: `x-amzn-errortype` and a body with `message`; in a stream, exceptions as events.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html, and the errors that botocore's `bedrock-runtime`
service model lists for Converse, ConverseStream and InvokeModel.
"""

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
from freehold.wires._aws_eventstream import encode_exception
from freehold.wires._aws_refused import SignatureRefused
from freehold.wires._refusals import Refusal, refused

_SAID: Final[dict[type[FreeholdError], tuple[int, str]]] = {
    BadRequest: (400, "ValidationException"),
    Unsupported: (400, "ValidationException"),
    ContextTooLong: (400, "ValidationException"),
    ContentRefused: (400, "ValidationException"),
    Conflict: (400, "ValidationException"),
    TooLarge: (400, "ValidationException"),
    LimitReached: (400, "ServiceQuotaExceededException"),
    SignatureRefused: (403, "InvalidSignatureException"),
    Unauthenticated: (403, "AccessDeniedException"),
    Forbidden: (403, "AccessDeniedException"),
    NotFound: (404, "ResourceNotFoundException"),
    TimedOut: (408, "ModelTimeoutException"),
    BrokenOff: (424, "ModelErrorException"),
    RateLimited: (429, "ThrottlingException"),
    Internal: (500, "InternalServerException"),
    Unavailable: (503, "ServiceUnavailableException"),
    Overloaded: (503, "ServiceUnavailableException"),
}
_SAID_IN_STREAM: Final[dict[str, str]] = {
    "ValidationException": "validationException",
    "ThrottlingException": "throttlingException",
    "ServiceQuotaExceededException": "throttlingException",
    "ServiceUnavailableException": "serviceUnavailableException",
    "ModelErrorException": "modelStreamErrorException",
    "ModelTimeoutException": "modelStreamErrorException",
}
"""All that a stream may say; anything else is an internalServerException."""

_CAUSES: Final[dict[str, tuple[int, type[FreeholdError] | None]]] = {
    "validationexception": (400, None),
    "accessdeniedexception": (403, Forbidden),
    "resourcenotfoundexception": (404, NotFound),
    "throttlingexception": (429, RateLimited),
    "toomanyrequestsexception": (429, RateLimited),
    "servicequotaexceededexception": (400, RateLimited),
    "modelnotreadyexception": (429, Overloaded),
    "serviceunavailableexception": (503, Overloaded),
    "internalserverexception": (500, Unavailable),
    "modeltimeoutexception": (408, TimedOut),
    "modelerrorexception": (424, Unavailable),
    "modelstreamerrorexception": (424, BrokenOff),
    "unrecognizedclientexception": (403, Unauthenticated),
    "invalidsignatureexception": (403, Unauthenticated),
    "incompletesignatureexception": (403, Unauthenticated),
    "missingauthenticationtokenexception": (403, Unauthenticated),
    "expiredtokenexception": (403, Unauthenticated),
    "invalidclienttokenid": (403, Unauthenticated),
}
"""By name, in lower case: events write the first letter small. The status where there is none, and the cause where the status misleads."""

_CONTEXT_WORDS: Final = (
    "input is too long",
    "too many input tokens",
    "exceeds the maximum number of input tokens",
)
_REFUSED_WORDS: Final = ("blocked by our content filters", "content filtering policy")


class _Body(Struct):
    """Which case `message` has differs between services."""

    message: str | None = None
    message_: str | None = msgspec.field(default=None, name="Message")
    type_: str | None = msgspec.field(default=None, name="__type")
    code: str | None = None


_BODY: Final = msgspec.json.Decoder(_Body)
_encode: Final = msgspec.json.Encoder().encode


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> FreeholdError:
    found = _found(body)
    return _error(status, headers.get("x-amzn-errortype") or found.type_ or found.code or "", headers, body)


def error_in_stream(exception_type: str, body: bytes) -> FreeholdError:
    return _error(None, exception_type, {}, body)


def _error(status: int | None, named: str, headers: Mapping[str, str], body: bytes) -> FreeholdError:
    found = _found(body)
    kind = named.partition(":")[0].rpartition("#")[2].lower()
    usual, cause = _CAUSES.get(kind, (500, None))
    message = found.message or found.message_ or ""
    words = message.lower()
    if kind == "validationexception" and any(one in words for one in _CONTEXT_WORDS):
        cause = ContextTooLong
    elif kind == "validationexception" and any(one in words for one in _REFUSED_WORDS):
        cause = ContentRefused
    return refused(Refusal(status or usual, message, None, cause), headers, body)


def _found(body: bytes) -> _Body:
    try:
        return _BODY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Body()


def _said(error: FreeholdError) -> tuple[int, str]:
    if isinstance(error, SignatureRefused):
        return 403, error.aws_type
    return _SAID.get(type(error), _SAID[Internal])


def encode_error(error: FreeholdError, request_id: str) -> ErrorBody:
    status, named = _said(error)
    headers = {"content-type": "application/json", "x-amzn-errortype": named, "x-amzn-requestid": request_id}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s + 0.499)))
    body: dict[str, str | int] = {"__type": named, "message": str(error)}
    return ErrorBody(status, headers, _encode(body))


def encode_error_in_stream(error: FreeholdError) -> bytes:
    named = _SAID_IN_STREAM.get(_said(error)[1], "internalServerException")
    return encode_exception(named, _encode({"message": str(error)}))
