"""Calls that need more than their server holds, while the database is slow to say what there is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from tests._waiting import eventually
from tests.store.test_allowances import budget

from freehold.clock import SystemClock
from freehold.core.allowances import Limit
from freehold.core.errors import RateLimited
from freehold.gateway import leasing
from freehold.gateway.allowance import MINUTE_MS, Slice, rules_of
from freehold.gateway.leasing import Leasing
from freehold.store.store import Store

CLOCK = SystemClock()
SIZE = 5000


def tokens(store: Store) -> Slice:
    (rule,) = rules_of(Limit(name="all", tokens_per_minute=SIZE))
    allowance = budget("all", measure="tokens")
    return Slice(rule, allowance, store.allowances.lease_id(allowance.id))


def left(one: Slice) -> int:
    return one.left(CLOCK.now_ms() // MINUTE_MS, CLOCK.monotonic_s())


async def obtain(here: Leasing, one: Slice, amount: int) -> None:
    await here.obtain(one, amount, CLOCK.monotonic_s() + leasing.WAIT_S)


@asynccontextmanager
async def slow(url: str) -> AsyncIterator[None]:
    """Inside, the database says nothing of limits."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM freehold.allowances FOR UPDATE")
            yield
    finally:
        await connection.close()


async def asked(url: str) -> None:
    """Until somebody waits for the database's answer."""
    connection = await asyncpg.connect(url)

    async def waits() -> bool:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%allowances%'"
        return bool(await connection.fetchval(waiting))

    try:
        await eventually(waits)
    finally:
        await connection.close()


async def test_who_comes_while_less_was_asked_for_gets_what_there_is(store: Store, store_url: str) -> None:
    here = Leasing(store.allowances, CLOCK)
    one = here.add(tokens(store))
    async with here.running():
        await obtain(here, one, 10)
        async with slow(store_url):
            one.used = one.granted
            here.look_after([one], CLOCK.monotonic_s())
            await asked(store_url)
            more = asyncio.create_task(obtain(here, one, SIZE - one.used))

            async def wanted() -> bool:
                return one.need > 0

            await eventually(wanted)
        await more
        assert left(one) >= SIZE - one.used


async def test_what_the_database_does_not_say_is_not_called_used_up(
    store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Leasing(store.allowances, CLOCK)
    one = here.add(tokens(store))
    async with here.running():
        await obtain(here, one, 10)
        async with slow(store_url):
            monkeypatch.setattr(leasing, "ANSWER_S", 0.1)
            with pytest.raises(RateLimited, match=r"limit all .* the database .* has not answered for 0.1 s"):
                await obtain(here, one, 4000)
        monkeypatch.undo()
        await obtain(here, one, 4000)
        assert left(one) >= 4000
