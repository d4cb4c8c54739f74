"""Events from outside that nobody waits for yet: how long and how many are kept, for whom, and that none falls between two transactions."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from tests.store._parts import begun, said

from freehold.core.errors import RateLimited
from freehold.core.outside import EARLY_MAX, Expectation
from freehold.store import outside_events
from freehold.store.store import Store

PAID = "payment.settled"


async def expects(store: Store, about: str, *, tenant: str = "default", call_id: str = "c") -> str:
    """A session's call that waits for a payment. Its token's digest."""
    session_id = (await begun(store.log, said("go"))).id
    await store.expected_events.expect(
        Expectation(
            tenant=tenant,
            session_id=session_id,
            call_id=call_id,
            tool="payment",
            event=PAID,
            correlation=about,
            until=datetime.now(UTC) + timedelta(hours=1),
            token_digest=session_id,
        )
    )
    return session_id


async def given(store: Store) -> dict[str, str]:
    return {one.token_digest: one.payload for one in await store.expected_events.untold(limit=64)}


async def test_a_kept_event_is_its_tenants_and_is_about_what_it_is_about(store: Store) -> None:
    kept = store.expected_events
    assert (await kept.send("default", PAID, "1", '"yes"')).kept_until is not None
    other = await expects(store, "2")
    elsewhere = await expects(store, "1", tenant="elsewhere")
    mine = await expects(store, "1")
    assert await given(store) == {mine: '"yes"'}
    assert other != elsewhere


async def test_an_event_whose_hour_is_over_is_kept_no_longer(store: Store) -> None:
    kept = store.expected_events
    await kept.send("default", PAID, "1", '"old"')
    await store.database.fetch("ageing", "UPDATE early_events SET kept_until = now() - interval '1 second'")
    await expects(store, "1")
    assert await given(store) == {}
    await kept.send("default", PAID, "2", '"old"')
    await store.database.fetch("ageing", "UPDATE early_events SET kept_until = now() - interval '1 second'")
    anew = await kept.send("default", PAID, "2", '"new"')
    assert (anew.repeated_count, anew.kept_until is not None) == (0, True)
    assert await outside_events.forget(store.database, at_once=10) == 1
    mine = await expects(store, "2")
    assert await given(store) == {mine: '"new"'}


async def test_no_more_are_kept_than_may_be_and_other_tenants_are_not_held_up(store: Store) -> None:
    await store.database.fetch(
        "filling",
        "INSERT INTO early_events SELECT 'default', 'x', n::text, '1', now() + interval '1 hour'"
        " FROM generate_series(1, $1::int) AS n RETURNING 1",
        EARLY_MAX,
    )
    with pytest.raises(
        RateLimited, match="nobody waits for this event yet, and 10000 such are kept"
    ) as refused:
        await store.expected_events.send("default", PAID, "1", "1")
    assert refused.value.retry_after_s
    assert (await store.expected_events.send("elsewhere", PAID, "1", "1")).kept_until is not None
    await expects(store, "2")
    assert (await store.expected_events.send("default", PAID, "2", "1")).received_count == 1


async def test_an_event_that_comes_while_somebody_begins_to_wait_is_never_lost(store: Store) -> None:
    for number in range(25):
        about = f"race-{number}"
        sent, mine = await asyncio.gather(
            store.expected_events.send("default", PAID, about, f'"{number}"'), expects(store, about)
        )
        assert (await given(store)).get(mine) == f'"{number}"', sent
