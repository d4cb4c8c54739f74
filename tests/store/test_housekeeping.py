"""Idempotency keys are remembered for longer than a day, and not for ever."""

from tests.store._parts import STARTED, begun, new_row, said, texts

from freehold.store import _housekeeping
from freehold.store._housekeeping import forget_keys
from freehold.store.store import Store


async def age(store: Store, hours: int) -> None:
    for table in ("append_keys", "create_keys"):
        await store.database.fetch(
            "ageing", f"UPDATE {table} SET at = at - make_interval(hours => $1)", hours
        )


async def test_keys_live_longer_than_a_day_and_are_then_forgotten(store: Store, monkeypatch) -> None:
    monkeypatch.setattr(_housekeeping, "DELETED_MAX", 2)
    row = await begun(store.log)
    for number in range(5):
        await store.log.append(row.id, [said(str(number))], idempotency_key=str(number))
    made = await store.log.create(new_row(), [STARTED], idempotency_key="k")
    await age(store, 25)
    assert await forget_keys(store.database) == 0
    assert await store.log.append(row.id, [said("0")], idempotency_key="0") == 2
    await age(store, 24)
    assert await forget_keys(store.database) == 6
    assert await store.log.append(row.id, [said("again")], idempotency_key="0") == 7
    assert (await store.log.create(new_row(), [STARTED], idempotency_key="k")).id != made.id
    assert texts(await store.log.read(row.id)) == ["0", "1", "2", "3", "4", "again"]
