"""Pages of a session's events, in either direction and between two times. Pages are cut between facts: a page may be a little longer
than its limit, so that a fact stays whole."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field

from freehold.core.policy import Principal
from freehold.core.session import Recorded
from freehold.core.validation import check_limit
from freehold.runtime.sessions import Sessions
from freehold.server.apis._events import read_cursor

EVENTS_PAGE_MAX: Final = 1_000

Moment = Annotated[datetime, Meta(tz=True)]

Bodies = Callable[[Recorded], Sequence[dict[str, Any]]]
"""What a fact is to the client that asks; nothing, where it is not wanted."""


class EventPage(Struct, frozen=True):
    data: tuple[dict[str, Any], ...]
    next_page: str | None


class ListEvents(Struct, frozen=True, forbid_unknown_fields=True):
    """`include=freehold` gives our own events too; `types` only those."""

    limit: int = EVENTS_PAGE_MAX
    page: str | None = None
    order: Literal["asc", "desc"] = "asc"
    types: tuple[str, ...] = ()
    include: Literal["freehold"] | None = None
    created_at_gt: Moment | None = field(default=None, name="created_at[gt]")
    created_at_gte: Moment | None = field(default=None, name="created_at[gte]")
    created_at_lt: Moment | None = field(default=None, name="created_at[lt]")
    created_at_lte: Moment | None = field(default=None, name="created_at[lte]")


def check_page(query: ListEvents) -> None:
    """Before the session is looked for. Raises BadRequest."""
    check_limit(query.limit, EVENTS_PAGE_MAX)
    if query.page:
        read_cursor(query.page, field="page")


class EventPages:
    """Of one session. `last_seq` is that of its last event now."""

    def __init__(self, sessions: Sessions, principal: Principal, session_id: str, last_seq: int) -> None:
        self._sessions = sessions
        self._principal = principal
        self._session_id = session_id
        self._last_seq = last_seq

    async def page(self, query: ListEvents, bodies: Bodies) -> EventPage:
        """The cursor of a page is the last fact of the one before."""
        first, end = await self._bounds(query)
        cursor = read_cursor(query.page, field="page")[0] if query.page else None
        if query.order == "desc":
            return await self._down(first, end if cursor is None else min(end, cursor), query.limit, bodies)
        return await self._up(first if cursor is None else max(first, cursor + 1), end, query.limit, bodies)

    async def _up(self, seq: int, end: int, limit: int, bodies: Bodies) -> EventPage:
        """From `seq` on, before `end`."""
        found: list[dict[str, Any]] = []
        while seq < end:
            for fact in await self._read(seq, min(limit, end - seq)):
                found += bodies(fact)
                seq = fact.seq + 1
                if len(found) >= limit:
                    return EventPage(tuple(found), str(fact.seq) if seq < end else None)
        return EventPage(tuple(found), None)

    async def _down(self, first: int, end: int, limit: int, bodies: Bodies) -> EventPage:
        """Before `end`, down to `first`."""
        found: list[dict[str, Any]] = []
        while end > first:
            start = max(first, end - limit)
            for fact in reversed(await self._read(start, end - start)):
                found += reversed(bodies(fact))
                end = fact.seq
                if len(found) >= limit:
                    return EventPage(tuple(found), str(end) if end > first else None)
        return EventPage(tuple(found), None)

    async def _bounds(self, query: ListEvents) -> tuple[int, int]:
        """The first seq that is wanted, and the one behind the last."""
        first, end = 1, self._last_seq + 1
        if query.created_at_gte is not None:
            first = max(first, await self._seek(query.created_at_gte, inclusive=True))
        if query.created_at_gt is not None:
            first = max(first, await self._seek(query.created_at_gt, inclusive=False))
        if query.created_at_lt is not None:
            end = min(end, await self._seek(query.created_at_lt, inclusive=True))
        if query.created_at_lte is not None:
            end = min(end, await self._seek(query.created_at_lte, inclusive=False))
        return first, end

    async def _seek(self, moment: datetime, *, inclusive: bool) -> int:
        """The first seq at `moment` or later; not `inclusive`: later. By halves, for times never go back in a log."""
        low, high = 1, self._last_seq + 1
        while low < high:
            middle = (low + high) // 2
            [fact] = await self._read(middle, 1)
            if fact.at > moment or (inclusive and fact.at == moment):
                high = middle
            else:
                low = middle + 1
        return low

    async def _read(self, seq: int, limit: int) -> Sequence[Recorded]:
        return await self._sessions.events(self._principal, self._session_id, after=seq - 1, limit=limit)
