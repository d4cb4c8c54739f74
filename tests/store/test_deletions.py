"""What is deleted is gone, all of it and nothing else: not what a fork reads, not what another session says too."""

import asyncio

import asyncpg
import pytest
from tests.store._parts import IDLE, begun, claimed, new_row, said

from freehold.core.errors import Conflict, NotFound
from freehold.core.session import SessionForked
from freehold.store import _deletions, retention
from freehold.store.store import Store

LARGE = "a large text " * 1000
OTHER = "another text " * 1000
KEPT = "events", "blocks", "block_uses", "snapshots", "append_keys", "fork_segments", "session_deletions"


async def left(url: str) -> dict[str, int]:
    connection = await asyncpg.connect(url)
    try:
        counts = {
            table: await connection.fetchval(f"SELECT count(*) FROM freehold.{table}") for table in KEPT
        }
        return {table: count for table, count in counts.items() if count}
    finally:
        await connection.close()


async def age(url: str, session_id: str, days: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "UPDATE freehold.sessions SET due_at = now() - $2 * interval '1 day' WHERE id = $1",
        session_id,
        days,
    )
    await connection.close()


async def at_rest(store: Store, *texts: str, **changes: str):
    return await begun(store.log, *(said(text) for text in texts), IDLE, **changes)


async def expire(store: Store, *, days: float) -> int:
    count = 0
    while gone := await store.retention.delete_due("default", default_days=days):
        count += sum(one.deleted for one in gone)
    return count


async def forked(store: Store, origin, *texts: str):
    row = new_row(origin_id=origin.id, origin_seq=origin.version)
    return await store.log.fork(
        row, [SessionForked(origin=origin.id, origin_seq=origin.version), *map(said, texts), IDLE]
    )


async def test_a_deleted_session_leaves_nothing(store: Store, store_url: str) -> None:
    row = await at_rest(store, LARGE, "short")
    await store.log.append(row.id, [said(OTHER), IDLE], idempotency_key="once")
    await store.objects.put(".results", f"default/{row.id}/result_1", b"kept")
    await store.log.delete("default", row.id)
    assert await left(store_url) == {}
    assert (await store.objects.list(".results")).objects == ()
    with pytest.raises(NotFound):
        await store.log.get("default", row.id)
    with pytest.raises(NotFound):
        await store.log.append(row.id, [said("still there?")])
    with pytest.raises(NotFound):
        await store.log.delete("default", row.id)


async def test_blocks_that_another_session_names_stay(store: Store) -> None:
    gone, stays = await at_rest(store, LARGE, OTHER), await at_rest(store, LARGE)
    await store.log.delete("default", gone.id)
    assert (await store.log.read(stays.id))[1].event == said(LARGE)


async def test_another_tenants_session_is_not_found(store: Store) -> None:
    row = await at_rest(store, tenant="other")
    with pytest.raises(NotFound):
        await store.log.delete("default", row.id)
    with pytest.raises(NotFound):
        await store.log.archive("default", row.id)


async def test_a_session_at_work_is_not_deleted(store: Store) -> None:
    row = await begun(store.log, said("go"))
    with pytest.raises(Conflict, match="cancel it first"):
        await store.log.delete("default", row.id)
    with pytest.raises(Conflict, match="cancel it first"):
        await store.log.archive("default", row.id)
    lease = await claimed(store.log)
    await store.log.append(row.id, [IDLE], lease=lease)
    await store.log.delete("default", row.id)
    with pytest.raises(NotFound):
        await store.log.append(row.id, [said("late")], lease=lease)


async def test_what_a_fork_reads_stays_until_the_fork_is_gone(store: Store, store_url: str) -> None:
    origin = await at_rest(store, LARGE)
    fork = await forked(store, origin, OTHER)
    with pytest.raises(Conflict, match="forks"):
        await store.log.delete("default", origin.id)
    await age(store_url, origin.id, 10)
    assert await expire(store, days=1) == 0
    assert [one.event for one in await store.log.read(fork.id)][1] == said(LARGE)
    await store.log.delete("default", fork.id)
    await store.log.delete("default", origin.id)
    assert await left(store_url) == {}


async def test_only_sessions_whose_time_is_over_expire(
    store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "DELETED_MAX", 2)
    monkeypatch.setattr(_deletions, "ROWS_MAX", 2)
    old = [await at_rest(store, LARGE, OTHER, "a", "b") for _ in range(5)]
    busy, fresh = await begun(store.log, said("go")), await at_rest(store, LARGE)
    for row in (*old, busy):
        await age(store_url, row.id, 8)
    assert await expire(store, days=7) == 5
    assert await _deletions.sweep(store.database, store.objects) == 5
    assert await _deletions.sweep(store.database, store.objects) == 0
    assert await left(store_url) == {"events": 2 + 3, "blocks": 1, "block_uses": 1}
    assert {row.id for row in (await store.log.list("default")).rows} == {busy.id, fresh.id}


async def test_texts_that_come_back_while_they_are_swept_are_there(store: Store) -> None:
    texts = [f"{number} {LARGE}" for number in range(5)]
    for _ in range(10):
        gone = await at_rest(store, *texts)
        row = await begun(store.log)
        appends = [store.log.append(row.id, [said(text)]) for text in texts]
        await asyncio.gather(store.log.delete("default", gone.id), *appends)
        read = {one.event.content[0].text for one in (await store.log.read(row.id))[1:]}
        assert read == set(texts)


async def test_an_archived_session_is_left_out_of_lists(store: Store) -> None:
    row, other = await at_rest(store), await at_rest(store)
    first = await store.log.archive("default", row.id)
    assert first.archived_at is not None
    assert await store.log.archive("default", row.id) == first
    assert [one.id for one in (await store.log.list("default")).rows] == [other.id]
    assert len((await store.log.list("default", archived=True, by_cost=True)).rows) == 2
