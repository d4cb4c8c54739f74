"""Deployments as kept: what a claim is good for, what is written with it, and what of it is all or nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from tests._waiting import eventually
from tests.store._parts import CLOCK, STARTED, new_row, said

from freehold.core import ids
from freehold.core.deployments import Dealt, DeploymentClaim, DeploymentRun
from freehold.core.errors import BadRequest, Conflict, LimitReached, NotFound
from freehold.core.schedules import DEPLOYMENTS_MAX, Cron, Deployment, Once
from freehold.core.session_log import NewSession
from freehold.runtime.schedules_plan import Run, decide
from freehold.store.deployments import RUNS_KEPT, forget_runs
from freehold.store.store import Store

HOURLY = Cron(expression="0 * * * *", timezone="UTC")
SLOT = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER = SLOT + timedelta(hours=1)


async def declared(store: Store, name: str = "report", tenant: str = "default", **fields: Any) -> Deployment:
    deployment = Deployment(
        **({"name": name, "agent": "clerk", "messages": ("go",), "schedule": HOURLY} | fields)
    )
    await store.resources.put(tenant, [deployment], by="key_1")
    return deployment


async def claimed(store: Store, now: datetime = SLOT) -> DeploymentClaim:
    [claim] = await store.deployments.claim(now, limit=10, lease_s=10)
    return claim


def dealt(claim: DeploymentClaim, *, slot: datetime = SLOT, session_id: str | None = None) -> Dealt:
    row = new_row(id=session_id or ids.new("sess", CLOCK), agent="clerk")
    run = DeploymentRun(
        id=ids.new("drun", CLOCK),
        tenant=claim.row.tenant,
        deployment=claim.row.deployment.name,
        agent="clerk",
        agent_version=1,
        created_at=slot,
        run_by="key_1",
        slot=slot,
        session_id=row.id,
    )
    session = NewSession(row, [STARTED, said("go")])
    return Dealt(claim=claim, done_until=slot, due_at=LATER, run=run, session=session)


async def runs(store: Store) -> tuple[DeploymentRun, ...]:
    return (await store.deployments.runs("default", limit=100)).rows


async def test_a_claim_is_good_for_one_worker_and_for_its_lease(store: Store, other: Store) -> None:
    await declared(store)
    claim = await claimed(store)
    assert (claim.row.deployment.agent, claim.row.by, claim.at_work) == ("clerk", "key_1", False)
    assert await other.deployments.claim(SLOT, limit=10, lease_s=10) == []
    again = await claimed(other, SLOT + timedelta(seconds=10))
    assert await store.deployments.deal([dealt(claim)]) == frozenset(), "the older claim is void"
    assert await runs(store) == ()
    assert await other.deployments.deal([dealt(again)]) == {("default", "report")}
    [run] = await runs(store)
    assert (await store.log.get("default", run.session_id or "")).deployment == "report"
    row = await store.deployments.get("default", "report")
    assert (row.done_until, row.last_run_at) == (SLOT, SLOT)
    assert await store.deployments.claim(LATER - timedelta(seconds=1), limit=10, lease_s=10) == []
    assert (await claimed(store, LATER)).at_work, "the first session has something to do"


async def test_a_single_time_that_passes_while_it_is_declared_is_run(store: Store) -> None:
    now = datetime.now(UTC)
    await declared(store, schedule=Once(at=now - timedelta(seconds=1)))
    assert isinstance(decide(await claimed(store, now), now), Run)


@pytest.mark.parametrize("change", ["declared", "paused", "archived"])
async def test_a_change_from_outside_voids_a_claim(store: Store, change: str) -> None:
    deployment = await declared(store)
    claim = await claimed(store)
    if change == "declared":
        await declared(store, description="changed")
    elif change == "paused":
        await store.deployments.pause("default", "report", at=SLOT)
    else:
        await store.resources.archive("default", "deployment", deployment.name, by="key_1")
    assert await store.deployments.deal([dealt(claim)]) == frozenset()
    assert await runs(store) == ()


async def test_a_slot_that_has_its_run_gets_no_other(store: Store) -> None:
    await declared(store)
    await store.deployments.deal([dealt(await claimed(store))])
    again = dealt(await claimed(store, LATER))
    assert await store.deployments.deal([again]) == {("default", "report")}
    assert len(await runs(store)) == 1
    with pytest.raises(NotFound):
        await store.log.get("default", again.session.row.id if again.session else "")


async def test_what_is_written_twice_for_want_of_an_answer_is_there_once(store: Store) -> None:
    await declared(store)
    one = dealt(await claimed(store))
    for _ in range(2):
        assert await store.deployments.deal([one]) == {("default", "report")}
    assert [run.id for run in await runs(store)] == [one.run.id if one.run else None]
    assert (await claimed(store, LATER)).row.done_until == SLOT


async def test_nothing_is_written_where_a_session_cannot_be(store: Store) -> None:
    await declared(store)
    taken = await store.log.create(new_row(), [STARTED])
    claim = await claimed(store)
    with pytest.raises(Conflict):
        await store.deployments.deal([dealt(claim, session_id=taken.id)])
    assert await runs(store) == ()
    assert (await store.deployments.get("default", "report")).last_run_at is None
    bad = dealt(claim)
    assert bad.session is not None
    titled = replace(bad.session, row=replace(bad.session.row, title="a\x00b"))
    with pytest.raises(BadRequest):
        await store.deployments.deal([replace(bad, session=titled)])
    assert await runs(store) == ()


async def test_a_declaration_that_cannot_be_read_here_is_left_to_others(store: Store) -> None:
    await declared(store)
    await declared(store, "newer")
    await store.database.fetch(
        "writing as a newer Freehold would",
        "UPDATE resource_versions SET body = $1 WHERE name = 'newer'",
        b'{"kind":"deployment","name":"newer","agent":"clerk","messages":["go"],"what":"comes"}',
    )
    assert (await claimed(store)).row.deployment.name == "report"


async def test_another_process_hears_of_a_change_at_once(store: Store, other: Store) -> None:
    heard: list[float] = []

    async def look() -> bool:
        await other.deployments.wait_until_due(SLOT, 0.05)
        heard.append(CLOCK.monotonic_s())
        return bool(await other.deployments.claim(datetime.now(UTC), limit=1, lease_s=10))

    await declared(store)
    await eventually(look)


@pytest.mark.slow
async def test_a_tenant_has_so_many_deployments_and_no_more(store: Store) -> None:
    for name in ("first", "gone"):
        await declared(store, name)
    await store.resources.archive("default", "deployment", "gone", by="key_1")
    await store.database.fetch(
        "filling",
        "INSERT INTO deployments (tenant, name, agent, done_until)"
        " SELECT 'default', 'filler-' || n, 'clerk', now() FROM generate_series(1, $1::int) AS n RETURNING 1",
        DEPLOYMENTS_MAX - 2,
    )
    two = [Deployment(name=name, agent="clerk", messages=("go",)) for name in ("one", "two")]
    with pytest.raises(LimitReached, match=r"expected 100,000 deployments at most .* these would be 100,001"):
        await store.resources.put("default", two, by="key_1")
    await declared(store, "last")
    for refused in ("another", "gone"):
        with pytest.raises(LimitReached):
            await declared(store, refused)
    with pytest.raises(NotFound):
        await store.deployments.get("default", "another")
    await declared(store, "first", title="changed")
    await declared(store, "another", tenant="elsewhere")
    await store.resources.archive("default", "deployment", "last", by="key_1")
    await declared(store, "another")


async def test_deployments_that_were_declared_together_come_in_pages_each_once(store: Store) -> None:
    names = {f"d{number}" for number in range(23)}
    together = [Deployment(name=name, agent="clerk", messages=("go",)) for name in sorted(names)]
    await store.resources.put("default", together, by="key_1")
    found: list[str] = []
    cursor = None
    for _ in range(4):
        page = await store.deployments.list("default", limit=7, cursor=cursor)
        found += [row.deployment.name for row in page.rows]
        cursor = page.next
    assert (len(found), set(found), cursor) == (23, names, None)


async def test_runs_come_in_pages_and_are_forgotten_in_the_end(store: Store) -> None:
    await declared(store, schedule=None)
    row = await store.deployments.get("default", "report")
    old = datetime.now(UTC) - RUNS_KEPT - timedelta(days=1)
    claim = DeploymentClaim(row=row, epoch=0, at_work=False)
    made = []
    for number, at in enumerate((old, *[datetime.now(UTC)] * 4)):
        one = dealt(claim).run
        assert one is not None
        entropy = bytes([number]) * ids.CHANCE_BYTES
        run_id = ids.compose("drun", int(at.timestamp() * 1000), entropy)
        failed = replace(one, id=run_id, slot=None, session_id=None, error_code="x", created_at=at)
        made.append(await store.deployments.run(failed, None, key=None))
    found, cursor = [], None
    while True:
        page = await store.deployments.runs("default", limit=2, cursor=cursor)
        found += page.rows
        cursor = page.next
        if cursor is None:
            break
    assert {run.id for run in found} == {run.id for run in made}
    assert await forget_runs(store.database, at_once=2) == 1
    assert len(await runs(store)) == 4
