"""Answers of the Responses API, kept: implements core.responses.Responses. Each is a session of the kind `response`, on the one log.

One that has ended is written whole, by the log's group commit, and what its conversation gets along with it. One in the background is a
session that a worker claims, as any other. Reading is _response_reads.py. Not here: conversations (conversations.py).
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Raw, Struct

from freehold.core.errors import Conflict, NotFound, Overloaded, TooLarge
from freehold.core.response_facts import (
    ItemAdded,
    ResponseAsked,
    ResponseBegun,
    ResponseEnded,
    ResponseHandedBack,
    ResponseTold,
)
from freehold.core.responses import ConversationItem, KeptResponse, PastResponse, ResponseEvents, Responses
from freehold.core.session import Recorded, SessionStatus
from freehold.core.session_log import Along, Lease, SessionRow
from freehold.store import _response_reads
from freehold.store._events import APPEND_BYTES_MAX
from freehold.store.database import Database
from freehold.store.log import PostgresSessionLog

RESPONSE_BYTES_MAX: Final = APPEND_BYTES_MAX - 64 * 1024
CANCEL_TRIES_MAX: Final = 100

_TOLD: Final = """
SELECT body FROM events WHERE session_id = $1 AND type = 'response_told' ORDER BY seq DESC LIMIT 1
"""
_UNTIMED: Final = datetime.fromtimestamp(0, UTC)
"""Times are the log's own."""


class _Head(Struct):
    model: str | None = None


_HEAD: Final = msgspec.json.Decoder(_Head)
_RUN: Final = msgspec.json.Decoder(ResponseTold)


class PostgresResponses:
    def __init__(self, database: Database, log: PostgresSessionLog) -> None:
        self._database = database
        self._log = log

    async def keep(self, response: KeptResponse, items: Sequence[ConversationItem] = ()) -> None:
        size_bytes = len(response.head) + len(response.input) + len(response.output)
        if size_bytes > RESPONSE_BYTES_MAX:
            raise TooLarge(
                f"an answer is kept up to {RESPONSE_BYTES_MAX} bytes, with its input; this has {size_bytes}: say store: false"
            )
        ended = _ended(response, _asked(response))
        await self._log.create(_row(response, "idle"), (ended,), along=_told_along(response, items))

    async def put_off(self, response: KeptResponse, events: ResponseEvents | None) -> None:
        asked = msgspec.structs.replace(
            _asked(response), head=Raw(response.head), request=Raw(response.request or b"{}")
        )
        told = () if events is None else (_told(events),)
        await self._log.create(_row(response, "running"), (asked, *told))

    async def get(self, tenant: str, response_id: str) -> KeptResponse:
        return (await _response_reads.get(self._database, tenant, response_id))[0]

    async def history(self, tenant: str, response_id: str) -> Sequence[PastResponse]:
        return await _response_reads.history(self._database, tenant, response_id)

    async def with_items(self, tenant: str, item_ids: Sequence[str]) -> Sequence[PastResponse]:
        return await _response_reads.with_items(self._database, tenant, item_ids)

    async def delete(self, tenant: str, response_id: str) -> None:
        """Whoever runs it loses it."""
        await self.cancel(tenant, response_id)
        try:
            await self._log.delete(tenant, response_id)
        except NotFound as error:
            raise _response_reads.not_found(response_id) from error

    async def cancel(self, tenant: str, response_id: str) -> KeptResponse:
        """Whoever runs it writes to the same log: then it is looked at again."""
        for _ in range(CANCEL_TRIES_MAX):
            found, version = await _response_reads.get(self._database, tenant, response_id)
            if found.ended:
                return found
            try:
                await self._log.append(
                    response_id, [ResponseEnded(status="cancelled")], expected_version=version
                )
            except Conflict:
                continue
            except NotFound as error:
                raise _response_reads.not_found(response_id) from error
            return await self.get(tenant, response_id)
        raise Overloaded(f"the response {response_id} is written to all the time: try again")

    async def begin(self, lease: Lease) -> None:
        await self._log.append(lease.session_id, [ResponseBegun()], lease=lease)

    async def hand_back(self, lease: Lease) -> None:
        await self._log.append(lease.session_id, [ResponseHandedBack()], lease=lease)

    async def told_count(self, response_id: str) -> int:
        rows = await self._database.fetch("looking how much of a stream is kept", _TOLD, response_id)
        if not rows:
            return 0
        last = _RUN.decode(rows[0]["body"])
        return last.first + last.count

    async def add_events(self, lease: Lease, events: ResponseEvents) -> None:
        await self._log.append(lease.session_id, [_told(events)], lease=lease)

    async def end(
        self,
        lease: Lease,
        response: KeptResponse,
        events: ResponseEvents | None = None,
        items: Sequence[ConversationItem] = (),
    ) -> None:
        told = () if events is None else (_told(events),)
        await self._log.append(
            lease.session_id,
            (*told, _ended(response)),
            lease=lease,
            releases=True,
            along=_told_along(response, items),
        )

    def follow(self, response_id: str) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Recorded]]]:
        return self._log.follow(response_id)


def _row(response: KeptResponse, status: SessionStatus) -> SessionRow:
    return SessionRow(
        id=response.id,
        tenant=response.tenant,
        kind="response",
        agent="",
        agent_version=0,
        status=status,
        version=0,
        created_at=_UNTIMED,
        updated_at=_UNTIMED,
        model=_HEAD.decode(response.head).model,
        created_by=response.created_by,
        origin_id=response.previous_id,
    )


def _asked(response: KeptResponse) -> ResponseAsked:
    return ResponseAsked(
        input=Raw(response.input),
        by=response.created_by,
        previous_id=response.previous_id,
        conversation_id=response.conversation_id,
        streamed=response.streamed,
        labels=response.labels,
    )


def _ended(response: KeptResponse, asked: ResponseAsked | None = None) -> ResponseEnded:
    return ResponseEnded(
        status=response.status,
        head=Raw(response.head),
        output=Raw(response.output),
        item_ids=response.item_ids,
        asked=asked,
    )


def _told(events: ResponseEvents) -> ResponseTold:
    return ResponseTold(events.seq, events.count, events.body.decode("utf-8", "replace"))


def _told_along(response: KeptResponse, items: Sequence[ConversationItem]) -> Along | None:
    if response.conversation_id is None or not items:
        return None
    return Along(response.conversation_id, [ItemAdded(item.id, Raw(item.body)) for item in items])


_IMPLEMENTS: type[Responses] = PostgresResponses
