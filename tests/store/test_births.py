"""Sessions that a worker of their process has from the moment in which they begin."""

import asyncio
from collections.abc import Sequence

import pytest
from tests._waiting import within
from tests.store._parts import STARTED, new_row, said

from freehold.core.errors import Conflict
from freehold.core.session import SessionEvent, TurnStarted
from freehold.core.session_log import Lease
from freehold.store.store import Store

OPENING = TurnStarted(turn=1)
LIMITED = "INSERT INTO session_limits (tenant, agent, running_max) VALUES ($1, 'retail', 1)"


class Beside:
    """A worker with a berth for everybody."""

    owner, lease_s = "worker_beside", 60.0
    opening = (OPENING,)

    def __init__(self) -> None:
        self.taken: asyncio.Queue[Lease] = asyncio.Queue()
        self.asked = self.left = 0
        self.wanted = asyncio.Event()

    def berth(self, events: Sequence[SessionEvent]) -> "Beside":
        self.asked += 1
        self.wanted.set()
        return self

    def take(self, lease: Lease) -> None:
        self.taken.put_nowait(lease)

    def leave(self) -> None:
        self.left += 1


async def test_a_worker_beside_has_a_session_from_its_beginning_on(store: Store) -> None:
    beside = Beside()
    with store.log.carried_by(beside):
        made = await store.log.create(new_row(), [STARTED, said("go")])
    lease = beside.taken.get_nowait()
    assert [one.event for one in await store.log.read(made.id)] == [STARTED, said("go"), OPENING]
    assert made == await store.log.get("default", made.id)
    assert (made.version, made.status) == (3, "running")
    assert await store.log.renew(beside.owner, [lease], lease_s=60) == {made.id}
    assert await store.log.append(made.id, [said("x")], expected_version=3, lease=lease) == 4
    await store.log.release(lease)
    with pytest.raises(Conflict, match="lease"):
        await store.log.append(made.id, [said("late")], lease=lease)


async def test_many_that_begin_at_once_are_taken_each_with_its_own_events(store: Store) -> None:
    beside = Beside()
    with store.log.carried_by(beside):
        rows = await asyncio.gather(
            *(store.log.create(new_row(), [STARTED, said(f"number {n}")]) for n in range(20))
        )
    quiet = await store.log.create(new_row(), [STARTED, said("alone")])
    leases = {one.session_id: one for one in [beside.taken.get_nowait() for _ in rows]}
    assert set(leases) == {row.id for row in rows}
    for number, row in enumerate(rows):
        events = [one.event for one in await store.log.read(row.id)]
        assert events == [STARTED, said(f"number {number}"), OPENING]
        await store.log.release(leases[row.id])
    assert quiet.version == 2
    assert beside.left == 0


async def test_where_an_agents_places_are_limited_it_queues_as_all_others_do(store: Store) -> None:
    beside, tenant = Beside(), "limited-births"
    await store.database.fetch("limiting", LIMITED, tenant)
    with store.log.carried_by(beside):
        made = await store.log.create(new_row(tenant=tenant), [STARTED, said("go")])
    assert (beside.left, beside.taken.empty(), made.version) == (1, True, 2)
    claimed = [one.session_id for one in await store.log.claim("w", limit=500, lease_s=60)]
    assert made.id in claimed


async def test_what_does_not_begin_gives_its_berth_back(store: Store) -> None:
    beside = Beside()
    with store.log.carried_by(beside):
        first = await store.log.create(new_row(), [STARTED, said("go")], idempotency_key="births")
        again = await store.log.create(new_row(), [STARTED, said("go")], idempotency_key="births")
        assert (again.id, beside.left) == (first.id, 1)
        with pytest.raises(Conflict):
            await store.log.create(first, [STARTED, said("go")])
        assert beside.left == 2
        asked = beside.asked
        await store.log.create(new_row(), [STARTED])
        assert beside.asked == asked, "it has nothing to do yet"
    await store.log.release(beside.taken.get_nowait())
    assert beside.taken.empty()


async def test_it_is_taken_though_whoever_began_it_waits_no_more(store: Store) -> None:
    beside = Beside()
    with store.log.carried_by(beside):
        beginning = asyncio.create_task(store.log.create(new_row(), [STARTED, said("go")]))
        await beside.wanted.wait()
        beginning.cancel()
        async with within("it to be taken"):
            lease = await beside.taken.get()
    await store.log.release(lease)
