"""Records of calls: written behind the call's back, in batches, each once."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import msgspec
import pytest
from tests._waiting import eventually

from freehold.core.errors import BadRequest
from freehold.core.messages import Usage
from freehold.core.records import CallRecord
from freehold.store import records as records_module
from freehold.store import spool
from freehold.store.store import Store


def record(number: int, **changes) -> CallRecord:
    fields = {
        "id": f"call_{number:06}",
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "tenant": "default",
        "principal": "user/ann",
        "wire": "openai_chat",
        "model_requested": "auto",
        "provider": "p",
        "model": "m",
        "outcome": "ok",
    }
    return CallRecord(**{**fields, **changes})


async def test_a_record_is_read_back_as_it_was(store: Store) -> None:
    full = record(
        1,
        usage=Usage(1, 2, 3, 4, 5, 6, 7, 8, estimated=True),
        cost_pico=10**15,
        currency="EUR",
        priced=False,
        duration_ms=1.5,
        first_event_ms=0.25,
        streamed=True,
        session_id="sess_1",
        agent="retail",
        key_id="key_1",
        organisation="acme",
        team="search",
        user="ann",
        labels={"project": "x", "ümlaut": "y"},
        route="cheap",
        reason="the cheapest that fits",
        attempts=3,
        region="eu",
        cached="exact",
        price_source="book:contract",
    )
    store.records.add(full)
    store.records.add(record(2))
    await store.records.flush()
    assert await store.records.list("default") == [record(2), full]
    assert await store.records.list("default", session_id="sess_1") == [full]
    assert await store.records.list("acme") == []


async def test_records_of_one_batch_keep_what_they_share_and_what_they_do_not(store: Store) -> None:
    """Nulls beside values, in every order, where the next record has the same or another."""
    given = [
        record(1, first_event_ms=None, agent="a", session_id=None),
        record(2, first_event_ms=2.0, agent="a", session_id="sess_1", usage=Usage(7, 1)),
        record(3, first_event_ms=None, agent="a", session_id=None, priced=False),
        record(4, first_event_ms=2.0, agent="a", session_id=None, cost_pico=5),
    ]
    for number, batch in enumerate((given, given[1:], given[::-1], given[:1])):
        renamed = [
            msgspec.structs.replace(one, tenant=f"t{number}", id=f"{one.id}_{number}") for one in batch
        ]
        for one in renamed:
            store.records.add(one)
        await store.records.flush()
        read = await store.records.list(f"t{number}")
        assert sorted(read, key=lambda one: one.id) == sorted(renamed, key=lambda one: one.id)


async def test_records_arrive_without_anyone_flushing(store: Store) -> None:
    store.records.add(record(1))

    async def there() -> bool:
        return len(await store.records.list("default")) == 1

    await eventually(there)


async def test_a_record_that_comes_twice_is_kept_once(store: Store) -> None:
    for _ in range(3):
        store.records.add(record(1))
        await store.records.flush()
    store.records.add(record(2))
    store.records.add(record(2))
    await store.records.flush()
    assert len(await store.records.list("default")) == 2


async def test_many_records_go_in_batches(store: Store) -> None:
    for number in range(1700):
        store.records.add(record(number))
    await store.records.flush()
    assert store.records.waiting_count == 0
    assert len(await store.records.list("default", limit=1000)) == 1000


async def test_records_that_are_being_written_still_wait(store: Store, store_url: str) -> None:
    connection = await asyncpg.connect(store_url)

    async def is_held_up() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

    async with connection.transaction():
        await connection.execute("LOCK TABLE freehold.call_records IN ACCESS EXCLUSIVE MODE")
        for number in range(3):
            store.records.add(record(number))
        await eventually(is_held_up)
        assert store.records.waiting_count == 3
    await store.records.flush()
    assert store.records.waiting_count == 0
    await connection.close()


async def test_flushes_at_once_write_each_record_once(store: Store) -> None:
    for number in range(900):
        store.records.add(record(number))
    await asyncio.gather(*(store.records.flush() for _ in range(5)))
    assert len(await store.records.list("default", limit=1000)) == 900


async def test_one_record_that_cannot_be_kept_does_not_hold_up_the_others(store: Store) -> None:
    for number in range(20):
        store.records.add(record(number, cost_pico=2**64 if number == 7 else 1))
    await store.records.flush()
    assert len(await store.records.list("default")) == 19
    assert (store.records.waiting_count, store.records.dropped_count) == (0, 1)
    assert "dropped" in (store.records.trouble or "")


@pytest.mark.parametrize("text", ["\0 in the middle", "half a pair \ud800", "long " * 50_000])
async def test_a_text_that_neither_disk_nor_database_can_hold_is_mended(store: Store, text: str) -> None:
    store.records.add(record(1, model_requested=text, labels={"a": "\0"}))
    await store.records.flush()
    (kept,) = await store.records.list("default")
    assert kept.model_requested[:4] == text[:4].replace("\0", "\ufffd")
    assert store.records.dropped_count == 0


async def test_what_memory_does_not_hold_waits_on_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "HELD_MAX", 10)
    for number in range(25):
        store.records.add(record(number))
    assert (store.records.waiting_count, store.records.dropped_count) == (25, 0)
    await store.records.flush()
    assert store.records.waiting_count == 0
    assert len(await store.records.list("default")) == 25


async def test_what_the_disk_does_not_take_waits_in_memory_and_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr(spool, "SPOOL_BYTES_MAX", 100)
    monkeypatch.setattr(records_module, "UNSPOOLED_MAX", 10)
    monkeypatch.setattr(records_module, "HELD_MAX", 5)
    for number in range(25):
        store.records.add(record(number))
    assert (store.records.waiting_count, store.records.dropped_count) == (10, 15)
    assert "memory alone" in (store.records.trouble or "")
    assert [one.message for one in caplog.records if "spool" in one.message] == ["store.spool.not_written"]
    assert "store.records.dropped" in caplog.text
    await store.records.flush()
    assert len(await store.records.list("default")) == 10
    monkeypatch.undo()
    store.records.add(record(99))
    assert "store.spool.writing_again" in caplog.text


async def test_days_are_the_sums_of_records_whatever_comes_twice(store: Store) -> None:
    given = [
        record(
            number,
            at=datetime(2026, 1, 1 + number % 3, 23, 59, 59, 999_999, tzinfo=UTC),
            cost_pico=number * 10**15,
            usage=Usage(number, 2, 1, estimated=number % 5 == 0),
            team=[None, "search", 'a "quoted, name'][number % 3],
        )
        for number in range(60)
    ]
    for batch in (given[:40], given[20:], given):
        for one in batch:
            store.records.add(one)
        await store.records.flush()
    sums = "count(*), sum(cost_pico), sum(input_tokens), sum(output_tokens), sum(cache_read_tokens)"
    for_records = await store.database.fetch(
        "t",
        f"SELECT (at AT TIME ZONE 'UTC')::date, coalesce(team, ''), estimated, {sums} FROM call_records GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    )
    sums = sums.replace("count(*)", "sum(calls)")
    for_days = await store.database.fetch(
        "t", f"SELECT day, team, estimated, {sums} FROM call_days GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    assert [tuple(row) for row in for_days] == [tuple(row) for row in for_records]
    assert len(for_days) > 3


async def test_closing_writes_what_waits(opened, store: Store) -> None:
    async with opened("brief") as brief:
        brief.records.add(record(1))
    assert len(await store.records.list("default")) == 1


async def test_a_limit_out_of_bounds_is_refused(store: Store) -> None:
    for limit in (0, 1001):
        with pytest.raises(BadRequest, match="limit"):
            await store.records.list("default", limit=limit)


async def test_no_text_is_taken_for_something_else_on_its_way(store: Store) -> None:
    texts = [
        "null",
        "NULL",
        "",
        " ",
        "{a,b}",
        'say "x"',
        r"back\slash \n",
        "new\nline\ttab\x01",
        "ü€\U0001f600",
        "'",
    ]
    given = [
        record(number, model=text, key_id=text, labels={text: text}, reason=None if number % 2 else text)
        for number, text in enumerate(texts)
    ]
    for one in given:
        store.records.add(one)
    await store.records.flush()
    assert await store.records.list("default") == given[::-1]
