"""The pool of connections: what is free is taken at once, what is not sure to be whole is replaced, and who waits is served in order."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from tests._waiting import PATIENCE_S, eventually

from freehold.store._pool import Pool
from freehold.store.embedded import EmbeddedServer


@pytest.fixture
async def pool(postgres_server: EmbeddedServer) -> AsyncIterator[Pool]:
    opened: list[asyncpg.Connection] = []

    async def connect() -> asyncpg.Connection:
        opened.append(await asyncpg.connect(postgres_server.dsn()))
        return opened[-1]

    made = Pool(connect, size_max=2, idle_s=60)
    yield made
    await made.close(5)
    for connection in opened:
        connection.terminate()


async def pid(connection: asyncpg.Connection) -> int:
    return await connection.fetchval("SELECT pg_backend_pid()")


async def test_a_connection_that_was_given_back_is_taken_again(pool: Pool) -> None:
    first = await pool.take(1)
    pool.give_back(first, None)
    assert await pool.take(1) is first
    assert (pool.size, pool.idle_count) == (1, 0)


async def test_who_waits_gets_what_is_given_back_in_order(pool: Pool) -> None:
    one, two = await pool.take(1), await pool.take(1)
    waiting = [asyncio.create_task(pool.take(PATIENCE_S)) for _ in range(2)]
    await asyncio.sleep(0)
    pool.give_back(two, None)
    pool.give_back(one, None)
    assert [await task for task in waiting] == [two, one]


async def test_who_waits_too_long_is_told_and_leaves_its_place_to_the_next(pool: Pool) -> None:
    one, two = await pool.take(1), await pool.take(1)
    with pytest.raises(TimeoutError):
        await pool.take(0.01)
    last = asyncio.create_task(pool.take(PATIENCE_S))
    await asyncio.sleep(0)
    pool.give_back(one, None)
    assert await last is one
    pool.give_back(one, None)
    pool.give_back(two, None)
    assert (pool.size, pool.idle_count) == (2, 2)


async def test_what_reaches_one_who_has_just_stopped_waiting_is_not_lost(pool: Pool) -> None:
    one, _two = await pool.take(1), await pool.take(1)
    waiting = asyncio.create_task(pool.take(PATIENCE_S))
    await asyncio.sleep(0)
    pool.give_back(one, None)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await pool.take(1) is one


async def test_a_connection_whose_use_was_cancelled_is_replaced(pool: Pool) -> None:
    connection = await pool.take(1)
    before = await pid(connection)
    asking = asyncio.create_task(connection.fetch("SELECT pg_sleep(30)"))
    await asyncio.sleep(0.05)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await asking
    pool.give_back(connection, caught.value)
    other = await pool.take(1)
    assert await pid(other) != before
    assert pool.size == 1


async def test_a_refused_statement_leaves_its_connection_and_an_open_transaction_does_not(pool: Pool) -> None:
    connection = await pool.take(1)
    with pytest.raises(asyncpg.PostgresError) as caught:
        await connection.fetch("SELECT 1 / 0")
    pool.give_back(connection, caught.value)
    assert await pool.take(1) is connection
    await connection.execute("BEGIN")
    pool.give_back(connection, None)
    assert await pool.take(1) is not connection


async def test_a_connection_that_the_server_ended_is_replaced_and_one_waiting_is_served(pool: Pool) -> None:
    one, two = await pool.take(1), await pool.take(1)
    waiting = asyncio.create_task(pool.take(PATIENCE_S))
    await asyncio.sleep(0)
    with pytest.raises((asyncpg.PostgresError, OSError)) as caught:
        await one.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    pool.give_back(one, caught.value)
    three = await waiting
    assert await pid(three)
    assert three not in {one, two}
    pool.give_back(two, None)
    pool.give_back(three, None)
    assert (pool.size, pool.idle_count) == (2, 2)


async def test_connections_that_nobody_needs_are_closed(postgres_server: EmbeddedServer) -> None:
    pool = Pool(lambda: asyncpg.connect(postgres_server.dsn()), size_max=2, idle_s=0.05)
    connection = await pool.take(1)
    pool.give_back(connection, None)
    await eventually(connection.is_closed)
    assert (pool.size, pool.idle_count) == (0, 0)
    await pool.close(5)
