"""Runtime: a session's whole log at once, for what looks at all of it (forks, replays, a call that somebody asks after)."""

from typing import Final

from freehold.core.session import Recorded
from freehold.core.session_log import SessionLog

READ_PAGE: Final = 1000


async def history(log: SessionLog, session_id: str) -> list[Recorded]:
    """Every event, in order, up to some moment while this runs."""
    events: list[Recorded] = []
    while True:
        page = await log.read(session_id, after=len(events), limit=READ_PAGE)
        events += page
        if len(page) < READ_PAGE:
            return events
