"""Workers: many sessions at once, leases that are lost, a database that goes away, and stops, over a real PostgreSQL."""

import asyncio
import logging
from contextlib import suppress

import asyncpg
import pytest
from msgspec import structs

from freehold.core.errors import Unavailable
from freehold.core.messages import Text, text_of
from freehold.core.ports import ToolOutcome
from freehold.core.resources import Tool
from freehold.core.session import ModelAnswered, ToolFinished, ToolStarted, TurnFinished
from freehold.runtime.worker import WorkerSettings
from freehold.tools import timer
from tests._postgres import disconnect_all
from tests._waiting import eventually, within
from tests.runtime._world import (
    AGENT,
    LEDGER,
    ONLY_TOLD,
    OWNER,
    TENANT,
    Held,
    World,
    calls,
    events_of,
    in_turn,
    results_in,
    said,
    world,
)

SESSIONS = 200


def one_round(request):
    return said("done") if results_in(request) else calls(("ledger_set", "{}"))


@pytest.mark.slow
async def test_two_hundred_sessions_at_once_all_reach_their_end(database_url):
    async with world(database_url, one_round) as here, here.worker().running():
        rows = await asyncio.gather(*(here.start(f"number {n}") for n in range(SESSIONS)))
        await asyncio.gather(*(here.settled(row.id) for row in rows))
        logs = await asyncio.gather(*(here.log_of(row.id) for row in rows))
        assert all(events_of(log, TurnFinished)[-1].outcome == "completed" for log in logs)
        keys = {one.key for log in logs for one in events_of(log, ToolStarted)}
        assert len(keys) == SESSIONS
        assert (
            await here.kind.pool.fetchval("SELECT count(*) FROM runs WHERE key = ANY($1)", list(keys))
            == SESSIONS
        )
        assert here.kind.opened == 1


async def test_more_sessions_than_a_worker_has_room_for_wait_their_turn(database_url):
    settings = WorkerSettings(sessions_max=3, lease_s=2, poll_s=0.5)
    async with world(database_url, one_round, settings=settings) as here:
        worker = here.worker()
        most = 0

        async def watch(run):
            nonlocal most
            most = max(most, worker.busy_count)
            return ToolOutcome((Text("ok"),))

        here.kind.do = watch
        rows = [await here.start() for _ in range(12)]
        async with worker.running():
            await asyncio.gather(*(here.settled(row.id) for row in rows))
    assert 1 <= most <= 3


async def test_what_begins_beside_a_worker_is_taken_at_once_while_there_is_room(database_url):
    held = Held(said("never"))
    settings = WorkerSettings(sessions_max=4, drain_s=0.01)
    async with world(database_url, lambda _request: held, settings=settings) as here:
        worker = here.worker()
        async with worker.running():
            await eventually(lambda: not worker.trouble)
            at_once = [await here.start(), await here.start()]
            await eventually(lambda: worker.busy_count == 2)
            queued = [await here.start(), await here.start()]
            await eventually(lambda: worker.busy_count == 4)
            assert [row.version for row in at_once] == [3, 3], "its turn has begun with it"
            assert [row.version for row in queued] == [2, 2], "half of the places are for those that queue"
        assert worker.berth([event.event for event in await here.log_of(queued[0].id)]) is None, (
            "it has stopped"
        )


async def test_a_tenants_limit_is_kept_for_what_begins_beside_a_worker(database_url):
    settings = WorkerSettings(tenant_max=1)
    async with world(database_url, one_round, settings=settings) as here:
        worker = here.worker()
        async with worker.running():
            await eventually(lambda: not worker.trouble)
            rows = [await here.start() for _ in range(3)]
            assert [row.version for row in rows] == [2, 2, 2]
            await asyncio.gather(*(here.settled(row.id) for row in rows))


async def test_a_lost_lease_stops_the_work_at_once_and_the_new_holder_goes_on(database_url):
    held = Held(said("never"))
    settings = WorkerSettings(lease_s=5, poll_s=0.2)
    async with world(database_url, in_turn(held, said("from the other one")), settings=settings) as here:
        slow = here.worker()
        async with slow.running():
            row = await here.start()
            await held.reached.wait()
            await _take_away(database_url, row.id, until="now() + interval '1 hour'")
            await eventually(lambda: held.hung_up)
            await _take_away(database_url, row.id)
            await here.settled(row.id)
        log = await here.log_of(row.id)
    [answered] = events_of(log, ModelAnswered)
    assert text_of(answered.content) == "from the other one"


async def test_a_worker_whose_lease_is_gone_cannot_write(database_url):
    held = Held(said("too late"))
    settings = WorkerSettings(lease_s=60, poll_s=0.2)
    async with world(database_url, in_turn(held, said("mine")), settings=settings) as here:
        worker = here.worker()
        async with worker.running():
            row = await here.start()
            await held.reached.wait()
            before = (await here.log.get(TENANT, row.id)).version
            await _take_away(database_url, row.id, until="now() + interval '1 hour'")
            held.go.set()
            await eventually(lambda: worker.busy_count == 0)
            assert (await here.log.get(TENANT, row.id)).version == before
            await _take_away(database_url, row.id, until="now()")
            await here.settled(row.id)
        [answered] = events_of(await here.log_of(row.id), ModelAnswered)
    assert text_of(answered.content) == "mine"


async def _take_away(url: str, session_id: str, until: str = "now()") -> None:
    """As another worker's claim does, once the lease ran out."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            f"UPDATE sessions SET owner = 'worker_other', epoch = epoch + 1, due_at = {until} WHERE id = $1",
            session_id,
        )
    finally:
        await connection.close()


async def test_a_stop_waits_for_the_running_step_and_hands_the_session_back(database_url):
    held = Held(calls(("ledger_look", "{}")))
    async with world(database_url, in_turn(held, said("done")), settings=ONLY_TOLD) as here:
        first = here.worker()
        async with first.running():
            row = await here.start()
            await held.reached.wait()
            asyncio.get_running_loop().call_later(0.05, held.go.set)
        log = await here.log_of(row.id)
        assert len(events_of(log, ModelAnswered)) == 1, "the running call was finished and recorded"
        assert not events_of(log, TurnFinished)
        async with here.worker().running():
            await here.settled(row.id)
        assert len(here.model.requests) == 2


async def test_a_stop_does_not_wait_for_ever(database_url):
    held = Held(said("never"))
    settings = structs.replace(ONLY_TOLD, drain_s=0.05)
    async with world(database_url, in_turn(held, said("by the next one")), settings=settings) as here:
        async with here.worker().running():
            row = await here.start()
            await held.reached.wait()
        assert held.hung_up
        async with here.worker().running():
            await here.settled(row.id)


@pytest.mark.slow
async def test_results_survive_a_database_that_goes_away(database_url):
    """Every connection is cut while a tool runs, and cut again while its result is to be written."""
    in_tool = asyncio.Event()
    go = asyncio.Event()
    async with world(database_url, one_round) as here, here.worker().running():

        async def wait(run):
            in_tool.set()
            await go.wait()
            return await here.kind.write(run)

        here.kind.do = wait
        row = await here.start()
        await in_tool.wait()
        cutting = asyncio.create_task(_cut(database_url, times=20))
        go.set()
        await cutting
        await eventually(lambda: _rests_by_now(here, row.id))
        log = await here.log_of(row.id)
    assert len(events_of(log, ToolFinished)) == 1
    assert events_of(log, ToolStarted)[-1].attempt == 1
    assert events_of(log, TurnFinished)[-1].outcome == "completed"


async def _rests_by_now(here: World, session_id: str) -> bool:
    """A connection that was cut may take a while to end: who is given it meanwhile is told so."""
    with suppress(Unavailable):
        return (await here.log.get(TENANT, session_id)).status != "running"
    return False


async def _cut(url: str, *, times: int) -> None:
    for _ in range(times):
        await disconnect_all(url)
        await asyncio.sleep(0.02)


async def test_one_unreadable_session_does_not_disturb_the_others(database_url, caplog):
    caplog.set_level(logging.CRITICAL, "freehold")
    async with world(database_url, one_round) as here:
        bad = await here.start("bad")
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute("UPDATE events SET body = 'garbage' WHERE session_id = $1", bad.id)
        finally:
            await connection.close()
        async with here.worker().running():
            good = await here.start("good")
            await here.settled(good.id)
            assert (await here.log.get(TENANT, bad.id)).status == "running"
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute("DELETE FROM events WHERE session_id = $1", bad.id)
            await connection.execute("DELETE FROM sessions WHERE id = $1", bad.id)
        finally:
            await connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
async def test_several_workers_share_the_sessions_and_none_is_done_twice(database_url, workers):
    async with world(database_url, one_round) as here:
        rows = [await here.start() for _ in range(20)]
        running = [here.worker().running() for _ in range(workers)]
        for one in running:
            await one.__aenter__()
        try:
            await asyncio.gather(*(here.settled(row.id) for row in rows))
        finally:
            for one in running:
                await one.__aexit__(None, None, None)
        logs = [await here.log_of(row.id) for row in rows]
    assert all(len(events_of(log, TurnFinished)) == 1 for log in logs)
    assert len(here.model.requests) == 2 * len(rows)


async def test_input_to_a_resting_session_wakes_a_worker(database_url):
    async with (
        world(database_url, lambda _: said("yes"), settings=ONLY_TOLD) as here,
        here.worker().running(),
    ):
        row = await here.start("")
        assert row.status == "idle"
        for turn in range(1, 4):
            await here.sessions.send(OWNER, row.id, [Text(f"{turn}")])
            await here.reaches(row.id, lambda one: one.status == "idle")
            assert len(here.model.requests) == turn


LEFT_BEHIND = """
UPDATE freehold.sessions SET owner = 'dead', epoch = epoch + 1, due_at = now() WHERE id = $1 RETURNING wake_at
"""
GIVEN_BACK = "SELECT owner IS NULL AND due_at = wake_at FROM freehold.sessions WHERE id = $1"


async def test_a_timer_does_not_go_off_early_since_the_worker_that_set_it_died(database_url):
    """It had recorded the wait, and not yet given its lease back."""

    def once(request):
        return said("done") if results_in(request) else calls(("clock_wait", '{"seconds": 86400}'))

    agent = structs.replace(AGENT, tools=("ledger", "clock"))
    options = {
        "agent": agent,
        "kinds": {"timer": timer.KIND},
        "resources": [Tool(name="clock", type="timer")],
    }
    async with world(database_url, once, **options) as here:
        async with here.worker().running():
            row = await here.start()
            await here.reaches(row.id, lambda one: one.status == "waiting")
        await here.kind.pool.execute(LEFT_BEHIND, row.id)
        async with here.worker().running(), within("the lease to be given back"):
            while not await here.kind.pool.fetchval(GIVEN_BACK, row.id):  # noqa: ASYNC110 - the row tells nobody
                await asyncio.sleep(0.01)
        assert not events_of(await here.log_of(row.id), ToolFinished)
        assert (await here.log.get(TENANT, row.id)).status == "waiting"


@pytest.mark.parametrize("places", [None, 1])
async def test_a_timer_that_is_set_while_the_worker_sleeps_goes_off_in_time(database_url, places):
    """The worker would look round in ten minutes. Where the turn held a tool's place, its lease is released by itself."""

    def once(request):
        wanted = ("ledger_set", "{}"), ("clock_wait", '{"seconds": 0.3}')
        return said("done") if results_in(request) else calls(*wanted)

    options = {
        "agent": structs.replace(AGENT, tools=("ledger", "clock")),
        "kinds": {"timer": timer.KIND},
        "resources": [Tool(name="clock", type="timer")],
        "settings": ONLY_TOLD,
    }
    async with world(database_url, once, **options) as here:
        await here.declare(structs.replace(LEDGER, concurrency_max=places))
        async with here.worker().running():
            for _ in range(2):
                row = await here.start()
                await here.reaches(row.id, lambda one: one.status == "idle")
                assert len(events_of(await here.log_of(row.id), ToolFinished)) == 2
