"""Questions that are asked together: each gets its own answer, begins after it was put, and hears of its own fault alone."""

import asyncio
from collections.abc import Sequence

import pytest
from tests._waiting import within
from tests.store._parts import said

from freehold.core.errors import NotFound, Unavailable
from freehold.store._gather import LANES, Gather
from freehold.store.store import Store


class Slow:
    """Doubles what it is asked. `asked` has every question; each waits for `go`."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.go = asyncio.Semaphore(0)
        self.fault: Exception | None = None

    async def __call__(self, wanted: Sequence[int]) -> Sequence[int]:
        self.asked.append(list(wanted))
        await self.go.acquire()
        if self.fault is not None:
            raise self.fault
        return [2 * one for one in wanted]


async def begun(slow: Slow, count: int) -> None:
    async with within(f"{count} asks"):
        while len(slow.asked) < count:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)


async def test_what_comes_while_all_lanes_are_busy_is_asked_together() -> None:
    slow = Slow()
    async with Gather("doubling", slow, most=3).running() as gather, asyncio.TaskGroup() as group:
        tasks = []
        for number in range(LANES):
            tasks.append(group.create_task(gather(number)))
            await begun(slow, number + 1)
        tasks += [group.create_task(gather(number)) for number in range(LANES, LANES + 4)]
        for _ in range(LANES + 2):
            slow.go.release()
    assert [task.result() for task in tasks] == [2 * number for number in range(LANES + 4)]
    assert slow.asked == [[number] for number in range(LANES)] + [[2, 3, 4], [5]]


async def test_one_who_no_longer_waits_takes_nothing_from_the_others() -> None:
    slow = Slow()
    async with Gather("doubling", slow, most=10).running() as gather:
        tasks = [asyncio.create_task(gather(number)) for number in range(3)]
        await begun(slow, 1)
        tasks[1].cancel()
        slow.go.release()
        assert [await tasks[0], await tasks[2]] == [0, 4]


async def test_a_fault_is_told_to_all_who_asked_and_the_next_question_goes_on() -> None:
    slow = Slow()
    slow.fault = ConnectionResetError()
    async with Gather("doubling", slow, most=10).running() as gather:
        slow.go.release()
        with pytest.raises(Unavailable, match="doubling"):
            await gather(1)
        slow.fault = None
        slow.go.release()
        assert await gather(2) == 4


async def test_a_session_id_of_any_text_names_no_other_session(store: Store) -> None:
    """Ids go to the database as the text of an array."""
    for name in ("a,b", 'a","b', "a\\", "{a}", "NULL", "", "ä\n"):
        with pytest.raises(NotFound):
            await store.log.append(name, [said("hello")])
