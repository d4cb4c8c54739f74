"""One line for every model call, written behind its back: implements core.ports.CallRecords.

`add` only puts into memory. While the database is away up to WAITING_MAX records wait; beyond that the newest are dropped,
counted and logged. A process that is killed loses what waits (at most PAUSE_S worth while the database answers).
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from freehold.core.errors import BadRequest, FreeholdError
from freehold.core.messages import Usage
from freehold.core.ports import CallRecords
from freehold.core.records import CallRecord
from freehold.store._statements import USAGE_COLUMNS
from freehold.store._tasks import background
from freehold.store.database import Database, Row

BATCH_MAX: Final = 500
PAUSE_S: Final = 0.2
WAITING_MAX: Final = 100_000
RETRY_PAUSE_S: Final = 1.0
LIST_MAX: Final = 1000
FLUSH_ON_CLOSE_S: Final = 10.0
DROPS_LOGGED_EVERY: Final = 1000

log = logging.getLogger(__name__)

_COLUMNS: Final = {
    "id": "text",
    "at": "timestamptz",
    "tenant": "text",
    "principal": "text",
    "wire": "text",
    "model_requested": "text",
    "provider": "text",
    "model": "text",
    "outcome": "text",
    "cost_pico": "bigint",
    "currency": "text",
    "priced": "boolean",
    "duration_ms": "double precision",
    "first_event_ms": "double precision",
    "streamed": "boolean",
    "session_id": "text",
    "agent": "text",
}
_USAGE: Final = {**dict.fromkeys(USAGE_COLUMNS, "bigint"), "estimated": "boolean"}
_TYPES: Final = {**_COLUMNS, **_USAGE}
_MAY_BE_NULL: Final = {"first_event_ms", "session_id", "agent"}

_ARRAYS: Final = {name: f"${place}::{kind}[]" for place, (name, kind) in enumerate(_TYPES.items(), 1)}
_GIVEN: Final = [
    name if name in _MAY_BE_NULL else f"coalesce({name}, ({array})[1])" for name, array in _ARRAYS.items()
]
_INSERT: Final = f"""
INSERT INTO call_records ({", ".join(_TYPES)})
SELECT {", ".join(_GIVEN)}
FROM unnest({", ".join(_ARRAYS.values())}) AS given ({", ".join(_TYPES)})
ON CONFLICT (id) DO NOTHING
"""  # noqa: S608 - built from our own constants alone
"""`unnest` fills the shorter arrays with NULL; see `_shortened`."""

_LIST: Final = f"""
SELECT {", ".join(_TYPES)} FROM call_records
WHERE tenant = $1 AND ($2::text IS NULL OR session_id = $2)
ORDER BY id DESC LIMIT $3
"""  # noqa: S608 - built from our own constants alone


class PostgresCallRecords:
    """Opened with `open_records`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[CallRecord] = deque()
        self._some = asyncio.Event()
        self._writing = asyncio.Lock()
        self.dropped_count = 0

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    def add(self, record: CallRecord) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self._drop(1, "the database is away for too long")
            return
        self._waiting.append(record)
        self._some.set()

    async def flush(self) -> None:
        """Raises Unavailable when what was added before cannot be written; it is kept and tried again."""
        async with self._writing:
            for _ in range(-(-len(self._waiting) // BATCH_MAX)):
                await self._write_batch()

    async def list(
        self, tenant: str, *, limit: int = 100, session_id: str | None = None
    ) -> Sequence[CallRecord]:
        """Newest first, of what is written: `flush` first to see what was just added."""
        if not 1 <= limit <= LIST_MAX:
            raise BadRequest(f"expected 1 to {LIST_MAX}, got {limit}", field="limit")
        rows = await self._database.fetch("listing records of calls", _LIST, tenant, session_id, limit)
        return [_record(row) for row in rows]

    async def run(self) -> None:
        """For ever: a batch every PAUSE_S, or as soon as one is full."""
        while True:
            await self._some.wait()
            if len(self._waiting) < BATCH_MAX:
                await asyncio.sleep(PAUSE_S)
            self._some.clear()
            try:
                await self.flush()
            except FreeholdError as error:
                log.warning(
                    "store.records.waiting", extra={"count": len(self._waiting), "detail": error.detail}
                )
                self._some.set()
                await asyncio.sleep(RETRY_PAUSE_S)

    async def _write_batch(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
        written = False
        try:
            written = await self._write(batch)
        finally:
            if not written:
                self._waiting.extendleft(reversed(batch))

    async def _write(self, batch: Sequence[CallRecord]) -> bool:
        try:
            await self._database.fetch("writing records of calls", _INSERT, *_arrays(batch))
        except BadRequest as error:
            if len(batch) == 1:
                self._drop(1, f"the database cannot hold it: {error.detail}")
                return True
            middle = (
                len(batch) // 2
            )  # Find the one that cannot be written by halves; a half written twice is written once.
            return await self._write(batch[:middle]) and await self._write(batch[middle:])
        return True

    def _drop(self, count: int, why: str) -> None:
        if self.dropped_count % DROPS_LOGGED_EVERY == 0:
            log.error("store.records.dropped", extra={"count": self.dropped_count + count, "why": why})
        self.dropped_count += count


def _arrays(batch: Sequence[CallRecord]) -> list[list[object]]:
    own = [_shortened(name, [getattr(record, name) for record in batch]) for name in _COLUMNS]
    return own + [_shortened(name, [getattr(record.usage, name) for record in batch]) for name in _USAGE]


def _shortened(name: str, values: list[object]) -> list[object]:
    """What all records of a batch share, as most do most columns, is sent once: encoding it is most of a record's cost."""
    first = values[0]
    if values.count(first) < len(values):
        return values
    if name in _MAY_BE_NULL:
        return [] if first is None else values
    return [first]


def _record(row: Row) -> CallRecord:
    return CallRecord(
        **{name: row[name] for name in _COLUMNS}, usage=Usage(**{name: row[name] for name in _USAGE})
    )


@asynccontextmanager
async def open_records(database: Database) -> AsyncIterator[PostgresCallRecords]:
    """Leaving writes what waits, for at most FLUSH_ON_CLOSE_S; what is then left is logged as dropped."""
    records = PostgresCallRecords(database)
    try:
        async with background(records.run(), "records"):
            yield records
    finally:
        try:
            async with asyncio.timeout(FLUSH_ON_CLOSE_S):
                await records.flush()
        except (TimeoutError, FreeholdError) as error:
            log.error("store.records.lost", extra={"count": records.waiting_count}, exc_info=error)  # noqa: TRY400 - the traceback of an outage says nothing


_IMPLEMENTS: type[CallRecords] = PostgresCallRecords
