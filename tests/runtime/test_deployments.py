"""Deployments over a real database: each slot begins one session, whoever is killed, and what keeps one from beginning is told."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from msgspec.structs import replace

from freehold.core.errors import Conflict, Forbidden, Unauthenticated, Unavailable
from freehold.core.messages import Text
from freehold.core.policy import Policy, Principal, Statement
from freehold.core.ports import Principals
from freehold.core.resources import Agent
from freehold.core.schedules import Deployment, Once
from freehold.core.session import UserSpoke
from freehold.runtime import schedules_worker
from freehold.runtime.schedules_worker import CLAIMED_AT_ONCE_MAX, LEASE_S, Scheduler
from tests._postgres import disconnect_all
from tests._waiting import eventually
from tests.runtime._schedules import MINUTE, MINUTELY, Bench, bench, minutely, next_minute, slots
from tests.runtime._world import OWNER, TENANT, events_of

PROCESSES = 3
KILLED_AT = (
    ("before write:1", "after write:2", "after claim:1"),
    ("after write:1", "before deal:2", "after deal:1"),
)


@pytest.fixture
async def here(database_url: str) -> AsyncIterator[Bench]:
    """Nothing that one test declares is due in another."""
    async with bench(database_url) as opened:
        yield opened
        for row in (await opened.kept.list(TENANT, limit=100)).rows:
            await opened.service.archive(OWNER, row.deployment.name)


async def test_a_slot_begins_a_session_to_which_everything_is_said(here: Bench) -> None:
    before = next_minute()
    await here.declare("says", messages=("one", (Text("two"), Text("three"))), title="Says things")
    first = await here.first("says")
    assert before <= first <= next_minute()
    await here.at(first)
    [run] = await here.runs("says")
    assert (run.slot, run.error_code, run.missed_count, run.run_by) == (first, None, 0, OWNER.id)
    assert run.session_id is not None
    row = await here.here.log.get(TENANT, run.session_id)
    assert (row.deployment, row.title, row.status, row.created_by) == (
        "says",
        "Says things",
        "running",
        OWNER.id,
    )
    spoken = events_of(await here.here.log_of(row.id), UserSpoke)
    assert [[part.text for part in one.content] for one in spoken] == [["one"], ["two", "three"]]
    assert [one.id for one in (await here.here.log.list(TENANT, deployment="says")).rows] == [row.id]
    async with here.here.worker().running():
        assert (await here.here.settled(row.id)).status == "idle"


async def test_slots_come_one_after_the_other_and_each_once(here: Bench) -> None:
    await here.declare("steady")
    first = await here.first("steady")
    for number in range(5):
        await here.at(first + number * MINUTE)
        await here.at(first + number * MINUTE + MINUTE / 3)
    assert slots(await here.runs("steady")) == [first + number * MINUTE for number in range(5)]


async def test_after_an_outage_it_runs_once_or_each_or_not_by_its_policy(here: Bench) -> None:
    await here.declare_all(
        *(minutely(missed, missed=missed) for missed in ("skip", "run_once", "run_all")),
        minutely("strict", missed="skip", starting_deadline_s=30.0),
    )
    first = await here.first("strict")
    back = first + timedelta(minutes=9, seconds=59)
    last = first + 9 * MINUTE
    await here.at(back)
    [once] = await here.runs("run_once")
    assert (once.slot, once.missed_count, once.error_code) == (last, 9, None)
    assert slots(await here.runs("run_all")) == [first + number * MINUTE for number in range(10)]
    [strict] = await here.runs("strict")
    assert (strict.slot, strict.error_code, strict.session_id) == (last, "missed", None)
    assert [run.error_code for run in await here.runs("skip")] == [None], "under a minute late is on time"


async def test_a_pause_holds_and_what_passed_meanwhile_is_missed(here: Bench) -> None:
    await here.declare("paused")
    first = await here.first("paused")
    row = await here.service.pause(OWNER, "paused")
    assert row.paused_at is not None
    await here.at(first + 5 * MINUTE)
    assert await here.runs("paused") == []
    await here.service.unpause(OWNER, "paused")
    await here.at(first + 5 * MINUTE)
    [run] = await here.runs("paused")
    assert (run.slot, run.missed_count) == (first + 5 * MINUTE, 5)


async def test_a_pause_is_heeded_by_a_worker_that_had_claimed_before(here: Bench) -> None:
    await here.declare("stopped")
    first = await here.first("stopped")
    here.clock.put(first)
    deal = here.kept.deal

    async def paused_first(dealt):
        await here.service.pause(OWNER, "stopped")
        return await deal(dealt)

    here.kept.deal = paused_first
    assert await here.scheduler.begin_due()
    assert await here.runs("stopped") == []


async def test_a_changed_schedule_begins_anew_and_an_unchanged_one_goes_on(here: Bench) -> None:
    declared = await here.declare("edited", missed="run_all")
    first = await here.first("edited")
    await here.at(first)
    await here.here.declare(replace(declared, description="same times"))
    await here.at(first + 2 * MINUTE)
    assert len(await here.runs("edited")) == 3
    at = first + timedelta(days=1)
    await here.here.declare(replace(declared, schedule=Once(at=at)))
    await here.at(at)
    assert slots(await here.runs("edited"))[3:] == [at]
    await here.here.declare(replace(declared, schedule=None))
    await here.at(at + timedelta(days=1))
    assert len(await here.runs("edited")) == 4


async def test_overlap_skips_or_queues_while_the_former_session_works(here: Bench) -> None:
    await here.declare_all(minutely("skips", overlap="skip"), minutely("queues", overlap="queue"))
    first = await here.first("queues")
    for number in range(3):
        await here.at(first + number * MINUTE)
    skips = await here.runs("skips")
    assert [run.error_code for run in skips] == [None, "overlap", "overlap"]
    [one] = await here.runs("queues")
    async with here.here.worker().running():
        for run in (*skips[:1], one):
            assert run.session_id is not None
            await here.here.settled(run.session_id)
    await here.at(first + 2 * MINUTE + timedelta(seconds=5))
    waited = (await here.runs("queues"))[-1]
    assert (waited.slot, waited.missed_count, waited.error_code) == (first + 2 * MINUTE, 1, None)
    await here.at(first + 3 * MINUTE)
    assert (await here.runs("skips"))[-1].error_code is None


async def test_what_keeps_a_session_from_beginning_is_told_and_the_schedule_goes_on(here: Bench) -> None:
    resources = here.here.store.resources
    await here.here.declare(Agent(name="leaver", model="scripted/scripted-1"))
    await here.declare_all(minutely("lost", agent="leaver", agent_version=1), minutely("revoked"))
    await resources.archive(TENANT, "agent", "leaver", by="test")
    here.here.principals.revoked.add(OWNER.id)
    first = await here.first("revoked")
    await here.at(first)
    [revoked], [lost] = await here.runs("revoked"), await here.runs("lost")
    assert (revoked.error_code, revoked.session_id) == (Unauthenticated.code, None)
    assert "revoked" in (revoked.error_message or "")
    here.here.principals.revoked.clear()
    await here.at(first + MINUTE)
    assert [run.error_code for run in await here.runs("revoked")] == [Unauthenticated.code, None]
    assert (await here.runs("lost"))[-1].error_code == "not_found"
    assert (lost.session_id, lost.agent_version) == (None, 1)


class OnlyReads(Principals):
    async def current(self, tenant: str, principal_id: str) -> Principal:
        policy = Policy((Statement("Allow", "session:Read"),))
        return Principal(tenant, "service", principal_id, (policy,))


async def test_who_declared_it_needs_the_right_at_each_run(here: Bench) -> None:
    await here.declare("demoted")
    here.clock.put(await here.first("demoted"))
    await Scheduler(replace(here.means, principals=OnlyReads())).begin_due()
    [run] = await here.runs("demoted")
    assert run.error_code == Forbidden.code
    assert "session:Create on agent/clerk" in (run.error_message or "")


async def test_by_hand_it_runs_at_once_and_a_repeated_request_does_not(here: Bench) -> None:
    await here.declare("by-hand", schedule=None)
    runs = [await here.service.run(OWNER, "by-hand", idempotency_key=key) for key in ("a", "a", "b", None)]
    assert runs[0] == runs[1]
    assert len({run.id for run in runs}) == 3
    assert len(await here.runs("by-hand")) == 3
    assert all(run.slot is None and run.session_id for run in runs)
    await here.service.archive(OWNER, "by-hand")
    with pytest.raises(Conflict, match="archived"):
        await here.service.run(OWNER, "by-hand")


async def test_a_dead_workers_claim_is_taken_up_when_it_runs_out(here: Bench) -> None:
    await here.declare("held")
    first = await here.first("held")
    [claim] = await here.kept.claim(first, limit=1, lease_s=LEASE_S)
    assert claim.row.deployment.name == "held"
    await here.at(first)
    assert await here.runs("held") == []
    await here.at(first + timedelta(seconds=LEASE_S))
    assert slots(await here.runs("held")) == [first]


async def declared_for_soon(here: Bench, begin: str) -> tuple[str, datetime]:
    """For a time that has not passed by when it is declared, however slow the machine is."""
    ahead = timedelta(seconds=0.3)
    while True:
        name, at = f"{begin}-{ahead // timedelta(milliseconds=1)}", datetime.now(UTC) + ahead
        await here.declare(name, schedule=Once(at=at))
        if datetime.now(UTC) < at:
            return name, at
        ahead *= 2


async def test_a_running_scheduler_begins_a_slot_when_its_time_comes(
    here: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the time, not for the next poll."""
    monkeypatch.setattr(schedules_worker, "POLL_S", 3600.0)
    async with here.scheduler.running():
        name, at = await declared_for_soon(here, "soon")
        await eventually(lambda: has_run(here, name))
    [run] = await here.runs(name)
    assert (run.slot, run.created_at >= at) == (at, True)


@pytest.mark.slow
async def test_a_running_scheduler_outlives_its_connections(here: Bench, database_url: str) -> None:
    async with here.scheduler.running():
        name, _ = await declared_for_soon(here, "cut-off")
        await disconnect_all(database_url)
        await eventually(lambda: has_run_by_now(here, name))
    assert len(await here.runs(name)) == 1


async def has_run_by_now(here: Bench, name: str) -> bool:
    with suppress(Unavailable):
        return await has_run(here, name)
    return False


async def has_run(here: Bench, name: str) -> bool:
    return bool(await here.runs(name))


async def process(url: str, until: datetime, kill_at: str) -> int:
    arguments = ("-m", "tests.runtime._schedules", url, str(until.timestamp()), kill_at)
    started = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    return await started.wait()


@pytest.mark.slow
async def test_each_slot_begins_one_session_however_workers_are_killed(
    here: Bench, database_url: str
) -> None:
    """Three processes at a time, each by its own clock, each killed at another point, until one round comes through."""
    names = [f"killed-{number}" for number in range(4)]
    for name in names:
        await here.declare(name, missed="run_all")
    first = await here.first(names[-1])
    until = first + 11 * MINUTE
    killed = 0
    for points in KILLED_AT:
        ended = await asyncio.gather(*(process(database_url, until, point) for point in points))
        killed += sum(code != 0 for code in ended)
    assert killed >= len(KILLED_AT), "of those that work at the same time, not every one comes to its point"
    assert (
        await asyncio.gather(*(process(database_url, until, "never") for _ in range(PROCESSES)))
        == [0] * PROCESSES
    )
    await here.at(until + timedelta(seconds=LEASE_S))  # Whatever was held by who was killed is free by then.
    for name in names:
        found = slots(await here.runs(name))
        assert found[0] <= first
        assert found[-1] >= until.replace(second=0)
        assert all(later - earlier == MINUTE for earlier, later in pairwise(found)), name
        sessions = (await here.here.log.list(TENANT, deployment=name, limit=200)).rows
        assert {row.id for row in sessions} == {run.session_id for run in await here.runs(name)}


async def test_tenants_share_what_a_worker_can_take(here: Bench) -> None:
    """One tenant's hundreds at midnight do not keep another's one waiting behind them."""
    resources = here.here.store.resources
    one = Deployment(name="one", agent="clerk", messages=("go",), schedule=MINUTELY)
    for start in range(0, 300, 100):
        crowd = [replace(one, name=f"crowd-{number}") for number in range(start, start + 100)]
        await resources.put("crowd", crowd, by=OWNER.id)
    await resources.put("zoe", [one], by=OWNER.id)
    claims = await here.kept.claim(datetime.now(UTC), limit=CLAIMED_AT_ONCE_MAX, lease_s=60, after_tenant="")
    assert len(claims) == CLAIMED_AT_ONCE_MAX
    assert {claim.row.tenant for claim in claims} == {"crowd", "zoe"}
