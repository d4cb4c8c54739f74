"""Runtime: the slots of a schedule: at which instants it says to run. Pure.

Cron's grammar and its days are cronsim's, asked for wall-clock times only. What a wall-clock time is on a day when clocks are put
forward or back is decided here, as Debian's cron does (https://manpages.debian.org/stable/cron/cron.8.en.html):

- a schedule that names its hours and minutes fires once for each time it names: one that the clocks skip, right after the skipped
  time; one that they repeat, the first time;
- one whose hour or minute begins with `*` goes with elapsed time: it fires whenever the clock shows such a time, in a repeated hour
  again, in a skipped one not.

Slots are whole minutes, in UTC.
"""

from collections import deque
from collections.abc import Iterator
from copy import copy
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal, TypeAlias, assert_never
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

from freehold.core.errors import BadRequest
from freehold.core.schedules import EXPRESSION_CHARS_MAX, Cron, Once, Schedule
from freehold.core.validation import near

FIELDS_COUNT: Final = 5
YEAR_END: Final = 3000
CHANGE_SPAN: Final = timedelta(hours=26)
"""No clock is ever put forward or back by more (Samoa left out a day)."""

Change: TypeAlias = Literal["skipped", "repeated"]
"""`skipped`: the time that the schedule names does not exist that day; `repeated`: it comes twice."""

_NONE: Final = timedelta()
_MINUTE: Final = timedelta(minutes=1)


def check(schedule: Schedule, *, field: str = "schedule") -> None:
    """Raises BadRequest with the path of what is wrong."""
    match schedule:
        case Once(at=at):
            if at.tzinfo is None:
                raise BadRequest(
                    "expected a time with its offset from UTC, like 2026-11-21T09:00:00Z", field=f"{field}.at"
                )
            if at.year >= YEAR_END:
                raise BadRequest(f"expected a time before the year {YEAR_END}", field=f"{field}.at")
        case Cron(expression=expression, timezone=timezone):
            zone(timezone, field=f"{field}.timezone")
            _check_expression(expression, f"{field}.expression")
            if next_after(schedule, datetime(2024, 1, 1, tzinfo=UTC)) is None:
                raise BadRequest(f"{expression!r} never comes", field=f"{field}.expression")
        case _ as unreachable:
            assert_never(unreachable)


def zone(name: str, *, field: str = "timezone") -> ZoneInfo:
    """Raises BadRequest, with a name that is near."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        hint = near(name[:80], available_timezones())
        raise BadRequest(
            f"expected an IANA time zone like Europe/Berlin or UTC, got {name[:80]!r}{hint}", field=field
        ) from error


def _check_expression(expression: str, field: str) -> None:
    if len(expression) > EXPRESSION_CHARS_MAX:
        raise BadRequest(
            f"expected {EXPRESSION_CHARS_MAX} characters at most, got {len(expression)}", field=field
        )
    count = len(expression.split())
    if count != FIELDS_COUNT:
        raise BadRequest(
            "expected five fields (minute, hour, day of month, month, day of week), like '0 9 * * mon-fri', got "
            f"{count}: {expression!r}",
            field=field,
        )
    try:
        CronSim(expression, datetime(2024, 1, 1))  # noqa: DTZ001 - of wall-clock time
    except CronSimError as error:
        raise BadRequest(f"{str(error).lower()} in {expression!r}", field=field) from error


def next_after(schedule: Schedule, after: datetime) -> datetime | None:
    """The first slot later than `after` (UTC); None where no more come."""
    match schedule:
        case Once(at=at):
            return at.astimezone(UTC) if at > after else None
        case Cron(expression=expression, timezone=timezone):
            return _of(expression, timezone).next_after(after)
        case _ as unreachable:
            assert_never(unreachable)


def upcoming(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Slots later than `after`, as they come."""
    slot = next_after(schedule, after)
    while slot is not None:
        yield slot
        slot = next_after(schedule, slot)


def change_at(schedule: Schedule, slot: datetime) -> Change | None:
    """Whether the clocks' change has a part in when this slot is."""
    return _of(schedule.expression, schedule.timezone).change_at(slot) if isinstance(schedule, Cron) else None


def due(schedule: Schedule, since: datetime, now: datetime, *, limit: int) -> list[datetime]:
    """Slots later than `since`, up to `now`: the last `limit` of them, oldest first. However long ago `since` is."""
    span = _MINUTE
    while True:
        start = max(since, now - span)
        found: deque[datetime] = deque(maxlen=limit)
        for slot in upcoming(schedule, start):
            if slot > now:
                break
            found.append(slot)
        if start == since or len(found) == limit:
            return list(found)
        span *= 4


@lru_cache(maxsize=4096)
def _of(expression: str, timezone: str) -> "_Cron":
    return _Cron(expression, zone(timezone))


class _Cron:
    def __init__(self, expression: str, zone: ZoneInfo) -> None:
        minute, hour, *_ = expression.split()
        self._parsed = CronSim(expression, datetime(2024, 1, 1))  # noqa: DTZ001 - of wall-clock time
        self._zone = zone
        self._elapsing = minute.startswith("*") or hour.startswith("*")

    def next_after(self, after: datetime) -> datetime | None:
        """Wall-clock times are tried in their order, from where a repeated hour may reach back to until none can be earlier."""
        wall = after.astimezone(self._zone).replace(tzinfo=None)
        best: datetime | None = None
        until = wall
        for tried in self._walls(wall - self._shift(after)):
            if best is not None and tried > until:
                break
            later = [instant for instant in self._instants(tried) if instant > after]
            if later and (best is None or later[0] < best):
                best = later[0]
                until = tried + self._shift(best)
                if until == tried:
                    break
        return best

    def change_at(self, slot: datetime) -> Change | None:
        local = slot.astimezone(self._zone)
        wall = local.replace(tzinfo=None)
        if next(self._walls(wall - _MINUTE)) != wall.replace(fold=0):
            return "skipped"
        return "repeated" if local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset() else None

    def _walls(self, after: datetime) -> Iterator[datetime]:
        """To parse takes ten times as long as to find the next time."""
        times = copy(self._parsed)
        times.dt = after.replace(microsecond=0)
        return times

    def _shift(self, at: datetime) -> timedelta:
        """By how much clocks change around then: mostly not at all."""
        before = (at - CHANGE_SPAN).astimezone(self._zone).utcoffset() or _NONE
        after = (at + CHANGE_SPAN).astimezone(self._zone).utcoffset() or _NONE
        return abs(after - before)

    def _instants(self, wall: datetime) -> list[datetime]:
        """When the clock shows that time: once, twice or never; and where it never does, when it would have."""
        first, second = (wall.replace(tzinfo=self._zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if first == second:
            return [first]
        if first < second:
            return [first, second] if self._elapsing else [first]
        return [] if self._elapsing else [self._change(second, first)]

    def _change(self, before: datetime, after: datetime) -> datetime:
        """The minute between these two at which the clock was put forward."""
        offset = after.astimezone(self._zone).utcoffset()
        minutes = int((after - before) / _MINUTE)
        low, high = 0, minutes
        while high - low > 1:
            middle = (low + high) // 2
            if (before + middle * _MINUTE).astimezone(self._zone).utcoffset() == offset:
                high = middle
            else:
                low = middle
        return before + high * _MINUTE
