"""The journal against a log in memory that fails whenever it likes: before it wrote, or after, unknown to the writer."""

import asyncio
import logging
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.clock import SystemClock
from freehold.core.errors import Conflict, Unavailable
from freehold.core.messages import Text
from freehold.core.session import (
    ModelAnswered,
    Recorded,
    SessionStarted,
    TurnFinished,
    TurnStarted,
    UserSpoke,
)
from freehold.core.session_log import Lease
from freehold.core.session_state import replay
from freehold.runtime import journal as journal_module
from freehold.runtime.journal import Journal, LeaseLost

AT = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = Lease("sess_1", "acme", "worker_1", 1)


class FaultyLog:
    """One session. `faults` says of each append and read to come whether it fails, and when; `guests` what others write
    just before it."""

    def __init__(self) -> None:
        self.events: list = [SessionStarted(agent="a", agent_version=1)]
        self.faults: list[str] = []
        self.guests: list[int] = []
        self.epoch = 1

    def _meet(self) -> str:
        for _ in range(self.guests.pop(0) if self.guests else 0):
            self.events.append(UserSpoke(content=(Text("me too"),)))
        return self.faults.pop(0) if self.faults else "none"

    async def append(
        self, session_id, events, *, expected_version=None, lease=None, releases=False, idempotency_key=None
    ):
        fault = self._meet()
        if fault == "before":
            raise Unavailable("away")
        if fault == "lost":
            self.epoch += 1
        if lease.epoch != self.epoch or expected_version not in {None, len(self.events)}:
            raise Conflict("somebody else was first")
        self.events += events
        self.epoch += releases
        if fault == "after":
            raise Unavailable("away, who knows")
        return len(self.events)

    async def read(self, session_id, *, after=0, limit=1000):
        if self._meet() in {"before", "after"}:
            raise Unavailable("away")
        everything = [Recorded(seq, AT, event) for seq, event in enumerate(self.events, 1)]
        return everything[after : after + limit]


def own(events) -> list:
    return [event for event in events if not isinstance(event, UserSpoke | SessionStarted)]


def answer(number: int) -> ModelAnswered:
    return ModelAnswered(
        seen_seq=0, model="m", served_by="p/m", content=(Text(f"{number}"),), stop_reason="end_turn"
    )


@pytest.fixture(autouse=True)
def _no_delays(monkeypatch, caplog):
    caplog.set_level(logging.ERROR, "freehold.runtime.journal")
    monkeypatch.setattr(journal_module, "RETRY_DELAY_S", 0.0)
    monkeypatch.setattr(journal_module, "RETRY_DELAY_S_MAX", 0.0)


ACTS = st.lists(st.sampled_from(["append", "exact", "stage"]), max_size=12)


@given(
    acts=ACTS,
    faults=st.lists(st.sampled_from(["none", "none", "none", "before", "after"]), max_size=30),
    guests=st.lists(st.sampled_from([0, 0, 0, 1, 2]), max_size=30),
)
def test_what_is_appended_stands_in_the_log_once_whatever_fails(acts, faults, guests):
    log = FaultyLog()
    meant: list = []

    async def live() -> None:
        journal = Journal(log, LEASE, SystemClock())
        await journal.catch_up()
        log.faults, log.guests = list(faults), list(guests)
        for number, act in enumerate(acts):
            event = TurnStarted(turn=number)
            if act == "stage":
                meant.append(answer(number))
                journal.stage(meant[-1])
                continue
            known = len([one for one in log.events if isinstance(one, UserSpoke)])
            seen = len([m for m in journal.state.conversation() if m.role == "user"])
            if await journal.append([event], exact=act == "exact"):
                meant.append(event)
                if act == "exact":
                    at = log.events.index(event)
                    before = [one for one in log.events[:at] if isinstance(one, UserSpoke)]
                    assert len(before) == seen, "nobody wrote in between"
            else:
                assert act == "exact"
            assert known <= len([one for one in log.events if isinstance(one, UserSpoke)])
        log.faults = []
        await journal.flush()
        await journal.catch_up()
        assert own(log.events) == meant
        said = replay(Recorded(seq, AT, event) for seq, event in enumerate(log.events, 1))
        assert journal.state.seq == said.seq
        assert journal.state.conversation() == said.conversation()

    asyncio.run(live())


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize(
    "faults", [["none"], ["before"], ["after"], ["before", "none", "after"], ["after", "before"]]
)
async def test_what_gives_the_lease_back_is_written_once_whatever_fails(staged, faults):
    log = FaultyLog()
    journal = Journal(log, LEASE, SystemClock())
    await journal.catch_up()
    if staged:
        journal.stage(answer(1))
    log.faults = list(faults)
    assert await journal.append([TurnFinished(outcome="completed")], exact=True, releases=True)
    assert journal.released
    assert own(log.events) == [*([answer(1)] if staged else []), TurnFinished(outcome="completed")]
    assert log.epoch == LEASE.epoch + 1
    with pytest.raises(LeaseLost):
        await journal.append([TurnStarted(turn=2)])


async def test_where_somebody_speaks_meanwhile_the_lease_is_kept():
    log = FaultyLog()
    journal = Journal(log, LEASE, SystemClock())
    await journal.catch_up()
    log.guests = [1]
    assert not await journal.append([TurnFinished(outcome="completed")], exact=True, releases=True)
    assert not journal.released
    assert log.epoch == LEASE.epoch


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("exact", [False, True])
async def test_a_lost_lease_is_found_out_and_writes_nothing(staged, exact):
    log = FaultyLog()
    journal = Journal(log, LEASE, SystemClock())
    await journal.catch_up()
    if staged:
        journal.stage(answer(1))
    log.faults = ["lost"]
    with pytest.raises(LeaseLost):
        await journal.append([TurnFinished(outcome="completed")], exact=exact)
    assert own(log.events) == []


async def test_what_another_holder_wrote_meanwhile_is_not_taken_for_ours():
    log = FaultyLog()
    journal = Journal(log, LEASE, SystemClock())
    await journal.catch_up()
    log.faults = ["before"]
    log.events.append(TurnFinished(outcome="failed"))
    with pytest.raises(LeaseLost):
        await journal.append([TurnStarted(turn=1)])


async def test_a_database_that_stays_away_is_given_up_in_the_end(monkeypatch):
    monkeypatch.setattr(journal_module, "APPEND_RETRY_S_MAX", 0.02)
    monkeypatch.setattr(journal_module, "RETRY_DELAY_S", 0.01)
    log = FaultyLog()
    journal = Journal(log, LEASE, SystemClock())
    await journal.catch_up()
    log.faults = ["before"] * 10_000
    with pytest.raises(Unavailable):
        await journal.append([TurnStarted(turn=1)])
