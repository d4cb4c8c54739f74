"""Runtime: the log of one leased session, as the worker that holds the lease sees it.

Read once, then kept in memory and grown by what is appended. Others write here too (input, cancels): they show as a gap in the
versions, or come through `cancelled()`. What to append is not decided here.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from freehold.core.errors import Conflict, FreeholdError
from freehold.core.ports import Clock, Lease, SessionLog
from freehold.core.session import CancelRequested, Recorded, SessionEvent, SessionState, UserSpoke

log = logging.getLogger(__name__)

READ_PAGE: Final = 1000
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
    def __init__(self, log: SessionLog, lease: Lease, clock: Clock, on_point: OnPoint = no_points) -> None:
        self.state = SessionState()
        self.lease = lease
        self._log = log
        self._clock = clock
        self._on_point = on_point

    async def catch_up(self) -> list[SessionEvent]:
        """Reads and applies what is new; returns it."""
        fresh: list[SessionEvent] = []
        while True:
            page = await self._log.read(self.lease.session_id, after=self.state.seq, limit=READ_PAGE)
            fresh += self._absorb(page)
            if len(page) < READ_PAGE:
                return fresh

    async def append(self, events: Sequence[SessionEvent], *, exact: bool = False) -> bool:
        """Durable on return. With `exact`, False when somebody wrote in between: nothing was appended, decide again.

        While the database is away it tries again, reading first, so that nothing is written twice. Raises LeaseLost.
        """
        give_up_at = self._clock.monotonic_s() + APPEND_RETRY_S_MAX
        delay_s, in_doubt = RETRY_DELAY_S, False
        while True:
            try:
                if in_doubt and self._landed(await self.catch_up(), events):
                    break
                await self._append_once(events, exact=exact)
                break
            except Conflict as conflict:
                fresh = await self.catch_up()
                if in_doubt and self._landed(fresh, events):
                    break
                if exact and fresh:
                    return False
                raise LeaseLost(conflict.message) from conflict
            except FreeholdError as error:
                if not error.retryable or self._clock.monotonic_s() > give_up_at:
                    raise
                log.warning(
                    "journal.append_delayed", extra={"session": self.lease.session_id, "error": str(error)}
                )
            await asyncio.sleep(delay_s)
            delay_s, in_doubt = min(delay_s * 2, RETRY_DELAY_S_MAX), True
        self._on_point("append:" + "+".join(type(event).__name__ for event in events))
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

    async def _append_once(self, events: Sequence[SessionEvent], *, exact: bool) -> None:
        version = await self._log.append(
            self.lease.session_id,
            events,
            expected_version=self.state.seq if exact else None,
            lease=self.lease,
        )
        if version == self.state.seq + len(events):
            now = self._clock.now()
            self._absorb([
                Recorded(self.state.seq + place, now, event) for place, event in enumerate(events, 1)
            ])
        elif version > self.state.seq:
            await self.catch_up()

    def _absorb(self, batch: Iterable[Recorded]) -> list[SessionEvent]:
        """Applies what is new in `batch`; the same event may come by several ways."""
        fresh = [recorded for recorded in batch if recorded.seq > self.state.seq]
        for recorded in fresh:
            self.state.apply(recorded)
        return [recorded.event for recorded in fresh]

    def _landed(self, fresh: Sequence[SessionEvent], events: Sequence[SessionEvent]) -> bool:
        """Whether an append of unknown outcome is in the log after all. Only the holder of the lease writes such events."""
        ours = [type(event) for event in fresh if not isinstance(event, UserSpoke | CancelRequested)]
        if ours and ours != [type(event) for event in events]:
            raise LeaseLost("somebody else has written to the session")
        return bool(ours)
