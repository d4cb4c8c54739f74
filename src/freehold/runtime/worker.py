"""Runtime: which sessions this process carries forward. What a session does is turn.py's matter, or that of who performs its kind.

Level-triggered: a worker asks the log which sessions want one, whatever became of the worker before. A lease is kept by a
heartbeat; one that is lost stops its session's work here at once. No fault of one session ends the worker, and a database that
is away only makes it wait.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any, Final, Protocol

from msgspec import Struct

from freehold.core import ids
from freehold.core.errors import FreeholdError
from freehold.core.response_facts import SessionKind
from freehold.core.session import SessionEvent
from freehold.core.session_log import Berth, Carrier, Lease
from freehold.core.session_state import SessionState
from freehold.runtime.decide import opened
from freehold.runtime.means import Means
from freehold.runtime.turn import SessionRun

log = logging.getLogger(__name__)

BACKOFF_S: Final = 0.2
BACKOFF_S_MAX: Final = 5.0
RELEASE_S_MAX: Final = 5.0
CLAIMED_AT_ONCE_MAX: Final = 64
"""So that one worker that looks first leaves some to the others."""
BORN_SHARE: Final = 0.5
"""Of a worker's places, those that sessions that begin in its process may take without queueing: what is left is shared fairly."""


class WorkerSettings(Struct, frozen=True, kw_only=True):
    """`lease_s`: how long a dead worker's sessions wait for another. `drain_s`: how long a stop waits for what runs. `tenant_max`:
    how many sessions of one tenant are carried forward at once, by all workers together (whose settings should agree)."""

    sessions_max: int = 256
    tenant_max: int | None = None
    lease_s: float = 15.0
    poll_s: float = 5.0
    drain_s: float = 10.0


DEFAULTS: Final = WorkerSettings()


class Performer(Protocol):
    """Carries forward the sessions of a kind in which no agent acts."""

    async def carry(self, lease: Lease, stopping: asyncio.Event) -> bool:
        """Until there is nothing to do, or `stopping` is set and it can leave off. Whether the lease is still ours, to be given back.

        Cancelled where the lease is lost, or a stop takes too long.
        """
        ...


class _Held(Struct):
    """A session that is carried forward here."""

    lease: Lease
    task: asyncio.Task[None]


class _Berth:
    """Implements core.session_log.Berth."""

    def __init__(self, worker: "Worker", state: SessionState, opening: Sequence[SessionEvent]) -> None:
        self.opening = opening
        self._worker = worker
        self._state = state

    def take(self, lease: Lease) -> None:
        self._worker.take(lease, self._state)

    def leave(self) -> None:
        self._worker.leave()


class Worker:
    """Implements core.session_log.Carrier, too: what begins in its process it takes from there, without asking the database for work."""

    def __init__(
        self,
        means: Means,
        settings: WorkerSettings = DEFAULTS,
        performers: Mapping[SessionKind, Performer] = MappingProxyType({}),
    ) -> None:
        self.owner = ids.new("worker", means.clock)
        self._means = means
        self._performers = performers
        self._settings = settings
        self.lease_s = settings.lease_s
        self._held: dict[str, _Held] = {}
        self._berths_count = 0
        self._group: asyncio.TaskGroup | None = None
        self._queue_seen_empty = False
        self._stopping = asyncio.Event()
        self._over = asyncio.Event()
        self._look = asyncio.Event()
        self._renewed_at_s = means.clock.monotonic_s()
        self._trouble = "it has not looked for work yet"

    @property
    def trouble(self) -> str:
        """Why it takes no work now; empty where it does."""
        return "it is stopping" if self._stopping.is_set() else self._trouble

    @property
    def busy_count(self) -> int:
        return len(self._held)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Works until left, or stopped; then finishes the steps that run, or hands them back after `drain_s`."""
        working = asyncio.create_task(self._work(), name="worker")
        try:
            with self._means.log.carried_by(self):
                yield
        finally:
            self.stop()
            await working

    def stop(self) -> None:
        """Takes nothing new from now on; what runs comes to the end of its step."""
        self._stopping.set()
        self._look.set()

    def berth(self, events: Sequence[SessionEvent]) -> Berth | None:
        """Only while nobody queues, and as long as there is more than enough room; a limit of tenants' is the database's to keep."""
        settings = self._settings
        if (
            self._group is None
            or not self._queue_seen_empty
            or self._stopping.is_set()
            or settings.tenant_max is not None
            or len(self._held) + self._berths_count >= settings.sessions_max * BORN_SHARE
        ):
            return None
        state, opening = opened(events, self._means.clock.now())
        if not opening:
            return None
        self._berths_count += 1
        return _Berth(self, state, opening)

    def take(self, lease: Lease, state: SessionState) -> None:
        self.leave()
        if self._group is None:
            log.warning("session.born_too_late", extra={"session": lease.session_id, "worker": self.owner})
        else:
            self._begin(self._group, lease, state)

    def leave(self) -> None:
        self._berths_count -= 1
        if self._stopping.is_set():
            self._look.set()

    async def stopped(self) -> None:
        """Returns once nothing runs any more."""
        await self._over.wait()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            beating = group.create_task(self._heartbeat(), name="worker:heartbeat")
            await self._claim_until_stopped(group)
            await self._settle_berths()
            self._group = None
            await self._drain()
            beating.cancel()
        self._over.set()

    async def _settle_berths(self) -> None:
        """What has just begun is known in a moment: then it is handed back with the others. If not, its lease runs out."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_S_MAX):
                while self._berths_count:
                    self._look.clear()
                    await self._look.wait()

    async def _drain(self) -> None:
        tasks = [held.task for held in self._held.values()]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=self._settings.drain_s)
        for task in late:
            task.cancel()
        if late:
            log.warning("worker.drain_cut_short", extra={"worker": self.owner, "sessions": len(late)})
            await asyncio.wait(late)

    async def _claim_until_stopped(self, group: asyncio.TaskGroup) -> None:
        backoff_s = BACKOFF_S
        while not self._stopping.is_set():
            try:
                more = await self._claim(group)
                self._trouble = ""
                if not more:
                    await self._wait()
                backoff_s = BACKOFF_S
                continue
            except FreeholdError as error:
                self._trouble = error.message
                log.warning("worker.claim_failed", extra={"worker": self.owner, "error": str(error)})
            except Exception:
                log.exception("worker.crashed", extra={"worker": self.owner})
            await _first_of(self._stopping.wait(), asyncio.sleep(backoff_s))
            backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)

    async def _claim(self, group: asyncio.TaskGroup) -> bool:
        """True when there may be more to claim at once."""
        self._look.clear()
        room = self._settings.sessions_max - len(self._held)
        if room <= 0:
            return False
        if self._held and self._means.clock.monotonic_s() - self._renewed_at_s > self._settings.lease_s:
            # The database was away for longer than our leases: ask for them again before somebody (we) claims them.
            await self._renew()
        limit = min(room, CLAIMED_AT_ONCE_MAX)
        leases = await self._means.log.claim(
            self.owner, limit=limit, lease_s=self._settings.lease_s, tenant_max=self._settings.tenant_max
        )
        for lease in leases:
            self._begin(group, lease)
        self._queue_seen_empty = not leases
        return bool(leases)

    def _begin(self, group: asyncio.TaskGroup, lease: Lease, state: SessionState | None = None) -> None:
        """`state` is what its log says, where that is known. Having got a session anew that is still carried forward here means that its old lease is void."""
        old = self._held.get(lease.session_id)
        if old is not None:
            old.task.cancel()
        task = group.create_task(self._carry(lease, state), name=f"session:{lease.session_id}")
        self._held[lease.session_id] = _Held(lease, task)

    async def _wait(self) -> None:
        """Until there may be work, or room for it."""
        if len(self._held) >= self._settings.sessions_max:
            await self._look.wait()
            return
        await _first_of(self._look.wait(), self._means.log.wait_for_work(self._settings.poll_s))

    async def _carry(self, lease: Lease, state: SessionState | None) -> None:
        """The outermost edge of one session's work."""
        ours = False
        try:
            if lease.kind == "agent":
                ours = await SessionRun(self._means, lease, self._stopping, state).run()
            else:
                ours = await self._performers[lease.kind].carry(lease, self._stopping)
        except asyncio.CancelledError:
            ours = self._stopping.is_set()
            raise
        except FreeholdError as error:
            log.warning("session.put_off", extra={"session": lease.session_id, "error": str(error)})
        except Exception:
            log.exception("session.crashed", extra={"session": lease.session_id})
        finally:
            full = len(self._held) >= self._settings.sessions_max
            held = self._held.get(lease.session_id)
            if held is not None and held.lease is lease:
                del self._held[lease.session_id]
            if ours:
                await self._release(lease)
            if full or self._settings.tenant_max is not None:
                self._look.set()

    async def _release(self, lease: Lease) -> None:
        """A lease that can't be given back runs out by itself."""
        try:
            async with asyncio.timeout(RELEASE_S_MAX):
                await self._means.log.release(lease)
        except (FreeholdError, TimeoutError) as error:
            log.warning("session.not_released", extra={"session": lease.session_id, "error": str(error)})

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            try:
                await self._renew()
                await self._means.places.look_after()
            except FreeholdError as error:
                # Not known to be lost: what runs may go on, since nothing new can start without an append under the lease.
                log.warning("worker.not_renewed", extra={"worker": self.owner, "error": str(error)})
            except Exception:
                log.exception("worker.crashed", extra={"worker": self.owner})

    async def _renew(self) -> None:
        asked = dict(self._held)
        if asked:
            leases = [held.lease for held in asked.values()]
            kept = await self._means.log.renew(self.owner, leases, lease_s=self._settings.lease_s)
            for session_id in asked.keys() - kept:
                if self._held.get(session_id) is asked[session_id]:
                    log.warning("session.lease_lost", extra={"session": session_id, "worker": self.owner})
                    asked[session_id].task.cancel()
        self._renewed_at_s = self._means.clock.monotonic_s()


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Returns when the first of them is over, with its exception if it has one; the others are cancelled."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


_IMPLEMENTS: type[Carrier] = Worker
