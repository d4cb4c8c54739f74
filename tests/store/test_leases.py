"""Leases: one worker a session, a late one can't write, and the rows alone say who wants a worker."""

import asyncio

import pytest
from tests._waiting import eventually, within
from tests.store._parts import CANCEL, CANCELLED, IDLE, STARTED, begun, claimed, new_row, said

from freehold.core.errors import BadRequest, Conflict
from freehold.core.resources import Agent, Limits
from freehold.core.session_log import Lease
from freehold.store.store import Store


async def test_only_running_sessions_are_claimed_longest_waiting_first(store: Store) -> None:
    await begun(store.log)
    rows = [await begun(store.log, said("go")) for _ in range(3)]
    leases = await store.log.claim("w", limit=2, lease_s=60)
    assert [lease.session_id for lease in leases] == [rows[0].id, rows[1].id]
    assert {lease.epoch for lease in leases} == {1}
    assert [lease.session_id for lease in await store.log.claim("w", limit=9, lease_s=60)] == [rows[2].id]
    assert await store.log.claim("w", limit=9, lease_s=60) == []


async def test_workers_that_race_share_the_sessions_out(store: Store, other: Store) -> None:
    rows = await asyncio.gather(*(begun(store.log, said("go")) for _ in range(60)))
    claims = await asyncio.gather(
        *(
            (store if number % 2 else other).log.claim(f"w{number}", limit=7, lease_s=60)
            for number in range(12)
        )
    )
    ids = [lease.session_id for leases in claims for lease in leases]
    assert len(ids) == len(set(ids))
    rest = await store.log.claim("w", limit=100, lease_s=60)
    assert set(ids) | {lease.session_id for lease in rest} == {row.id for row in rows}


async def test_an_append_under_an_old_lease_is_refused(store: Store, other: Store) -> None:
    row = await begun(store.log, said("go"))
    late = await claimed(store.log, "late", lease_s=0.01)
    await eventually(lambda: _claimed_again(other, "quick"))
    with pytest.raises(Conflict, match="is lost"):
        await store.log.append(row.id, [said("late")], lease=late)
    assert await store.log.renew("late", [late], lease_s=60) == frozenset()
    await store.log.release(late)  # Does nothing to the new one.
    assert await store.log.claim("third", limit=1, lease_s=60) == []
    assert await store.log.append(row.id, [said("anyone")]) == 3, "input needs no lease"


async def _claimed_again(store: Store, owner: str) -> bool:
    return bool(await store.log.claim(owner, limit=1, lease_s=60))


async def test_a_released_lease_no_longer_writes_even_when_nobody_took_over(store: Store) -> None:
    row = await begun(store.log, said("go"))
    lease = await claimed(store.log)
    assert await store.log.append(row.id, [said("mine")], lease=lease) == 3
    await store.log.release(lease)
    with pytest.raises(Conflict, match="is lost"):
        await store.log.append(row.id, [said("late")], lease=lease)
    assert (await claimed(store.log)).epoch > lease.epoch


async def test_a_lease_that_ran_out_still_writes_until_somebody_else_claims(store: Store) -> None:
    row = await begun(store.log, said("go"))
    lease = await claimed(store.log, lease_s=0.001)
    assert await store.log.append(row.id, [said("mine")], lease=lease) == 3
    assert await store.log.renew(lease.owner, [lease], lease_s=60) == {row.id}
    assert await store.log.claim("other", limit=1, lease_s=60) == []


async def test_renewing_tells_which_sessions_are_still_held(store: Store) -> None:
    for _ in range(3):
        await begun(store.log, said("go"))
    held = list(await store.log.claim("w", limit=3, lease_s=60))
    await store.log.release(held[1])
    stranger = Lease(held[2].session_id, "default", "w", held[2].epoch + 1)
    assert await store.log.renew("w", [held[0], held[1], stranger], lease_s=60) == {held[0].session_id}
    assert await store.log.renew("not-w", held, lease_s=60) == frozenset()
    assert await store.log.renew("w", [], lease_s=60) == frozenset()


async def test_input_that_came_during_a_turn_is_claimed_after_its_release(store: Store) -> None:
    row = await begun(store.log, said("go"))
    lease = await claimed(store.log)
    await store.log.append(row.id, [IDLE], lease=lease)
    await store.log.append(row.id, [said("more")])
    assert await store.log.claim("other", limit=1, lease_s=60) == [], "held"
    await store.log.release(lease)
    assert (await claimed(store.log, "other")).session_id == row.id


async def test_a_cancelled_session_is_not_claimed(store: Store) -> None:
    row = await begun(store.log)
    await store.log.append(row.id, [CANCEL])
    lease = await claimed(store.log)
    await store.log.append(row.id, [CANCELLED], lease=lease)
    await store.log.release(lease)
    assert await store.log.claim("w", limit=1, lease_s=60) == []


async def test_a_worker_elsewhere_is_woken_by_new_input_and_by_a_release(store: Store, other: Store) -> None:
    row = await begun(store.log)

    async def woken() -> None:
        async with within("a session to claim"):
            while not await other.log.claim("there", limit=1, lease_s=60):
                await other.log.wait_for_work(60)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(woken())
        await asyncio.sleep(0)
        await store.log.append(row.id, [said("go")])
    lease = Lease(row.id, "default", "there", 1)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(woken())
        await asyncio.sleep(0)
        await other.log.release(lease)


async def test_a_new_session_with_input_wakes_a_worker_here(store: Store) -> None:
    await store.log.wait_for_work(0.01)
    waiting = asyncio.create_task(store.log.wait_for_work(60))
    await store.log.create(new_row(), [STARTED, said("go")])
    async with within("the new session"):
        await waiting


async def test_waiting_for_work_ends_after_its_time(store: Store) -> None:
    await store.log.wait_for_work(0.01)
    async with within("the end of its time"):
        await store.log.wait_for_work(0.01)


@pytest.mark.parametrize("lease_s", [0, -1, 1e9, float("nan")])
async def test_a_lease_of_no_sensible_length_is_refused(store: Store, lease_s: float) -> None:
    with pytest.raises(BadRequest, match="lease_s"):
        await store.log.claim("w", limit=1, lease_s=lease_s)


async def test_a_start_that_is_alone_frees_every_lease_and_fences_its_holder(
    store: Store, other: Store
) -> None:
    row = await begun(store.log, said("go"))
    dead = await claimed(store.log, "dead", lease_s=60)
    assert await other.log.free_leases() == 1
    assert (await claimed(other.log, "next")).session_id == row.id
    with pytest.raises(Conflict, match="is lost"):
        await store.log.append(row.id, [said("late")], lease=dead)


async def test_one_tenants_thousand_sessions_do_not_starve_anothers_one(store: Store) -> None:
    await asyncio.gather(*(begun(store.log, said("go"), tenant="whale") for _ in range(300)))
    late = [await begun(store.log, said("go"), tenant=f"minnow-{number}") for number in range(3)]
    leases = await store.log.claim("w", limit=12, lease_s=60)
    assert len(leases) == 12
    assert {row.id for row in late} <= {lease.session_id for lease in leases}


async def test_a_full_worker_gives_its_next_place_to_who_has_least(store: Store) -> None:
    await asyncio.gather(*(begun(store.log, said("go"), tenant="whale") for _ in range(40)))
    assert len(await store.log.claim("w", limit=20, lease_s=60)) == 20
    for number in range(8):
        await begun(store.log, said("go"), tenant=f"minnow-{number % 2}")
    next_ones = [(await claimed(store.log)).tenant for _ in range(8)]
    assert set(next_ones) == {"minnow-0", "minnow-1"}


async def test_agents_of_a_tenant_take_turns(store: Store) -> None:
    await asyncio.gather(*(begun(store.log, said("go"), agent="busy") for _ in range(30)))
    rare = await begun(store.log, said("go"), agent="rare")
    leases = await store.log.claim("w", limit=4, lease_s=60)
    assert rare.id in {lease.session_id for lease in leases}


async def test_of_many_tenants_each_gets_its_turn(store: Store) -> None:
    """More tenants than one claim looks at."""
    tenants = [f"tenant-{number}" for number in range(90)]
    await asyncio.gather(*(begun(store.log, said("go"), tenant=one) for one in tenants for _ in range(2)))
    first = [lease.tenant for _ in range(30) for lease in await store.log.claim("w", limit=3, lease_s=60)]
    assert len(set(first)) >= 80
    rest: list[str] = []
    while leases := await store.log.claim("w", limit=50, lease_s=60):
        rest += [lease.tenant for lease in leases]
    assert sorted(first + rest) == sorted(tenants * 2)


async def test_workers_together_hold_no_more_of_a_tenant_than_it_may_have(store: Store, other: Store) -> None:
    await asyncio.gather(*(begun(store.log, said("go"), tenant=one) for one in "aab" * 10))
    claims = await asyncio.gather(
        *(
            (store if number % 2 else other).log.claim(f"w{number}", limit=4, lease_s=60, tenant_max=3)
            for number in range(8)
        )
    )
    held = [lease for leases in claims for lease in leases]
    assert sorted(lease.tenant for lease in held) == ["a"] * 3 + ["b"] * 3
    assert await store.log.claim("w", limit=9, lease_s=60, tenant_max=3) == []
    await store.log.release(next(lease for lease in held if lease.tenant == "b"))
    assert (await store.log.claim("w", limit=9, lease_s=60, tenant_max=3))[0].tenant == "b"


async def test_an_agents_limit_is_that_of_its_current_declaration(store: Store) -> None:
    limited = Agent(name="retail", limits=Limits(sessions_running_max=2))
    await store.resources.put("default", [limited], by="test")
    rows = await asyncio.gather(*(begun(store.log, said("go")) for _ in range(40)))
    free = await begun(store.log, said("go"), agent="other")
    leases = list(await store.log.claim("w", limit=20, lease_s=60))
    assert len(leases) == 3
    assert free.id in {lease.session_id for lease in leases}
    assert await store.log.claim("w", limit=20, lease_s=60) == []
    held = next(lease for lease in leases if lease.session_id != free.id)
    await store.log.append(held.session_id, [IDLE], lease=held)
    await store.log.release(held)
    assert len(await store.log.claim("w", limit=20, lease_s=60)) == 1
    await store.resources.put("default", [Agent(name="retail")], by="test")
    assert len(await store.log.claim("w", limit=100, lease_s=60)) == len(rows) - 3


async def test_a_dead_workers_sessions_count_against_no_limit(store: Store) -> None:
    await begun(store.log, said("go"))
    await claimed(store.log, "dead", lease_s=0.01)
    await eventually(lambda: _claimed_within(store, tenant_max=1))


async def _claimed_within(store: Store, *, tenant_max: int) -> bool:
    return bool(await store.log.claim("next", limit=1, lease_s=60, tenant_max=tenant_max))
