"""Events from outside, for sessions that wait for them: POST /v1/events/{token} and POST /v1/events.

Whoever has a token may report its event: it is good for that one, once, and says nothing of the session. With a key, an event is reported by its name
and what it is about (action `event:Send` on `event/<name>`). What has come already is answered like the first time, and changes nothing.
"""

import base64
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Literal

from msgspec import Raw, Struct

from freehold.core.errors import BadRequest, NotFound, TooLarge, Unauthenticated, Unavailable
from freehold.core.outside import PAYLOAD_BYTES_MAX, TOKEN_PREFIX, Expected, ExpectedEvents, digest_of
from freehold.core.policy import authorize
from freehold.core.ports import Clock, Resources
from freehold.core.resources import Tool
from freehold.core.webhooks import signed_by
from freehold.server.operations import Call, Operation, json_response

TOLERANCE_S: Final = 300.0
"""How far the time of a signature may be from ours."""

GONE: Final = 410
NAME_CHARS_MAX: Final = 200
Resolve = Callable[[str], str]


class SendEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """`data` is given to every session that waits for an event of this type and correlation."""

    type: str
    correlation: str
    data: Raw


class EventTaken(Struct, frozen=True, kw_only=True):
    """`repeated`: it had come before, and nothing changed. `kept`: nobody waits for it yet; whoever begins to before `kept_until` is given it."""

    type: str = "event_taken"
    status: Literal["received", "repeated", "kept"]
    received_count: int
    kept_until: datetime | None = None


class EventApi:
    def __init__(self, kept: ExpectedEvents, resources: Resources, resolve: Resolve, clock: Clock) -> None:
        self._kept = kept
        self._resources = resources
        self._resolve = resolve
        self._clock = clock

    async def take(self, call: Call) -> Any:
        token = call.path["token"]
        digest = digest_of(token)
        found = await self._kept.find(digest) if token.startswith(TOKEN_PREFIX) else None
        if found is None:
            raise NotFound("nobody knows this token")
        await self._check_signature(found, call)
        if found.received:
            return EventTaken(status="repeated", received_count=0)
        payload = _text(call.body)
        if found.over or not await self._kept.receive(digest, payload):
            again = await self._kept.find(digest)
            if again is not None and again.received:
                return EventTaken(status="repeated", received_count=0)
            gone = {"type": "not_found_error", "message": "nobody waits for this event any more"}
            told = {"type": "error", "error": gone, "request_id": call.request_id}
            return json_response(told, status=GONE, request_id=call.request_id)
        return EventTaken(status="received", received_count=1)

    async def send(self, call: Call) -> EventTaken:
        body: SendEvent = call.body
        authorize(call.principal, "event:Send", f"event/{body.type}")
        for field, text in (("type", body.type), ("correlation", body.correlation)):
            if not 0 < len(text) <= NAME_CHARS_MAX:
                raise BadRequest(f"expected 1 to {NAME_CHARS_MAX} characters, got {len(text)}", field=field)
        data = bytes(body.data)
        if len(data) > PAYLOAD_BYTES_MAX:
            raise TooLarge(
                f"an event's data may have {PAYLOAD_BYTES_MAX} bytes at most, these are {len(data)}",
                field="data",
            )
        sent = await self._kept.send(call.principal.tenant, body.type, body.correlation, _text(data))
        status: Literal["received", "repeated", "kept"] = "received" if sent.received_count else "kept"
        if sent.repeated_count and not sent.received_count:
            status = "repeated"
        return EventTaken(status=status, received_count=sent.received_count, kept_until=sent.kept_until)

    async def _check_signature(self, found: Expected, call: Call) -> None:
        """Where the tool's declaration of now names a secret. Raises Unauthenticated."""
        declared = await self._resources.get(found.tenant, "tool", found.tool)
        config = declared.resource.config if isinstance(declared.resource, Tool) else {}
        reference = config.get("secret")
        if reference is None:
            return
        try:
            key = _key(self._resolve(reference))
        except NotFound as error:
            raise Unavailable("the event's secret cannot be read here", detail=str(error)) from error
        stamp = call.headers.get("webhook-timestamp", "")
        now_s = self._clock.now_ms() / 1000
        fresh = stamp.isdecimal() and len(stamp) < 16 and abs(now_s - int(stamp)) <= TOLERANCE_S
        if not fresh or not signed_by(key, _lowered(call.headers), call.body):
            raise Unauthenticated(
                "expected a signature of now (Standard Webhooks: webhook-id, webhook-timestamp, webhook-signature)"
            )


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _key(secret: str) -> bytes:
    """Of a Standard Webhooks secret, or the text itself."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    return base64.b64decode(secret.removeprefix("whsec_"))


def _text(body: bytes) -> str:
    """As a model is shown it. Raises BadRequest for what is no text."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest("expected text in UTF-8") from error
    if "\0" in text:
        raise BadRequest("expected text without NUL characters")
    return text or "null"


def operations(kept: ExpectedEvents, resources: Resources, resolve: Resolve, clock: Clock) -> list[Operation]:
    api = EventApi(kept, resources, resolve, clock)
    return [
        Operation(method="POST", path="/v1/events", id="sendEvent", tag="events",
                  summary="Report an event to the sessions that wait for it; idempotent.", handler=api.send, body=SendEvent,
                  answer=EventTaken),
        Operation(method="POST", path="/v1/events/{token}", id="takeEvent", tag="events",
                  summary="Report the event that a token stands for; idempotent.", handler=api.take, raw_body=True,
                  body_bytes_max=PAYLOAD_BYTES_MAX, open_to_all=True, answer=EventTaken),
    ]  # fmt: skip
