"""Batches as kept: claimed once, settled once, counted exactly, whoever dies in between and however many work at it."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests._waiting import eventually, within
from tests.store._parts import CLOCK

from freehold.core import ids
from freehold.core.errors import BadRequest, NotFound
from freehold.core.message_batches import BatchClaim, BatchRequest, BatchResult, MessageBatch, Settled
from freehold.store import message_batches
from freehold.store.message_batches import PostgresMessageBatches
from freehold.store.store import Store

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def batches(store: Store) -> PostgresMessageBatches:
    return store.message_batches


def new_batch(count: int, **changes: Any) -> MessageBatch:
    batch = MessageBatch(
        id=ids.new("msgbatch", CLOCK),
        tenant="t",
        created_by="key_1",
        created_at=NOON,
        expires_at=NOON + DAY,
        request_count=count,
        headers={"anthropic-beta": "x"},
    )
    return MessageBatch(**{name: changes.get(name, getattr(batch, name)) for name in batch.__struct_fields__})


async def begun(batches: PostgresMessageBatches, count: int, **changes: Any) -> MessageBatch:
    requests = [BatchRequest(f"r{number}", b'{"n":%d}' % number) for number in range(count)]
    return await batches.create(new_batch(count, **changes), requests)


async def claimed(
    batches: PostgresMessageBatches,
    owner: str = "w",
    *,
    limit: int = 100,
    lease_s: float = 60,
    now: datetime = NOON,
) -> Sequence[BatchClaim]:
    return await batches.claim(owner, limit=limit, lease_s=lease_s, now=now)


def settled(claims: Sequence[BatchClaim], body: bytes = b"{}") -> list[Settled]:
    return [Settled(claim, "succeeded", body) for claim in claims]


async def every_result(batches: PostgresMessageBatches, batch_id: str) -> list[BatchResult]:
    found: list[BatchResult] = []
    while page := await batches.results("t", batch_id, after=found[-1].number if found else -1):
        found += page
    return found


async def test_a_batch_goes_from_creation_to_its_results(batches: PostgresMessageBatches) -> None:
    batch = await begun(batches, 3)
    assert await batches.get("t", batch.id) == batch
    claims = await claimed(batches)
    assert [(one.number, one.params, one.created_by, one.headers) for one in claims] == [
        (number, b'{"n":%d}' % number, "key_1", {"anthropic-beta": "x"}) for number in range(3)
    ]
    assert await claimed(batches) == []
    await batches.finish(settled(claims[:2]), now=NOON)
    assert (await batches.get("t", batch.id)).status == "in_progress"
    await batches.finish([Settled(claims[2], "errored", b"[]")], now=NOON + DAY)
    done = await batches.get("t", batch.id)
    assert (done.status, done.ended_at, done.succeeded_count, done.errored_count) == (
        "ended",
        NOON + DAY,
        2,
        1,
    )
    assert await every_result(batches, batch.id) == [
        BatchResult(0, "r0", "succeeded", b"{}"),
        BatchResult(1, "r1", "succeeded", b"{}"),
        BatchResult(2, "r2", "errored", b"[]"),
    ]


async def test_a_result_is_written_once_and_under_the_newest_claim_alone(
    batches: PostgresMessageBatches,
) -> None:
    batch = await begun(batches, 1)
    late = await claimed(batches, "late", lease_s=0.001)
    await eventually(lambda: _claims_again(batches))
    assert await batches.finish(settled(late, b"late"), now=NOON) == frozenset()
    assert await batches.renew("late", late, lease_s=60) == frozenset()
    assert (await batches.get("t", batch.id)).succeeded_count == 0
    (again,) = [one for one in _again if one.batch_id == batch.id]
    assert again.epoch == 2
    assert await batches.finish(settled([again], b"first"), now=NOON) == {again.place}
    assert await batches.finish(settled([again], b"second"), now=NOON) == frozenset()
    assert [one.body for one in await every_result(batches, batch.id)] == [b"first"]


_again: list[BatchClaim] = []


async def _claims_again(batches: PostgresMessageBatches) -> bool:
    _again.extend(found := await claimed(batches, "next"))
    return bool(found)


async def test_two_workers_never_get_the_same_request(store: Store, other: Store) -> None:
    batch = await begun(store.message_batches, 200)
    seen: list[int] = []

    async def work(one: PostgresMessageBatches, owner: str) -> None:
        while (await one.get("t", batch.id)).status != "ended":
            claims = await claimed(one, owner, limit=7)
            seen.extend(claim.number for claim in claims)
            await one.finish(settled(claims), now=NOON)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(work(store.message_batches, f"here-{number}"))
            group.create_task(work(other.message_batches, f"there-{number}"))
    assert sorted(seen) == list(range(200))
    done = await store.message_batches.get("t", batch.id)
    assert (done.succeeded_count, done.request_count) == (200, 200)


async def test_the_batch_that_waits_longest_is_served_next(batches: PostgresMessageBatches) -> None:
    large = await begun(batches, 10)
    small = await begun(batches, 2)
    turns = [(await claimed(batches, limit=2))[0].batch_id for _ in range(3)]
    assert turns == [large.id, small.id, large.id]


async def test_what_is_put_off_waits_and_remembers_its_failures(batches: PostgresMessageBatches) -> None:
    await begun(batches, 2)
    first, second = await claimed(batches)
    await batches.postpone(first, pause_s=0)
    await batches.postpone(second, pause_s=60)
    again = await claimed(batches)
    assert [(one.number, one.failures, one.epoch) for one in again] == [(0, 1, 2)]


async def test_what_is_released_or_freed_can_be_claimed_at_once(batches: PostgresMessageBatches) -> None:
    await begun(batches, 2)
    claims = await claimed(batches)
    await batches.release("w", claims[:1])
    assert [one.number for one in await claimed(batches, "x")] == [0]
    assert await batches.free_leases() == 2
    assert len(await claimed(batches, "y")) == 2


async def test_cancel_ends_what_waits_and_lets_finish_what_runs(batches: PostgresMessageBatches) -> None:
    batch = await begun(batches, 5)
    running = await claimed(batches, limit=2)
    canceled = await batches.cancel("t", batch.id, at=NOON)
    assert (canceled.status, canceled.cancel_initiated_at) == ("canceling", NOON)
    assert await claimed(batches) == []
    assert await batches.sweep(NOON) == 3
    assert (await batches.get("t", batch.id)).status == "canceling"
    await batches.finish(settled(running), now=NOON)
    done = await batches.get("t", batch.id)
    assert (done.status, done.succeeded_count, done.canceled_count) == ("ended", 2, 3)
    assert await batches.cancel("t", batch.id, at=NOON + DAY) == done, "ended: left as it is"


async def test_what_a_dead_worker_held_is_canceled_when_its_lease_is_over(
    batches: PostgresMessageBatches,
) -> None:
    batch = await begun(batches, 1)
    await claimed(batches, lease_s=0.001)
    await batches.cancel("t", batch.id, at=NOON)

    async def swept() -> bool:
        await batches.sweep(NOON)
        return (await batches.get("t", batch.id)).status == "ended"

    await eventually(swept)


async def test_after_its_time_a_batch_expires_with_what_it_has(
    batches: PostgresMessageBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_batches, "SWEPT_AT_ONCE", 2)
    batch, young = await begun(batches, 6), await begun(batches, 1, expires_at=NOON + 2 * DAY)
    await batches.finish(settled(await claimed(batches, limit=1)), now=NOON)
    assert await batches.sweep(NOON + DAY - timedelta(seconds=1)) == 0
    assert [one.batch_id for one in await claimed(batches, now=NOON + DAY)] == [young.id]
    assert await batches.sweep(NOON + DAY) == 5
    done = await batches.get("t", batch.id)
    assert (done.status, done.succeeded_count, done.expired_count) == ("ended", 1, 5)


async def test_results_go_after_their_time_and_the_batch_says_so(batches: PostgresMessageBatches) -> None:
    batch, open_one = await begun(batches, 1), await begun(batches, 1)
    await batches.finish(settled(await claimed(batches, limit=1)), now=NOON)
    assert await batches.archive(NOON + 2 * DAY, created_before=NOON - DAY) == 0
    assert await batches.archive(NOON + 2 * DAY, created_before=NOON) == 1
    assert (await batches.get("t", batch.id)).archived_at == NOON + 2 * DAY
    assert await batches.results("t", batch.id) == []
    assert len(await batches.results("t", open_one.id)) == 1


async def test_a_key_makes_one_batch_however_often_it_is_sent(batches: PostgresMessageBatches) -> None:
    async def create() -> MessageBatch:
        return await batches.create(new_batch(1), [BatchRequest("a", b"{}")], idempotency_key="k")

    made = await asyncio.gather(*(create() for _ in range(5)))
    assert len({one.id for one in made}) == 1
    other = await batches.create(new_batch(1, tenant="u"), [BatchRequest("a", b"{}")], idempotency_key="k")
    assert other.id != made[0].id


async def test_pages_go_both_ways(batches: PostgresMessageBatches) -> None:
    made = [(await begun(batches, 1, id=f"msgbatch_{number}")).id for number in range(5)]
    await begun(batches, 1, tenant="other")
    newest = made[::-1]

    async def page(**asked: Any) -> tuple[list[str], bool]:
        found = await batches.list("t", limit=2, **asked)
        return [one.id for one in found.batches], found.more

    assert await page() == (newest[:2], True)
    assert await page(after_id=newest[1]) == (newest[2:4], True)
    assert await page(after_id=newest[3]) == (newest[4:], False)
    assert await page(before_id=newest[4]) == (newest[2:4], True)
    assert await page(before_id=newest[1]) == (newest[:1], False)


async def test_only_what_has_ended_is_deleted_and_only_by_its_tenant(batches: PostgresMessageBatches) -> None:
    batch = await begun(batches, 1)
    with pytest.raises(BadRequest, match="in_progress: cancel it"):
        await batches.delete("t", batch.id)
    await batches.finish(settled(await claimed(batches)), now=NOON)
    for act in (batches.delete, batches.get):
        with pytest.raises(NotFound, match="no message batch"):
            await act("other", batch.id)
    assert await batches.results("other", batch.id) == []
    await batches.delete("t", batch.id)
    with pytest.raises(NotFound):
        await batches.get("t", batch.id)
    assert await batches.results("t", batch.id) == []


async def test_large_results_are_read_in_pieces_and_none_is_left_out(
    batches: PostgresMessageBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_batches, "RESULTS_BYTES_MAX", 1000)
    batch = await begun(batches, 6)
    sizes = [2000, 400, 400, 400, 3000, 1]
    claims = await claimed(batches)
    await batches.finish(
        [Settled(claim, "succeeded", b"x" * size) for claim, size in zip(claims, sizes, strict=True)],
        now=NOON,
    )
    first = await batches.results("t", batch.id)
    assert [len(one.body) for one in first] == [2000]
    assert [len(one.body) for one in await batches.results("t", batch.id, after=0)] == [400, 400]
    assert [len(one.body) for one in await every_result(batches, batch.id)] == sizes


async def test_another_process_hears_of_a_new_batch(store: Store, other: Store) -> None:
    async with within("word of a new batch"):
        # A listener's first word, once it hears, is that anything may have happened.
        await other.message_batches.wait_for_work(30)
        await begun(store.message_batches, 1)
        await other.message_batches.wait_for_work(30)
