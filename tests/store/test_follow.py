"""Following a log: each event once and in order, across processes, for any number of followers, whatever happens to LISTEN."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest
from tests._waiting import eventually, within
from tests.store._parts import begun, said, texts
from tests.store.conftest import Opens

from freehold.core.session import Recorded
from freehold.store import _follow
from freehold.store.store import Store


async def first(stream: AsyncIterator[Sequence[Recorded]], count: int) -> list[Recorded]:
    """The next `count` events, however they are paged."""
    seen: list[Recorded] = []
    async with within(f"{count} events", seen):
        while len(seen) < count:
            seen += await anext(stream)
    assert [one.seq for one in seen] == list(range(seen[0].seq, seen[0].seq + len(seen)))
    return seen


async def killed_listeners(url: str) -> bool:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_stat_activity"
            " WHERE application_name LIKE 'freehold % listener' AND datname = current_database()"
        )
    finally:
        await connection.close()


async def test_a_follower_gets_what_is_there_and_then_what_comes(store: Store) -> None:
    row = await begun(store.log, said("a"), said("b"))
    async with store.log.follow(row.id, after=1) as stream:
        assert texts(await first(stream, 2)) == ["a", "b"]
        for text in "cde":
            await store.log.append(row.id, [said(text)])
            assert texts(await first(stream, 1)) == [text]


async def test_another_process_sees_an_append_without_waiting_for_the_sweep(
    opened: Opens, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_follow, "SWEEP_S", 600.0)
    row = await begun(store.log)
    async with (
        opened("another") as other,
        other.log.follow(row.id, after=1) as stream,
        within("the appends"),
    ):
        for number in range(50):
            await store.log.append(row.id, [said(str(number))])
            assert texts(await anext(stream)) == [str(number)]


async def test_writers_in_two_processes_give_every_follower_one_order(store: Store, other: Store) -> None:
    row = await begun(store.log)

    async def write(writer: Store, name: str) -> None:
        for number in range(60):
            await writer.log.append(row.id, [said(f"{name}{number}")])

    async with (
        store.log.follow(row.id) as here,
        other.log.follow(row.id) as there,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(write(store, "a"))
        tasks.create_task(write(other, "b"))
        seen_here = tasks.create_task(first(here, 121))
        seen_there = tasks.create_task(first(there, 121))
    assert seen_here.result() == seen_there.result() == list(await store.log.read(row.id))


async def test_a_follower_that_is_behind_pages_through(store: Store) -> None:
    row = await begun(store.log)
    for _ in range(3):
        await store.log.append(row.id, [said("x")] * 300)
    async with store.log.follow(row.id) as stream:
        assert len(await anext(stream)) == _follow.PAGE_EVENTS_MAX
        assert len(await first(stream, 901 - _follow.PAGE_EVENTS_MAX)) == 901 - _follow.PAGE_EVENTS_MAX


async def test_a_page_of_large_events_is_bounded_in_bytes(store: Store) -> None:
    row = await begun(store.log, *(said("x" * 400_000) for _ in range(6)))
    async with store.log.follow(row.id) as stream:
        assert len(await anext(stream)) == 4, "the one before, and what begins within the first megabyte"
        assert len(await first(stream, 3)) == 3


@pytest.mark.slow
async def test_a_thousand_followers_share_one_connection_and_miss_nothing(store: Store, other: Store) -> None:
    rows = await asyncio.gather(*(begun(store.log) for _ in range(50)))

    async def follow(session_id: str) -> list[str]:
        async with other.log.follow(session_id, after=1) as stream:
            started.release()
            return texts(await first(stream, 3))

    started = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as tasks:
        followers = [tasks.create_task(follow(row.id)) for row in rows for _ in range(20)]
        for _ in followers:
            await started.acquire()
        for text in "abc":
            await asyncio.gather(*(store.log.append(row.id, [said(text)]) for row in rows))
    assert len(followers) == 1000
    assert all(follower.result() == ["a", "b", "c"] for follower in followers)


@pytest.mark.slow
async def test_nothing_is_lost_when_the_listening_connection_is_killed_again_and_again(
    store: Store, other: Store, store_url: str
) -> None:
    row = await begun(store.log)
    async with other.log.follow(row.id, after=1) as stream:
        seen: list[str] = []
        for number in range(30):
            if number % 10 == 5:
                await eventually(lambda: killed_listeners(store_url))
            await store.log.append(row.id, [said(str(number))])
        while len(seen) < 30:
            seen += texts(await first(stream, 1))
    assert seen == [str(number) for number in range(30)]


async def test_a_follower_that_leaves_is_forgotten(store: Store) -> None:
    row = await begun(store.log)
    async with store.log.follow(row.id, after=1) as stream:
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        waiting.cancel()
    assert not store.log.followed_count
    assert await store.log.append(row.id, [said("x")]) == 2


async def test_an_event_too_many_for_one_notification_still_arrives(
    opened: Opens, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_follow, "SWEEP_S", 600.0)
    rows = await asyncio.gather(*(begun(store.log) for _ in range(400)))
    async with (
        opened("another") as other,
        other.log.follow(rows[399].id, after=1) as stream,
        within("the append"),
    ):
        await asyncio.gather(*(store.log.append(row.id, [said("x")]) for row in rows))
        assert texts(await anext(stream)) == ["x"]
