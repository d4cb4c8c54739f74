"""What becomes of slots: each policy, on time, late, and while the former run is at work."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from freehold.core.deployments import DeploymentClaim, DeploymentRow
from freehold.core.schedules import ON_TIME_S, SLOTS_KEPT_MAX, Cron, Deployment, Once
from freehold.runtime.schedules_plan import OVERLAPS, QUEUE_LOOK, TOO_LATE, Idle, Run, Wait, decide

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOURLY = Cron(expression="0 * * * *", timezone="UTC")
MINUTELY = Cron(expression="* * * * *", timezone="UTC")


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def claim(
    *, at_work: bool = False, queued_at: datetime | None = None, done_until: datetime = START, **declared: Any
) -> DeploymentClaim:
    fields = {"name": "report", "agent": "clerk", "messages": ("go",), "schedule": HOURLY, **declared}
    row = DeploymentRow(
        tenant="acme",
        deployment=Deployment(**fields),
        version=1,
        by="key_1",
        created_at=START,
        updated_at=START,
        done_until=done_until,
    )
    return DeploymentClaim(row=row, epoch=1, at_work=at_work, queued_at=queued_at)


def test_before_its_time_nothing_runs_and_it_looks_again_then() -> None:
    assert decide(claim(), at(0.5)) == Idle(START, at(1))


def test_on_time_the_slot_runs() -> None:
    assert decide(claim(), at(1)) == Run(at(1), at(2))


def test_without_a_schedule_nothing_is_ever_due() -> None:
    assert decide(claim(schedule=None), at(5)) == Idle(START, None)


def test_one_time_runs_once_and_is_never_due_again() -> None:
    once = claim(schedule=Once(at=at(1)))
    assert decide(once, at(0.5)) == Idle(START, at(1))
    assert decide(once, at(3)) == Run(at(1), None)
    done = replace(once, row=replace(once.row, done_until=at(1)))
    assert decide(done, at(4)) == Idle(at(1), None)


def test_of_missed_slots_the_last_runs_once_by_default() -> None:
    assert decide(claim(), at(5.2)) == Run(at(5), at(6), missed_count=4)


def test_all_missed_slots_run_one_after_the_other_where_that_is_declared() -> None:
    assert decide(claim(missed="run_all"), at(3.5)) == Run(at(1), at(2))
    assert decide(claim(missed="run_all", done_until=at(2)), at(3.5)) == Run(at(3), at(4))


def test_no_more_missed_slots_are_made_up_for_than_the_bound() -> None:
    decided = decide(claim(missed="run_all", schedule=MINUTELY), at(24))
    assert isinstance(decided, Run)
    assert decided.slot == at(24) - timedelta(minutes=SLOTS_KEPT_MAX - 1)
    assert decided.missed_count > 0


def test_missed_slots_are_passed_over_with_a_word_where_that_is_declared() -> None:
    decided = decide(claim(missed="skip"), at(3.5))
    assert isinstance(decided, Run)
    assert (decided.slot, decided.due_at, decided.missed_count) == (at(3), at(4), 2)
    assert decided.refused is not None
    assert decided.refused[0] == TOO_LATE
    assert "3 slots" in decided.refused[1]


def test_a_slot_that_is_hardly_late_is_not_missed() -> None:
    late = at(1) + timedelta(seconds=ON_TIME_S)
    assert decide(claim(missed="skip"), late) == Run(at(1), at(2))
    assert decide(claim(missed="skip"), late + timedelta(seconds=1)) != Run(at(1), at(2))


@pytest.mark.parametrize("missed", ["skip", "run_once", "run_all"])
def test_a_deadline_bounds_how_late_a_slot_begins(missed: str) -> None:
    declared = {"missed": missed, "starting_deadline_s": 600.0}
    assert decide(claim(**declared), at(1) + timedelta(seconds=600)) == Run(at(1), at(2))
    decided = decide(claim(**declared), at(1) + timedelta(seconds=601))
    assert isinstance(decided, Run)
    assert decided.refused is not None


@pytest.mark.parametrize("overlap", ["allow", "skip", "queue"])
def test_a_former_run_that_has_ended_is_in_nobodys_way(overlap: str) -> None:
    assert decide(claim(overlap=overlap), at(1)) == Run(at(1), at(2))


def test_while_the_former_run_is_at_work_the_policy_decides() -> None:
    assert decide(claim(at_work=True, overlap="allow"), at(1)) == Run(at(1), at(2))
    skipped = decide(claim(at_work=True, overlap="skip"), at(1))
    assert isinstance(skipped, Run)
    assert skipped.refused is not None
    assert (skipped.slot, skipped.due_at, skipped.refused[0]) == (at(1), at(2), OVERLAPS)
    assert decide(claim(at_work=True, overlap="queue"), at(1)) == Wait(START, at(1) + QUEUE_LOOK)


def test_a_slot_that_waited_for_the_former_run_is_not_too_late_for_it() -> None:
    waited = claim(missed="skip", overlap="queue", queued_at=at(1.9))
    assert decide(waited, at(1.9) + QUEUE_LOOK) == Run(at(1), at(2))


def test_slots_that_pile_up_behind_the_former_run_are_one_run_or_each_by_what_is_missed() -> None:
    waited = claim(overlap="queue", queued_at=at(3.9))
    assert decide(waited, at(3.9)) == Run(at(3), at(4), missed_count=2)
    each = claim(overlap="queue", queued_at=at(3.9), missed="run_all")
    assert decide(each, at(3.9)) == Run(at(1), at(2))


@given(
    st.sampled_from(["skip", "run_once", "run_all"]),
    st.sampled_from(["allow", "skip"]),
    st.none() | st.floats(1, 90_000),
    st.lists(st.tuples(st.floats(0.01, 40), st.booleans()), min_size=1, max_size=30),
)
def test_whenever_one_looks_each_slot_is_dealt_with_once_and_in_order(
    missed: str, overlap: str, deadline_s: float | None, looks: list[tuple[float, bool]]
) -> None:
    now, done_until, dealt = START, START, []
    for hours, at_work in looks:
        now += timedelta(hours=hours)
        while True:
            declared = {"missed": missed, "overlap": overlap, "starting_deadline_s": deadline_s}
            decided = decide(claim(done_until=done_until, at_work=at_work, **declared), now)
            if not isinstance(decided, Run):
                break
            assert done_until < decided.slot <= now
            dealt.append(decided.slot)
            done_until = decided.slot
            if decided.due_at is None or decided.due_at > now:
                break
        assert now - done_until < timedelta(hours=1, seconds=1) or now - START < timedelta(hours=1)
    assert dealt == sorted(set(dealt))
    assert all(slot.minute == slot.second == 0 for slot in dealt)
