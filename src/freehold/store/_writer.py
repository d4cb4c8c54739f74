"""The log's writer: one task and one connection a process. What arrives while a batch is being committed is the next batch.

So a lone append waits for nobody, and under load thousands a second share a few hundred transactions. Not here: the
statements (_statements.py), what is gathered and in which order (_batch.py).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, TypeVar

import asyncpg
import msgspec

from freehold.background import background
from freehold.core.errors import Conflict, FreeholdError, NotFound, Overloaded, Unavailable
from freehold.core.session_log import SessionRow
from freehold.store import _along
from freehold.store._batch import WAITING_BYTES_MAX, WAITING_MAX, Append, Create, Group, Waiting
from freehold.store._faults import TRANSIENT, translate
from freehold.store._statements import EXPLAIN, WRITER_SETTINGS, Made, Written
from freehold.store.database import ATTEMPTS_MAX, Connection, Database, Row

DRAIN_TIMEOUT_S: Final = 15.0
RECONNECT_PAUSE_S: Final = 0.2
GATHER_S_MAX: Final = 0.004
UNKNOWN: Final = (
    "the database went away: it is not known whether this was written, so read before writing again"
)

_AGAIN: Final = (
    asyncpg.UniqueViolationError,
    asyncpg.ForeignKeyViolationError,
    asyncpg.InvalidCachedStatementError,
)

log = logging.getLogger(__name__)
Item = TypeVar("Item", Group, Create)
Result = TypeVar("Result", Written, Made)
Write: TypeAlias = Callable[[Connection, Sequence[Item]], Awaitable[Result]]


class Counters(msgspec.Struct):
    """Since the writer was opened."""

    transactions: int = 0
    appends: int = 0
    creates: int = 0
    connects: int = 0
    retries: int = 0


class Writer:
    """`moved` is called with each session's new version once it is durable, `woken` when a worker may have something to do."""

    def __init__(
        self, database: Database, *, moved: Callable[[str, int], None], woken: Callable[[], None]
    ) -> None:
        self._database = database
        self._moved = moved
        self._woken = woken
        self._waiting = Waiting()
        self._wanted = asyncio.Event()
        self._closing = False
        self._connection: Connection | None = None
        self._loop = asyncio.get_running_loop()
        self.counters = Counters()

    def append(self, append: Append) -> "asyncio.Future[int]":
        self._admit()
        if not self._waiting.count:
            self._wanted.set()
        self._waiting.add(append)
        return append.done

    async def create(self, create: Create) -> SessionRow | str:
        """What its birth keeps is settled, whatever happens, also where nobody waits for this any more."""
        try:
            self._admit()
        except FreeholdError:
            if create.birth is not None:
                create.birth.berth.leave()
            raise
        self._waiting.add_create(create)
        self._wanted.set()
        return await create.done

    @property
    def server_pid(self) -> int:
        """Of the server's process behind this writer, as notifications name their sender; 0 while there is none."""
        return (
            0
            if self._connection is None or self._connection.is_closed()
            else int(self._connection.get_server_pid())
        )

    def _admit(self) -> None:
        if self._closing:
            raise Unavailable("the store is closing: nothing was written")
        if self._waiting.full:
            raise Overloaded(
                f"{WAITING_MAX} appends or {WAITING_BYTES_MAX} bytes wait to be written already: try again shortly"
            )

    async def run(self) -> None:
        """Until `drain`; whatever then still waits is told so."""
        try:
            while not (self._closing and not self._waiting.count):
                if not self._waiting.count:
                    self._wanted.clear()
                    await self._wanted.wait()
                await self._gathered()
                creates = self._waiting.next_creates()
                if creates:
                    await self._write_creates(creates)
                groups = self._waiting.next_groups()
                if groups:
                    await self._write_groups(groups)
        finally:
            self._waiting.fail_all(Unavailable(UNKNOWN))
            if self._connection is not None:
                self._connection.terminate()

    async def _gathered(self) -> None:
        """Returns once a turn of the event loop has brought nothing new, so that a lone append waits for nobody: who was told of the
        last batch and goes on mostly has its next append here. A loop that is busy makes large batches, for the server's sake."""
        ends_s = self._loop.time() + GATHER_S_MAX
        count = 0
        while self._waiting.count > count and self._loop.time() < ends_s:
            count = self._waiting.count
            await asyncio.sleep(0)

    def drain(self) -> None:
        """Refuses what comes from now on and lets `run` end once all that waits is written."""
        self._closing = True
        self._wanted.set()

    async def _write_groups(self, groups: Sequence[Group]) -> None:
        written = await self._attempt(groups, _along.append, self._write_groups)
        if written is None:
            return
        refused: list[Group] = []
        for group in groups:
            version = written.versions.get(group.session_id)
            if version is not None:
                self.counters.appends += len(group.appends)
                group.settle(version)
                self._moved(group.session_id, version)
            elif len(group.appends) > 1:
                self._waiting.take_apart(group)
            else:
                refused.append(group)
        if written.woken:
            self._woken()
        if refused:
            await self._refuse(refused)

    async def _write_creates(self, creates: Sequence[Create]) -> None:
        made = await self._attempt(creates, _along.create, self._write_creates)
        if made is None:
            return
        for create in creates:
            result = made.sessions.get(create.row.id)
            if result is None:
                create.fail(Conflict(f"session {create.row.id} exists already"))
            else:
                self.counters.creates += 1
                create.settle(result, taken=create.row.id in made.taken)
        if made.woken:
            self._woken()

    async def _attempt(
        self,
        items: Sequence[Item],
        write: Write[Item, Result],
        again: Callable[[Sequence[Item]], Awaitable[None]],
    ) -> Result | None:
        """None when it failed and every caller was told, or when a batch with a bad item was written in two halves."""
        try:
            connection = await self._connected()
        except FreeholdError as error:
            _fail(items, error)
            self._waiting.fail_all(error)
            await asyncio.sleep(RECONNECT_PAUSE_S)
            return None
        try:
            return await self._retried(connection, items, write)
        except asyncio.CancelledError:
            _fail(items, Unavailable(UNKNOWN))
            raise
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            if len(items) == 1:
                _fail(items, translate(error, "writing to a session"))
            else:
                middle = (
                    len(items) // 2
                )  # One that the database cannot hold must not hurt the others: find it by halves.
                await again(items[:middle])
                await again(items[middle:])
        except Exception as error:  # noqa: BLE001 - the task's outermost edge: the callers are told, the writer goes on
            self._lost(items, error)
        return None

    async def _retried(
        self, connection: Connection, items: Sequence[Item], write: Write[Item, Result]
    ) -> Result:
        """A batch that the server rolled back did nothing, so it may run again: a deadlock, a key that was used just now,
        or a block that was deleted just now."""
        for _ in range(ATTEMPTS_MAX - 1):
            self.counters.transactions += 1
            try:
                return await write(connection, items)
            except (*TRANSIENT, *_AGAIN):
                self.counters.retries += 1
        self.counters.transactions += 1
        return await write(connection, items)

    def _lost(self, items: Sequence[Item], error: Exception) -> None:
        translated = translate(error, "writing to a session")
        if _outcome_unknown(error):
            translated = Unavailable(UNKNOWN, detail=translated.detail)
        log.warning(
            "store.batch.failed", extra={"count": len(items), "detail": translated.detail}, exc_info=error
        )
        _fail(items, translated)
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._database.connect("writer", WRITER_SETTINGS)
            self.counters.connects += 1
        return self._connection

    async def _refuse(self, groups: Sequence[Group]) -> None:
        """Looks at the rows once more, only to say why. They may have moved on since."""
        try:
            connection = await self._connected()
            rows = await connection.fetch(EXPLAIN, [group.session_id for group in groups])
        except Exception as error:  # noqa: BLE001 - the task's outermost edge: the callers are told, the writer goes on
            self._lost(groups, error)
            return
        by_id = {row["id"]: row for row in rows}
        for group in groups:
            group.fail(_refusal(group, by_id.get(group.session_id)))


def _fail(items: Sequence[Group] | Sequence[Create], error: Exception) -> None:
    for item in items:
        item.fail(error)


def _outcome_unknown(error: Exception) -> bool:
    """Whether the server may have committed all the same: it did not say that it rolled back."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state[:2] in {"08", "57"} and state != "57014"
    return isinstance(error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError)


def _refusal(group: Group, row: Row | None) -> FreeholdError:
    session_id, lease = group.session_id, group.lease
    if row is None:
        return NotFound(f"no session {session_id}")
    if row["status"] == "cancelled":
        return Conflict(f"session {session_id} was cancelled for good: start a new one")
    if lease is not None and (row["epoch"] != lease.epoch or row["owner"] != lease.owner):
        return Conflict(
            f"the lease on session {session_id} is lost: {lease.owner} held epoch {lease.epoch}, "
            f"now {row['owner'] or 'nobody'} holds epoch {row['epoch']}: stop this turn"
        )
    if group.base is not None and row["version"] != group.base:
        return Conflict(
            f"session {session_id} was expected to hold {group.base} events and holds {row['version']}: read them, then decide again"
        )
    return Conflict(f"session {session_id} changed at the same moment: read it, then decide again")


@asynccontextmanager
async def open_writer(
    database: Database, *, moved: Callable[[str, int], None], woken: Callable[[], None]
) -> AsyncIterator[Writer]:
    """Leaving writes what waits, for at most DRAIN_TIMEOUT_S; what is then left gets Unavailable."""
    writer = Writer(database, moved=moved, woken=woken)
    async with background(writer.run(), "log writer") as task:
        try:
            yield writer
        finally:
            writer.drain()
            await asyncio.wait({task}, timeout=DRAIN_TIMEOUT_S)
