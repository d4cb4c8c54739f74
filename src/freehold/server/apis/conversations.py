"""Conversations and their items, in OpenAI's shapes. Source: https://platform.openai.com/docs/api-reference/conversations.

A response that names one is given its items and adds its own (responses_keeping.py).
"""

from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from freehold.core import ids
from freehold.core.errors import BadRequest, Unsupported
from freehold.core.policy import authorize
from freehold.core.ports import Clock, Wire
from freehold.core.responses import Conversation, ConversationItem, Conversations
from freehold.core.validation import check_limit
from freehold.gateway.residency import Place, hold_here, hold_together
from freehold.server.apis import _response_items as items
from freehold.server.operations import Call, Operation

ITEMS_AT_ONCE_MAX: Final = 20
ITEMS_PAGE_MAX: Final = 100
METADATA_MAX: Final = 16
METADATA_KEY_CHARS_MAX: Final = 64
METADATA_VALUE_CHARS_MAX: Final = 512

CREATE: Final = "conversation:Create"
GET: Final = "conversation:Get"
UPDATE: Final = "conversation:Update"
DELETE: Final = "conversation:Delete"

_encode: Final = msgspec.json.Encoder().encode


class CreateConversation(Struct, frozen=True, forbid_unknown_fields=True):
    items: tuple[Raw, ...] | None = None
    metadata: dict[str, str] | None = None


class UpdateConversation(Struct, frozen=True, forbid_unknown_fields=True):
    metadata: dict[str, str] | UnsetType | None = UNSET


class AddItems(Struct, frozen=True, forbid_unknown_fields=True):
    items: tuple[Raw, ...]


class IncludeQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """All of an item is shown, whatever `include` says."""

    include: tuple[str, ...] = ()


class ItemsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`after` is an item's id. All of an item is shown, whatever `include` says."""

    after: str | None = None
    limit: int = 20
    order: str = "desc"
    include: tuple[str, ...] = ()


class ConversationShown(Struct, frozen=True):
    id: str
    created_at: int
    metadata: Raw
    object: str = "conversation"


class ConversationDeleted(Struct, frozen=True):
    id: str
    object: str = "conversation.deleted"
    deleted: bool = True


class ConversationApi:
    def __init__(self, conversations: Conversations, clock: Clock, home: Place) -> None:
        self._conversations = conversations
        self._clock = clock
        self._home = home

    async def create(self, call: Call) -> ConversationShown:
        body: CreateConversation = call.body
        principal = call.principal
        authorize(principal, CREATE, "conversation/*")
        hold_here(principal, self._home, "the conversation")
        conversation = Conversation(
            id=self._new_id("conv"),
            tenant=principal.tenant,
            created_by=principal.id,
            created_at=self._clock.now(),
            metadata=_metadata(body.metadata),
            labels=principal.residency,
        )
        return _shown(await self._conversations.create(conversation, self._new_items(body.items or ())))

    async def get(self, call: Call) -> ConversationShown:
        return _shown(await self._conversations.get(*self._named(call, GET)))

    async def update(self, call: Call) -> ConversationShown:
        body: UpdateConversation = call.body
        tenant, conversation_id = self._named(call, UPDATE)
        if isinstance(body.metadata, UnsetType):
            return _shown(await self._conversations.get(tenant, conversation_id))
        return _shown(await self._conversations.update(tenant, conversation_id, _metadata(body.metadata)))

    async def delete(self, call: Call) -> ConversationDeleted:
        tenant, conversation_id = self._named(call, DELETE)
        await self._conversations.delete(tenant, conversation_id)
        return ConversationDeleted(conversation_id)

    async def add_items(self, call: Call) -> items.ItemPage:
        body: AddItems = call.body
        tenant, conversation_id = self._named(call, UPDATE)
        if call.principal.residency:
            there = await self._conversations.get(tenant, conversation_id)
            hold_together(call.principal, there.labels, f"the conversation {conversation_id}")
        added = self._new_items(body.items)
        await self._conversations.add(tenant, conversation_id, added)
        return items.page(added, more=False)

    async def list_items(self, call: Call) -> items.ItemPage:
        query: ItemsQuery = call.query
        check_limit(query.limit, ITEMS_PAGE_MAX)
        tenant, conversation_id = self._named(call, GET)
        page = await self._conversations.page(
            tenant,
            conversation_id,
            after=query.after,
            limit=query.limit,
            newest_first=items.is_newest_first(query.order),
        )
        return items.page(page.items, more=page.more)

    async def get_item(self, call: Call) -> dict[str, Any]:
        tenant, conversation_id = self._named(call, GET)
        return items.shown(await self._conversations.item(tenant, conversation_id, call.path["item_id"]))

    async def delete_item(self, call: Call) -> ConversationShown:
        """Answers with the conversation, as OpenAI does."""
        tenant, conversation_id = self._named(call, UPDATE)
        await self._conversations.delete_item(tenant, conversation_id, call.path["item_id"])
        return _shown(await self._conversations.get(tenant, conversation_id))

    def _named(self, call: Call, action: str) -> tuple[str, str]:
        conversation_id = call.path["conversation_id"]
        authorize(call.principal, action, f"conversation/{conversation_id}")
        return call.principal.tenant, conversation_id

    def _new_items(self, given: tuple[Raw, ...]) -> list[ConversationItem]:
        if len(given) > ITEMS_AT_ONCE_MAX:
            raise BadRequest(
                f"expected at most {ITEMS_AT_ONCE_MAX} items at once, got {len(given)}", field="items"
            )
        array = items.array_of(Raw(_encode(given)), field="items")
        if items.references(array):
            raise Unsupported(
                "a conversation keeps items, not references: send the item itself", field="items"
            )
        return items.identified(array, self._new_id("items"))

    def _new_id(self, prefix: str) -> str:
        clock = self._clock
        return ids.compose(prefix, clock.now_ms(), clock.entropy(ids.CHANCE_BYTES))


def _metadata(given: dict[str, str] | None) -> bytes:
    """Limits are OpenAI's."""
    metadata = given or {}
    if len(metadata) > METADATA_MAX:
        raise BadRequest(f"expected at most {METADATA_MAX} pairs, got {len(metadata)}", field="metadata")
    for key, value in metadata.items():
        if len(key) > METADATA_KEY_CHARS_MAX:
            raise BadRequest(
                f"expected keys of at most {METADATA_KEY_CHARS_MAX} characters", field="metadata"
            )
        if len(value) > METADATA_VALUE_CHARS_MAX:
            raise BadRequest(
                f"expected at most {METADATA_VALUE_CHARS_MAX} characters, got {len(value)}",
                field=f"metadata.{key}",
            )
    return _encode(metadata)


def _shown(conversation: Conversation) -> ConversationShown:
    return ConversationShown(
        conversation.id, int(conversation.created_at.timestamp()), Raw(conversation.metadata)
    )


def operations(conversations: Conversations, clock: Clock, *, dialect: Wire, home: Place) -> list[Operation]:
    """`home` is where conversations are kept."""
    api = ConversationApi(conversations, clock, home)
    one = "/v1/conversations/{conversation_id}"
    item = f"{one}/items/{{item_id}}"
    return [
        Operation(method="POST", path="/v1/conversations", id="createConversation", tag="conversations", dialect=dialect,
                  summary="Begin a conversation, with up to 20 items.", handler=api.create, body=CreateConversation,
                  answer=ConversationShown),
        Operation(method="GET", path=one, id="getConversation", tag="conversations", dialect=dialect,
                  summary="A conversation, without its items.", handler=api.get, answer=ConversationShown),
        Operation(method="POST", path=one, id="updateConversation", tag="conversations", dialect=dialect,
                  summary="Replace its metadata.", handler=api.update, body=UpdateConversation, answer=ConversationShown),
        Operation(method="DELETE", path=one, id="deleteConversation", tag="conversations", dialect=dialect,
                  summary="Forget a conversation and its items.", handler=api.delete, answer=ConversationDeleted),
        Operation(method="POST", path=f"{one}/items", id="addConversationItems", tag="conversations", dialect=dialect,
                  query=IncludeQuery, summary="Add up to 20 items.", handler=api.add_items, body=AddItems,
                  answer=items.ItemPage),
        Operation(method="GET", path=f"{one}/items", id="listConversationItems", tag="conversations", dialect=dialect,
                  query=ItemsQuery, summary="Its items, newest first unless `order=asc`.", handler=api.list_items,
                  answer=items.ItemPage),
        Operation(method="GET", path=item, id="getConversationItem", tag="conversations", dialect=dialect,
                  query=IncludeQuery, summary="One item.", handler=api.get_item),
        Operation(method="DELETE", path=item, id="deleteConversationItem", tag="conversations", dialect=dialect,
                  summary="Forget one item; answers with the conversation.", handler=api.delete_item,
                  answer=ConversationShown),
    ]  # fmt: skip
