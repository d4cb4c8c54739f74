"""Wires: reading a vendor's refusal. Which cause it is, how long to wait, and what of its words may be shown.

A vendor's message is shown where it is about the request, since nothing else says what to mend. Where it is about the credential,
the account or the vendor's own trouble it goes to `detail`: such messages quote keys, organisations and addresses.
"""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from msgspec import Struct

from freehold.core.errors import (
    BadRequest,
    Conflict,
    ContentRefused,
    ContextTooLong,
    Forbidden,
    FreeholdError,
    NotFound,
    Overloaded,
    RateLimited,
    TimedOut,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

SHOWN_CHARACTERS: Final = 2_000
DETAIL_BYTES: Final = 4_000
RETRY_AFTER_S_MAX: Final = 24 * 3600.0

_CONTEXT_WORDS: Final = (
    "maximum context length",
    "context length exceeded",
    "context window",
    "prompt is too long",
    "context_length_exceeded",
    "exceeds the available context size",
    "input length and `max_tokens` exceed",
)
"""How OpenAI, vLLM, llama.cpp and Anthropic say it; the others repeat one of them."""

_BY_STATUS: Final[dict[int, tuple[type[FreeholdError], str]]] = {
    401: (Unauthenticated, "refused our credential"),
    402: (Unavailable, "wants to be paid first"),
    403: (Forbidden, "does not allow this to our credential"),
    404: (NotFound, "knows no such model or address"),
    408: (TimedOut, "gave up waiting for the request"),
    409: (Conflict, "says that this is in conflict with something else"),
    413: (TooLarge, "takes no request of this size"),
    429: (RateLimited, "takes no more calls for now"),
    503: (Overloaded, "is overloaded"),
    504: (TimedOut, "took too long"),
    529: (Overloaded, "is overloaded"),
}
_ABOUT_THE_REQUEST: Final = (BadRequest, NotFound, TooLarge, ContextTooLong, ContentRefused, Conflict)


class Refusal(Struct):
    """What a vendor's body said, of what it says."""

    status: int
    message: str = ""
    field: str | None = None
    cause: type[FreeholdError] | None = None
    """Where the body names the cause better than the status does."""


def refused(refusal: Refusal, headers: Mapping[str, str], body: bytes) -> FreeholdError:
    kind, said = _BY_STATUS.get(refusal.status, (None, ""))
    if kind is None:
        kind, said = _other(refusal.status)
    kind = refusal.cause or kind
    if kind is BadRequest and any(words in refusal.message.lower() for words in _CONTEXT_WORDS):
        kind = ContextTooLong
    message = f"{said} (status {refusal.status})"
    if issubclass(kind, _ABOUT_THE_REQUEST) and refusal.message:
        message = refusal.message[:SHOWN_CHARACTERS]
    return kind(
        message,
        field=refusal.field,
        field_is_vendors=True,
        detail=body[:DETAIL_BYTES].decode("utf-8", "replace"),
        retry_after_s=retry_after_s(headers),
    )


def _other(status: int) -> tuple[type[FreeholdError], str]:
    if 400 <= status < 500:
        return BadRequest, "refused the request without saying why"
    return Unavailable, "failed"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or `retry-after`; a date counts from the answer's own `date`, since wires have no clock."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return min(milliseconds / 1000, RETRY_AFTER_S_MAX)
    given = headers.get("retry-after")
    seconds = _number(given)
    if seconds is None and given and "date" in headers:
        try:
            wait = parsedate_to_datetime(given) - parsedate_to_datetime(headers["date"])
        except (ValueError, TypeError):
            return None
        seconds = max(0.0, wait.total_seconds())
    return None if seconds is None else min(seconds, RETRY_AFTER_S_MAX)


def _number(text: str | None) -> float | None:
    if text is None or not text.strip().replace(".", "", 1).isdecimal():
        return None
    return float(text)


def retry_headers(error: FreeholdError) -> dict[str, str]:
    """How both vendors' SDKs are told when to try again, and that it is no use."""
    if error.retry_after_s is not None:
        return {"retry-after": str(max(1, round(error.retry_after_s + 0.499)))}
    return {} if error.retryable else {"x-should-retry": "false"}
