"""Following logs: thousands of followers on one LISTEN connection, and reads that are shared as the writes are.

A follower holds nothing but its place: woken, and asked for more, it reads the table from there. So a slow one costs no memory,
one that missed a notification is late but never wrong, and any number of them wake with a few queries.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from freehold.background import background
from freehold.core.errors import FreeholdError
from freehold.core.session import Recorded
from freehold.store._blocks import named_by, whole_bytes
from freehold.store._events import decode
from freehold.store._faults import translate
from freehold.store._forks import gap_before, shared
from freehold.store._statements import EVERYTHING
from freehold.store.database import Database, Row

PAGE_EVENTS_MAX: Final = 256
PAGE_BYTES_MAX: Final = 1024 * 1024
READS_SHARED_MAX: Final = 64
READERS: Final = 2
SWEEP_S: Final = 5.0
SWEEP_SESSIONS_MAX: Final = 5000
RETRY_S: Final = 0.5

# A page ends after PAGE_EVENTS_MAX events or PAGE_BYTES_MAX bytes, but holds at least one event.
_PAGES: Final = f"""
SELECT w.place, e.seq, e.at, e.body
FROM unnest($1::int[], $2::text[], $3::bigint[]) AS w (place, session_id, after)
CROSS JOIN LATERAL (
    SELECT seq, at, body
    FROM (
        SELECT seq, at, body, sum(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS bytes_before
        FROM (
            SELECT seq, at, body FROM events
            WHERE session_id = w.session_id AND seq > w.after
            ORDER BY seq LIMIT {PAGE_EVENTS_MAX}
        ) AS page
    ) AS measured
    WHERE bytes_before < {PAGE_BYTES_MAX}
) AS e
ORDER BY w.place, e.seq
"""  # noqa: S608 - built from our own constants alone

_VERSIONS: Final = "SELECT id, version FROM sessions WHERE id = ANY($1::text[])"


class Page:
    __slots__ = ("events", "more")

    def __init__(self, events: Sequence[Recorded], *, more: bool) -> None:
        self.events = events
        self.more = more


class Follower:
    """One reader's place in one log; an async iterator of what comes after it."""

    def __init__(self, session_id: str, after: int, reads: "SharedReads") -> None:
        self.session_id = session_id
        self.after = after
        self.look = asyncio.Event()
        self.look.set()
        self._reads = reads

    def __aiter__(self) -> "Follower":
        return self

    async def __anext__(self) -> Sequence[Recorded]:
        while True:
            await self.look.wait()
            self.look.clear()
            try:
                page = await self._reads.read(self.session_id, self.after)
            except FreeholdError as error:
                self.look.set()
                if not error.retryable:
                    raise
                await asyncio.sleep(RETRY_S)
                continue
            if page.more:
                self.look.set()
            if page.events:
                self.after = page.events[-1].seq
                return page.events


class SharedReads:
    """Gathers what followers want to read while earlier reads are under way, as the writer gathers appends."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted: dict[tuple[str, int], asyncio.Future[Page]] = {}
        self._some = asyncio.Event()

    async def read(self, session_id: str, after: int) -> Page:
        place = (session_id, after)
        future = self._wanted.get(place)
        if future is None:
            future = self._wanted[place] = asyncio.get_running_loop().create_future()
            self._some.set()
        return await asyncio.shield(future)

    async def run(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(0)  # Followers that are woken in the same tick share the read.
            places = list(self._wanted)[:READS_SHARED_MAX]
            futures = [self._wanted.pop(place) for place in places]
            if not self._wanted:
                self._some.clear()
            if places:
                await self._read(places, futures)

    async def _read(
        self, places: Sequence[tuple[str, int]], futures: "Sequence[asyncio.Future[Page]]"
    ) -> None:
        try:
            rows = await self._database.fetch(
                "reading new events",
                _PAGES,
                list(range(len(places))),
                [session_id for session_id, _ in places],
                [after for _, after in places],
            )
        except asyncio.CancelledError:
            for future in futures:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - the task's outermost edge: who waits is told, the reader goes on
            for future in futures:
                future.set_exception(translate(error, "reading new events"))
                future.exception()  # Read here, or one that nobody waits for any more would complain.
            return
        by_place: list[list[Row]] = [[] for _ in places]
        for row in rows:
            by_place[row["place"]].append(row)
        for (session_id, after), found, future in zip(places, by_place, futures, strict=True):
            if gap_before(found, after):
                await self._read_shared(session_id, after, future)
            else:
                await self._deliver(future, session_id, found, more=_full(found))

    async def _read_shared(self, session_id: str, after: int, future: "asyncio.Future[Page]") -> None:
        """For a fork, whose first events live elsewhere: its own follow."""
        try:
            rows = await shared(self._database, session_id, after=after, limit=PAGE_EVENTS_MAX)
        except asyncio.CancelledError:
            future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - the task's outermost edge: who waits is told, the reader goes on
            future.set_exception(translate(error, "reading new events"))
            future.exception()
            return
        await self._deliver(future, session_id, rows, more=True)

    async def _deliver(
        self, future: "asyncio.Future[Page]", session_id: str, rows: Sequence[Row], *, more: bool
    ) -> None:
        fits = _fitting(rows)
        try:
            blocks = await named_by(self._database, [session_id], fits)
            events = decode(session_id, fits, blocks)
        except asyncio.CancelledError:
            future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - the task's outermost edge: who waits is told, the reader goes on
            future.set_exception(
                error if isinstance(error, FreeholdError) else translate(error, "reading new events")
            )
            future.exception()
            return
        future.set_result(Page(events, more=more or len(fits) < len(rows)))


def _fitting(rows: Sequence[Row]) -> Sequence[Row]:
    """As many as make a page with their blocks, one at least."""
    size_bytes = 0
    for place, row in enumerate(rows):
        if place and size_bytes >= PAGE_BYTES_MAX:
            return rows[:place]
        size_bytes += whole_bytes(row["body"])
    return rows


def _full(rows: Sequence[Row]) -> bool:
    return len(rows) == PAGE_EVENTS_MAX or sum(len(row["body"]) for row in rows) >= PAGE_BYTES_MAX


class Followers:
    """All of a process's followers, and what wakes them: its own writer, notifications, and a slow sweep behind both."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reads = SharedReads(database)
        self._by_session: dict[str, set[Follower]] = {}

    @property
    def sessions_count(self) -> int:
        return len(self._by_session)

    def moved(self, session_id: str, version: int) -> None:
        for follower in self._by_session.get(session_id, ()):
            if version > follower.after:
                follower.look.set()

    def hear(self, payload: str) -> None:
        """Ids of sessions that grew, or EVERYTHING."""
        if payload == EVERYTHING:
            self.all_look()
            return
        for session_id in payload.split(","):
            for follower in self._by_session.get(session_id, ()):
                follower.look.set()

    def all_look(self) -> None:
        for followers in self._by_session.values():
            for follower in followers:
                follower.look.set()

    @asynccontextmanager
    async def follow(self, session_id: str, after: int) -> AsyncIterator[AsyncIterator[Sequence[Recorded]]]:
        follower = Follower(session_id, after, self._reads)
        self._by_session.setdefault(session_id, set()).add(follower)
        try:
            yield follower
        finally:
            others = self._by_session[session_id]
            others.discard(follower)
            if not others:
                del self._by_session[session_id]

    async def sweep(self) -> None:
        """For ever: finds what a lost notification left unread."""
        while True:
            await asyncio.sleep(SWEEP_S)
            followed = list(self._by_session)
            for first in range(0, len(followed), SWEEP_SESSIONS_MAX):
                ids = followed[first : first + SWEEP_SESSIONS_MAX]
                try:
                    rows = await self._database.fetch("sweeping for new events", _VERSIONS, ids)
                except FreeholdError:
                    break  # The next sweep comes soon, and the listener's return wakes everyone.
                for row in rows:
                    self.moved(row["id"], row["version"])


@asynccontextmanager
async def open_followers(database: Database) -> AsyncIterator[Followers]:
    followers = Followers(database)
    async with AsyncExitStack() as tasks:
        for number in range(READERS):
            await tasks.enter_async_context(background(followers._reads.run(), f"log reader {number}"))  # noqa: SLF001 - its own factory
        await tasks.enter_async_context(background(followers.sweep(), "log sweep"))
        yield followers
