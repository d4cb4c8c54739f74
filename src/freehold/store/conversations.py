"""Conversations and their items: implements core.ports.Conversations.

Items are numbered within their conversation. Whoever adds some locks its row, so that the order is certain.
"""

from collections.abc import Sequence
from typing import Final

from freehold.core.errors import NotFound, TooLarge
from freehold.core.responses import Conversation, ConversationItem, ConversationItemPage, Conversations
from freehold.store.database import Connection, Database, Row

ITEMS_MAX: Final = 10_000
ITEMS_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of one conversation, so far as a model is to read it."""

_COLUMNS: Final = "id, tenant, created_by, created_at, metadata, labels"
_CREATE: Final = f"""
INSERT INTO conversations (id, tenant, created_by, metadata, labels) VALUES ($1, $2, $3, $4, $5) RETURNING {_COLUMNS}
"""  # noqa: S608 - our own constants
_GET: Final = f"SELECT {_COLUMNS} FROM conversations WHERE tenant = $1 AND id = $2"  # noqa: S608 - our own constants
_UPDATE: Final = f"""
UPDATE conversations SET metadata = $3 WHERE tenant = $1 AND id = $2 RETURNING {_COLUMNS}
"""  # noqa: S608 - our own constants
_DELETE: Final = "DELETE FROM conversations WHERE tenant = $1 AND id = $2 RETURNING id"

_ADD: Final = """
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[]) WITH ORDINALITY AS given (conversation_id, item_id, body, place)
), grown AS (
    UPDATE conversations c SET items_ever = c.items_ever + more.count
    FROM (SELECT conversation_id, count(*) AS count FROM given GROUP BY 1 ORDER BY 1) more
    WHERE c.id = more.conversation_id
    RETURNING c.id, c.items_ever - more.count AS before
)
INSERT INTO conversation_items (conversation_id, seq, item_id, body)
SELECT g.conversation_id, grown.before + row_number() OVER (PARTITION BY g.conversation_id ORDER BY g.place), g.item_id, g.body
FROM given g JOIN grown ON grown.id = g.conversation_id
RETURNING seq
"""

_OF: Final = "conversation_id = (SELECT id FROM conversations WHERE tenant = $1 AND id = $2)"
_EVERY: Final = f"""
SELECT item_id, body FROM conversation_items WHERE {_OF} ORDER BY seq LIMIT $3
"""  # noqa: S608 - our own constants
_SIZE: Final = f"""
SELECT count(*) AS count, coalesce(sum(length(body)), 0)::bigint AS size_bytes FROM conversation_items WHERE {_OF}
"""  # noqa: S608 - our own constants
_ITEM: Final = f"""
SELECT item_id, body FROM conversation_items WHERE {_OF} AND item_id = $3 ORDER BY seq DESC LIMIT 1
"""  # noqa: S608 - our own constants
_DELETE_ITEM: Final = f"""
DELETE FROM conversation_items WHERE {_OF} AND item_id = $3 RETURNING seq
"""  # noqa: S608 - our own constants
_PLACE: Final = f"""
SELECT min(seq) AS first, max(seq) AS last FROM conversation_items WHERE {_OF} AND item_id = $3
"""  # noqa: S608 - our own constants
_UPWARDS: Final = f"""
SELECT item_id, body FROM conversation_items WHERE {_OF} AND seq > $3 ORDER BY seq LIMIT $4
"""  # noqa: S608 - our own constants
_DOWNWARDS: Final = f"""
SELECT item_id, body FROM conversation_items WHERE {_OF} AND seq < $3 ORDER BY seq DESC LIMIT $4
"""  # noqa: S608 - our own constants
_BEYOND: Final = 2**62


async def append_items(connection: Connection, told: Sequence[tuple[str, Sequence[ConversationItem]]]) -> int:
    """How many were added: of a conversation that is gone, none."""
    flat = [(conversation_id, item) for conversation_id, items in told for item in items]
    rows = await connection.fetch(
        _ADD,
        [conversation_id for conversation_id, _ in flat],
        [item.id for _, item in flat],
        [item.body for _, item in flat],
    )
    return len(rows)


class PostgresConversations:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, conversation: Conversation, items: Sequence[ConversationItem]) -> Conversation:
        async def work(connection: Connection) -> Conversation:
            rows: Sequence[Row] = await connection.fetch(
                _CREATE,
                conversation.id,
                conversation.tenant,
                conversation.created_by,
                conversation.metadata,
                conversation.labels,
            )
            if items:
                await append_items(connection, [(conversation.id, items)])
            return _conversation(rows[0])

        return await self._database.in_transaction("creating a conversation", work)

    async def get(self, tenant: str, conversation_id: str) -> Conversation:
        rows = await self._database.fetch("reading a conversation", _GET, tenant, conversation_id)
        if not rows:
            raise not_found(conversation_id)
        return _conversation(rows[0])

    async def update(self, tenant: str, conversation_id: str, metadata: bytes) -> Conversation:
        rows = await self._database.fetch(
            "updating a conversation", _UPDATE, tenant, conversation_id, metadata
        )
        if not rows:
            raise not_found(conversation_id)
        return _conversation(rows[0])

    async def delete(self, tenant: str, conversation_id: str) -> None:
        if not await self._database.fetch("deleting a conversation", _DELETE, tenant, conversation_id):
            raise not_found(conversation_id)

    async def add(self, tenant: str, conversation_id: str, items: Sequence[ConversationItem]) -> None:
        await self.get(tenant, conversation_id)

        async def work(connection: Connection) -> int:
            return await append_items(connection, [(conversation_id, items)])

        if await self._database.in_transaction("adding to a conversation", work) < len(items):
            raise not_found(conversation_id)

    async def page(
        self, tenant: str, conversation_id: str, *, after: str | None, limit: int, newest_first: bool
    ) -> ConversationItemPage:
        await self.get(tenant, conversation_id)
        start = _BEYOND if newest_first else 0
        if after is not None:
            rows = await self._database.fetch("finding an item", _PLACE, tenant, conversation_id, after)
            place = rows[0]["first" if newest_first else "last"]
            if place is None:
                raise item_not_found(conversation_id, after)
            start = place
        statement = _DOWNWARDS if newest_first else _UPWARDS
        rows = await self._database.fetch(
            "listing a conversation", statement, tenant, conversation_id, start, limit + 1
        )
        return ConversationItemPage(tuple(_item(row) for row in rows[:limit]), len(rows) > limit)

    async def every(self, tenant: str, conversation_id: str) -> Sequence[ConversationItem]:
        await self.get(tenant, conversation_id)
        size = (await self._database.fetch("measuring a conversation", _SIZE, tenant, conversation_id))[0]
        if size["count"] > ITEMS_MAX or size["size_bytes"] > ITEMS_BYTES_MAX:
            raise TooLarge(
                f"the conversation has {size['count']} items of {size['size_bytes']} bytes; a model is given up to {ITEMS_MAX} "
                f"and {ITEMS_BYTES_MAX}: delete some, or begin a new one"
            )
        rows = await self._database.fetch(
            "reading a conversation", _EVERY, tenant, conversation_id, ITEMS_MAX
        )
        return [_item(row) for row in rows]

    async def item(self, tenant: str, conversation_id: str, item_id: str) -> ConversationItem:
        rows = await self._database.fetch("reading an item", _ITEM, tenant, conversation_id, item_id)
        if not rows:
            await self.get(tenant, conversation_id)
            raise item_not_found(conversation_id, item_id)
        return _item(rows[0])

    async def delete_item(self, tenant: str, conversation_id: str, item_id: str) -> None:
        if not await self._database.fetch("deleting an item", _DELETE_ITEM, tenant, conversation_id, item_id):
            await self.get(tenant, conversation_id)
            raise item_not_found(conversation_id, item_id)


def not_found(conversation_id: str) -> NotFound:
    return NotFound(f"Conversation with id '{conversation_id[:80]}' not found.")


def item_not_found(conversation_id: str, item_id: str) -> NotFound:
    return NotFound(f"Item with id '{item_id[:80]}' not found in conversation '{conversation_id[:80]}'.")


def _conversation(row: Row) -> Conversation:
    return Conversation(
        id=row["id"],
        tenant=row["tenant"],
        created_by=row["created_by"],
        created_at=row["created_at"],
        metadata=row["metadata"],
        labels=tuple(row["labels"]),
    )


def _item(row: Row) -> ConversationItem:
    return ConversationItem(row["item_id"], row["body"])


_IMPLEMENTS: type[Conversations] = PostgresConversations
