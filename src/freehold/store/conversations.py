"""Conversations and their items: implements core.responses.Conversations. Each is a session of the kind `conversation`, on the one log.

An item is an event, so the log's order is theirs. Who deletes one says so in the log, and what it said is erased: the one change that
an event ever sees. Its large texts go with the last event of the conversation that names them.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from freehold.core.errors import Conflict, Internal, NotFound, TooLarge
from freehold.core.response_facts import (
    ConversationStarted,
    ItemAdded,
    ItemDeleted,
    ItemErased,
    MetadataChanged,
)
from freehold.core.responses import Conversation, ConversationItem, ConversationItemPage, Conversations
from freehold.core.session_log import SessionRow
from freehold.store import _deletions
from freehold.store._batch import Append, Group
from freehold.store._blocks import named_by, named_in, whole_bytes
from freehold.store._events import decode, encode
from freehold.store._statements import write_appends
from freehold.store.database import Connection, Database, Row
from freehold.store.log import PostgresSessionLog

ITEMS_MAX: Final = 10_000
ITEMS_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of one conversation, so far as a model is to read it."""

_FOUND: Final = "FROM sessions s WHERE s.tenant = $1 AND s.id = $2 AND s.kind = 'conversation'"
# Its labels stand in its first event, its metadata in the last that says them.
_GET: Final = f"""
SELECT s.created_at, e.seq, e.at, e.body
FROM (SELECT * {_FOUND}) AS s CROSS JOIN LATERAL (
    (SELECT seq, at, body FROM events WHERE session_id = s.id AND type = 'metadata_changed' ORDER BY seq DESC LIMIT 1)
    UNION ALL SELECT seq, at, body FROM events WHERE session_id = s.id AND seq = 1
) AS e ORDER BY e.seq
"""  # noqa: S608 - our own constants
_ADDED: Final = f"session_id = (SELECT s.id {_FOUND}) AND type = 'item_added'"
_UPWARDS: Final = f"SELECT seq, at, body FROM events WHERE {_ADDED} AND seq > $3 ORDER BY seq LIMIT $4"  # noqa: S608 - our own constants
_DOWNWARDS: Final = f"SELECT seq, at, body FROM events WHERE {_ADDED} AND seq < $3 ORDER BY seq DESC LIMIT $4"  # noqa: S608 - our own constants
_SIZE: Final = f"SELECT count(*) AS count, coalesce(sum(octet_length(body)), 0)::bigint AS size_bytes FROM events WHERE {_ADDED}"  # noqa: S608 - our own constants
_PLACES: Final = (
    f"SELECT seq FROM items WHERE session_id = (SELECT s.id {_FOUND}) AND item_id = $3 ORDER BY seq"  # noqa: S608 - our own constants
)
_LOCK: Final = f"SELECT s.version {_FOUND} FOR NO KEY UPDATE"
_UNNAME: Final = "DELETE FROM items WHERE tenant = $1 AND item_id = $3 AND session_id = $2 RETURNING seq"
_ERASE: Final = """
UPDATE events e SET type = 'item_erased', body = $3
FROM (SELECT seq, body FROM events WHERE session_id = $1 AND seq = ANY ($2::bigint[])) AS before
WHERE e.session_id = $1 AND e.seq = before.seq
RETURNING before.body
"""
_BEYOND: Final = 2**62
_encode: Final = msgspec.json.Encoder().encode


class PostgresConversations:
    def __init__(self, database: Database, log: PostgresSessionLog) -> None:
        self._database = database
        self._log = log

    async def create(self, conversation: Conversation, items: Sequence[ConversationItem]) -> Conversation:
        row = SessionRow(
            id=conversation.id,
            tenant=conversation.tenant,
            kind="conversation",
            agent="",
            agent_version=0,
            status="idle",
            version=0,
            created_at=conversation.created_at,
            updated_at=conversation.created_at,
            created_by=conversation.created_by,
        )
        started = ConversationStarted(
            metadata=Raw(conversation.metadata), by=conversation.created_by, labels=conversation.labels
        )
        made = await self._log.create(row, [started, *_added(items)])
        return msgspec.structs.replace(conversation, created_at=made.created_at)

    async def get(self, tenant: str, conversation_id: str) -> Conversation:
        rows = await self._database.fetch("reading a conversation", _GET, tenant, conversation_id)
        if not rows:
            raise not_found(conversation_id)
        events = decode(conversation_id, rows, await named_by(self._database, [conversation_id], rows))
        match [recorded.event for recorded in events]:
            case [ConversationStarted() as started]:
                metadata = started.metadata
            case [ConversationStarted() as started, MetadataChanged(metadata=metadata)]:
                pass
            case _:
                raise Internal(f"the log of {conversation_id} does not begin as a conversation")
        return Conversation(
            id=conversation_id,
            tenant=tenant,
            created_by=started.by,
            created_at=rows[0]["created_at"],
            metadata=bytes(metadata),
            labels=started.labels,
        )

    async def update(self, tenant: str, conversation_id: str, metadata: bytes) -> Conversation:
        found = await self.get(tenant, conversation_id)
        await self._append(conversation_id, [MetadataChanged(Raw(metadata))])
        return msgspec.structs.replace(found, metadata=metadata)

    async def delete(self, tenant: str, conversation_id: str) -> None:
        await self.get(tenant, conversation_id)
        try:
            await self._log.delete(tenant, conversation_id)
        except NotFound as error:
            raise not_found(conversation_id) from error

    async def add(self, tenant: str, conversation_id: str, items: Sequence[ConversationItem]) -> None:
        await self.get(tenant, conversation_id)
        if items:
            await self._append(conversation_id, _added(items))

    async def _append(self, conversation_id: str, events: Sequence[ItemAdded | MetadataChanged]) -> None:
        try:
            await self._log.append(conversation_id, events)
        except NotFound as error:
            raise not_found(conversation_id) from error

    async def page(
        self, tenant: str, conversation_id: str, *, after: str | None, limit: int, newest_first: bool
    ) -> ConversationItemPage:
        await self.get(tenant, conversation_id)
        start = _BEYOND if newest_first else 0
        if after is not None:
            places = await self._places(tenant, conversation_id, after)
            start = places[0 if newest_first else -1]
        statement = _DOWNWARDS if newest_first else _UPWARDS
        rows = await self._database.fetch(
            "listing a conversation", statement, tenant, conversation_id, start, limit + 1
        )
        return ConversationItemPage(
            tuple(await self._items(conversation_id, rows[:limit])), len(rows) > limit
        )

    async def every(self, tenant: str, conversation_id: str) -> Sequence[ConversationItem]:
        await self.get(tenant, conversation_id)
        size = (await self._database.fetch("measuring a conversation", _SIZE, tenant, conversation_id))[0]
        _check_size(size["count"], size["size_bytes"])
        rows = await self._database.fetch(
            "reading a conversation", _UPWARDS, tenant, conversation_id, 0, ITEMS_MAX
        )
        _check_size(len(rows), sum(whole_bytes(row["body"]) for row in rows))
        return await self._items(conversation_id, rows)

    async def item(self, tenant: str, conversation_id: str, item_id: str) -> ConversationItem:
        places = await self._places(tenant, conversation_id, item_id)
        rows = await self._database.fetch(
            "reading an item", _UPWARDS, tenant, conversation_id, places[-1] - 1, 1
        )
        found = await self._items(conversation_id, rows)
        if not found or found[0].id != item_id:
            raise item_not_found(conversation_id, item_id)  # Deleted just now.
        return found[0]

    async def delete_item(self, tenant: str, conversation_id: str, item_id: str) -> None:
        async def work(connection: Connection) -> bool:
            if not await connection.fetch(_LOCK, tenant, conversation_id):
                raise not_found(conversation_id)
            seqs = sorted(
                row["seq"] for row in await connection.fetch(_UNNAME, tenant, conversation_id, item_id)
            )
            if not seqs:
                return False
            erased = _encode(ItemErased(item_id))
            rows = await connection.fetch(_ERASE, conversation_id, seqs, erased)
            deleted = Group(Append(conversation_id, encode([ItemDeleted(id=item_id, seqs=tuple(seqs))])))
            if not (await write_appends(connection, [deleted])).versions:
                raise Conflict(f"the conversation {conversation_id} cannot be written to")
            digests = sorted({digest for row in rows for digest in named_in(row["body"])})
            await _deletions.release_blocks(connection, tenant, conversation_id, digests)
            return True

        if not await self._database.in_transaction("deleting an item", work):
            raise item_not_found(conversation_id, item_id)

    async def _places(self, tenant: str, conversation_id: str, item_id: str) -> Sequence[int]:
        """Of the events that say it; raises NotFound."""
        rows = await self._database.fetch("finding an item", _PLACES, tenant, conversation_id, item_id)
        if not rows:
            await self.get(tenant, conversation_id)
            raise item_not_found(conversation_id, item_id)
        return [row["seq"] for row in rows]

    async def _items(self, conversation_id: str, rows: Sequence[Row]) -> list[ConversationItem]:
        events = decode(conversation_id, rows, await named_by(self._database, [conversation_id], rows))
        return [
            ConversationItem(recorded.event.id, bytes(recorded.event.item))
            for recorded in events
            if isinstance(recorded.event, ItemAdded)
        ]


def _added(items: Sequence[ConversationItem]) -> list[ItemAdded]:
    return [ItemAdded(item.id, Raw(item.body)) for item in items]


def _check_size(count: int, size_bytes: int) -> None:
    if count > ITEMS_MAX or size_bytes > ITEMS_BYTES_MAX:
        raise TooLarge(
            f"the conversation has {count} items of {size_bytes} bytes; a model is given up to {ITEMS_MAX} "
            f"and {ITEMS_BYTES_MAX}: delete some, or begin a new one"
        )


def not_found(conversation_id: str) -> NotFound:
    return NotFound(f"Conversation with id '{conversation_id[:80]}' not found.")


def item_not_found(conversation_id: str, item_id: str) -> NotFound:
    return NotFound(f"Item with id '{item_id[:80]}' not found in conversation '{conversation_id[:80]}'.")


_IMPLEMENTS: type[Conversations] = PostgresConversations
