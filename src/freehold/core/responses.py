"""Answers that clients of OpenAI's Responses leave with us, and their conversations, as kept. Values, and the ports of what keeps them.

Source: https://platform.openai.com/docs/api-reference/responses, https://platform.openai.com/docs/api-reference/conversations.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Final, Protocol

from msgspec import Struct

from freehold.core.response_facts import (
    ResponseAsked,
    ResponseBegun,
    ResponseEnded,
    ResponseHandedBack,
    ResponseStatus,
)
from freehold.core.session import Recorded, SessionEvent
from freehold.core.session_log import Lease

ENDED: Final[frozenset[str]] = frozenset({"completed", "failed", "cancelled", "incomplete"})


class KeptResponse(Struct, frozen=True, kw_only=True):
    """What a response's log says. `request` is there as long as it has not ended; the other fields are as in ResponseAsked and ResponseEnded."""

    id: str
    tenant: str
    created_by: str
    status: ResponseStatus
    head: bytes
    input: bytes = b"[]"
    output: bytes = b"[]"
    previous_id: str | None = None
    conversation_id: str | None = None
    streamed: bool = False
    request: bytes | None = None
    attempts: int = 0
    item_ids: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        return self.status in ENDED


def folded(response_id: str, tenant: str, events: Iterable[SessionEvent]) -> KeptResponse:
    """What the log says so far; what was told may be left out of it. Raises ValueError where it is no response's."""
    asked: ResponseAsked | None = None
    ended: ResponseEnded | None = None
    begun, attempts = False, 0
    for event in events:
        match event:
            case ResponseAsked():
                asked = event
            case ResponseBegun():
                begun, attempts = True, attempts + 1
            case ResponseHandedBack():
                attempts -= 1
            case ResponseEnded():
                asked, ended = event.asked or asked, event
            case _:
                pass
    if asked is None:
        raise ValueError(f"the log of {response_id} does not say what was asked")
    head = (ended and bytes(ended.head)) or bytes(asked.head) or b"{}"
    return KeptResponse(
        id=response_id,
        tenant=tenant,
        created_by=asked.by,
        status=ended.status if ended else "in_progress" if begun else "queued",
        head=head,
        input=bytes(asked.input),
        output=bytes(ended.output) if ended else b"[]",
        previous_id=asked.previous_id,
        conversation_id=asked.conversation_id,
        streamed=asked.streamed,
        request=None if ended else bytes(asked.request) or None,
        attempts=attempts,
        item_ids=ended.item_ids if ended else (),
        labels=asked.labels,
    )


class PastResponse(Struct, frozen=True):
    """One of a chain."""

    id: str
    status: ResponseStatus
    input: bytes
    output: bytes
    labels: tuple[str, ...] = ()


class ResponseEvents(Struct, frozen=True):
    """`count` server-sent events in one piece, numbered from `seq` on."""

    seq: int
    count: int
    body: bytes


class ConversationItem(Struct, frozen=True):
    """`body` is the item's JSON, as a model is told of it."""

    id: str
    body: bytes


class Responses(Protocol):
    """Responses, each of which is a session (kind `response`). Who runs one in the background holds its lease: who is too late gets Conflict."""

    async def keep(self, response: KeptResponse, items: Sequence[ConversationItem] = ()) -> None:
        """One that has ended; `items` go to its conversation, in the same transaction. Durable on return."""
        ...

    async def put_off(self, response: KeptResponse, events: ResponseEvents | None) -> None:
        """One that is to be run in the background, with the beginning of its stream."""
        ...

    async def get(self, tenant: str, response_id: str) -> KeptResponse:
        """Raises NotFound."""
        ...

    async def history(self, tenant: str, response_id: str) -> Sequence[PastResponse]:
        """That one and all before it, oldest first. Raises NotFound, also where one in between is gone; TooLarge."""
        ...

    async def with_items(self, tenant: str, item_ids: Sequence[str]) -> Sequence[PastResponse]:
        """Those whose output has any of these items, newest first; not all, if they are many."""
        ...

    async def delete(self, tenant: str, response_id: str) -> None:
        """Raises NotFound; Conflict where a retention policy holds it."""
        ...

    async def cancel(self, tenant: str, response_id: str) -> KeptResponse:
        """As it is afterwards; one that has ended stays as it is. Raises NotFound."""
        ...

    async def begin(self, lease: Lease) -> None:
        """An attempt."""
        ...

    async def hand_back(self, lease: Lease) -> None:
        """That attempt does not count."""
        ...

    async def told_count(self, response_id: str) -> int:
        """How many events of its stream are kept."""
        ...

    async def add_events(self, lease: Lease, events: ResponseEvents) -> None:
        """Durable on return."""
        ...

    async def end(
        self,
        lease: Lease,
        response: KeptResponse,
        events: ResponseEvents | None = None,
        items: Sequence[ConversationItem] = (),
    ) -> None:
        """Writes its status, head and output, with the end of its stream, and what its conversation gets; and gives the lease back."""
        ...

    def follow(self, response_id: str) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Recorded]]]:
        """Its log from the first event on, each once and in order, as they come; never ends by itself."""
        ...


class Conversation(Struct, frozen=True, kw_only=True):
    """`metadata` is JSON. `labels`: of everything in it."""

    id: str
    tenant: str
    created_by: str
    created_at: datetime
    metadata: bytes
    labels: tuple[str, ...] = ()


class ConversationItemPage(Struct, frozen=True):
    items: tuple[ConversationItem, ...]
    more: bool


class Conversations(Protocol):
    """All raise NotFound where there is no such conversation, or item in it."""

    async def create(self, conversation: Conversation, items: Sequence[ConversationItem]) -> Conversation:
        """Its time is the store's."""
        ...

    async def get(self, tenant: str, conversation_id: str) -> Conversation: ...
    async def update(self, tenant: str, conversation_id: str, metadata: bytes) -> Conversation: ...
    async def delete(self, tenant: str, conversation_id: str) -> None: ...
    async def add(self, tenant: str, conversation_id: str, items: Sequence[ConversationItem]) -> None: ...

    async def page(
        self, tenant: str, conversation_id: str, *, after: str | None, limit: int, newest_first: bool
    ) -> ConversationItemPage: ...

    async def every(self, tenant: str, conversation_id: str) -> Sequence[ConversationItem]:
        """All of them, in order. Raises TooLarge."""
        ...

    async def item(self, tenant: str, conversation_id: str, item_id: str) -> ConversationItem: ...
    async def delete_item(self, tenant: str, conversation_id: str, item_id: str) -> None: ...
