"""Kept responses and conversations: written together, read as a chain, run by one at a time, forgotten when theirs is over."""

import asyncio

import pytest
from tests._waiting import within
from tests.store._parts import CLOCK
from tests.store.conftest import Opens

from freehold.core.errors import Conflict, NotFound, TooLarge
from freehold.core.response_facts import ResponseTold
from freehold.core.responses import Conversation, ConversationItem, KeptResponse, ResponseEvents
from freehold.core.session_log import Lease
from freehold.store import _response_reads as module
from freehold.store.retention import PostgresRetention
from freehold.store.store import Store


def kept(number: int, **changes: object) -> KeptResponse:
    fields = {
        "id": f"resp_{number}",
        "tenant": "default",
        "created_by": "key_1",
        "status": "completed",
        "head": b'{"a":%d}' % number,
        "input": b"[%d]" % number,
        "output": b"[-%d]" % number,
    }
    return KeptResponse(**{**fields, **changes})


def later(number: int, **changes: object) -> KeptResponse:
    return kept(number, **{"status": "queued", "output": b"[]", "request": b"{}", **changes})


async def chain(store: Store, length: int) -> None:
    for number in range(length):
        await store.responses.keep(kept(number, previous_id=f"resp_{number - 1}" if number else None))


async def conversation(store: Store, *items: ConversationItem) -> str:
    made = Conversation(
        id="conv_1", tenant="default", created_by="key_1", created_at=CLOCK.now(), metadata=b"{}"
    )
    return (await store.conversations.create(made, items)).id


def item(number: int) -> ConversationItem:
    return ConversationItem(f"msg_{number}", b"{}")


async def test_a_response_is_read_back_as_it_was_by_its_tenant_alone(store: Store) -> None:
    first = kept(1, previous_id="resp_0", conversation_id="conv_1", status="incomplete")
    await store.responses.keep(first)
    assert await store.responses.get("default", "resp_1") == first
    for refused in (
        store.responses.get,
        store.responses.history,
        store.responses.delete,
        store.responses.cancel,
    ):
        with pytest.raises(NotFound):
            await refused("acme", "resp_1")
    await store.responses.delete("default", "resp_1")
    with pytest.raises(NotFound):
        await store.responses.get("default", "resp_1")


async def test_responses_are_found_by_the_items_of_their_output_within_their_tenant(store: Store) -> None:
    await asyncio.gather(
        *(store.responses.keep(kept(n, item_ids=(f"msg_{n}", "msg_shared"))) for n in range(3)),
        store.responses.keep(kept(3)),
    )
    found = await store.responses.with_items("default", ["msg_1", "msg_none"])
    assert [(one.id, one.output) for one in found] == [("resp_1", b"[-1]")]
    assert [one.id for one in await store.responses.with_items("default", ["msg_shared"])] == [
        "resp_2",
        "resp_1",
        "resp_0",
    ]
    assert await store.responses.with_items("acme", ["msg_1"]) == []


async def test_many_that_end_at_once_share_transactions(store: Store) -> None:
    before = store.log.counters.transactions
    await asyncio.gather(*(store.responses.keep(kept(number)) for number in range(200)))
    assert store.log.counters.transactions - before < 20
    assert store.log.counters.creates == 200


async def test_a_chain_is_read_oldest_first_and_each_row_holds_its_own_alone(store: Store) -> None:
    await chain(store, 50)
    found = await store.responses.history("default", "resp_49")
    assert [one.id for one in found] == [f"resp_{number}" for number in range(50)]
    assert [one.input for one in found] == [b"[%d]" % number for number in range(50)]
    assert [one.id for one in await store.responses.history("default", "resp_7")][-1] == "resp_7"


async def test_a_chain_that_is_too_long_or_large_or_broken_is_refused(store: Store, monkeypatch) -> None:
    await chain(store, 5)
    monkeypatch.setattr(module, "CHAIN_MAX", 5)
    assert len(await store.responses.history("default", "resp_4")) == 5
    monkeypatch.setattr(module, "CHAIN_MAX", 4)
    with pytest.raises(TooLarge, match="CHAIN_MAX"):
        await store.responses.history("default", "resp_4")
    monkeypatch.setattr(module, "CHAIN_MAX", 1000)
    monkeypatch.setattr(module, "CHAIN_BYTES_MAX", 34)
    with pytest.raises(TooLarge, match="CHAIN_BYTES_MAX"):
        await store.responses.history("default", "resp_4")
    monkeypatch.setattr(module, "CHAIN_BYTES_MAX", 35)
    await store.responses.delete("default", "resp_2")
    with pytest.raises(NotFound, match="resp_2"):
        await store.responses.history("default", "resp_4")


async def test_one_process_runs_a_response_and_who_is_late_cannot_write(store: Store, other: Store) -> None:
    await store.responses.put_off(later(1, streamed=True), ResponseEvents(0, 2, b"ab"))
    (held,) = await store.log.claim("here", limit=10, lease_s=0.001)
    assert (held.kind, held.session_id) == ("response", "resp_1")
    await store.responses.begin(held)
    found = await store.responses.get("default", "resp_1")
    assert (found.status, found.attempts, found.request) == ("in_progress", 1, b"{}")
    taken = await claimed(other, "there")
    assert await store.log.claim("here", limit=10, lease_s=10) == []
    for late in (
        store.responses.add_events(held, ResponseEvents(2, 1, b"c")),
        store.responses.end(held, found),
        store.responses.hand_back(held),
    ):
        with pytest.raises(Conflict):
            await late
    await other.responses.add_events(taken, ResponseEvents(2, 1, b"c"))
    done = KeptResponse(**{**as_fields(found), "status": "completed", "output": b"[1]"})
    await other.responses.end(taken, done, ResponseEvents(3, 1, b"d"))
    assert await other.log.free_leases() == 0, "it was given back"
    told = [recorded.event for recorded in await store.log.read("resp_1")]
    assert [one.body for one in told if isinstance(one, ResponseTold)] == ["ab", "c", "d"]
    assert await store.responses.told_count("resp_1") == 4
    found = await store.responses.get("default", "resp_1")
    assert (found.status, found.output, found.request) == ("completed", b"[1]", None)
    assert await store.log.claim("here", limit=10, lease_s=10) == []


async def claimed(store: Store, owner: str) -> Lease:
    async with within("a state"):
        while True:
            if found := await store.log.claim(owner, limit=1, lease_s=60):
                return found[0]
            await asyncio.sleep(0.005)


def as_fields(response: KeptResponse) -> dict[str, object]:
    return {name: getattr(response, name) for name in response.__struct_fields__}


async def test_what_happens_to_a_response_is_heard_in_every_process(store: Store, other: Store) -> None:
    await store.responses.put_off(later(1), None)
    async with other.responses.follow("resp_1") as batches:
        assert len(await anext(batches)) == 1
        assert (await store.responses.cancel("default", "resp_1")).status == "cancelled"
        async with within("a state"):
            await anext(batches)
    assert await store.log.claim("here", limit=1, lease_s=60) == []
    assert (await store.responses.cancel("default", "resp_1")).status == "cancelled"


async def test_whoever_runs_a_response_cannot_write_once_it_is_cancelled_or_deleted(store: Store) -> None:
    for end in (store.responses.cancel, store.responses.delete):
        await store.responses.put_off(later(1), None)
        held = await claimed(store, "here")
        await store.responses.begin(held)
        running = await store.responses.get("default", "resp_1")
        await end("default", "resp_1")
        with pytest.raises((Conflict, NotFound)):
            await store.responses.end(held, running)
        if end == store.responses.cancel:
            assert (await store.responses.get("default", "resp_1")).status == "cancelled"
            await store.responses.delete("default", "resp_1")


async def test_a_response_that_was_handed_back_is_anybodys_and_did_not_count(store: Store) -> None:
    await store.responses.put_off(later(1), None)
    held = await claimed(store, "here")
    await store.responses.begin(held)
    await store.responses.hand_back(held)
    await store.log.release(held)
    again = await claimed(store, "there")
    await store.responses.begin(again)
    assert (await store.responses.get("default", "resp_1")).attempts == 1
    assert await store.log.renew("there", [again], lease_s=60) == {"resp_1"}
    assert await store.log.renew("here", [held], lease_s=60) == frozenset()
    assert await store.log.free_leases() == 1
    await store.responses.begin(await claimed(store, "here"))
    assert (await store.responses.get("default", "resp_1")).attempts == 2


async def test_responses_and_conversations_are_listed_by_their_kind_alone(store: Store) -> None:
    await store.responses.keep(kept(1))
    conversation_id = await conversation(store)
    for kind, ids in (("agent", []), ("response", ["resp_1"]), ("conversation", [conversation_id])):
        assert [row.id for row in (await store.log.list("default", kind=kind)).rows] == ids


async def test_what_is_said_again_and_again_is_kept_once(store: Store) -> None:
    large = b'{"id":"msg_1","text":"%s"}' % (b"x" * 10_000)
    conversation_id = await conversation(store)
    for number in range(3):
        one = kept(number, input=b"[%s]" % large, conversation_id=conversation_id)
        await store.responses.keep(one, [ConversationItem(f"msg_{number}", large)])
    assert (await store.responses.get("default", "resp_2")).input == b"[%s]" % large
    assert len(await store.database.fetch("counting", "SELECT FROM blocks")) == 1
    for number in range(3):
        await store.conversations.delete_item("default", conversation_id, f"msg_{number}")
    assert await store.conversations.every("default", conversation_id) == []
    for number in range(3):
        await store.responses.delete("default", f"resp_{number}")
    assert await store.database.fetch("counting", "SELECT FROM blocks") == []
    assert await store.database.fetch("counting", "SELECT FROM items") == []


async def test_what_a_deleted_item_said_is_nowhere_and_the_log_says_that_it_is_gone(store: Store) -> None:
    said = [ConversationItem(name, b'"%s %s"' % (name.encode(), b"y" * 5000)) for name in ("a", "b", "a")]
    conversation_id = await conversation(store, *said)
    await store.conversations.delete_item("default", conversation_id, "a")
    assert await store.conversations.every("default", conversation_id) == said[1:2]
    with pytest.raises(NotFound):
        await store.conversations.item("default", conversation_id, "a")
    kinds = [type(recorded.event).__name__ for recorded in await store.log.read(conversation_id)]
    assert kinds == ["ConversationStarted", "ItemErased", "ItemAdded", "ItemErased", "ItemDeleted"]
    bodies = await store.database.fetch(
        "looking", "SELECT body FROM events UNION ALL SELECT body FROM blocks"
    )
    assert not any(b"a y" in row["body"] for row in bodies)
    await store.conversations.delete("default", conversation_id)
    assert await store.database.fetch("counting", "SELECT FROM items") == []


async def test_a_conversation_is_in_order_whoever_adds_to_it(store: Store, other: Store) -> None:
    conversation_id = await conversation(store, item(0))
    await store.responses.keep(kept(1, conversation_id=conversation_id), [item(1), item(2)])
    await other.conversations.add("default", conversation_id, [item(3), item(4)])
    await asyncio.gather(
        *(
            one.responses.keep(kept(n, conversation_id=conversation_id), [item(n), item(n + 1)])
            for n, one in ((10, store), (20, other), (30, store))
        )
    )
    found = [one.id for one in await store.conversations.every("default", conversation_id)]
    assert found[:5] == [f"msg_{number}" for number in range(5)]
    assert sorted(found[5::2]) == ["msg_10", "msg_20", "msg_30"]
    assert [int(one[4:]) + 1 for one in found[5::2]] == [int(one[4:]) for one in found[6::2]]
    page = await store.conversations.page(
        "default", conversation_id, after="msg_2", limit=2, newest_first=False
    )
    assert ([one.id for one in page.items], page.more) == (["msg_3", "msg_4"], True)
    page = await store.conversations.page(
        "default", conversation_id, after="msg_2", limit=2, newest_first=True
    )
    assert ([one.id for one in page.items], page.more) == (["msg_1", "msg_0"], False)


async def test_a_conversation_belongs_to_its_tenant(store: Store) -> None:
    conversation_id = await conversation(store, item(0))
    conversations = store.conversations
    for refused in (
        conversations.get("acme", conversation_id),
        conversations.update("acme", conversation_id, b"{}"),
        conversations.delete("acme", conversation_id),
        conversations.add("acme", conversation_id, [item(1)]),
        conversations.every("acme", conversation_id),
        conversations.item("acme", conversation_id, "msg_0"),
        conversations.delete_item("acme", conversation_id, "msg_0"),
        conversations.page("acme", conversation_id, after=None, limit=1, newest_first=True),
    ):
        with pytest.raises(NotFound):
            await refused
    assert [one.id for one in await conversations.every("default", conversation_id)] == ["msg_0"]


async def test_old_responses_are_forgotten_unless_a_younger_one_builds_on_them(store: Store) -> None:
    await chain(store, 4)
    await store.responses.keep(kept(9))
    await conversation(store)
    await store.database.fetch(
        "ageing", "UPDATE sessions SET due_at = now() - interval '31 days' WHERE id <> 'resp_3'"
    )
    assert await forgotten(store.retention) == 1
    assert len(await store.responses.history("default", "resp_3")) == 4
    await store.database.fetch("ageing", "UPDATE sessions SET due_at = now() - interval '31 days'")
    assert await forgotten(store.retention) == 4
    assert (await store.conversations.get("default", "conv_1")).id == "conv_1"


async def forgotten(retention: PostgresRetention) -> int:
    count = 0
    while gone := await retention.delete_due("default", default_days=None):
        count += sum(one.deleted for one in gone)
    return count


async def test_what_waits_to_be_kept_is_told_when_the_server_stops(opened: Opens) -> None:
    async with opened("here") as store:
        waiting = asyncio.gather(
            *(store.responses.keep(kept(number)) for number in range(600)), return_exceptions=True
        )
        await asyncio.sleep(0)
    async with within("all to be told"):
        told = await waiting
    assert all(one is None or "is not known" in str(one) for one in told)
