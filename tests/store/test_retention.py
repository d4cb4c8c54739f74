"""How long sessions are kept, by class: what keeps one longest decides, a hold goes before all, and what people decided outlives it."""

import pytest
from tests.store._parts import IDLE, begun, said
from tests.store.test_deletions import age

from freehold.core.errors import Conflict
from freehold.core.messages import Text
from freehold.core.retention import Retention
from freehold.core.session import (
    ApprovalDecided,
    AwaitsApproval,
    AwaitsClient,
    CallAwaited,
    SessionWaits,
    ToolFinished,
    ToolStarted,
)
from freehold.store.store import Store

LARGE = '{"note": "%s"}' % ("a large argument " * 1000)
ASKED = CallAwaited(
    call_id="c1",
    awaits=AwaitsApproval(tool="bank", version=2, function="pay", arguments=LARGE, binding="b", quorum=2),
)
DECIDED = ApprovalDecided(call_id="c1", binding="b", allow=True, by="key_ann", reason="fine")
RAN = ToolStarted(call_id="c1", tool="bank", function="pay", arguments=LARGE, effect="irreversible", key="k")
OTHER = ToolStarted(call_id="c2", tool="bank", function="look", arguments="{}", effect="pure", key="k2")
ENDED = ToolFinished(call_id="c1", content=(Text("paid"),))


async def declare(store: Store, *policies: Retention) -> None:
    await store.resources.put("default", policies, by="test")


async def aged(store: Store, url: str, days: int, *events, **changes) -> str:
    row = await begun(store.log, said("hello"), *events, IDLE, **changes)
    await age(url, row.id, days)
    return row.id


async def deleted(store: Store, *, default_days: float | None = None) -> dict[str, int]:
    counts: dict[str, int] = {}
    while gone := await store.retention.delete_due("default", default_days=default_days):
        for one in gone:
            counts[one.policy] = counts.get(one.policy, 0) + one.deleted
    return counts


async def there(store: Store) -> set[str]:
    return {row.id for row in (await store.log.list("default", archived=True)).rows}


async def test_what_keeps_a_session_longest_decides(store: Store, store_url: str) -> None:
    await declare(
        store,
        Retention(name="short", days=5),
        Retention(name="shop", agents=("shop",), days=20),
        Retention(name="gold", metadata={"tier": "gold"}, days=40),
    )
    plain = await aged(store, store_url, 10)
    shop = await aged(store, store_url, 10, agent="shop")
    old_shop = await aged(store, store_url, 30, agent="shop")
    gold = await aged(store, store_url, 30, agent="shop", metadata={"tier": "gold", "x": "y"})
    fresh = await aged(store, store_url, 1)
    survey = {
        one.policy: (one.sessions, one.due) for one in await store.retention.survey("default", default_days=1)
    }
    assert survey == {"": (0, 0), "short": (2, 1), "shop": (2, 1), "gold": (1, 0)}
    assert dict(await store.retention.due("default", default_days=1, limit=10)) == {
        plain: "short",
        old_shop: "shop",
    }
    assert await deleted(store, default_days=1) == {"short": 1, "shop": 1}
    assert await there(store) == {shop, gold, fresh}


@pytest.mark.slow
async def test_where_no_policy_matches_the_configuration_decides(store: Store, store_url: str) -> None:
    await declare(store, Retention(name="shop", agents=("shop",), days=1))
    other = await aged(store, store_url, 10)
    assert await deleted(store, default_days=None) == {}
    assert await there(store) == {other}
    assert await deleted(store, default_days=9) == {"": 1}


async def test_classes_go_by_status_and_what_works_or_waits_is_no_class_of_them(
    store: Store, store_url: str
) -> None:
    await declare(store, Retention(name="archived", statuses=("archived",), days=1))
    idle, archived = await aged(store, store_url, 10), await aged(store, store_url, 10)
    await store.log.archive("default", archived)
    busy = (await begun(store.log, said("go"))).id
    await age(store_url, busy, 10)
    assert await deleted(store) == {"archived": 1}
    assert await there(store) == {idle, busy}


async def test_a_hold_goes_before_all_also_before_people(store: Store, store_url: str) -> None:
    await declare(
        store, Retention(name="short", days=1), Retention(name="lawsuit", metadata={"case": "7"}, hold=True)
    )
    held = await aged(store, store_url, 100, metadata={"case": "7"})
    assert await deleted(store, default_days=1) == {}
    with pytest.raises(Conflict, match="held by the retention policy lawsuit"):
        await store.log.delete("default", held)
    await store.resources.archive("default", "retention", "lawsuit", by="test")
    assert await deleted(store) == {"short": 1}


@pytest.mark.parametrize("by_hand", [False, True])
async def test_what_people_decided_outlives_its_session(store: Store, store_url: str, by_hand: bool) -> None:
    await declare(store, Retention(name="audited", days=5, evidence_days=365))
    gone = await aged(store, store_url, 10, ASKED, DECIDED, RAN, OTHER, ENDED)
    if by_hand:
        await store.log.delete("default", gone)
    else:
        [one] = await store.retention.delete_due("default", default_days=None)
        assert (one.deleted, one.evidence) == (1, 3)
    await store.retention.sweep()
    kept = await store.retention.evidence("default", session_id=gone, limit=10)
    assert [one.recorded.event for one in kept] == [ASKED, DECIDED, RAN]
    assert {one.agent for one in kept} == {"retail"}
    assert await store.retention.evidence("other", session_id=gone, limit=10) == []
    assert await store.retention.forget_evidence() == 0


@pytest.mark.slow
async def test_evidence_goes_when_its_own_time_is_over(store: Store, store_url: str) -> None:
    await declare(store, Retention(name="audited", days=5, evidence_days=0))
    await aged(store, store_url, 10, ASKED, DECIDED)
    await deleted(store)
    assert await store.retention.forget_evidence() == 2
    assert await store.retention.evidence("default", session_id=None, limit=10) == []


async def test_those_that_wait_too_long_are_found_by_their_own_time(store: Store, store_url: str) -> None:
    await declare(
        store,
        Retention(name="all", waiting_days=0),
        Retention(name="patient", agents=("shop",), waiting_days=30),
    )
    waits = SessionWaits(why="calls", calls=(CallAwaited(call_id="c", awaits=AwaitsClient()),))
    row = await begun(store.log, said("go"), waits)
    await begun(store.log, said("go"), waits, agent="shop")
    [found] = await store.retention.waiting_due("default", limit=10)
    assert (found.session_id, found.policy, found.version) == (row.id, "all", 3)


@pytest.mark.slow
async def test_a_sessions_large_texts_go_with_it(store: Store, store_url: str) -> None:
    await declare(store, Retention(name="short", days=1, evidence_days=10))
    await aged(store, store_url, 10, ASKED, DECIDED, RAN)
    await deleted(store)
    await store.retention.sweep()
    rows = await store.database.fetch(
        "counting", "SELECT (SELECT count(*) FROM blocks) + (SELECT count(*) FROM events) AS n"
    )
    assert rows[0]["n"] == 0
