"""The log of every session, on PostgreSQL: implements core.ports.SessionLog.

Writing is _writer.py (group commit) with its statements in _statements.py, following is _follow.py, leases are _leases.py,
what forks share with their origins is _forks.py.
Not here: what events mean (core/session.py) and what to do next (runtime/).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest, Conflict, FreeholdError, NotFound, Unavailable
from freehold.core.messages import Usage
from freehold.core.ports import Objects
from freehold.core.response_facts import SessionKind
from freehold.core.session import Recorded, SessionEvent, SessionSetup, SessionWaits
from freehold.core.session_log import (
    ANY_TIME,
    Along,
    Carrier,
    Created,
    Lease,
    SessionLog,
    SessionPage,
    SessionRow,
    StatusWanted,
)
from freehold.core.session_state import SessionState
from freehold.core.validation import check_limit
from freehold.store import _deletions, _forks, _leases, _snapshots
from freehold.store._batch import Append, Birth, Create
from freehold.store._blocks import named_by
from freehold.store._events import ALONG_EVENTS_MAX, decode, encode
from freehold.store._follow import Followers, open_followers
from freehold.store._gather import Gather
from freehold.store._listen import Listener
from freehold.store._statements import LOG_CHANNEL, USAGE_COLUMNS, WORK_CHANNEL
from freehold.store._writer import Counters, Writer, open_writer
from freehold.store.database import Database, Row

log = logging.getLogger(__name__)

READ_MAX: Final = 1000
READ_TOGETHER_MAX: Final = 16
"""Sessions, of which each may give READ_MAX events."""
LIST_MAX: Final = 1000
KEY_CHARS_MAX: Final = 255
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)

_ROW: Final = f"""
SELECT id, tenant, agent, agent_version, status, version, created_at, updated_at, title, model, metadata, created_by,
       cost_pico, {", ".join(USAGE_COLUMNS)}, estimated, waits, parent_id, origin_id, origin_seq,
       archived_at, setup, when_busy, deployment, kind
FROM sessions
"""  # noqa: S608 - built from our own constants alone
_IS_ANY: Final = "(status = ANY ({0}) OR status = 'waiting' AND CASE WHEN session_asks(waits) THEN 'asks' ELSE 'goes_on' END = ANY ({0}))"
_GET: Final = f"{_ROW} WHERE tenant = $1 AND id = $2"
_LIST: Final = f"""{_ROW}
WHERE tenant = $1
  AND ($2::text[] IS NULL OR {_IS_ANY.format("$2")})
  AND ($3::text IS NULL OR agent = $3)
  AND ($4::text IS NULL OR parent_id = $4)
  AND ($5::boolean OR archived_at IS NULL)
  AND ($6::int IS NULL OR agent_version = $6)
  AND ($7::timestamptz IS NULL OR created_at > $7)
  AND ($8::timestamptz IS NULL OR created_at >= $8)
  AND ($9::timestamptz IS NULL OR created_at < $9)
  AND ($10::timestamptz IS NULL OR created_at <= $10)
  AND ($11::text IS NULL OR deployment = $11)
  AND kind = $12
"""
_NEWEST: Final = f"{_LIST} AND ($13::text IS NULL OR id < $13) ORDER BY id DESC LIMIT $14"
_OLDEST: Final = f"{_LIST} AND ($13::text IS NULL OR id > $13) ORDER BY id LIMIT $14"
_DEAREST: Final = f"""{_LIST}
  AND ($13::text IS NULL OR (cost_pico, id) < ($15::bigint, $13))
ORDER BY cost_pico DESC, id DESC LIMIT $14
"""
_FORKED: Final = f"{_ROW} WHERE tenant = $1 AND origin_id = $2 ORDER BY id LIMIT $3"
_FAMILY: Final = f"""
WITH RECURSIVE family AS (
    SELECT id FROM sessions WHERE tenant = $1 AND id = $2
    UNION ALL
    SELECT s.id FROM family f JOIN sessions s ON s.parent_id = f.id
)
{_ROW}
WHERE id IN (SELECT id FROM family)
  AND ($3::text[] IS NULL OR {_IS_ANY.format("$3")})
  AND ($4::text IS NULL OR id > $4)
ORDER BY id LIMIT $5
"""  # noqa: S608 - built from our own constants alone
_UPDATE: Final = """
UPDATE sessions SET title = coalesce($3, title), metadata = coalesce($4::jsonb, metadata), updated_at = greatest(updated_at, now())
WHERE tenant = $1 AND id = $2 RETURNING webhook_event(tenant, 'session.updated', id)
"""
_ARCHIVE: Final = """
UPDATE sessions SET archived_at = coalesce(archived_at, now())
WHERE tenant = $1 AND id = $2 AND status NOT IN ('running', 'waiting') RETURNING 1
"""
_KEEP_BLOCK: Final = (
    "INSERT INTO blocks (tenant, digest, body) VALUES ($1, $2, $3) ON CONFLICT (tenant, digest) DO NOTHING"
)
_BLOCKS: Final = "SELECT digest, body FROM blocks WHERE tenant = $1 AND digest = ANY($2::text[])"
_READ: Final = """
SELECT w.place, e.seq, e.at, e.body
FROM unnest($1::int[], $2::text[], $3::bigint[], $4::int[]) AS w (place, session_id, after, most)
CROSS JOIN LATERAL (
    SELECT seq, at, body FROM events WHERE session_id = w.session_id AND seq > w.after ORDER BY seq LIMIT w.most
) AS e
ORDER BY w.place, e.seq
"""


class Page(Struct, frozen=True):
    """What somebody wants to read."""

    session_id: str
    after: int
    events_max: int


class PostgresSessionLog:
    """Opened with `open_log`."""

    def __init__(
        self,
        database: Database,
        objects: Objects,
        *,
        writer: Writer,
        followers: Followers,
        pages: "Gather[Page, Sequence[Row]]",
        releases: "Gather[Lease, bool]",
        work: asyncio.Event,
    ) -> None:
        self._database = database
        self._pages = pages
        self._releases = releases
        self._objects = objects
        self._writer = writer
        self._followers = followers
        self._work = work
        self._looks_at = _FIRST
        """When a worker that waits for work looks by itself; until it waits, it is about to."""
        self._carriers: list[Carrier] = []

    @property
    def counters(self) -> Counters:
        return self._writer.counters

    @property
    def followed_count(self) -> int:
        """Sessions that somebody in this process follows now."""
        return self._followers.sessions_count

    async def create(
        self,
        row: SessionRow,
        events: Sequence[SessionEvent],
        *,
        idempotency_key: str | None = None,
        along: Along | None = None,
    ) -> SessionRow:
        encoded = encode(events)
        change = encoded.change
        wanted = msgspec.structs.replace(
            row,
            status=change.status or row.status,
            version=len(events),
            usage=change.usage,
            cost_pico=change.cost_pico,
        )
        key = _checked_key(idempotency_key)
        beside = None if along is None else _beside(along)
        birth = self._birth(events) if wanted.status == "running" and row.kind == "agent" else None
        written = await self._writer.create(Create(wanted, encoded, key=key, birth=birth, along=beside))
        return await self.get(row.tenant, written) if isinstance(written, str) else written

    def _birth(self, events: Sequence[SessionEvent]) -> Birth | None:
        for carrier in self._carriers:
            if (berth := carrier.berth(events)) is not None:
                return Birth(berth, encode(berth.opening), carrier.owner, carrier.lease_s)
        return None

    @contextmanager
    def carried_by(self, carrier: Carrier) -> Iterator[None]:
        self._carriers.append(carrier)
        try:
            yield
        finally:
            self._carriers.remove(carrier)

    async def fork(
        self, row: SessionRow, events: Sequence[SessionEvent], *, idempotency_key: str | None = None
    ) -> SessionRow:
        encoded = encode(events)
        wanted = msgspec.structs.replace(row, status=encoded.change.status or row.status)
        written = await _forks.fork(self._database, wanted, encoded, key=_checked_key(idempotency_key))
        if isinstance(written, str):
            return await self.get(row.tenant, written)
        if written.status == "running":
            self._work.set()
        return written

    async def get(self, tenant: str, session_id: str) -> SessionRow:
        rows = await self._database.fetch("reading a session", _GET, tenant, session_id)
        if not rows:
            raise NotFound(f"no session {session_id[:80]!r}")
        return _session_row(rows[0])

    async def list(
        self,
        tenant: str,
        *,
        kind: SessionKind = "agent",
        statuses: Sequence[StatusWanted] = (),
        agent: str | None = None,
        agent_version: int | None = None,
        parent_id: str | None = None,
        deployment: str | None = None,
        created: Created = ANY_TIME,
        by_cost: bool = False,
        oldest_first: bool = False,
        archived: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> SessionPage:
        check_limit(limit, LIST_MAX)
        times = (created.after, created.not_before, created.before, created.not_after)
        wanted = (
            tenant,
            list(statuses) or None,
            agent,
            parent_id,
            archived,
            agent_version,
            *times,
            deployment,
            kind,
        )
        if by_cost:
            cost, after = _dearest_cursor(cursor)
            rows = await self._database.fetch("listing sessions", _DEAREST, *wanted, after, limit + 1, cost)
        else:
            statement = _OLDEST if oldest_first else _NEWEST
            rows = await self._database.fetch("listing sessions", statement, *wanted, cursor, limit + 1)
        return _page(rows, limit, by_cost=by_cost)

    async def family(
        self,
        tenant: str,
        session_id: str,
        *,
        statuses: Sequence[StatusWanted] = (),
        limit: int = 50,
        cursor: str | None = None,
    ) -> SessionPage:
        check_limit(limit, LIST_MAX)
        await self.get(tenant, session_id)
        wanted = (tenant, session_id, list(statuses) or None, cursor, limit + 1)
        return _page(await self._database.fetch("listing a session's family", _FAMILY, *wanted), limit)

    async def forks(self, tenant: str, session_id: str, *, limit: int = 50) -> SessionPage:
        check_limit(limit, LIST_MAX)
        rows = await self._database.fetch("listing a session's forks", _FORKED, tenant, session_id, limit + 1)
        return _page(rows, limit)

    async def update(
        self,
        tenant: str,
        session_id: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> SessionRow:
        bag = None if metadata is None else msgspec.json.encode(metadata).decode()
        await self._database.fetch("changing a session", _UPDATE, tenant, session_id, title, bag)
        return await self.get(tenant, session_id)

    async def append(
        self,
        session_id: str,
        events: Sequence[SessionEvent],
        *,
        expected_version: int | None = None,
        lease: Lease | None = None,
        releases: bool = False,
        idempotency_key: str | None = None,
        along: Along | None = None,
    ) -> int:
        if lease is None and releases:
            raise BadRequest("expected the lease that is to be given back, got none", field="lease")
        if lease is not None and lease.session_id != session_id:
            raise BadRequest(
                f"expected the lease of {session_id}, got that of {lease.session_id}", field="lease"
            )
        encoded = encode(events)
        version = await self._writer.append(
            Append(
                session_id,
                encoded,
                expected=expected_version,
                lease=lease,
                key=_checked_key(idempotency_key),
                releases=releases,
                along=None if along is None else _beside(along),
            )
        )
        waits = encoded.change.waits
        if releases and waits is not None and waits.until is not None and waits.until < self._looks_at:
            self._work.set()
        return version

    async def read(self, session_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[Recorded]:
        check_limit(limit, READ_MAX)
        rows = await self._pages(Page(session_id, after, limit))
        if _forks.gap_before(rows, after):
            shared = await _forks.shared(self._database, session_id, after=after, limit=limit)
            rows = [*shared, *rows][:limit]
        return decode(session_id, rows, await named_by(self._database, [session_id], rows))

    async def delete(self, tenant: str, session_id: str) -> None:
        """What is left of it after a fault now is swept later."""
        await _deletions.delete(self._database, tenant, session_id)
        try:
            await _deletions.sweep_one(self._database, self._objects, tenant, session_id)
        except FreeholdError as error:
            log.warning("store.session.not_swept", extra={"session": session_id, "detail": error.detail})

    async def archive(self, tenant: str, session_id: str) -> SessionRow:
        if not await self._database.fetch("archiving a session", _ARCHIVE, tenant, session_id):
            row = await self.get(tenant, session_id)
            raise Conflict(f"session {session_id} is {row.status}: cancel it first, then archive it")
        return await self.get(tenant, session_id)

    async def snapshot(self, session_id: str) -> SessionState | None:
        return await _snapshots.read(self._database, session_id)

    async def keep_snapshot(self, lease: Lease, state: SessionState) -> None:
        await _snapshots.keep(self._database, lease, state)

    async def keep_block(self, tenant: str, digest: str, body: bytes) -> None:
        await self._database.fetch("keeping a block", _KEEP_BLOCK, tenant, digest, body)

    async def blocks(self, tenant: str, digests: Sequence[str]) -> Mapping[str, bytes]:
        rows = await self._database.fetch("reading blocks", _BLOCKS, tenant, list(digests))
        return {row["digest"]: row["body"] for row in rows}

    def follow(
        self, session_id: str, *, after: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Recorded]]]:
        """While the database is away the follower waits, and goes on where it was."""
        return self._followers.follow(session_id, after)

    async def claim(
        self, owner: str, *, limit: int, lease_s: float, tenant_max: int | None = None
    ) -> Sequence[Lease]:
        return await _leases.claim(self._database, owner, limit=limit, lease_s=lease_s, tenant_max=tenant_max)

    async def renew(self, owner: str, leases: Sequence[Lease], *, lease_s: float) -> frozenset[str]:
        return await _leases.renew(self._database, owner, leases, lease_s=lease_s)

    async def release(self, lease: Lease) -> None:
        if await self._releases(lease):
            self._work.set()

    async def free_leases(self) -> int:
        """For a start at which it is certain that no worker is alive: whoever held a session can't write any more."""
        return await _leases.free_all(self._database)

    async def wait_for_work(self, timeout_s: float) -> None:
        """What came since the last return is not lost: then this returns at once. A wait that is written meanwhile may end sooner than all that
        was known: then this returns, too, to be asked anew."""
        try:
            if not self._work.is_set():
                self._looks_at = _LAST
                # A database that is away says nothing of its own timers: then only `timeout_s` holds.
                with suppress(Unavailable):
                    due_in_s = await _leases.due_in_s(self._database)
                    timeout_s = timeout_s if due_in_s is None else min(timeout_s, due_in_s)
                self._looks_at = datetime.now(UTC) + timedelta(seconds=timeout_s)
            async with asyncio.timeout(timeout_s):
                await self._work.wait()
        except TimeoutError:
            return
        finally:
            self._looks_at = _FIRST
        self._work.clear()


async def _read(database: Database, wanted: Sequence[Page]) -> Sequence[Sequence[Row]]:
    rows = await database.fetch(
        "reading sessions' events",
        _READ,
        list(range(len(wanted))),
        [page.session_id for page in wanted],
        [page.after for page in wanted],
        [page.events_max for page in wanted],
    )
    found: list[list[Row]] = [[] for _ in wanted]
    for row in rows:
        found[row["place"]].append(row)
    return found


def _beside(along: Along) -> Append:
    """Nobody waits for it by itself, and any version will do."""
    return Append(along.session_id, encode(along.events, events_max=ALONG_EVENTS_MAX))


def _checked_key(key: str | None) -> str | None:
    if key is not None and not 1 <= len(key) <= KEY_CHARS_MAX:
        raise BadRequest(f"expected 1 to {KEY_CHARS_MAX} characters, got {len(key)}", field="idempotency_key")
    return key


def _page(rows: Sequence[Row], limit: int, *, by_cost: bool = False) -> SessionPage:
    """`rows` has one more than `limit` where there is a next page."""
    page = tuple(_session_row(row) for row in rows[:limit])
    if len(rows) <= limit:
        return SessionPage(page, None)
    last = page[-1]
    return SessionPage(page, f"{last.cost_pico}.{last.id}" if by_cost else last.id)


def _dearest_cursor(cursor: str | None) -> tuple[int | None, str | None]:
    if cursor is None:
        return None, None
    cost, _, session_id = cursor.partition(".")
    if not cost.isdecimal() or not session_id:
        raise BadRequest(f"expected a page's `next`, got {cursor[:80]!r}", field="cursor")
    return int(cost), session_id


def _session_row(row: Row) -> SessionRow:
    return SessionRow(
        id=row["id"],
        tenant=row["tenant"],
        agent=row["agent"],
        agent_version=row["agent_version"],
        status=row["status"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        title=row["title"],
        model=row["model"],
        usage=Usage(**{name: row[name] for name in USAGE_COLUMNS}, estimated=row["estimated"]),
        cost_pico=row["cost_pico"],
        metadata=msgspec.json.decode(row["metadata"], type=dict[str, str]),
        created_by=row["created_by"],
        waits=msgspec.json.decode(row["waits"], type=SessionWaits) if row["waits"] else None,
        parent_id=row["parent_id"],
        origin_id=row["origin_id"],
        origin_seq=row["origin_seq"],
        archived_at=row["archived_at"],
        setup=msgspec.json.decode(row["setup"], type=SessionSetup) if row["setup"] else None,
        when_busy=row["when_busy"] or "queue",
        deployment=row["deployment"],
        kind=row["kind"],
    )


@asynccontextmanager
async def open_log(
    database: Database, listener: Listener, objects: Objects
) -> AsyncIterator[PostgresSessionLog]:
    """`listener` must not run yet. Leaving writes what still waits."""
    work = asyncio.Event()
    async with (
        open_followers(database) as followers,
        open_writer(database, moved=followers.moved, woken=work.set) as writer,
        Gather(
            "reading sessions' events", partial(_read, database), most=READ_TOGETHER_MAX
        ).running() as pages,
        Gather(
            "releasing leases", partial(_leases.release, database), most=_leases.RELEASED_AT_ONCE_MAX
        ).running() as releases,
    ):

        def hear_log(payload: str | None, server_pid: int) -> None:
            if payload is None:
                followers.all_look()
            elif server_pid != writer.server_pid:
                followers.hear(payload)

        def hear_work(_payload: str | None, _server_pid: int) -> None:
            work.set()

        listener.on(LOG_CHANNEL, hear_log)
        listener.on(WORK_CHANNEL, hear_work)
        yield PostgresSessionLog(
            database, objects, writer=writer, followers=followers, pages=pages, releases=releases, work=work
        )


_IMPLEMENTS: type[SessionLog] = PostgresSessionLog
