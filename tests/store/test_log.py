"""The log's contract: what is appended is there, in order, once; a refused append leaves no trace."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store._parts import (
    CANCEL,
    CANCELLED,
    IDLE,
    LONG_AGO,
    STARTED,
    answered,
    begun,
    claimed,
    new_row,
    said,
    texts,
)

from freehold.core.errors import BadRequest, Conflict, NotFound, TooLarge
from freehold.core.messages import Bytes, Media, Raw, Text, Usage
from freehold.core.session import ModelFailed, ToolFinished, UserSpoke
from freehold.core.session_log import Lease
from freehold.store._events import APPEND_BYTES_MAX
from freehold.store.store import Store


async def test_a_new_session_is_read_back_as_it_was_made(store: Store) -> None:
    row = new_row(title="Stock", model="openai/gpt-5", metadata={"ü": "\"'"}, created_by="user/ann")
    made = await store.log.create(row, [STARTED, said("why?")])
    assert made == await store.log.get("default", row.id)
    assert (made.status, made.version, made.title, made.metadata, made.created_by, made.model) == ((
        "running",
        2,
        "Stock",
        {"ü": "\"'"},
        "user/ann",
        "openai/gpt-5",
    ))
    assert made.created_at > LONG_AGO, "time is the database's"
    assert [one.event for one in await store.log.read(row.id)] == [STARTED, said("why?")]


async def test_appends_follow_each_other_without_gaps_and_move_the_row(store: Store) -> None:
    row = await begun(store.log)
    assert await store.log.append(row.id, [said("a"), said("b")]) == 3
    assert await store.log.append(row.id, [answered("c", tokens=7, cost_pico=10**15), IDLE]) == 5
    events = await store.log.read(row.id)
    assert [one.seq for one in events] == [1, 2, 3, 4, 5]
    assert [one.at for one in events] == sorted(one.at for one in events)
    after = await store.log.get("default", row.id)
    assert (after.status, after.version, after.cost_pico) == ("idle", 5, 10**15)
    assert after.usage == Usage(input_tokens=7, output_tokens=7)


async def test_usage_and_cost_add_up_over_appends(store: Store) -> None:
    row = await begun(store.log)
    failed = ModelFailed(
        seen_seq=1, model="m", code="timed_out", message="", usage=Usage(output_tokens=3, estimated=True)
    )
    await asyncio.gather(
        *(store.log.append(row.id, [answered("x", tokens=2, cost_pico=5)]) for _ in range(20))
    )
    await store.log.append(row.id, [failed, ToolFinished(call_id="c", content=(), cost_pico=1)])
    after = await store.log.get("default", row.id)
    assert after.usage == Usage(input_tokens=40, output_tokens=43, estimated=True)
    assert after.cost_pico == 101


async def test_a_page_of_a_log_begins_after_the_last_seen(store: Store) -> None:
    row = await begun(store.log, *(said(str(number)) for number in range(9)))
    assert texts(await store.log.read(row.id, after=4, limit=3)) == ["3", "4", "5"]
    assert await store.log.read(row.id, after=10) == []
    with pytest.raises(BadRequest, match="limit"):
        await store.log.read(row.id, limit=1001)


async def test_an_unexpected_version_is_refused_and_leaves_no_trace(store: Store) -> None:
    row = await begun(store.log)
    for wrong in (0, 2, 99):
        with pytest.raises(Conflict, match=f"expected to hold {wrong} events and holds 1"):
            await store.log.append(row.id, [said("no")], expected_version=wrong)
    assert await store.log.append(row.id, [said("yes")], expected_version=1) == 2
    assert texts(await store.log.read(row.id)) == ["yes"]


async def test_of_fifty_racing_appends_with_one_expectation_one_wins(store: Store, other: Store) -> None:
    row = await begun(store.log)
    results = await asyncio.gather(
        *(
            (store if number % 2 else other).log.append(row.id, [said(str(number))], expected_version=1)
            for number in range(50)
        ),
        return_exceptions=True,
    )
    assert [result for result in results if isinstance(result, int)] == [2]
    assert sum(isinstance(result, Conflict) for result in results) == 49
    assert len(await store.log.read(row.id)) == 2


async def test_a_chain_of_appends_waiting_together_keeps_its_order(store: Store) -> None:
    row = await begun(store.log)
    results = await asyncio.gather(
        *(store.log.append(row.id, [said(str(number))], expected_version=number + 1) for number in range(100))
    )
    assert results == list(range(2, 102))
    assert texts(await store.log.read(row.id)) == [str(number) for number in range(100)]


async def test_a_wrong_expectation_is_not_saved_by_the_one_behind_it(store: Store) -> None:
    """Both wait in one group; the second would be right only if the first had been written."""
    row = await begun(store.log)
    results = await asyncio.gather(
        store.log.append(row.id, [said("wrong")], expected_version=99),
        store.log.append(row.id, [said("after it")], expected_version=2),
        store.log.append(row.id, [said("fine")]),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [Conflict, Conflict, int]
    assert texts(await store.log.read(row.id)) == ["fine"]


async def test_one_wrong_append_does_not_hurt_those_beside_it(store: Store) -> None:
    rows = [await begun(store.log) for _ in range(10)]
    wrong = rows[4]
    results = await asyncio.gather(
        *(store.log.append(row.id, [said("x")], expected_version=7 if row is wrong else 1) for row in rows),
        store.log.append("sess_nobody", [said("x")]),
        store.log.append("sess_\x00", [said("x")]),
        store.log.append(wrong.id, [said("y")]),
        return_exceptions=True,
    )
    assert [type(result) for result in results[10:]] == [NotFound, BadRequest, int]
    assert isinstance(results[4], Conflict)
    assert results[:4] + results[5:10] == [2] * 9
    assert texts(await store.log.read(wrong.id)) == ["y"]


async def test_a_cancelled_session_takes_nothing_more(store: Store) -> None:
    row = await begun(store.log)
    results = await asyncio.gather(
        store.log.append(row.id, [CANCEL, CANCELLED]),
        store.log.append(row.id, [said("late")]),
        return_exceptions=True,
    )
    assert results[0] == 3
    assert isinstance(results[1], Conflict)
    with pytest.raises(Conflict, match="cancelled for good"):
        await store.log.append(row.id, [said("later")])
    assert (await store.log.get("default", row.id)).status == "cancelled"


async def test_a_repeated_append_with_its_key_gives_the_first_result(store: Store, other: Store) -> None:
    row = await begun(store.log)
    results = await asyncio.gather(
        *(
            (store if number % 2 else other).log.append(row.id, [said("once")], idempotency_key="k")
            for number in range(20)
        )
    )
    assert set(results) == {2}
    await store.log.append(row.id, [said("between")])
    assert await other.log.append(row.id, [said("once")], idempotency_key="k", expected_version=77) == 2
    assert texts(await store.log.read(row.id)) == ["once", "between"]


async def test_a_key_is_remembered_even_when_the_session_was_cancelled_since(store: Store) -> None:
    row = await begun(store.log)
    await store.log.append(row.id, [said("hi")], idempotency_key="k")
    await store.log.append(row.id, [CANCELLED])
    assert await store.log.append(row.id, [said("hi")], idempotency_key="k") == 2


async def test_a_key_belongs_to_its_session(store: Store) -> None:
    first, second = await begun(store.log), await begun(store.log)
    results = await asyncio.gather(
        *(store.log.append(row.id, [said("x")], idempotency_key="same") for row in (first, second))
    )
    assert results == [2, 2]


async def test_a_refused_append_does_not_use_up_its_key(store: Store) -> None:
    row = await begun(store.log)
    with pytest.raises(Conflict):
        await store.log.append(row.id, [said("x")], idempotency_key="k", expected_version=9)
    assert await store.log.append(row.id, [said("x")], idempotency_key="k", expected_version=1) == 2


async def test_creating_twice_with_one_key_makes_one_session_a_tenant(store: Store, other: Store) -> None:
    made = await asyncio.gather(
        *(
            (store if number % 2 else other).log.create(new_row(), [STARTED], idempotency_key="k")
            for number in range(20)
        )
    )
    assert len({row.id for row in made}) == 1
    elsewhere = await store.log.create(new_row(tenant="acme"), [STARTED], idempotency_key="k")
    assert elsewhere.id != made[0].id
    assert [row.id for row in (await store.log.list("default")).rows] == [made[0].id]


async def test_an_id_that_is_taken_is_refused(store: Store) -> None:
    row = new_row()
    results = await asyncio.gather(
        store.log.create(row, [STARTED]),
        store.log.create(row, [STARTED, said("again")]),
        return_exceptions=True,
    )
    assert isinstance(results[1], Conflict)
    assert len(await store.log.read(row.id)) == 1


async def test_another_tenant_sees_nothing(store: Store) -> None:
    row = await begun(store.log, tenant="acme")
    with pytest.raises(NotFound):
        await store.log.get("default", row.id)
    assert (await store.log.list("default")).rows == ()


async def test_sessions_are_listed_newest_first_page_by_page(store: Store) -> None:
    rows = [await begun(store.log, agent="even" if number % 2 == 0 else "odd") for number in range(7)]
    ids = sorted((row.id for row in rows), reverse=True)
    seen, cursor = [], None
    while True:
        page = await store.log.list("default", limit=3, cursor=cursor)
        seen += [row.id for row in page.rows]
        cursor = page.next
        if cursor is None:
            break
    assert seen == ids
    assert len((await store.log.list("default", agent="even")).rows) == 4
    await store.log.append(rows[1].id, [said("go")])
    assert [row.id for row in (await store.log.list("default", statuses=["running"])).rows] == [rows[1].id]
    with pytest.raises(BadRequest, match="limit"):
        await store.log.list("default", limit=0)


async def test_an_append_of_nothing_or_of_too_much_is_refused_by_name(store: Store) -> None:
    row = await begun(store.log)
    with pytest.raises(BadRequest, match="events"):
        await store.log.append(row.id, [])
    with pytest.raises(TooLarge, match=str(APPEND_BYTES_MAX)):
        await store.log.append(row.id, [said("x" * (APPEND_BYTES_MAX + 1))])
    with pytest.raises(BadRequest, match="surrogate"):
        await store.log.append(row.id, [said("\ud800")])
    with pytest.raises(BadRequest, match="idempotency_key"):
        await store.log.append(row.id, [said("x")], idempotency_key="")
    with pytest.raises(BadRequest, match="lease"):
        await store.log.append(row.id, [said("x")], lease=Lease("sess_other", "default", "w", 1))
    assert (await store.log.get("default", row.id)).version == 1


async def test_a_large_event_goes_through(store: Store) -> None:
    row = await begun(store.log)
    image = Media("image", "image/png", Bytes(bytes(range(256)) * 20_000))
    await store.log.append(row.id, [UserSpoke(content=(image,))])
    assert (await store.log.read(row.id))[1].event == UserSpoke(content=(image,))


@pytest.mark.slow
async def test_overlapping_batches_of_two_processes_never_deadlock(store: Store, other: Store) -> None:
    """Rows must be locked in one order everywhere, whatever order the appends came in and whatever the planner thinks."""
    rows = [await begun(store.log) for _ in range(40)]
    for _ in range(20):
        await asyncio.gather(
            *(store.log.append(row.id, [said("here")]) for row in rows),
            *(other.log.append(row.id, [said("there")]) for row in reversed(rows)),
        )
    assert store.log.counters.retries == other.log.counters.retries == 0
    assert {(await store.log.get("default", row.id)).version for row in rows} == {41}


@given(data=st.data())
async def test_any_text_and_raw_json_come_back_byte_for_byte(store: Store, data: st.DataObject) -> None:
    text = data.draw(st.text(st.characters(exclude_categories=["Cs"])))
    number = data.draw(st.sampled_from([b"1.0", b"1e400", b"-0", b'{"b":1,"a":1,"b":2}', b'"\\u0000"']))
    event = UserSpoke(content=(Text(text, extra={"openai_chat": {"x": Raw(number)}}),), by=text)
    row = await begun(store.log, event)
    read = (await store.log.read(row.id))[1].event
    assert read == event
    assert bytes(read.content[0].extra["openai_chat"]["x"]) == number


async def test_closing_writes_what_waits(opened, other: Store) -> None:
    row = await begun(other.log)
    async with opened("brief") as brief:
        waiting = [asyncio.create_task(brief.log.append(row.id, [said(str(number))])) for number in range(20)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*waiting) == list(range(2, 22))
    with pytest.raises(Exception, match="closing"):
        await brief.log.append(row.id, [said("late")])


async def test_a_caller_that_gives_up_does_not_disturb_the_batch(store: Store) -> None:
    row = await begun(store.log)
    appends = [asyncio.create_task(store.log.append(row.id, [said(str(number))])) for number in range(10)]
    await asyncio.sleep(0)
    for append in appends[::2]:
        append.cancel()
    results = await asyncio.gather(*appends, return_exceptions=True)
    assert results[1::2] == [3, 5, 7, 9, 11]
    assert (await claimed(store.log)).session_id == row.id
