"""Tools that may only run so many times at once: by all workers together, in turns, and with nobody's place lost."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from msgspec import structs

from freehold.core.messages import Text
from freehold.core.ports import ToolOutcome, ToolRun
from freehold.core.resources import Tool
from freehold.core.session import AwaitsPlace, ToolFinished, ToolStarted
from freehold.runtime.recording import recording
from freehold.runtime.replay import replayed
from freehold.runtime.turn import SessionRun
from tests._waiting import within
from tests.runtime._world import LEDGER, OWNER, TENANT, World, calls, events_of, said, world

LOOK = ("ledger_look", "{}")


def at_once(count: int | None) -> Tool:
    return structs.replace(LEDGER, concurrency_max=count)


def once_each(*wanted: tuple[str, str]):
    """Calls, and when their results are there, an end."""
    return lambda request: said("done") if request.messages[-1].role == "tool" else calls(*wanted)


class Gate:
    """Runs that stand still until they are let through, in the order in which they came."""

    def __init__(self) -> None:
        self.waiting: list[tuple[ToolRun, asyncio.Event]] = []
        self.came = asyncio.Condition()
        self.order: list[str] = []

    async def do(self, run: ToolRun) -> ToolOutcome:
        go = asyncio.Event()
        async with self.came:
            self.waiting.append((run, go))
            self.order.append(run.session_id or "")
            self.came.notify_all()
        await go.wait()
        return ToolOutcome((Text("looked"),))

    async def holds(self, count: int) -> None:
        async with within(f"{count} runs", self.waiting), self.came:
            await self.came.wait_for(lambda: len(self.waiting) == count)

    def let(self) -> None:
        self.waiting.pop(0)[1].set()


async def waits_for_a_place(place: World, session_id: str) -> None:
    row = await place.reaches(session_id, lambda row: row.status == "waiting")
    assert row.waits is not None
    assert [call.awaits for call in row.waits.calls] == [AwaitsPlace(tool="ledger")]
    assert row.waits.until is None


@pytest.mark.slow
async def test_all_workers_together_run_a_tool_no_more_often_than_it_says(database_url: str) -> None:
    async with world(database_url, once_each(LOOK)) as place, AsyncExitStack() as workers:
        await place.declare(at_once(2))
        gate = Gate()
        place.kind.do = gate.do
        for _ in range(3):
            await workers.enter_async_context(place.worker().running())
        rows = [await place.start() for _ in range(6)]
        await gate.holds(2)
        parked = 0
        for row in rows:
            if row.id not in gate.order:
                await waits_for_a_place(place, row.id)
                parked += 1
        assert parked == 4, "who waits holds no worker"
        [queue] = await place.store.tool_places.queues(TENANT)
        assert (queue.tool, queue.concurrency_max, queue.running, queue.waiting) == ("ledger", 2, 2, 4)
        for _ in range(4):
            gate.let()
            await gate.holds(2)
        gate.let()
        gate.let()
        for row in rows:
            assert (await place.settled(row.id)).status == "idle"
        assert place.kind.running_max == 2
        assert sorted(gate.order) == sorted(row.id for row in rows), "each once"
        [queue] = await place.store.tool_places.queues(TENANT)
        assert (queue.running, queue.waiting) == (0, 0)
        found = await recording(place.log, TENANT, rows[-1].id)
        again = replayed(found.session_id, found.events, found.equipments)
        assert again.divergence is None


@pytest.mark.slow
async def test_sessions_take_turns_however_many_calls_one_has(database_url: str) -> None:
    async with world(database_url, once_each(LOOK, LOOK, LOOK)) as place:
        await place.declare(at_once(1))
        gate = Gate()
        place.kind.do = gate.do
        async with place.worker().running():
            greedy = await place.start()
            await gate.holds(1)
            place.model.script = once_each(LOOK)
            modest = await place.start()
            await waits_for_a_place(place, modest.id)
            place.model.script = once_each(LOOK, LOOK, LOOK)
            for _ in range(4):
                gate.let()
                if len(gate.order) < 4:
                    await gate.holds(1)
            for row in (greedy, modest):
                assert (await place.settled(row.id)).status == "idle"
        assert gate.order.index(modest.id) == 1
        log = await place.log_of(greedy.id)
        assert [one.code for one in events_of(log, ToolFinished)] == [None] * 3
        found = await recording(place.log, TENANT, greedy.id)
        assert replayed(found.session_id, found.events, found.equipments).divergence is None


async def test_a_cancelled_session_gives_back_its_place_and_leaves_the_queue(database_url: str) -> None:
    async with world(database_url, once_each(LOOK)) as place:
        await place.declare(at_once(1))
        gate = Gate()
        place.kind.do = gate.do
        async with place.worker().running():
            rows = [await place.start()]
            await gate.holds(1)
            for _ in range(2):
                rows.append(await place.start())
                await waits_for_a_place(place, rows[-1].id)
            await place.sessions.cancel(OWNER, rows[1].id)
            await place.settled(rows[1].id)
            await place.sessions.cancel(OWNER, rows[0].id)
            await place.settled(rows[0].id)
            await gate.holds(2)
            gate.waiting[1][1].set()
            assert (await place.settled(rows[2].id)).status == "idle"
        assert gate.order == [rows[0].id, rows[2].id]


async def test_a_dead_workers_place_is_taken_over_with_its_session(database_url: str) -> None:
    """As the database sees it: the first worker has claimed, begun and is never heard of again."""
    async with world(database_url, once_each(LOOK)) as place:
        await place.declare(at_once(1))
        gate = Gate()
        place.kind.do = gate.do
        first = await place.start()
        working = asyncio.create_task(_carried_until_killed(place, "dead"))
        await gate.holds(1)
        working.cancel()
        await asyncio.wait([working])
        [queue] = await place.store.tool_places.queues(TENANT)
        assert queue.running == 1, "nobody gave it back"
        gate.waiting.clear()
        async with place.worker().running():
            await gate.holds(1)
            second = await place.start()
            await waits_for_a_place(place, second.id)
            gate.let()
            await gate.holds(1)
            gate.let()
            for row in (first, second):
                assert (await place.settled(row.id)).status == "idle"
        assert gate.order == [first.id, first.id, second.id]
        assert [one.attempt for one in events_of(await place.log_of(first.id), ToolStarted)] == [1, 2]


async def _carried_until_killed(place: World, owner: str) -> None:
    """As by a process that ends at once: nothing of what a worker does at its end is done."""
    [lease] = await place.log.claim(owner, limit=1, lease_s=0.3)
    await SessionRun(place.means, lease, asyncio.Event()).run()


@pytest.mark.slow
async def test_a_raised_limit_is_seen_by_those_who_wait(database_url: str) -> None:
    async with world(database_url, once_each(LOOK)) as place:
        await place.declare(at_once(1))
        gate = Gate()
        place.kind.do = gate.do
        async with place.worker().running():
            rows = [await place.start()]
            await gate.holds(1)
            for _ in range(2):
                rows.append(await place.start())
                await waits_for_a_place(place, rows[-1].id)
            await place.declare(at_once(3))
            await gate.holds(3)
            for _ in rows:
                gate.let()
            for row in rows:
                assert (await place.settled(row.id)).status == "idle"
