"""One line for every model call, written behind its back: implements core.ports.CallRecords. Bills are read in costs.py.

`add` puts a record into the spool (spool.py) and into memory, and returns: from then on it outlives SIGKILL of this process.
Memory is written to PostgreSQL in batches; what has arrived leaves the spool. While the database is away, or slower than calls,
records beyond HELD_MAX stay on disk alone and are read back later. What the disk doesn't take stays in memory, up to
UNSPOOLED_MAX; only beyond that are records dropped, counted and logged. A record is written twice at worst, and kept once.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
from msgspec import structs

from freehold.background import background
from freehold.core.errors import BadRequest, FreeholdError
from freehold.core.jitter import jittered
from freehold.core.ports import CallRecords
from freehold.core.records import CallRecord
from freehold.core.validation import check_limit
from freehold.store import spool as spooling
from freehold.store._record_statements import INSERT, LIST, arrays, record_of
from freehold.store.database import Database
from freehold.store.spool import ENTRY_BYTES_MAX, Leftover, Segment, Spool

BATCH_MAX: Final = 500
PAUSE_S: Final = 0.2
HELD_MAX: Final = 4_000
"""About 2 MB: a second or so of calls. While PostgreSQL is behind, memory grows by no more than this and a segment."""

UNSPOOLED_MAX: Final = 100_000
RETRY_PAUSE_S: Final = 1.0
LIST_MAX: Final = 1000
FLUSH_ON_CLOSE_S: Final = 10.0
DROPS_LOGGED_EVERY: Final = 1000
SYNC_EVERY_S: Final = 1.0
"""What the loss of power may cost: records of so long that PostgreSQL doesn't have yet."""

ADOPT_EVERY_S: Final = 30.0
TEXT_CHARS_MAX: Final = 1000
"""Of each text of a record that is too long as a whole."""

log = logging.getLogger(__name__)
_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(CallRecord)


class PostgresCallRecords:
    """Opened with `open_records`. Without a spool, records live in memory alone until they are written."""

    def __init__(self, database: Database, spool: Spool | None) -> None:
        self._database = database
        self._spool = spool
        self._held: list[CallRecord] = []
        self._segments: list[Segment | None] = []
        """Where each of those held is on disk."""
        self._some = asyncio.Event()
        self._writing = asyncio.Lock()
        self._on_disk_count = 0
        self.dropped_count = 0

    @property
    def spool(self) -> Spool | None:
        return self._spool

    @property
    def waiting_count(self) -> int:
        """Added and not known to be in PostgreSQL, of this process."""
        return len(self._held) + self._on_disk_count

    @property
    def trouble(self) -> str | None:
        """For people: why a record could be lost now, or that some were."""
        if self._spool is not None and self._spool.fault is not None:
            return f"records of calls are in memory alone, the disk does not take them: {self._spool.fault}"
        return (
            f"{self.dropped_count} records of calls were dropped; the log says why"
            if self.dropped_count
            else None
        )

    def add(self, record: CallRecord) -> None:
        segment = None
        if self._spool is not None:
            try:
                payload = _encode(record)
            except (UnicodeError, OverflowError):
                record = storable(record)
                payload = _encoded_or_nothing(record)
            if len(payload) > ENTRY_BYTES_MAX:
                record = storable(record)
                payload = _encode(record)
            segment = self._spool.append(payload) if payload else None
        held = len(self._held)
        if held < HELD_MAX or (segment is None and held < UNSPOOLED_MAX):
            self._held.append(record)
            self._segments.append(segment)
        elif segment is not None:
            segment.unheld_count += 1
            self._on_disk_count += 1
        else:
            self._drop(1, "the database is away for too long, and the disk takes no more")
            return
        if not held:
            self._some.set()

    async def flush(self) -> None:
        """Raises Unavailable when what was added before cannot be written; it is kept and tried again."""
        async with self._writing:
            for _ in range(-(-len(self._held) // BATCH_MAX)):
                await self._write_held()
            if self._spool is not None:
                if self._on_disk_count:
                    await self._read_back(self._spool)
                if done := self._spool.done():
                    await asyncio.to_thread(spooling.remove, done)

    async def list(
        self, tenant: str, *, limit: int = 100, session_id: str | None = None
    ) -> Sequence[CallRecord]:
        """Newest first, of what is written: `flush` first to see what was just added."""
        check_limit(limit, LIST_MAX)
        rows = await self._database.fetch("listing records of calls", LIST, tenant, session_id, limit)
        return [record_of(row) for row in rows]

    async def run(self) -> None:
        """For ever: a batch every PAUSE_S, or as soon as one is full."""
        while True:
            if not self.waiting_count:
                self._some.clear()
                await self._some.wait()
            if len(self._held) < BATCH_MAX:
                await asyncio.sleep(PAUSE_S)
            try:
                await self.flush()
            except FreeholdError as error:
                log.warning(
                    "store.records.waiting", extra={"count": self.waiting_count, "detail": error.detail}
                )
                await asyncio.sleep(RETRY_PAUSE_S)

    async def sync(self, spool: Spool) -> None:
        """For ever: every SYNC_EVERY_S the disk is asked for what PostgreSQL doesn't have by then."""
        while True:
            await asyncio.sleep(SYNC_EVERY_S)
            if paths := spool.unsynced():
                try:
                    await asyncio.to_thread(spooling.sync, paths)
                except OSError as error:
                    log.error("store.spool.not_synced", extra={"detail": str(error)})  # noqa: TRY400 - says all

    async def adopt(self, spool: Spool) -> None:
        """For ever: what ended processes left in the folder is written, at the start and every ADOPT_EVERY_S."""
        while True:
            try:
                for leftover in await asyncio.to_thread(spool.leftovers):
                    await self._adopt(spool, leftover)
            except (FreeholdError, OSError) as error:
                detail = error.detail if isinstance(error, FreeholdError) else str(error)
                log.warning("store.spool.not_adopted", extra={"detail": detail})
            await asyncio.sleep(jittered(ADOPT_EVERY_S))

    async def _adopt(self, spool: Spool, leftover: Leftover) -> None:
        try:
            count = 0
            for path in leftover.segments:
                count += await self._write_file(path)
                path.unlink(missing_ok=True)
            log.warning("store.spool.adopted", extra={"owner": leftover.owner, "count": count})
        finally:
            spool.release(leftover)

    async def _write_held(self) -> None:
        batch = self._held[:BATCH_MAX]
        if not batch or not await self._write(batch):
            return
        written = self._segments[: len(batch)]
        # Only now: until then they wait, and are counted.
        del self._held[: len(batch)], self._segments[: len(batch)]
        if self._spool is not None:
            for segment, count in Counter(written).items():
                if segment is not None:
                    self._spool.settle(segment, count)

    async def _read_back(self, spool: Spool) -> None:
        for segment in spool.to_read_back():
            await self._write_file(segment.path)
            self._on_disk_count -= segment.unheld_count
            spool.settle_whole(segment)

    async def _write_file(self, path: Path) -> int:
        """All of a segment, whatever of it is written already. What is damaged is kept aside, for people. Returns how many."""
        entries = await asyncio.to_thread(spooling.read_entries, path)
        damaged_count = entries.damaged_count
        for start in range(0, len(entries.payloads), BATCH_MAX):
            batch = []
            for payload in entries.payloads[start : start + BATCH_MAX]:
                try:
                    batch.append(_decoder.decode(payload))
                except msgspec.DecodeError:
                    damaged_count += 1
            if batch:
                await self._write(batch)
        if entries.torn_bytes:
            log.warning("store.spool.torn", extra={"path": str(path), "bytes": entries.torn_bytes})
        if damaged_count:
            aside = path.with_suffix(".damaged")
            await asyncio.to_thread(path.replace, aside)
            log.error("store.spool.damaged", extra={"path": str(aside), "count": damaged_count})
        return len(entries.payloads)

    async def _write(self, batch: Sequence[CallRecord]) -> bool:
        try:
            await self._database.fetch("writing records of calls", INSERT, *_arguments(batch))
        except BadRequest as error:
            if len(batch) == 1:
                return await self._write_storable(batch[0], error)
            middle = (
                len(batch) // 2
            )  # Find the one that cannot be written by halves; a half written twice is written once.
            return await self._write(batch[:middle]) and await self._write(batch[middle:])
        return True

    async def _write_storable(self, record: CallRecord, error: BadRequest) -> bool:
        plain = storable(record)
        if plain != record:
            return await self._write([plain])
        self._drop(1, f"the database cannot hold it: {error.detail}")
        return True

    def _drop(self, count: int, why: str) -> None:
        if self.dropped_count % DROPS_LOGGED_EVERY == 0:
            log.error("store.records.dropped", extra={"count": self.dropped_count + count, "why": why})
        self.dropped_count += count


def storable(record: CallRecord) -> CallRecord:
    """With texts that PostgreSQL and the spool can hold: no NUL, no half of a surrogate pair, TEXT_CHARS_MAX long."""
    changes: dict[str, object] = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, str):
            changes[name] = _storable(value)
        elif name == "labels":
            changes[name] = {_storable(key): _storable(text) for key, text in value.items()}
    return structs.replace(record, **changes)


def _arguments(batch: Sequence[CallRecord]) -> Sequence[str]:
    try:
        return arrays(batch)
    except (UnicodeError, OverflowError) as error:
        raise BadRequest("the database cannot hold this text or number", detail=str(error)) from error


def _storable(text: str) -> str:
    return text[:TEXT_CHARS_MAX].encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _encoded_or_nothing(record: CallRecord) -> bytes:
    """Nothing for a number that no 64 bits hold: writing it will be refused, which is told then."""
    try:
        return _encode(record)
    except OverflowError:
        return b""


@asynccontextmanager
async def open_records(database: Database, spool_folder: Path | None) -> AsyncIterator[PostgresCallRecords]:
    """Leaving writes what waits, for at most FLUSH_ON_CLOSE_S; what is then left stays in the spool for the next process, or is
    logged as lost where there is none.
    """
    async with AsyncExitStack() as stack:
        spool = None
        if spool_folder is not None:
            spool = stack.enter_context(spooling.open_spool(spool_folder))
        records = PostgresCallRecords(database, spool)
        try:
            async with AsyncExitStack() as tasks:
                await tasks.enter_async_context(background(records.run(), "records"))
                if spool is not None:
                    await tasks.enter_async_context(background(records.sync(spool), "records on disk"))
                    await tasks.enter_async_context(background(records.adopt(spool), "records left"))
                yield records
        finally:
            await _close(records, spooled=spool is not None)


async def _close(records: PostgresCallRecords, *, spooled: bool) -> None:
    try:
        async with asyncio.timeout(FLUSH_ON_CLOSE_S):
            await records.flush()
    except (TimeoutError, FreeholdError) as error:
        event = "store.records.left_in_the_spool" if spooled else "store.records.lost"
        log.error(event, extra={"count": records.waiting_count}, exc_info=error)  # noqa: TRY400 - the traceback of an outage says nothing


_IMPLEMENTS: type[CallRecords] = PostgresCallRecords
