"""The log of sessions, as kept: the port of what keeps it, and what is known of a session without reading it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime
from typing import Final, Literal, Protocol, TypeAlias

from msgspec import Struct

from freehold.core.messages import Usage
from freehold.core.resources import WhenBusy
from freehold.core.response_facts import SessionKind
from freehold.core.session import (
    Recorded,
    SessionEvent,
    SessionSetup,
    SessionStatus,
    SessionWaits,
)
from freehold.core.session_state import SessionState

StatusWanted: TypeAlias = SessionStatus | Literal["asks", "goes_on"]
"""Of sessions that are `waiting`, those that `asks` names wait for somebody to act (session.asks), those that `goes_on` names do not."""


class SessionRow(Struct, frozen=True, kw_only=True):
    """A projection of the log, for lists and workers. `version` is the number of events; `waits` is for `waiting` and `paused`.

    Only of kind `agent` has it an agent. A response's origin is the one that it goes on with, of which it shares nothing.
    `deployment` is the one whose run began it. A fork has its origin's events up to `origin_seq` as its first; its usage and cost are those of its own events alone.
    """

    id: str
    tenant: str
    agent: str
    agent_version: int
    status: SessionStatus
    version: int
    created_at: datetime
    updated_at: datetime
    title: str = ""
    model: str | None = None
    usage: Usage = Usage()
    cost_pico: int = 0
    metadata: dict[str, str] = {}
    created_by: str = ""
    waits: SessionWaits | None = None
    parent_id: str | None = None
    origin_id: str | None = None
    origin_seq: int | None = None
    archived_at: datetime | None = None
    setup: SessionSetup | None = None
    when_busy: WhenBusy = "queue"
    deployment: str | None = None
    kind: SessionKind = "agent"


class NewSession(Struct, frozen=True):
    """One that is not there yet."""

    row: SessionRow
    events: Sequence[SessionEvent]


class Created(Struct, frozen=True):
    """Which times of creation are meant; None is no bound."""

    after: datetime | None = None
    not_before: datetime | None = None
    before: datetime | None = None
    not_after: datetime | None = None


ANY_TIME: Final = Created()


class Lease(Struct, frozen=True):
    """The right to write a session's turn. `epoch` fences: an append under an older epoch raises Conflict. `due_at`: since when the
    session wanted a worker, by the log's own clock."""

    session_id: str
    tenant: str
    owner: str
    epoch: int
    due_at: datetime | None = None
    kind: SessionKind = "agent"


class Along(Struct, frozen=True):
    """What is written to another log in the same transaction, if that one is still there."""

    session_id: str
    events: Sequence[SessionEvent]


class Berth(Protocol):
    """A worker's place, kept for a session that is about to begin. One of the two comes, once, and neither waits."""

    @property
    def opening(self) -> Sequence[SessionEvent]:
        """What the worker writes first, together with the session's beginning."""
        ...

    def take(self, lease: Lease) -> None:
        """It has begun, `opening` is in its log, and the worker has it."""
        ...

    def leave(self) -> None:
        """It has not begun, or somebody else will have it."""
        ...


class Carrier(Protocol):
    """A worker in the process in which sessions begin."""

    owner: str
    lease_s: float

    def berth(self, events: Sequence[SessionEvent]) -> Berth | None:
        """For a session that begins with `events`. None where it has nothing to do there yet, or no room."""
        ...


class SessionPage(Struct, frozen=True):
    rows: tuple[SessionRow, ...]
    next: str | None


class SessionLog(Protocol):
    async def create(
        self,
        row: SessionRow,
        events: Sequence[SessionEvent],
        *,
        idempotency_key: str | None = None,
        along: Along | None = None,
    ) -> SessionRow:
        """With a key that was used before in the tenant: the session of that time, nothing new."""
        ...

    def carried_by(self, carrier: Carrier) -> AbstractContextManager[None]:
        """Meanwhile what `create` begins here goes to `carrier` at once where it has a berth, unless the agent's places are limited: then
        it waits for its turn, as all others do."""
        ...

    async def fork(
        self, row: SessionRow, events: Sequence[SessionEvent], *, idempotency_key: str | None = None
    ) -> SessionRow:
        """As `create`, with the events of `row.origin_id` up to `row.origin_seq` before `events`: shared, not copied.

        Raises NotFound where the origin is gone, Conflict where it is shorter, TooLarge where it is a fork of too many forks.
        """
        ...

    async def get(self, tenant: str, session_id: str) -> SessionRow:
        """Raises NotFound."""
        ...

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
        """Of any of `statuses`, all where there are none; `archived` ones, too. Newest first, or oldest first, or dearest first."""
        ...

    async def family(
        self,
        tenant: str,
        session_id: str,
        *,
        statuses: Sequence[StatusWanted] = (),
        limit: int = 50,
        cursor: str | None = None,
    ) -> SessionPage:
        """The session, and all that work for it, however deep; archived ones, too. Oldest first. Raises NotFound."""
        ...

    async def forks(self, tenant: str, session_id: str, *, limit: int = 50) -> SessionPage:
        """Those forked from the session itself, not from its forks. Oldest first."""
        ...

    async def update(
        self,
        tenant: str,
        session_id: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> SessionRow:
        """What its row alone says: None leaves it as it is. Raises NotFound."""
        ...

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
        """Returns the new version. All or nothing, durable on return; many sessions' appends share one transaction. `releases`: the
        lease is given back in the same moment.

        Raises Conflict unless the log holds exactly `expected_version` events (where given) and the lease is still held
        (where given), or when the session is cancelled; NotFound; Unavailable when the database is away: then it is not
        known whether the append happened, so read before writing again.
        """
        ...

    async def read(self, session_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[Recorded]: ...

    async def delete(self, tenant: str, session_id: str) -> None:
        """With all that is kept of it but the records of its calls. Raises NotFound; Conflict while it runs or waits, or has forks."""
        ...

    async def archive(self, tenant: str, session_id: str) -> SessionRow:
        """Idempotent. Raises NotFound; Conflict while it runs or waits."""
        ...

    async def snapshot(self, session_id: str) -> SessionState | None:
        """What its log said up to some event, mostly not long ago. None where none was kept, or none that this code can read."""
        ...

    async def keep_snapshot(self, lease: Lease, state: SessionState) -> None:
        """In place of an older one. `state` must be what the log says; under a lease that is lost, nothing is kept."""
        ...

    async def keep_block(self, tenant: str, digest: str, body: bytes) -> None:
        """Durable on return, and kept once, however often: what events refer to by `digest`, the SHA-256 of `body` in hex."""
        ...

    async def blocks(self, tenant: str, digests: Sequence[str]) -> Mapping[str, bytes]:
        """Those that are there."""
        ...

    def follow(
        self, session_id: str, *, after: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Recorded]]]:
        """Every event after `after`, each once and in order, first those that are there, then as they come; never ends by itself."""
        ...

    async def claim(
        self, owner: str, *, limit: int, lease_s: float, tenant_max: int | None = None
    ) -> Sequence[Lease]:
        """Sessions that are `running`, or `waiting` until a time that has come, and that nobody holds (or whose lease ran out);
        level-triggered. Where there are more than `limit`, tenants share alike, and each agent's longest waiting come first.

        `tenant_max`: how many of one tenant workers may hold together. Fewer than `limit` may come though there are more; none
        come only where there are none.
        """
        ...

    async def renew(self, owner: str, leases: Sequence[Lease], *, lease_s: float) -> frozenset[str]:
        """Ids of the sessions still held."""
        ...

    async def release(self, lease: Lease) -> None: ...

    async def wait_for_work(self, timeout_s: float) -> None:
        """Returns when some session may want a worker: one that was written to, or whose time has come; or after `timeout_s`."""
        ...
