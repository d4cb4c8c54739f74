"""The database goes away, hangs, or drops connections: clear errors at once, nothing lost, and all heals by itself."""

import asyncio
from pathlib import Path
from typing import TypeVar

import pytest
from tests._postgres import disconnect_all
from tests._waiting import eventually, within
from tests.store._parts import CLOCK, STARTED, begun, claimed, new_row, said, texts
from tests.store._proxy import Proxy

from freehold.core.errors import BadRequest, Overloaded, Unavailable
from freehold.core.records import CallRecord
from freehold.store import database as database_module
from freehold.store.database import open_database
from freehold.store.store import Store

T = TypeVar("T")


async def soon(waiting: "asyncio.Task[T]") -> T:
    async with within("what was waited for through an outage"):
        return await waiting


async def appended(store: Store, session_id: str, text: str) -> bool:
    try:
        await store.log.append(session_id, [said(text)])
    except Unavailable:
        return False
    return True


async def alive(store: Store) -> bool:
    try:
        await store.database.check()
    except Unavailable:
        return False
    return True


async def test_a_database_that_is_away_is_unavailable_and_comes_back(opened, proxy: Proxy) -> None:
    async with opened("here", url=proxy.url) as store:
        row = await begun(store.log, said("before"))
        proxy.cut()
        for attempt in (
            store.log.append(row.id, [said("x")]),
            store.log.create(new_row(), [STARTED]),
            store.log.get("default", row.id),
            store.log.read(row.id),
            store.log.claim("w", limit=1, lease_s=60),
            store.key_values.put("default", "t", {"k": 1}),
            store.resources.list("default"),
            store.database.check(),
        ):
            with pytest.raises(Unavailable, match="database") as caught:
                await attempt
            assert caught.value.retryable
            assert "127.0.0.1" not in caught.value.message
        proxy.heal()
        await eventually(lambda: appended(store, row.id, "after"))
        await eventually(lambda: alive(store))
        assert texts(await store.log.read(row.id)) == ["before", "after"]


async def test_appends_under_way_when_the_connection_breaks_get_unavailable_and_no_gap_appears(
    opened, other: Store, proxy: Proxy
) -> None:
    async with opened("here", url=proxy.url) as store:
        rows = [await begun(store.log) for _ in range(20)]
        for _ in range(5):
            appends = [
                asyncio.create_task(store.log.append(row.id, [said("x")])) for row in rows for _ in range(3)
            ]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            proxy.cut()
            results = await asyncio.gather(*appends, return_exceptions=True)
            assert all(isinstance(result, int | Unavailable) for result in results)
            proxy.heal()
            await eventually(lambda: appended(store, rows[0].id, "y"))
        for row in rows:
            recorded = await other.log.read(row.id)
            assert [one.seq for one in recorded] == list(range(1, len(recorded) + 1))
            assert (await other.log.get("default", row.id)).version == len(recorded)


@pytest.mark.slow
async def test_what_was_acknowledged_is_there_after_any_number_of_cuts(
    opened, other: Store, proxy: Proxy
) -> None:
    acknowledged: list[str] = []

    async def write(store: Store, session_id: str) -> None:
        for text in map(str, range(200)):
            if not await appended(store, session_id, text):
                continue
            acknowledged.append(text)

    async def disturb() -> None:
        for _ in range(8):
            await eventually_more(acknowledged)
            proxy.cut()
            proxy.heal()

    async with opened("here", url=proxy.url) as store:
        row = await begun(store.log)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write(store, row.id))
            tasks.create_task(disturb())
    there = texts(await other.log.read(row.id))
    assert set(acknowledged) <= set(there)
    assert len(there) == len(set(there)), "nothing twice"
    assert len(acknowledged) > 8


async def eventually_more(acknowledged: list[str]) -> None:
    count = len(acknowledged)
    await eventually(lambda: len(acknowledged) > count or count >= 150)


@pytest.mark.slow
async def test_a_follower_waits_through_an_outage_and_misses_nothing(
    opened, other: Store, proxy: Proxy
) -> None:
    row = await begun(other.log)
    async with opened("here", url=proxy.url) as store, store.log.follow(row.id, after=1) as stream:
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        proxy.cut()
        await other.log.append(row.id, [said("meanwhile")])
        proxy.heal()
        assert texts(await soon(waiting)) == ["meanwhile"]


async def test_work_that_came_during_an_outage_wakes_the_worker_after_it(
    opened, other: Store, proxy: Proxy
) -> None:
    row = await begun(other.log)
    async with opened("here", url=proxy.url) as store:
        await store.log.wait_for_work(0.01)
        waiting = asyncio.create_task(store.log.wait_for_work(60))
        proxy.cut()
        await other.log.append(row.id, [said("go")])
        proxy.heal()
        await soon(waiting)
        assert (await claimed(store.log)).session_id == row.id


async def test_every_backend_killed_by_an_administrator_is_replaced(store: Store, store_url: str) -> None:
    row = await begun(store.log)
    for number in range(3):
        await disconnect_all(store_url)
        await eventually(lambda number=number: appended(store, row.id, str(number)))
        await eventually(lambda: alive(store))
    assert texts(await store.log.read(row.id)) == ["0", "1", "2"]


@pytest.mark.slow
async def test_a_database_that_hangs_is_given_up_on(
    opened, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "STATEMENT_TIMEOUT_S", 2.0)
    async with opened("here", url=proxy.url) as store:
        row = await begun(store.log)
        monkeypatch.setattr(database_module, "CONNECT_TIMEOUT_S", 0.3)
        proxy.freeze()
        with pytest.raises(Unavailable, match="not known whether"):
            await store.log.append(row.id, [said("x")])
        with pytest.raises(Unavailable):
            await store.log.get("default", row.id)
        monkeypatch.undo()
        proxy.thaw()
        await eventually(lambda: appended(store, row.id, "y"))
        await eventually(lambda: alive(store))


async def test_all_connections_busy_is_overload_not_an_outage(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "POOL_SIZE_MAX", 1)
    monkeypatch.setattr(database_module, "ACQUIRE_TIMEOUT_S", 0.05)
    async with open_database(store_url) as database, database.connection("holding on"):
        with pytest.raises(Overloaded, match="busy"):
            await database.fetch("asking", "SELECT 1")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda url: url.replace("test_", "nowhere_"), "no such database"),
        (lambda url: url.replace("freehold:", "freehold:wrong"), "check user and password"),
        (lambda url: url.replace("freehold-", "elsewhere-"), "cannot be reached"),
    ],
)
async def test_at_start_a_wrong_address_says_what_to_do(opened, store_url: str, change, says: str) -> None:
    with pytest.raises(Unavailable, match=says) as caught:
        async with opened("here", url=change(store_url)):
            pass
    assert "wrong" not in caught.value.message, "the password is nobody's business"


async def test_what_is_no_address_is_refused(opened) -> None:
    with pytest.raises(BadRequest, match="postgresql://"):
        async with opened("here", url="mysql://root@localhost/x"):
            pass


async def test_records_wait_through_an_outage(opened, other: Store, proxy: Proxy, tmp_path: Path) -> None:
    def record(number: int) -> CallRecord:
        return CallRecord(
            id=f"call_{number:04}",
            at=CLOCK.now(),
            tenant="default",
            principal="user/ann",
            wire="openai_chat",
            model_requested="m",
            provider="p",
            model="m",
            outcome="ok",
        )

    async with opened("here", url=proxy.url) as store:
        proxy.cut()
        for number in range(1200):
            store.records.add(record(number))
        with pytest.raises(Unavailable):
            await store.records.flush()
        proxy.heal()
        await eventually(lambda: store.records.waiting_count == 0)
    assert len(await other.records.list("default", limit=1000)) == 1000
    assert store.records.dropped_count == 0
