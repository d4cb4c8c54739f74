"""Runtime: the log of one leased session, as the worker that holds the lease sees it.

Read once, then kept in memory and grown by what is appended. Others write here too (input, cancels): they show as a gap in the
versions, or come through `cancelled()`. What to append is not decided here.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from freehold.core.errors import Conflict, FreeholdError
from freehold.core.ports import Clock
from freehold.core.session import FromOutside, Recorded, SessionEvent
from freehold.core.session_log import Lease, SessionLog
from freehold.core.session_state import SessionState
from freehold.runtime.resuming import resumed

log = logging.getLogger(__name__)

READ_PAGE: Final = 1000
SNAPSHOT_EVERY: Final = 500
"""Events between two snapshots, or more: a quarter of the messages that would be in it, so that all snapshots together take time and
bytes in proportion to the log."""
APPEND_RETRY_S_MAX: Final = 300.0
"""How long a result is kept in memory for a database that is away, while the lease is not known to be lost."""
RETRY_DELAY_S: Final = 0.1
RETRY_DELAY_S_MAX: Final = 2.0

OnPoint = Callable[[str], None]
"""Called at named points of a turn: after every append, before and after every effect. For tests that kill the process there."""


def no_points(_name: str) -> None: ...


class LeaseLost(Exception):
    """Another worker has the session, or may have it: stop, write nothing."""


class Journal:
    """`state` is a new object after a reread: don't hold on to it."""

    def __init__(
        self,
        log: SessionLog,
        lease: Lease,
        clock: Clock,
        *,
        on_point: OnPoint = no_points,
        state: SessionState | None = None,
    ) -> None:
        """`state` is what the log says, where that is known already."""
        self.state = SessionState() if state is None else state
        self.lease = lease
        self._log = log
        self._clock = clock
        self._on_point = on_point
        self._staged: list[SessionEvent] = []
        self._snapshot_seq = 0
        self.released = False

    async def catch_up(self) -> None:
        """Takes in what is new in the log."""
        if self.state.seq:
            await self._since(self.state.seq)
        else:
            found = await resumed(self._log, self.lease.session_id)
            self.state, self._snapshot_seq = found.state, found.snapshot_seq

    def stage(self, event: SessionEvent) -> None:
        """Holds in `state` at once and is written with the next append. Not while `cancelled()` is waited for."""
        self._staged.append(event)
        self.state.add(event, self._clock.now())

    async def flush(self) -> None:
        if self._staged:
            await self.append(())

    async def append(
        self, events: Sequence[SessionEvent], *, exact: bool = False, releases: bool = False
    ) -> bool:
        """Durable on return, with what was staged. With `exact`, False when somebody wrote in between: then `events` were not
        appended, decide again. With `releases`, the lease is given back with them: `released` says that it was. Raises LeaseLost.
        """
        staged, self._staged = self._staged, []
        wanted = [*staged, *events] if staged else events
        known_seq = self.state.seq - len(staged)
        try:
            version = await self._write(wanted, known_seq if exact else None, releases=releases)
            if self._on_point is not no_points:
                self._pass_point(wanted)
            if staged and version != known_seq + len(wanted):
                await self._reread(known_seq)
            elif version == self.state.seq + len(events):
                self._take_in(events)
            else:
                await self._written(version, events)
        except FreeholdError as error:
            if not await self._append_anyway(
                wanted, error, known_seq=known_seq, staged=len(staged), exact=exact, releases=releases
            ):
                return False
        else:
            if not releases and self.state.seq >= self._snapshot_seq + SNAPSHOT_EVERY:
                await self._keep_snapshot()
        self.released = releases
        return True

    async def cancelled(self) -> None:
        """Returns once somebody asked to cancel. Meanwhile takes in whatever others write."""
        while not self._cancel_asked():
            try:
                async with self._log.follow(self.lease.session_id, after=self.state.seq) as batches:
                    async for batch in batches:
                        self._absorb(batch)
                        if self._cancel_asked():
                            return
            except FreeholdError as error:
                if not error.retryable:
                    raise
            await asyncio.sleep(RETRY_DELAY_S_MAX)

    def _cancel_asked(self) -> bool:
        return self.state.cancel is not None

    async def _append_anyway(
        self,
        wanted: Sequence[SessionEvent],
        error: FreeholdError,
        *,
        known_seq: int,
        staged: int,
        exact: bool,
        releases: bool,
    ) -> bool:
        """After a first try that failed. While the database is away: again and again, each time reading first, so that nothing
        is written twice."""
        give_up_at = self._clock.monotonic_s() + APPEND_RETRY_S_MAX
        delay_s, in_doubt = RETRY_DELAY_S, False
        while True:
            if not isinstance(error, Conflict):
                if not error.retryable or self._clock.monotonic_s() > give_up_at:
                    raise error
                log.warning(
                    "journal.append_delayed", extra={"session": self.lease.session_id, "error": str(error)}
                )
                await asyncio.sleep(delay_s)
                delay_s, in_doubt = min(delay_s * 2, RETRY_DELAY_S_MAX), True
            try:
                fresh = await (self._reread(known_seq) if staged else self._since(known_seq))
                if in_doubt and self._landed(fresh, wanted):
                    return True
                if isinstance(error, Conflict) or (exact and fresh):
                    break
                version = await self._write(wanted, known_seq if exact else None, releases=releases)
                self._pass_point(wanted)
                await self._written(version, wanted)
                return True
            except FreeholdError as again:
                error = again
        if not exact or not fresh:
            raise LeaseLost(error.message)
        if staged:
            await self.append(wanted[:staged])
        return False

    def _write(
        self, events: Sequence[SessionEvent], expected: int | None, *, releases: bool
    ) -> Coroutine[Any, Any, int]:
        return self._log.append(
            self.lease.session_id, events, expected_version=expected, lease=self.lease, releases=releases
        )

    def _pass_point(self, written: Sequence[SessionEvent]) -> None:
        self._on_point("append:" + "+".join(type(event).__name__ for event in written))

    async def _written(self, version: int, events: Sequence[SessionEvent]) -> None:
        """Takes in what was appended, and what others put before it."""
        if version == self.state.seq + len(events):
            self._take_in(events)
        elif version > self.state.seq:
            await self.catch_up()

    def _take_in(self, events: Sequence[SessionEvent]) -> None:
        if events:
            now = self._clock.now()
            for event in events:
                self.state.add(event, now)

    async def _reread(self, known_seq: int) -> list[SessionEvent]:
        """The state from the log alone, for when what was staged does not stand where it was thought to."""
        self.state = SessionState()
        await self.catch_up()
        return await self._since(known_seq)

    async def _keep_snapshot(self) -> None:
        """Now and then. Without one, whoever comes next reads more."""
        due_in = max(SNAPSHOT_EVERY, len(self.state.messages) // 4)
        if self._staged or self.state.seq < self._snapshot_seq + due_in:
            return
        self._snapshot_seq = self.state.seq
        try:
            await self._log.keep_snapshot(self.lease, self.state)
        except FreeholdError as error:
            log.warning(
                "journal.snapshot_failed", extra={"session": self.lease.session_id, "error": str(error)}
            )

    async def _since(self, seq: int) -> list[SessionEvent]:
        """Takes in what is new; returns all after `seq`, also what came another way before. All or nothing."""
        found: list[Recorded] = []
        while True:
            page = await self._log.read(self.lease.session_id, after=seq + len(found), limit=READ_PAGE)
            found += page
            if len(page) < READ_PAGE:
                break
        self._absorb(found)
        return [recorded.event for recorded in found]

    def _absorb(self, batch: Iterable[Recorded]) -> None:
        """Applies what is new in `batch`; the same event may come by several ways."""
        for recorded in batch:
            if recorded.seq > self.state.seq:
                self.state.apply(recorded)

    def _landed(self, fresh: Sequence[SessionEvent], wanted: Sequence[SessionEvent]) -> bool:
        """Whether an append of unknown outcome is in the log after all. Only the holder of the lease writes such events."""
        ours = [type(event) for event in fresh if not isinstance(event, FromOutside)]
        if ours and ours != [type(event) for event in wanted]:
            raise LeaseLost("somebody else has written to the session")
        return bool(ours)
