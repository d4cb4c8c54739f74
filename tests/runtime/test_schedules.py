"""When schedules fire: against an oracle that looks at every single minute, over years of many zones' changes of the clock."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from freehold.core.errors import BadRequest
from freehold.core.schedules import Cron, Once
from freehold.runtime.schedules import check, due, next_after, upcoming

MINUTE = timedelta(minutes=1)
FIRST, LAST = datetime(2005, 1, 1, tzinfo=UTC), datetime(2035, 1, 1, tzinfo=UTC)
ZONES = (
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/Sao_Paulo",  # changed at midnight
    "America/Havana",  # at midnight, and back at one
    "Asia/Beirut",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",  # by half an hour
    "Antarctica/Troll",  # by two hours
    "Africa/Casablanca",  # around Ramadan
    "Asia/Pyongyang",  # by half an hour, for good
    "America/Caracas",
    "Pacific/Apia",  # left out a whole day
    "Asia/Gaza",
)


@cache
def transitions(name: str) -> list[datetime]:
    """The days, in UTC, on which a zone's clock changes."""
    zone = ZoneInfo(name)
    days = [FIRST + timedelta(days=number) for number in range((LAST - FIRST).days + 1)]
    offsets = [day.astimezone(zone).utcoffset() for day in days]
    return [day for day, (before, after) in zip(days, pairwise(offsets), strict=False) if before != after]


class Spec:
    """A schedule as sets, and as text."""

    def __init__(self, minutes: list[int] | int, hours: list[int] | int, days: list[int] | None) -> None:
        """A number is a step over all."""
        self.minutes = set(range(0, 60, minutes)) if isinstance(minutes, int) else set(minutes)
        self.hours = set(range(0, 24, hours)) if isinstance(hours, int) else set(hours)
        self.days = set(days) if days else set(range(1, 32))
        self.elapsing = isinstance(minutes, int) or isinstance(hours, int)
        first, second = (
            f"*/{field}" if isinstance(field, int) else ",".join(map(str, field))
            for field in (minutes, hours)
        )
        self.text = f"{first} {second} {','.join(map(str, days)) if days else '*'} * *"

    def __repr__(self) -> str:
        return self.text

    def names(self, wall: datetime) -> bool:
        return wall.minute in self.minutes and wall.hour in self.hours and wall.day in self.days


def fields(end: int) -> st.SearchStrategy[list[int] | int]:
    return st.lists(st.integers(0, end - 1), min_size=1, max_size=3, unique=True) | st.integers(1, end // 2)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    days = draw(st.none() | st.lists(st.integers(1, 28), min_size=1, max_size=6, unique=True))
    return Spec(
        draw(fields(60)), draw(fields(24) | st.sampled_from([[0], [1], [2], [3], [0, 1, 2, 3]])), days
    )


@st.composite
def windows(draw: st.DrawFn) -> tuple[str, datetime]:
    """A zone, and a moment that is mostly shortly before its clock changes."""
    name = draw(st.sampled_from(ZONES))
    days = transitions(name)
    day = draw(st.sampled_from(days)) if days and draw(st.integers(0, 4)) else draw(st.datetimes(
        FIRST.replace(tzinfo=None), LAST.replace(tzinfo=None))).replace(tzinfo=UTC, second=0, microsecond=0)  # fmt: skip
    return name, day - timedelta(minutes=draw(st.integers(0, 300)))


def oracle(spec: Spec, zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """Every minute, asked what the clock shows."""
    at = start + MINUTE
    while at <= end:
        local, before = at.astimezone(zone), (at - MINUTE).astimezone(zone)
        wall = local.replace(tzinfo=None)
        if spec.elapsing:
            fires = spec.names(wall)
        else:
            skipped = before.replace(tzinfo=None, fold=0) + MINUTE
            missing = int((wall - skipped) / MINUTE)
            fires = (spec.names(wall) and local.fold == 0) or any(
                spec.names(skipped + place * MINUTE) for place in range(missing)
            )
        if fires:
            yield at
        at += MINUTE


@given(specs(), windows())
@example(Spec([30], [2], None), ("Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC)))
@example(Spec([0, 30], [2], None), ("Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC)))
@example(Spec(10, [3], None), ("Australia/Lord_Howe", datetime(2026, 10, 3, 12, tzinfo=UTC)))
@example(Spec(10, [1, 2], None), ("Australia/Lord_Howe", datetime(2026, 4, 4, 12, tzinfo=UTC)))
@example(Spec([0], [9], None), ("Pacific/Apia", datetime(2011, 12, 29, 20, tzinfo=UTC)))
@example(Spec([30], [0], None), ("America/Havana", datetime(2026, 3, 7, 12, tzinfo=UTC)))
def test_slots_are_those_that_a_look_at_every_minute_finds(spec: Spec, window: tuple[str, datetime]) -> None:
    name, start = window
    end = start + timedelta(hours=50)
    schedule = Cron(expression=spec.text, timezone=name)
    found = []
    for slot in upcoming(schedule, start):
        if slot > end:
            break
        found.append(slot)
    assert found == list(oracle(spec, ZoneInfo(name), start, end))


@given(specs(), windows(), st.integers(0, 3000))
def test_the_next_slot_is_the_same_from_wherever_one_looks(
    spec: Spec, window: tuple[str, datetime], minutes: int
) -> None:
    name, start = window
    schedule = Cron(expression=spec.text, timezone=name)
    later = start + timedelta(minutes=minutes, seconds=30)
    at = next_after(schedule, start)
    while at is not None and at <= later:
        at = next_after(schedule, at)
    assert at == next_after(schedule, later)


@given(specs(), windows(), st.integers(1, 5000), st.integers(1, 20))
def test_of_missed_slots_the_last_are_found(
    spec: Spec, window: tuple[str, datetime], minutes: int, limit: int
) -> None:
    name, since = window
    schedule = Cron(expression=spec.text, timezone=name)
    now = since + timedelta(minutes=minutes)
    every = []
    for slot in upcoming(schedule, since):
        if slot > now:
            break
        every.append(slot)
    assert due(schedule, since, now, limit=limit) == every[-limit:]


def slots(expression: str, zone: str, after: str, count: int) -> list[str]:
    schedule = Cron(expression=expression, timezone=zone)
    start = datetime.fromisoformat(after)
    return [
        slot.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes")
        for slot in islice(upcoming(schedule, start), count)
    ]


def test_a_time_that_the_clocks_skip_fires_once_right_after() -> None:
    assert slots("15,45 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", 3) == [
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:15+02:00",
        "2026-03-30T02:45+02:00",
    ]


def test_a_time_that_the_clocks_repeat_fires_once() -> None:
    assert slots("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", 2) == [
        "2026-10-25T02:30+02:00",
        "2026-10-26T02:30+01:00",
    ]


def test_what_goes_with_elapsed_time_goes_on_through_the_repeated_hour() -> None:
    assert slots("0 * * * *", "Europe/Berlin", "2026-10-24T23:30Z", 4) == [
        "2026-10-25T02:00+02:00",
        "2026-10-25T02:00+01:00",
        "2026-10-25T03:00+01:00",
        "2026-10-25T04:00+01:00",
    ]


@pytest.mark.parametrize(
    ("expression", "first"),
    [
        ("0 9 * * mon-fri", "2026-11-23T09:00+00:00"),  # after a Saturday
        ("0 0 L * *", "2026-11-30T00:00+00:00"),
        ("0 0 * * 5L", "2026-11-27T00:00+00:00"),
        ("0 0 LW * *", "2026-11-30T00:00+00:00"),
        ("0 0 * jan sun", "2027-01-03T00:00+00:00"),
        ("*/20 8-17/3 * * *", "2026-11-21T08:00+00:00"),
        ("0 0 1 * 7", "2026-11-22T00:00+00:00"),  # either of the two days
        ("0 12 29 2 *", "2028-02-29T12:00+00:00"),
    ],
)
def test_names_steps_and_last_days_are_understood(expression: str, first: str) -> None:
    assert slots(expression, "UTC", "2026-11-21T00:00Z", 1) == [first]


@pytest.mark.parametrize(
    ("expression", "zone", "said"),
    [
        ("0 0 30 2 *", "UTC", r"schedule.expression: bad day-of-month in '0 0 30 2 \*'"),
        ("0 0 * *", "UTC", "expected five fields .* got 4"),
        ("0 0 0 * * *", "UTC", "expected five fields .* got 6"),
        ("@daily", "UTC", "expected five fields"),
        ("60 * * * *", "UTC", "bad minute"),
        ("0 0 * * mon#6", "UTC", "bad day-of-week"),
        ("0 0 * 2 mon#5", "UTC", ""),
        ("* " * 300, "UTC", "200 characters at most"),
        ("0 0 * * *", "Europe/Berln", r"schedule.timezone: .*did you mean 'Europe/Berlin'"),
        ("0 0 * * *", "../../etc/passwd", "expected an IANA time zone"),
    ],
)
def test_a_wrong_schedule_is_refused_by_its_field(expression: str, zone: str, said: str) -> None:
    schedule = Cron(expression=expression, timezone=zone)
    if not said:
        check(schedule)  # rare is not wrong
        return
    with pytest.raises(BadRequest, match=said):
        check(schedule)


@given(st.text(alphabet="0123456789*/,-#LWlw MONmon²", max_size=24))
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    with suppress(BadRequest):
        check(Cron(expression=text, timezone="UTC"))


def test_one_time_comes_once() -> None:
    at = datetime(2026, 11, 21, 10, tzinfo=UTC)
    once = Once(at=at)
    assert next_after(once, at - MINUTE) == at
    assert next_after(once, at) is None
    assert due(once, at - MINUTE, at + timedelta(days=400), limit=10) == [at]


def test_a_time_without_its_offset_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"schedule.at: expected a time with its offset"):
        check(Once(at=datetime(2026, 11, 21, 10)))  # noqa: DTZ001 - that is what is wrong
