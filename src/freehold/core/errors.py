"""The causes a caller can act on. A class is a cause, not a place in the code; nothing here knows HTTP.

`message` may be shown to a caller. `detail` goes to the log only: bodies, addresses, anything that could hold a secret.
Adapters translate vendors' errors into these; wires translate these into a status and a body of their dialect.
"""

from collections.abc import Sequence
from typing import ClassVar

from freehold.core.standing import Standing


class FreeholdError(Exception):
    """Root of the tree. `code` is stable and may be matched on by clients.

    `field` is the path of the offending input in the caller's own words (`messages[2].content[0].type`); with `field_is_vendors`, in
    those of the vendor that refused.
    `retry_after_s` is how long the other side asked us to wait, in seconds, where it said so. `standings` are of our own limits, where
    one of them refused.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    standings: Sequence[Standing] = ()

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        detail: str | None = None,
        retry_after_s: float | None = None,
        field_is_vendors: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.field_is_vendors = field_is_vendors

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class Internal(FreeholdError):
    """Ours to mend: an invariant did not hold."""

    code = "internal"


class BadRequest(FreeholdError):
    """The input is wrong and will stay wrong: names the field, what was expected and what came."""

    code = "bad_request"


class Unsupported(FreeholdError):
    """The input is well formed, but this wire, provider or model cannot say it. Never dropped silently."""

    code = "unsupported"


class Unauthenticated(FreeholdError):
    """No credential, or one that nobody knows."""

    code = "unauthenticated"


class Forbidden(FreeholdError):
    """Known, but not allowed: names the action and the resource."""

    code = "forbidden"


class NotFound(FreeholdError):
    code = "not_found"


class Conflict(FreeholdError):
    """Somebody else was first: an unexpected version, a lost lease, a name that is taken."""

    code = "conflict"


class TooLarge(FreeholdError):
    """A body, file or result over a limit with a name. The message gives the limit."""

    code = "too_large"


class ContextTooLong(FreeholdError):
    """The conversation does not fit the model's context."""

    code = "context_too_long"


class ContentRefused(FreeholdError):
    """A provider or guardrail refused the content. An answer that *says* no is not an error (see StopReason)."""

    code = "content_refused"


class RateLimited(FreeholdError):
    code = "rate_limited"
    retryable = True


class LimitReached(FreeholdError):
    """A declared limit (steps, tokens, money, wall time) was reached: names the limit, its size and what was used."""

    code = "limit_reached"


class Overloaded(FreeholdError):
    """The other side, or we, have no capacity now."""

    code = "overloaded"
    retryable = True


class TimedOut(FreeholdError):
    code = "timed_out"
    retryable = True


class BrokenOff(FreeholdError):
    """An answer began and did not end: the stream closed, or turned to garbage, in the middle."""

    code = "broken_off"
    retryable = True


class Unavailable(FreeholdError):
    """Could not be reached, or answered with something that is not its protocol: database, provider, tool."""

    code = "unavailable"
    retryable = True
