"""Deliveries of webhooks as kept: who may claim them, how many at once, and what a process that died leaves behind."""

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from freehold.core.resources import Agent
from freehold.core.webhooks import Again, Dead, Delivered, Webhook
from freehold.store._housekeeping import DELETED_MAX
from freehold.store.blobs import open_objects
from freehold.store.store import Store, open_store
from freehold.store.webhooks import ENDPOINT_AT_ONCE_MAX, TENANT_AT_ONCE_MAX, forget


@pytest.fixture
async def store(database_url: str, tmp_path) -> AsyncIterator[Store]:
    objects = open_objects(str(tmp_path), {})
    async with open_store(database_url, objects=objects, process_id="test") as opened:
        yield opened


async def told(store: Store, tenant: str, names: list[str], count: int) -> None:
    """`count` deliveries for each webhook."""
    hooks = [Webhook(name=name, url="https://x.example.com", events=("agent.created",)) for name in names]
    await store.resources.put(tenant, hooks, by="test")
    agents = [Agent(name=f"agent-{number}") for number in range(count)]
    await store.resources.put(tenant, agents, by="test")


async def test_none_has_more_than_its_share_at_once(store: Store) -> None:
    await told(store, "crowd", [f"hook-{number}" for number in range(8)], 6)
    await told(store, "lone", ["hook"], 2)
    claimed = await store.webhooks.claim("one", limit=100, lease_s=30)
    by_tenant = Counter(one.delivery.tenant for one in claimed)
    assert by_tenant == {"crowd": TENANT_AT_ONCE_MAX, "lone": 2}
    by_hook = Counter(one.delivery.endpoint for one in claimed if one.delivery.tenant == "crowd")
    assert max(by_hook.values()) <= ENDPOINT_AT_ONCE_MAX
    assert len(by_hook) == 8
    assert await store.webhooks.claim("other", limit=100, lease_s=30) == []
    await store.webhooks.settle(claimed[0], "one", Delivered(200))
    assert len(await store.webhooks.claim("other", limit=100, lease_s=30)) == 1


async def test_what_a_dead_process_held_is_claimed_by_another_and_its_word_comes_too_late(
    store: Store,
) -> None:
    await told(store, "acme", ["hook"], 1)
    [first] = await store.webhooks.claim("dead", limit=10, lease_s=0)
    [second] = await store.webhooks.claim("alive", limit=10, lease_s=30)
    assert (second.delivery.event_id, second.delivery.attempts) == (first.delivery.event_id, 2)
    await store.webhooks.settle(first, "dead", Dead("late", 500, disable="late"))
    assert (await store.webhooks.get("acme", "hook")).disabled_at is None
    await store.webhooks.settle(second, "alive", Delivered(200))
    page = await store.webhooks.deliveries("acme", "hook", status="delivered", limit=10, before=None)
    assert [one.event_id for one in page.deliveries] == [first.delivery.event_id]


async def test_what_waits_to_be_tried_again_is_not_due_and_no_other_tenant_sees_it(store: Store) -> None:
    await told(store, "acme", ["hook"], 1)
    [one] = await store.webhooks.claim("one", limit=10, lease_s=30)
    await store.webhooks.settle(one, "one", Again(3600, "it answered 500", 500))
    assert await store.webhooks.claim("one", limit=10, lease_s=30) == []
    row = await store.webhooks.get("acme", "hook")
    assert row.failing_since is not None
    assert row.pending_count == 1
    others = await store.webhooks.deliveries("other", "hook", status=None, limit=10, before=None)
    assert others.deliveries == ()
    assert await forget(store.database, at_once=DELETED_MAX) == 0


async def test_sessions_are_watched_only_once_a_webhook_is_declared(store: Store) -> None:
    triggers = (
        "SELECT count(*) AS count FROM pg_trigger WHERE tgrelid = 'sessions'::regclass AND NOT tgisinternal"
    )
    assert (await store.database.fetch("looking", triggers))[0]["count"] == 0
    await told(store, "acme", ["hook"], 0)
    assert (await store.database.fetch("looking", triggers))[0]["count"] == 4
