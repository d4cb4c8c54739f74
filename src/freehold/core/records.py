"""One line of what happened: the record that every model call leaves. Money in pico-units (10^-12) of `currency`.

Not here: how it is kept (store/records.py), what a call costs (pricing.py), what a month comes to (billing.py).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from freehold.core.messages import Usage

LABELS_MAX: Final = 16
LABEL_NAME_CHARS_MAX: Final = 64
LABEL_CHARS_MAX: Final = 256

Cached: TypeAlias = Literal["exact", "semantic"]

LIST: Final = "list"
FREE_OF_CHARGE: Final = "free"
UNPRICED: Final = ""


class Account(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whom a call is put down to, as far as it is known. `labels` are the caller's own, made by `bounded_labels`."""

    key_id: str | None = None
    organisation: str | None = None
    team: str | None = None
    user: str | None = None
    labels: Mapping[str, str] = {}


class Choice(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why this model answered. `attempts` counts those that were asked one after the other, this one included: all but it failed.
    One that was asked beside it and overtaken is not among them.

    `cached`: nobody was asked, an earlier answer was given again. `arm`: of the route's experiment, the one that the call is in.
    """

    route: str | None = None
    reason: str | None = None
    attempts: int = 1
    region: str | None = None
    cached: Cached | None = None
    arm: str | None = None


NOBODY: Final = Account()
DIRECT: Final = Choice()


class CallRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`outcome` is `ok`, `client_gone`, or an error's code. Times in UTC; durations in milliseconds.

    `model_requested` is what the caller wrote, `provider`/`model` what served it. `wire` is the client's dialect, or
    `session` for a call that an agent made. `price_source` is `list`, `book:NAME`, `provisioned:NAME`, `free` (this machine's
    own models, declared rules), or empty where nothing was priced. The fields of Account and Choice mean what they mean there.

    `saved_pico`: what it would have cost, had not an earlier answer been given again.

    `leases` are of the budgets that pay for it (store/allowances.py), joined by commas.

    Records outlive the code that wrote them (store/spool.py): a field may be added with a default, none removed or renamed.
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
    key_id: str | None = None
    organisation: str | None = None
    team: str | None = None
    user: str | None = None
    labels: Mapping[str, str] = {}
    route: str | None = None
    reason: str | None = None
    attempts: int = 1
    region: str | None = None
    cached: Cached | None = None
    price_source: str = UNPRICED
    leases: str | None = None
    arm: str | None = None
    saved_pico: int = 0


def bounded_labels(given: Mapping[str, str]) -> dict[str, str]:
    """At most LABELS_MAX, the first ones; names and values cut to their limits. A record is no place for documents."""
    kept = list(given.items())[:LABELS_MAX]
    return {name[:LABEL_NAME_CHARS_MAX]: value[:LABEL_CHARS_MAX] for name, value in kept}
