"""Runtime: what our own clock was read for in a recorded event: deadlines, and texts that say a time. Pure. For replay.py.

A log has no readings, but each that mattered stands in what was recorded: a deadline is the reading and a declared while, a text says it.
So where a decision differs from the record in these alone, the reading is taken from the record; the event must then be what that
reading makes of it, to the letter, and the reading must have been possible.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import structs

from freehold.core.messages import Text
from freehold.core.session import CallAwaited, SessionEvent, ToolFinished, TurnFinished
from freehold.runtime.waiting import TIMER_SAYS, timer_says

CLOCK_LIMITS: Final = frozenset({"wall_time_s_max", "session_wall_time_s_max"})
_LASTED: Final = re.compile(r"(?<= lasted )(\d+)(?= s\))")
_HALF_A_SECOND: Final = timedelta(seconds=0.5)
"""A second that is told is rounded."""


def reading_of(expected: SessionEvent, decided_at: datetime, recorded: SessionEvent) -> datetime | None:
    """When our clock was read for `recorded`, which would be `expected` at `decided_at`. None where it cannot be that at any time."""
    if expected == recorded:
        return decided_at
    match expected, recorded:
        case CallAwaited(until=datetime() as until), CallAwaited(until=datetime() as found):
            reading = decided_at + (found - until)
        case ToolFinished(content=(Text(text=text),)), ToolFinished(content=(Text(text=found),)) if (
            text.startswith(TIMER_SAYS) and found.startswith(TIMER_SAYS)
        ):
            try:
                reading = datetime.fromisoformat(found.removeprefix(TIMER_SAYS)).astimezone(UTC)
            except ValueError:
                return None
        case TurnFinished(limit=limit), TurnFinished() if limit in CLOCK_LIMITS:
            lasted, found_lasted = _LASTED.search(expected.message), _LASTED.search(recorded.message)
            if lasted is None or found_lasted is None:
                return None
            reading = decided_at + timedelta(seconds=int(found_lasted[0]) - int(lasted[0]))
        case _:
            return None
    return reading if made_at(expected, reading - decided_at, recorded) else None


def made_at(expected: SessionEvent, later: timedelta, recorded: SessionEvent) -> bool:
    """Whether `recorded` is to the letter what `expected` would be, had the clock been read so much later."""
    match expected, recorded:
        case CallAwaited(until=datetime() as until), CallAwaited():
            return recorded in {expected, structs.replace(expected, until=until + later)}
        case ToolFinished(content=(Text(text=text),)), ToolFinished() if text.startswith(TIMER_SAYS):
            at = datetime.fromisoformat(text.removeprefix(TIMER_SAYS)).astimezone(UTC)
            return any(
                recorded == structs.replace(expected, content=(Text(timer_says(at + later + off)),))
                for off in (timedelta(0), timedelta(seconds=1))
            )
        case TurnFinished(limit=limit), TurnFinished() if limit in CLOCK_LIMITS:
            lasted = _LASTED.search(expected.message)
            if lasted is None:
                return expected == recorded
            told = {
                round(int(lasted[0]) + (later + off).total_seconds())
                for off in (-_HALF_A_SECOND, timedelta(0), _HALF_A_SECOND)
            }
            return any(
                recorded == structs.replace(expected, message=_LASTED.sub(str(one), expected.message))
                for one in told
            )
        case _:
            return expected == recorded
