"""Answers of the Responses API, kept: implements core.ports.Responses.

An ended one is written by a batch that everyone shares who is waiting (group commit): while one transaction is on its way, the
next gathers. One in the background is a row that somebody runs under a lease; `epoch` fences, as in _leases.py. Not here:
conversations (conversations.py), except that an answer's items go there in the same transaction.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from operator import attrgetter
from typing import Final

from msgspec import Struct

from freehold.background import background
from freehold.core.errors import Conflict, FreeholdError, Internal, NotFound, Overloaded, TooLarge
from freehold.core.responses import ConversationItem, KeptResponse, PastResponse, ResponseEvents, Responses
from freehold.store import _responses_statements as sql
from freehold.store._listen import Listener
from freehold.store.conversations import append_items
from freehold.store.database import Connection, Database, Row

RETENTION_DAYS: Final = 30.0
BATCH_MAX: Final = 256
BATCH_BYTES_MAX: Final = 8 * 1024 * 1024
WAITING_MAX: Final = 10_000
WAITING_BYTES_MAX: Final = 256 * 1024 * 1024
RESPONSE_BYTES_MAX: Final = 64 * 1024 * 1024
CHAIN_MAX: Final = 1_000
CHAIN_BYTES_MAX: Final = 64 * 1024 * 1024
REFERRED_MAX: Final = 200
"""Responses that one request's references may lie in."""

EVENT_RUNS_MAX: Final = 200
"""Read at once."""


_TEXTS: Final = (attrgetter("item_ids"), attrgetter("labels"))


class _Waiting(Struct):
    response: KeptResponse
    items: Sequence[ConversationItem]
    size_bytes: int
    done: "asyncio.Future[None]"


class PostgresResponses:
    """Opened with `open_responses`."""

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._some = asyncio.Event()
        self._work = asyncio.Event()
        self._watched: dict[str, set[asyncio.Event]] = {}
        listener.on(sql.CHANNEL, self._hear)

    # Ended ones, many at once.

    async def keep(self, response: KeptResponse, items: Sequence[ConversationItem] = ()) -> None:
        size_bytes = len(response.head) + len(response.input) + len(response.output)
        size_bytes += sum(len(item.body) for item in items)
        if size_bytes > RESPONSE_BYTES_MAX:
            raise TooLarge(
                f"an answer is kept up to {RESPONSE_BYTES_MAX} bytes, with its input; this has {size_bytes}: say store: false"
            )
        if len(self._waiting) >= WAITING_MAX or self._waiting_bytes >= WAITING_BYTES_MAX:
            raise Overloaded("too many answers wait to be kept: try again, or say store: false")
        waiting = _Waiting(response, items, size_bytes, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._waiting_bytes += size_bytes
        self._some.set()
        await waiting.done

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                await self._write(self._next_batch())

    def fail_all(self, error: FreeholdError) -> None:
        while self._waiting:
            _settle(self._next_batch(), error)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size_bytes = 0
        while self._waiting and len(batch) < BATCH_MAX and size_bytes < BATCH_BYTES_MAX:
            batch.append(self._waiting.popleft())
            size_bytes += batch[-1].size_bytes
        self._waiting_bytes -= size_bytes
        return batch

    async def _write(self, batch: list[_Waiting]) -> None:
        ended = False
        try:
            await self._insert(batch)
            ended = True
        except FreeholdError as error:
            _settle(batch, error)
            ended = True
        except Exception as error:
            _settle(batch, Internal("keeping answers: an unexpected fault", detail=repr(error)))
            raise
        finally:
            if not ended:
                _settle(batch, Internal("keeping answers: the server is stopping"))
        _settle(batch, None)

    async def _insert(self, batch: Sequence[_Waiting]) -> None:
        rows = [waiting.response for waiting in batch]
        columns = [[getattr(row, name) for row in rows] for name in sql.KEPT]
        columns += [[sql.ID_BREAK.join(texts(row)) for row in rows] for texts in _TEXTS]
        told = [(row.response.conversation_id or "", row.items) for row in batch if row.items]
        if not told:
            await self._database.fetch("keeping answers", sql.INSERT, *columns)
            return

        async def work(connection: Connection) -> None:
            await connection.fetch(sql.INSERT, *columns)
            await append_items(connection, told)

        await self._database.in_transaction("keeping answers", work)

    # One at a time.

    async def get(self, tenant: str, response_id: str) -> KeptResponse:
        return self._found(
            await self._database.fetch("reading a response", sql.GET, tenant, response_id), response_id
        )

    async def history(self, tenant: str, response_id: str) -> Sequence[PastResponse]:
        rows = await self._database.fetch(
            "reading a chain of responses", sql.HISTORY, tenant, response_id, CHAIN_MAX, CHAIN_BYTES_MAX
        )
        if not rows:
            raise not_found(response_id)
        oldest = rows[0]
        if oldest["size_bytes"] > CHAIN_BYTES_MAX:
            raise TooLarge(
                f"the conversation before {response_id} has {oldest['size_bytes']} bytes, over CHAIN_BYTES_MAX = "
                f"{CHAIN_BYTES_MAX}: begin a new one with what still matters"
            )
        if oldest["previous_id"] is not None:
            if len(rows) >= CHAIN_MAX:
                raise TooLarge(
                    f"the conversation before {response_id} has more than CHAIN_MAX = {CHAIN_MAX} responses: begin a new "
                    "one with what still matters"
                )
            raise not_found(oldest["previous_id"])
        return [_past(row) for row in rows]

    async def with_items(self, tenant: str, item_ids: Sequence[str]) -> Sequence[PastResponse]:
        rows = await self._database.fetch(
            "finding items of responses", sql.WITH_ITEMS, tenant, list(item_ids), REFERRED_MAX
        )
        return [_past(row) for row in rows]

    async def delete(self, tenant: str, response_id: str) -> None:
        if not await self._database.fetch("deleting a response", sql.DELETE, tenant, response_id):
            raise not_found(response_id)

    # In the background.

    async def put_off(self, response: KeptResponse, events: ResponseEvents | None) -> None:
        values = [getattr(response, name) for name in sql.PUT_OFF]

        async def work(connection: Connection) -> None:
            await connection.fetch(sql.INSERT_LATER, *values)
            if events is not None:
                await connection.fetch(sql.INSERT_EVENTS, response.id, events.seq, events.count, events.body)

        await self._database.in_transaction("putting off a response", work)

    async def cancel(self, tenant: str, response_id: str) -> KeptResponse:
        await self._database.fetch("cancelling a response", sql.CANCEL, tenant, response_id)
        return await self.get(tenant, response_id)

    async def claim(self, owner: str, *, limit: int, lease_s: float) -> Sequence[KeptResponse]:
        rows = await self._database.fetch(
            "claiming responses", sql.CLAIM, owner, limit, timedelta(seconds=lease_s)
        )
        return [_kept(row) for row in rows]

    async def renew(self, owner: str, held: Sequence[KeptResponse], *, lease_s: float) -> frozenset[str]:
        if not held:
            return frozenset()
        in_order = sorted((one.id, one.epoch) for one in held)
        rows = await self._database.fetch(
            "renewing leases of responses",
            sql.RENEW,
            owner,
            [response_id for response_id, _ in in_order],
            [epoch for _, epoch in in_order],
            timedelta(seconds=lease_s),
        )
        return frozenset(row["id"] for row in rows)

    async def release(self, held: KeptResponse) -> None:
        await self._database.fetch("releasing a response", sql.RELEASE, held.id, held.epoch)

    async def free_leases(self) -> int:
        """For a start at which it is certain that nobody is alive who could run one."""
        return len(await self._database.fetch("freeing leases of responses", sql.FREE_ALL))

    async def add_events(self, held: KeptResponse, events: ResponseEvents) -> None:
        rows = await self._database.fetch(
            "keeping a stream", sql.ADD_EVENTS, held.id, held.epoch, events.seq, events.count, events.body
        )
        if not rows:
            raise _late(held)

    async def end(
        self,
        held: KeptResponse,
        events: ResponseEvents | None = None,
        items: Sequence[ConversationItem] = (),
    ) -> None:
        async def work(connection: Connection) -> None:
            written = await connection.fetch(
                sql.END, held.id, held.epoch, held.status, held.head, held.output, list(held.item_ids)
            )
            if not written:
                raise _late(held)
            if events is not None:
                await connection.fetch(sql.INSERT_EVENTS, held.id, events.seq, events.count, events.body)
            if items:
                await append_items(connection, [(held.conversation_id or "", items)])

        await self._database.in_transaction("ending a response", work)

    async def events(self, response_id: str, *, after: int) -> Sequence[ResponseEvents]:
        rows = await self._database.fetch("reading a stream", sql.EVENTS, response_id, after, EVENT_RUNS_MAX)
        return [ResponseEvents(row["seq"], row["count"], row["body"]) for row in rows]

    # What other processes did.

    @asynccontextmanager
    async def watched(self, response_id: str) -> AsyncIterator[asyncio.Event]:
        """Set whenever something may have happened to it; who waits clears it before looking."""
        event = asyncio.Event()
        watchers = self._watched.setdefault(response_id, set())
        watchers.add(event)
        try:
            yield event
        finally:
            watchers.discard(event)
            if not watchers:
                self._watched.pop(response_id, None)

    async def wait_for_work(self, timeout_s: float) -> None:
        """What came since the last return is not lost: then this returns at once."""
        try:
            await asyncio.wait_for(self._work.wait(), timeout_s)
        except TimeoutError:
            return
        self._work.clear()

    def _hear(self, payload: str | None, _: int) -> None:
        if not payload:
            self._work.set()
        for response_id in tuple(self._watched) if payload is None else (payload,):
            for event in self._watched.get(response_id, ()):
                event.set()

    def _found(self, rows: Sequence[Row], response_id: str) -> KeptResponse:
        if not rows:
            raise not_found(response_id)
        return _kept(rows[0])


def not_found(response_id: str) -> NotFound:
    return NotFound(f"Response with id '{response_id[:80]}' not found.")


def _late(held: KeptResponse) -> Conflict:
    return Conflict(f"the response {held.id} was cancelled, deleted or taken over meanwhile")


def _kept(row: Row) -> KeptResponse:
    return KeptResponse(**{name: row[name] for name in sql.COLUMNS} | {"labels": tuple(row["labels"])})


def _past(row: Row) -> PastResponse:
    return PastResponse(row["id"], row["status"], row["input"], row["output"], tuple(row["labels"]))


def _settle(batch: Sequence[_Waiting], error: FreeholdError | None) -> None:
    for waiting in batch:
        if waiting.done.done():
            continue
        if error is None:
            waiting.done.set_result(None)
        else:
            waiting.done.set_exception(error)


@asynccontextmanager
async def open_responses(database: Database, listener: Listener) -> AsyncIterator[PostgresResponses]:
    """Before the listener runs."""
    responses = PostgresResponses(database, listener)
    try:
        async with background(responses.run(), "responses"):
            yield responses
    finally:
        responses.fail_all(Internal("keeping answers: the server is stopping"))


_IMPLEMENTS: type[Responses] = PostgresResponses
