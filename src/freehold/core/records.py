"""One line of what happened: the record that every model call leaves. Money in pico-units (10^-12) of `currency`."""

from datetime import datetime

from msgspec import Struct

from freehold.core.messages import Usage


class CallRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`outcome` is `ok`, `client_gone`, or an error's code. Times in UTC; durations in milliseconds.

    `model_requested` is what the caller wrote, `provider`/`model` what served it. `wire` is the client's dialect, or
    `session` for a call that an agent made.
    """

    id: str
    at: datetime
    tenant: str
    principal: str
    wire: str
    model_requested: str
    provider: str
    model: str
    outcome: str
    usage: Usage = Usage()
    cost_pico: int = 0
    currency: str = "USD"
    priced: bool = True
    duration_ms: float = 0.0
    first_event_ms: float | None = None
    streamed: bool = False
    session_id: str | None = None
    agent: str | None = None
