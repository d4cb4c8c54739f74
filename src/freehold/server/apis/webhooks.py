"""Webhooks: /v1/webhooks. Declared as any resource; here is also how they do, their secrets and their deliveries.

A secret is shown when it is made, and never again. Actions: `webhook:Put`, `:Read`, `:List`, `:Delete`, `:Rotate`, `:Test`.
"""

from datetime import datetime
from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Struct, UnsetType, structs

from freehold.core.errors import BadRequest, Conflict
from freehold.core.policy import Principal, authorize
from freehold.core.ports import Resources
from freehold.core.resources import check_name
from freehold.core.validation import check_limit
from freehold.core.webhooks import (
    Delivery,
    DeliveryStatus,
    Webhook,
    WebhookRow,
    Webhooks,
    check,
    secret_text,
)
from freehold.governance.signing import Signing
from freehold.server.operations import Call, Operation

PAGE_MAX: Final = 200
OVERLAP_S: Final = 86_400.0
OVERLAP_S_MAX: Final = 30 * 86_400.0
_PREFIX: Final = "whd_"


class CreateWebhook(Struct, frozen=True, forbid_unknown_fields=True):
    """`events`: names, or all of a family (`session.*`)."""

    name: str
    url: str
    events: tuple[str, ...]
    description: str = ""


class UpdateWebhook(Struct, frozen=True, forbid_unknown_fields=True):
    url: str | UnsetType = UNSET
    events: tuple[str, ...] | UnsetType = UNSET
    description: str | UnsetType = UNSET


class RotateSecret(Struct, frozen=True, forbid_unknown_fields=True):
    """For `overlap_s` what is sent is signed with the old secret, too."""

    overlap_s: Annotated[float, Meta(ge=0, le=OVERLAP_S_MAX)] = OVERLAP_S


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class WebhookShown(Struct, frozen=True, kw_only=True):
    """`status`: `ok`, `failing` since nothing is taken any more, or `disabled`, and then it is told nothing."""

    id: str
    type: str = "webhook"
    url: str
    events: tuple[str, ...]
    description: str
    status: str
    pending_count: int
    created_at: datetime
    last_success_at: datetime | None
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None
    previous_secret_until: datetime | None


class WebhookMade(WebhookShown, frozen=True, kw_only=True):
    secret: str


class WebhookList(Struct, frozen=True):
    data: tuple[WebhookShown, ...]


class WebhookDeleted(Struct, frozen=True):
    id: str
    type: str = "webhook_deleted"


class DeliveryShown(Struct, frozen=True, kw_only=True):
    """`next_attempt_at`: when it is tried again, while it is pending."""

    id: str
    type: str = "webhook_delivery"
    webhook_id: str
    event_id: str
    event_type: str
    object_id: str
    happened_at: datetime
    status: str
    attempts: int
    last_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None
    next_attempt_at: datetime | None
    settled_at: datetime | None


class DeliveryList(Struct, frozen=True):
    data: tuple[DeliveryShown, ...]
    next_page: str | None


class ListDeliveries(Struct, frozen=True, forbid_unknown_fields=True):
    status: DeliveryStatus | None = None
    limit: int = 50
    page: int | None = None


class WebhookApi:
    def __init__(
        self, resources: Resources, kept: Webhooks, signing: Signing, *, private_allowed: bool
    ) -> None:
        self._resources = resources
        self._kept = kept
        self._signing = signing
        self._private_allowed = private_allowed

    async def create(self, call: Call) -> WebhookMade:
        body: CreateWebhook = call.body
        wanted = Webhook(
            name=check_name(body.name), url=body.url, events=body.events, description=body.description
        )
        await self._put(call.principal, wanted, expected=0)
        return self._made(wanted, await self._kept.get(call.principal.tenant, wanted.name))

    async def update(self, call: Call) -> WebhookShown:
        body: UpdateWebhook = call.body
        there, version = await self._declared(call.principal, call.path["webhook_id"], "webhook:Put")
        given = {name: value for name, value in structs.asdict(body).items() if value is not UNSET}
        changed = structs.replace(there, **given)
        await self._put(call.principal, changed, expected=version)
        return _shown(changed, await self._kept.get(call.principal.tenant, changed.name))

    async def get(self, call: Call) -> WebhookShown:
        declared, _ = await self._declared(call.principal, call.path["webhook_id"], "webhook:Read")
        return _shown(declared, await self._kept.get(call.principal.tenant, declared.name))

    async def list(self, call: Call) -> WebhookList:
        authorize(call.principal, "webhook:List", "webhook/*")
        tenant = call.principal.tenant
        listed = await self._resources.list(tenant, "webhook")
        declared = {one.resource.name: one.resource for one in listed if isinstance(one.resource, Webhook)}
        rows = await self._kept.list(tenant)
        return WebhookList(tuple(_shown(declared[row.name], row) for row in rows if row.name in declared))

    async def delete(self, call: Call) -> WebhookDeleted:
        declared, _ = await self._declared(call.principal, call.path["webhook_id"], "webhook:Delete")
        await self._resources.archive(call.principal.tenant, "webhook", declared.name, by=call.principal.id)
        return WebhookDeleted(declared.name)

    async def rotate(self, call: Call) -> WebhookMade:
        declared, _ = await self._declared(call.principal, call.path["webhook_id"], "webhook:Rotate")
        body: RotateSecret = call.body
        tenant = call.principal.tenant
        return self._made(declared, await self._kept.rotate(tenant, declared.name, overlap_s=body.overlap_s))

    async def enable(self, call: Call) -> WebhookShown:
        declared, _ = await self._declared(call.principal, call.path["webhook_id"], "webhook:Put")
        return _shown(declared, await self._kept.enable(call.principal.tenant, declared.name))

    async def test(self, call: Call) -> DeliveryShown:
        declared, _ = await self._declared(call.principal, call.path["webhook_id"], "webhook:Test")
        return _delivery_shown(await self._kept.test(call.principal.tenant, declared.name))

    async def deliveries(self, call: Call) -> DeliveryList:
        query: ListDeliveries = call.query
        declared, _ = await self._declared(call.principal, call.path["webhook_id"], "webhook:Read")
        check_limit(query.limit, PAGE_MAX)
        page = await self._kept.deliveries(
            call.principal.tenant,
            declared.name,
            status=query.status,
            limit=query.limit,
            before=query.page,
        )
        return DeliveryList(
            tuple(_delivery_shown(one) for one in page.deliveries),
            None if page.next is None else str(page.next),
        )

    async def redeliver(self, call: Call) -> DeliveryShown:
        declared, _ = await self._declared(call.principal, call.path["webhook_id"], "webhook:Test")
        given = call.path["delivery_id"]
        digits = given.removeprefix(_PREFIX)
        if not given.startswith(_PREFIX) or not digits.isdecimal() or len(digits) > 18:
            raise BadRequest(
                f"expected a delivery's id like {_PREFIX}17, got {given[:80]!r}", field="delivery_id"
            )
        row = await self._kept.get(call.principal.tenant, declared.name)
        if row.disabled_at is not None:
            raise Conflict(f"webhook {declared.name!r} is disabled: enable it first")
        return _delivery_shown(await self._kept.redeliver(call.principal.tenant, declared.name, int(digits)))

    async def _declared(self, principal: Principal, name: str, action: str) -> tuple[Webhook, int]:
        authorize(principal, action, f"webhook/{name}")
        found = await self._resources.get(principal.tenant, "webhook", name)
        if not isinstance(found.resource, Webhook):
            raise TypeError("expected a webhook")
        return found.resource, found.version

    async def _put(self, principal: Principal, webhook: Webhook, *, expected: int) -> None:
        authorize(principal, "webhook:Put", f"webhook/{webhook.name}")
        check(webhook, private_allowed=self._private_allowed)
        await self._resources.put(
            principal.tenant, [webhook], by=principal.id, expected={("webhook", webhook.name): expected}
        )

    def _made(self, declared: Webhook, row: WebhookRow) -> WebhookMade:
        secret = secret_text(self._signing.key(row))
        return WebhookMade(**structs.asdict(_shown(declared, row)), secret=secret)


def _shown(declared: Webhook, row: WebhookRow) -> WebhookShown:
    status = "ok" if row.failing_since is None else "failing"
    return WebhookShown(
        id=declared.name,
        url=declared.url,
        events=declared.events,
        description=declared.description,
        status=status if row.disabled_at is None else "disabled",
        pending_count=row.pending_count,
        created_at=row.created_at,
        last_success_at=row.last_success_at,
        failing_since=row.failing_since,
        disabled_at=row.disabled_at,
        disabled_reason=row.disabled_reason,
        previous_secret_until=row.previous_until,
    )


def _delivery_shown(one: Delivery) -> DeliveryShown:
    return DeliveryShown(
        id=f"{_PREFIX}{one.seq}",
        webhook_id=one.endpoint,
        event_id=one.event_id,
        event_type=one.type,
        object_id=one.object_id,
        happened_at=one.at,
        status=one.status,
        attempts=one.attempts,
        last_attempt_at=one.last_at,
        last_status=one.last_status,
        last_error=one.last_error,
        next_attempt_at=one.due_at if one.status == "pending" else None,
        settled_at=one.settled_at,
    )


def operations(
    resources: Resources, kept: Webhooks, signing: Signing, *, private_allowed: bool
) -> list[Operation]:
    api = WebhookApi(resources, kept, signing, private_allowed=private_allowed)
    one = "/v1/webhooks/{webhook_id}"
    common: dict[str, Any] = {"tag": "webhooks"}
    return [
        Operation(method="POST", path="/v1/webhooks", id="createWebhook", summary="Declare a webhook; its secret is shown this once.",
                  handler=api.create, body=CreateWebhook, answer=WebhookMade, **common),
        Operation(method="GET", path="/v1/webhooks", id="listWebhooks", summary="Webhooks, and how they do.", handler=api.list,
                  answer=WebhookList, **common),
        Operation(method="GET", path=one, id="getWebhook", summary="A webhook, and how it does.", handler=api.get,
                  answer=WebhookShown, **common),
        Operation(method="POST", path=one, id="updateWebhook", summary="Change a webhook; at another address it is tried again.",
                  handler=api.update, body=UpdateWebhook, answer=WebhookShown, **common),
        Operation(method="DELETE", path=one, id="deleteWebhook", summary="Take a webhook out of use, with what it was still to be told.",
                  handler=api.delete, answer=WebhookDeleted, **common),
        Operation(method="POST", path=f"{one}/rotate", id="rotateWebhookSecret",
                  summary="Make a new secret, shown this once; for a while the old one signs, too.", handler=api.rotate,
                  body=RotateSecret, answer=WebhookMade, **common),
        Operation(method="POST", path=f"{one}/enable", id="enableWebhook", summary="Use a webhook again that was disabled.",
                  handler=api.enable, body=Nothing, answer=WebhookShown, **common),
        Operation(method="POST", path=f"{one}/test", id="testWebhook", summary="Tell it a webhook.test event.", handler=api.test,
                  body=Nothing, answer=DeliveryShown, **common),
        Operation(method="GET", path=f"{one}/deliveries", id="listWebhookDeliveries", summary="What it was told, newest first.",
                  handler=api.deliveries, query=ListDeliveries, answer=DeliveryList, **common),
        Operation(method="POST", path=f"{one}/deliveries/{{delivery_id}}/redeliver", id="redeliverWebhookEvent",
                  summary="Tell it again, with all attempts anew.", handler=api.redeliver, body=Nothing, answer=DeliveryShown,
                  **common),
    ]  # fmt: skip
