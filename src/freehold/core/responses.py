"""Answers that clients of OpenAI's Responses leave with us, and their conversations, as kept. Values, and the ports of what keeps them.

Source: https://platform.openai.com/docs/api-reference/responses, https://platform.openai.com/docs/api-reference/conversations.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

ResponseStatus: TypeAlias = Literal["queued", "in_progress", "completed", "failed", "cancelled", "incomplete"]


class KeptResponse(Struct, frozen=True, kw_only=True):
    """`head` (the response object without its output), `input` and `output` (arrays of items) are JSON.

    `input` is what came with this request alone; what was said before is with `previous_id`, or in the conversation.
    `request` is what is left to be asked, of one in the background that has not ended. `streamed`: its events are kept.
    `item_ids` are those of its output, by which clients may refer to them; they are written and not read. `labels` are those of the request
    and of all that it built on: it is kept, and gone on with, only where they say.
    """

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
    epoch: int = 0
    item_ids: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


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


class Hint(Protocol):
    """Says that it is time to look; `asyncio.Event` is one."""

    def clear(self) -> None: ...
    async def wait(self) -> object: ...


class Responses(Protocol):
    """A `KeptResponse` that was claimed is the right to write it: its `epoch` fences, and who is too late gets Conflict."""

    async def keep(self, response: KeptResponse, items: Sequence[ConversationItem] = ()) -> None:
        """One that has ended; `items` go to its conversation. Durable on return; many share one transaction."""
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
        """Raises NotFound."""
        ...

    async def cancel(self, tenant: str, response_id: str) -> KeptResponse:
        """As it is afterwards; one that has ended stays as it is. Raises NotFound."""
        ...

    async def claim(self, owner: str, *, limit: int, lease_s: float) -> Sequence[KeptResponse]:
        """Those in the background that nobody runs, or no longer; each is an attempt more."""
        ...

    async def renew(self, owner: str, held: Sequence[KeptResponse], *, lease_s: float) -> frozenset[str]:
        """Ids of those still held."""
        ...

    async def release(self, held: KeptResponse) -> None:
        """Not run after all: that attempt does not count."""
        ...

    async def add_events(self, held: KeptResponse, events: ResponseEvents) -> None:
        """Durable on return. Raises Conflict."""
        ...

    async def end(
        self,
        held: KeptResponse,
        events: ResponseEvents | None = None,
        items: Sequence[ConversationItem] = (),
    ) -> None:
        """Writes its status, head and output, with the end of its stream. Raises Conflict."""
        ...

    async def events(self, response_id: str, *, after: int) -> Sequence[ResponseEvents]:
        """Runs with events numbered above `after`, in order; not all, if they are many."""
        ...

    def watched(self, response_id: str) -> AbstractAsyncContextManager[Hint]:
        """Set whenever something may have happened to it, here or in another process: clear it before looking."""
        ...

    async def wait_for_work(self, timeout_s: float) -> None:
        """Returns when some response may want to be run, or after `timeout_s`."""
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
