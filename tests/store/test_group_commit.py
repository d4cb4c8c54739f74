"""Group commit: many sessions' appends share a transaction, within limits, and the queue in front of it is bounded."""

import asyncio

import pytest
from tests.store._parts import begun, said

from freehold.core.errors import Overloaded
from freehold.store import _batch
from freehold.store._statements import USAGE_COLUMNS
from freehold.store.store import Store

INDEXED = """
SELECT DISTINCT a.attname FROM pg_index i
JOIN pg_depend d ON d.objid = i.indexrelid AND d.refobjid = i.indrelid AND d.refobjsubid > 0
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = d.refobjsubid
WHERE i.indrelid = 'freehold.sessions'::regclass
"""


async def test_appends_of_many_sessions_share_few_transactions(store: Store) -> None:
    rows = await asyncio.gather(*(begun(store.log) for _ in range(200)))
    before = store.log.counters.transactions
    for _ in range(5):
        await asyncio.gather(*(store.log.append(row.id, [said("x")]) for row in rows))
    assert store.log.counters.appends == 1000
    assert store.log.counters.transactions - before <= 10


async def test_a_lone_append_waits_for_nobody(store: Store) -> None:
    row = await begun(store.log)
    before = store.log.counters.transactions
    await store.log.append(row.id, [said("x")])
    assert store.log.counters.transactions - before == 1


@pytest.mark.slow
async def test_a_batch_is_bounded_in_sessions_and_bytes(store: Store) -> None:
    rows = await asyncio.gather(*(begun(store.log) for _ in range(_batch.BATCH_SESSIONS_MAX + 1)))
    before = store.log.counters.transactions
    await asyncio.gather(*(store.log.append(row.id, [said("x")]) for row in rows))
    assert store.log.counters.transactions - before >= 2
    before = store.log.counters.transactions
    large = "x" * (_batch.BATCH_BYTES_MAX // 2)
    await asyncio.gather(*(store.log.append(row.id, [said(large)]) for row in rows[:6]))
    assert store.log.counters.transactions - before >= 3


async def test_a_full_queue_refuses_and_loses_nothing_that_it_took(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [await begun(store.log) for _ in range(10)]
    monkeypatch.setattr(_batch, "WAITING_MAX", 25)
    results = await asyncio.gather(
        *(store.log.append(row.id, [said("x")]) for _ in range(10) for row in rows), return_exceptions=True
    )
    taken = [result for result in results if isinstance(result, int)]
    refused = [result for result in results if isinstance(result, Overloaded)]
    assert len(taken) == 25
    assert len(refused) == 75
    assert all(error.retryable for error in refused)
    versions = [(await store.log.get("default", row.id)).version for row in rows]
    assert sum(versions) == len(rows) + len(taken)


async def test_one_busy_session_does_not_starve_the_others(store: Store) -> None:
    busy, quiet = await begun(store.log), await begun(store.log)
    order: list[str] = []

    async def append(session_id: str, name: str) -> None:
        await store.log.append(session_id, [said(name)], idempotency_key=name)
        order.append(name)

    async with asyncio.TaskGroup() as appends:
        for number in range(50):  # Keyed, so each of them takes a batch of its own.
            appends.create_task(append(busy.id, f"busy-{number}"))
        appends.create_task(append(quiet.id, "quiet"))
    assert order.index("quiet") <= 1


async def test_no_index_has_a_column_that_every_append_moves(store: Store) -> None:
    """Or PostgreSQL would write to all indexes of a session's row at each append (docs/decisions/0009)."""
    rows = await store.database.fetch("looking at indexes", INDEXED)
    indexed = {row["attname"] for row in rows}
    assert {"id", "due_at"} <= indexed, "the keys, and what predicates look at"
    assert not indexed & {"version", "updated_at", "cost_pico", "estimated", *USAGE_COLUMNS}
