"""Webhooks: addresses that are told what happens. What is declared, what is sent, how it is signed and when it is tried again. Pure.

Signatures: Standard Webhooks, https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md (HMAC-SHA-256 over
`id.timestamp.body`). Bodies and the names of events: the types of the `anthropic` SDK, beta.webhooks, whose `unwrap` takes both as they are.
Which events there are is decided where they happen, in the database (store/migrations/: webhook_event and who calls it).
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final, Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest
from freehold.core.validation import near

EVENTS: Final = (
    "session.created",
    "session.status_run_started",
    "session.status_idled",
    "session.status_terminated",
    "session.idled",
    "session.requires_action",
    "session.budget_reached",
    "session.updated",
    "session.archived",
    "session.deleted",
    "session.thread_created",
    "session.thread_idled",
    "session.thread_terminated",
    "agent.created",
    "agent.updated",
    "agent.archived",
    "environment.created",
    "environment.updated",
    "environment.archived",
    "environment.deleted",
    "deployment.created",
    "deployment.updated",
    "deployment.paused",
    "deployment.unpaused",
    "deployment.archived",
    "deployment_run.started",
    "deployment_run.succeeded",
    "deployment_run.failed",
    "budget.threshold_reached",
    "budget.exhausted",
)
FAMILIES: Final = tuple(sorted({f"{one.partition('.')[0]}.*" for one in EVENTS}))
TEST: Final = "webhook.test"

URL_CHARS_MAX: Final = 2_000
WEBHOOKS_MAX: Final = 50
"""Of one tenant."""

ATTEMPTS_MAX: Final = 12
DELAY_GROWTH: Final = 3.0
DELAY_S_MAX: Final = 6 * 3600.0
JITTER: Final = 0.2
RETRY_AFTER_S_MAX: Final = 24 * 3600.0
FAILING_S_MAX: Final = 24 * 3600.0
"""A webhook to which nothing could be delivered for so long is disabled."""

GONE: Final = 410
_TAKEN: Final = range(200, 300)

DeliveryStatus: TypeAlias = Literal["pending", "delivered", "failed"]


class Webhook(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    tag="webhook",
    tag_field="kind",
):
    """`events` are names (`session.idled`), or all of a family (`session.*`)."""

    name: str
    url: str
    events: tuple[str, ...]
    description: str = ""


class WebhookRow(Struct, frozen=True, kw_only=True):
    """How it does. `previous_until`: until then its secret number `secret_number` - 1 is good, too."""

    tenant: str
    name: str
    uid: str
    url: str
    events: tuple[str, ...]
    secret_number: int
    created_at: datetime
    previous_until: datetime | None = None
    last_success_at: datetime | None = None
    failing_since: datetime | None = None
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    pending_count: int = 0


class Delivery(Struct, frozen=True, kw_only=True):
    """One event for one webhook. `at` is when it happened; `event_id` is the same for every webhook that is told of it."""

    seq: int
    tenant: str
    endpoint: str
    event_id: str
    type: str
    object_id: str
    thread_id: str | None
    at: datetime
    status: DeliveryStatus
    attempts: int
    due_at: datetime
    last_at: datetime | None = None
    last_status: int | None = None
    last_error: str | None = None
    settled_at: datetime | None = None


class Claimed(Struct, frozen=True):
    delivery: Delivery
    webhook: WebhookRow


class Told(Struct, frozen=True):
    """What a webhook answered; `headers` are lower-cased."""

    status: int
    headers: Mapping[str, str] = {}


class Delivered(Struct, frozen=True):
    status: int


class Again(Struct, frozen=True):
    delay_s: float
    why: str
    status: int | None = None


class Dead(Struct, frozen=True):
    """Not tried any more; with `disable`, neither is any other of its webhook's."""

    why: str
    status: int | None = None
    disable: str | None = None


Outcome: TypeAlias = Delivered | Again | Dead


class DeliveryPage(Struct, frozen=True):
    deliveries: tuple[Delivery, ...]
    next: int | None


class Webhooks(Protocol):
    """Webhooks' rows and deliveries, as kept. All times are the database's. Raises Unavailable."""

    async def get(self, tenant: str, name: str) -> WebhookRow:
        """Raises NotFound."""
        ...

    async def list(self, tenant: str) -> Sequence[WebhookRow]: ...

    async def rotate(self, tenant: str, name: str, *, overlap_s: float) -> WebhookRow:
        """A new secret; the one before stays good for `overlap_s`."""
        ...

    async def enable(self, tenant: str, name: str) -> WebhookRow: ...

    async def test(self, tenant: str, name: str) -> Delivery:
        """An event of the type TEST, for this one alone, also where it is disabled."""
        ...

    async def deliveries(
        self, tenant: str, name: str, *, status: DeliveryStatus | None, limit: int, before: int | None
    ) -> DeliveryPage:
        """Newest first."""
        ...

    async def redeliver(self, tenant: str, name: str, seq: int) -> Delivery:
        """At once, with all its attempts anew. Raises NotFound."""
        ...

    async def claim(self, owner: str, *, limit: int, lease_s: float) -> Sequence[Claimed]:
        """Some that are due: of no webhook and no tenant more at once than its share, by all processes together."""
        ...

    async def settle(self, claimed: Claimed, owner: str, outcome: Outcome) -> None:
        """Nothing, where the claim was lost meanwhile."""
        ...

    async def wait(self, timeout_s: float) -> None:
        """Returns when some may be due, or after `timeout_s`."""
        ...


class Postman(Protocol):
    """Takes a webhook's requests where they may go."""

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Told:
        """Raises Forbidden where it may not go there, and Unavailable and TimedOut where nobody answers."""
        ...


def check(webhook: Webhook, *, private_allowed: bool) -> None:
    """`private_allowed`: also without TLS. Raises BadRequest with the path of what is wrong."""
    schemes = {"https", "http"} if private_allowed else {"https"}
    try:
        split = urlsplit(webhook.url)
        fits = split.scheme in schemes and bool(split.hostname) and split.port != 0
    except ValueError:
        fits = False
    if not fits or len(webhook.url) > URL_CHARS_MAX or split.username or split.password or split.fragment:
        raise BadRequest(
            f"expected an https address of {URL_CHARS_MAX} characters at most, without user, password and fragment; got {webhook.url[:120]!r}",
            field="url",
        )
    if not webhook.events:
        raise BadRequest(f"expected some of {', '.join((*FAMILIES, *EVENTS))}", field="events")
    for place, event in enumerate(webhook.events):
        if event not in EVENTS and event not in FAMILIES:
            known = (*FAMILIES, *EVENTS)
            raise BadRequest(
                f"there is no event {event[:80]!r}{near(event, known)}; known: {', '.join(known)}",
                field=f"events[{place}]",
            )


def body_of(delivery: Delivery) -> bytes:
    """Thin: what happened to what. Whoever hears it reads what it is now."""
    data = {
        "type": delivery.type,
        "id": delivery.object_id,
        "organization_id": delivery.tenant,
        "workspace_id": delivery.tenant,
    }
    if delivery.thread_id is not None:
        data["session_thread_id"] = delivery.thread_id
    event = {"type": "event", "id": delivery.event_id, "created_at": delivery.at, "data": data}
    return msgspec.json.encode(event)


def secret_text(key: bytes) -> str:
    """As receivers' libraries take it."""
    return f"whsec_{base64.b64encode(key).decode()}"


def headers_of(delivery: Delivery, body: bytes, keys: Sequence[bytes], now: datetime) -> dict[str, str]:
    """Of one attempt: its signature has the time of the attempt, which receivers hold against theirs."""
    timestamp = str(int(now.timestamp()))
    return {
        "content-type": "application/json",
        "user-agent": "Freehold-Webhooks",
        "webhook-id": delivery.event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signature(key, delivery.event_id, timestamp, body) for key in keys),
    }


def signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def signed_by(key: bytes, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether one of the signatures is this key's. `headers` are lower-cased; their time is not looked at."""
    wanted = signature(key, headers.get("webhook-id", ""), headers.get("webhook-timestamp", ""), body)
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(wanted.encode(), one.encode()) for one in given)


def outcome_of(
    claimed: Claimed, told: Told | str, now: datetime, *, first_delay_s: float, chance: float
) -> Outcome:
    """`told` is what came back, or why nothing did. `chance` is 0 to 1, so that many that failed together don't come back together."""
    status, why = (None, told) if isinstance(told, str) else (told.status, f"it answered {told.status}")
    if status is not None and status in _TAKEN:
        return Delivered(status)
    webhook, attempts = claimed.webhook, claimed.delivery.attempts
    if status == GONE:
        return Dead(why, status, disable="it answered 410: it is gone for good")
    failing = webhook.failing_since is not None and now - webhook.failing_since > timedelta(
        seconds=FAILING_S_MAX
    )
    if failing and webhook.failing_since is not None:
        since = webhook.failing_since.isoformat(timespec="seconds").replace("+00:00", "Z")
        return Dead(why, status, disable=f"nothing could be delivered since {since}; at last {why}")
    if attempts >= ATTEMPTS_MAX:
        return Dead(f"{why}; {attempts} attempts were made", status)
    delay_s = min(first_delay_s * DELAY_GROWTH ** (attempts - 1), DELAY_S_MAX)
    delay_s *= 1 - JITTER + 2 * JITTER * chance
    asked_s = None if isinstance(told, str) else retry_after_s(told.headers.get("retry-after"), now)
    return Again(max(delay_s, asked_s or 0.0), why, status)


def retry_after_s(text: str | None, now: datetime) -> float | None:
    """RFC 9110, 10.2.3: seconds, or a date. At most RETRY_AFTER_S_MAX; None for what is neither."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return min(float(text.strip()[:9]), RETRY_AFTER_S_MAX)
    try:
        wanted_s = (parsedate_to_datetime(text) - now).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(wanted_s, 0.0), RETRY_AFTER_S_MAX)
