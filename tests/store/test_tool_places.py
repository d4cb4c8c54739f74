"""Places of tools in the database: as many as there may be, in turns, and none lost to sessions that never come for theirs."""

import asyncio

import pytest
from tests.store._parts import IDLE, begun, said

from freehold.core.resources import Tool
from freehold.core.session import AwaitsPlace, CallAwaited, SessionWaits
from freehold.store.store import Store

PARKED = SessionWaits(why="calls", calls=(CallAwaited(call_id="c", awaits=AwaitsPlace(tool="slow")),))


async def limited(store: Store, concurrency_max: int | None) -> None:
    await store.resources.put(
        "default", [Tool(name="slow", type="kv", concurrency_max=concurrency_max)], by="test"
    )


async def at_work(store: Store) -> str:
    return (await begun(store.log, said("go"))).id


async def parked(store: Store) -> str:
    """A session that asked in vain, and waits in its row."""
    session_id = await at_work(store)
    assert await store.tool_places.take("default", session_id, {"c": "slow"}) == frozenset()
    await store.log.append(session_id, [PARKED])
    return session_id


async def called(store: Store) -> list[str]:
    """Sessions for which a place is kept until they come, the longest waiting first."""
    rows = await store.database.fetch(
        "looking",
        "SELECT p.session_id FROM tool_places p JOIN sessions s ON s.id = p.session_id"
        " WHERE p.called_until > clock_timestamp() AND s.due_at <= now() ORDER BY p.queued_at",
    )
    return [row["session_id"] for row in rows]


async def test_places_are_as_many_as_the_declaration_says_and_are_called_in_order(
    store: Store, other: Store
) -> None:
    await limited(store, 2)
    holders = [await at_work(store) for _ in range(2)]
    for number, holder in enumerate(holders):
        process = other if number else store
        assert await process.tool_places.take("default", holder, {"c": "slow"}) == {"c"}
    first, second = await parked(store), await parked(store)
    assert await called(store) == []
    await other.tool_places.keep("default", holders[0], [])
    assert await called(store) == [first]
    newcomer = await at_work(store)
    assert await store.tool_places.take("default", newcomer, {"c": "slow"}) == frozenset(), (
        "the called one's place"
    )
    assert await store.tool_places.take("default", first, {"c": "slow"}) == {"c"}
    await store.tool_places.keep("default", holders[1], [])
    assert await called(store) == [second]
    [queue] = await store.tool_places.queues("default")
    assert (queue.running, queue.waiting) == (1, 2)


async def test_a_repeated_asking_takes_no_second_place(store: Store) -> None:
    await limited(store, 1)
    session_id = await at_work(store)
    for _ in range(3):
        assert await store.tool_places.take("default", session_id, {"c": "slow"}) == {"c"}
    assert (await store.tool_places.queues("default"))[0].running == 1
    for _ in range(2):
        await store.tool_places.keep("default", session_id, [])
    assert (await store.tool_places.queues("default"))[0].running == 0


@pytest.mark.slow
async def test_who_is_called_and_does_not_come_goes_to_the_end_of_the_queue(store: Store) -> None:
    await limited(store, 1)
    holder = await at_work(store)
    await store.tool_places.take("default", holder, {"c": "slow"})
    away, there = await parked(store), await parked(store)
    await store.tool_places.keep("default", holder, [])
    assert await called(store) == [away]
    await store.database.fetch(
        "letting time pass",
        "UPDATE tool_places SET called_until = now() - interval '1 s' WHERE session_id = $1",
        away,
    )
    await store.tool_places.look_after()
    assert await called(store) == [there]
    assert await store.tool_places.take("default", there, {"c": "slow"}) == {"c"}


@pytest.mark.slow
async def test_what_belongs_to_sessions_that_are_over_is_given_to_others(store: Store) -> None:
    await limited(store, 1)
    over = await at_work(store)
    await store.tool_places.take("default", over, {"c": "slow"})
    waits = await parked(store)
    await store.log.append(over, [IDLE])
    await store.tool_places.look_after()
    assert await called(store) == [waits]


@pytest.mark.slow
async def test_without_a_limit_any_more_all_may_go(store: Store) -> None:
    await limited(store, 1)
    await store.tool_places.take("default", await at_work(store), {"c": "slow"})
    waiting = {await parked(store) for _ in range(3)}
    await limited(store, None)
    await store.tool_places.look_after()
    assert set(await called(store)) == waiting


async def test_many_that_ask_at_once_get_no_more_than_there_are(store: Store, other: Store) -> None:
    await limited(store, 3)
    sessions = [await at_work(store) for _ in range(20)]
    got = await asyncio.gather(
        *(
            (store if number % 2 else other).tool_places.take("default", one, {"a": "slow", "b": "slow"})
            for number, one in enumerate(sessions)
        )
    )
    assert sum(map(len, got)) == 3
    assert (await store.tool_places.queues("default"))[0].waiting == 37
