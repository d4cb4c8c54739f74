"""API keys as kept: by digest, revoked once, and changes heard in every process."""

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from tests._waiting import within
from tests.store._parts import CLOCK

from freehold.core import ids
from freehold.core.errors import Conflict, NotFound
from freehold.core.policy import ALLOW_ALL, Policy, Statement
from freehold.core.ports import KeyRow
from freehold.store.store import Store

AT = datetime(2026, 1, 1, 12, 30, 0, 123456, tzinfo=UTC)


def key(tenant: str = "default", **changes) -> KeyRow:
    row = KeyRow(
        id=ids.new("key", CLOCK),
        tenant=tenant,
        name="ci",
        digest=CLOCK.entropy(32),
        policy=ALLOW_ALL,
        created_at=AT,
    )
    return msgspec.structs.replace(row, **changes)


async def test_keys_are_listed_as_they_were_added_by_tenant_or_all(store: Store) -> None:
    policy = Policy(
        statement=(Statement("Allow", ("model:Call", "session:*"), "model/*", sid="one"),), id="p"
    )
    mine = key(policy=policy, expires_at=AT + timedelta(days=1), last_used_at=AT)
    theirs = key("acme")
    await store.keys.add(mine)
    await store.keys.add(theirs)
    assert await store.keys.list("default") == [mine]
    assert await store.keys.list("acme") == [theirs]
    assert {one.id for one in await store.keys.list(None)} == {mine.id, theirs.id}


async def test_a_digest_is_there_once(store: Store) -> None:
    first = key()
    await store.keys.add(first)
    with pytest.raises(Conflict):
        await store.keys.add(key(digest=first.digest))
    with pytest.raises(Conflict):
        await store.keys.add(msgspec.structs.replace(key(), id=first.id))


async def test_revoking_is_idempotent_and_within_the_tenant(store: Store) -> None:
    row = key()
    await store.keys.add(row)
    with pytest.raises(NotFound):
        await store.keys.revoke("acme", row.id)
    first = await store.keys.revoke("default", row.id)
    assert first.revoked_at is not None
    assert await store.keys.revoke("default", row.id) == first
    assert await store.keys.list("default") == [first]


@pytest.mark.parametrize("where", ["here", "there"])
async def test_changes_are_heard_in_every_process(store: Store, other: Store, where: str) -> None:
    hearing = store if where == "here" else other
    row = key()
    for change in (lambda: store.keys.add(row), lambda: store.keys.revoke("default", row.id)):
        waiting = asyncio.create_task(hearing.keys.changed(60))
        await asyncio.sleep(0)
        await change()
        async with within("the change"):
            await waiting


async def test_waiting_for_a_change_ends_after_its_time(store: Store) -> None:
    async with within("the end of its time"):
        await store.keys.changed(0.01)
