"""The database is away under traffic: calls of models go on within what is leased, and afterwards each has its record, once."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from freehold.store.embedded import EmbeddedServer
from tests._postgres import MIGRATED, fresh_database
from tests._waiting import PATIENCE_S, eventually
from tests.gateway._vendors import (
    ANTHROPIC_STREAM,
    ANTHROPIC_TEXT,
    OPENAI_STREAM,
    OPENAI_TEXT,
    Asked,
    Step,
    reply,
    stream,
)
from tests.server._world import World, world
from tests.store._proxy import Proxy, proxied

ALLOWED = """
kind: price_book
name: contract
prices:
  - { models: "openai/*", input: "3", output: "7" }
  - { models: "anthropic/*", input: "5", output: "11" }
---
kind: budget
name: team
scope: team/red
amount_usd: "1000"
period: total
---
kind: limit
name: team
scope: team/red
requests_per_minute: 2000000
tokens_per_minute: 500000000
concurrent_calls_max: 640
"""
CALLERS = 4
PAUSE_S = 0.05
ENOUGH = 30
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": (
        "/v1/chat/completions",
        {"model": "openai/gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50},
    ),
    "anthropic": (
        "/v1/messages",
        {
            "model": "anthropic/claude-sonnet-4-5",
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 50,
        },
    ),
}
ANSWERS = {
    "openai": (reply(OPENAI_TEXT), stream(*OPENAI_STREAM)),
    "anthropic": (reply(ANTHROPIC_TEXT), stream(*ANTHROPIC_STREAM)),
}
FAILURE = reply(b'{"error":{"message":"no"}}', status=500)
FAILING = 7
"""One of so many asks fails at the vendor: such calls have records, too."""


class Traffic:
    """What clients asked and heard."""

    def __init__(self, own: World, client: httpx2.AsyncClient) -> None:
        self._client = client
        self._over = asyncio.Event()
        self.asked_count = 0
        self.answered: list[str] = []
        self.refused: list[str] = []
        for name, vendor in own.vendors.items():
            vendor.choose = partial(self._answer, name)

    def _answer(self, name: str, asked: Asked) -> Sequence[Step]:
        whole, streamed = ANSWERS[name]
        if self.asked_count % FAILING == 0:
            return FAILURE
        return streamed if asked.json.get("stream") else whole

    async def ask(self, vendor: str, *, streamed: bool) -> None:
        path, body = ASKED[vendor]
        self.asked_count += 1
        answer = await self._client.post(path, json={**body, "stream": streamed})
        if answer.status_code == 200:
            self.answered.append(answer.headers["x-freehold-call-id"])
        elif answer.status_code not in {500, 502, 503} or "database" in answer.text:
            self.refused.append(f"{answer.status_code} {answer.text}")

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Ends with the last answer."""
        async with asyncio.TaskGroup() as callers:
            for number in range(CALLERS):
                callers.create_task(self._call(number))
            yield
            self._over.set()

    async def _call(self, number: int) -> None:
        chance = random.Random(number)
        while not self._over.is_set():
            await self.ask(chance.choice(list(ASKED)), streamed=chance.random() < 0.5)
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_S):
                    await self._over.wait()

    async def goes_on(self) -> None:
        wanted = len(self.answered) + ENOUGH
        await eventually(lambda: len(self.answered) >= wanted)


@pytest.mark.slow
@pytest.mark.parametrize("away_s", [1.0, 60.0])
@pytest.mark.parametrize("how", ["cut", "frozen"])
async def test_calls_go_on_and_afterwards_none_is_lost_and_none_is_double(
    postgres_server: EmbeddedServer, tmp_path: Path, away_s: float, how: str
) -> None:
    """Cut: connections break, and new ones are refused. Frozen: they stay, and nothing comes through."""
    async with (
        fresh_database(postgres_server, template=MIGRATED) as url,
        proxied(url) as proxy,
        world(proxy.url, tmp_path) as own,
        of_team(own) as client,
    ):
        traffic = Traffic(own, client)
        async with traffic.flowing():
            await traffic.goes_on()
            async with away(proxy, how):
                before = len(traffic.answered)
                await asyncio.sleep(away_s)
                await eventually(lambda: len(traffic.answered) - before > away_s / PAUSE_S)
                assert (await own.http.get("/healthz")).status_code == 503
            await traffic.goes_on()
        assert traffic.refused == []
        await eventually(partial(has_caught_up, own))
        shown = await own.json("GET", "/v1/budgets")
        bill = await own.json("GET", "/v1/costs?by=&recount=true")
        connection = await asyncpg.connect(url)
        rows = await connection.fetch("SELECT id, outcome, cost_pico FROM freehold.call_records")
        await connection.close()
    assert len(rows) == traffic.asked_count
    assert {row["id"] for row in rows if row["outcome"] == "ok"} == set(traffic.answered)
    (line,) = shown["data"]
    spent = sum(int(row["cost_pico"]) for row in rows)
    assert _pico(line["used_usd"]) == spent == _pico(bill["totals"]["USD"])


@asynccontextmanager
async def of_team(own: World) -> AsyncIterator[httpx2.AsyncClient]:
    await own.apply(ALLOWED)
    made = await own.json("POST", "/v1/keys", {"name": "one", "team": "red"})
    headers = {"authorization": f"Bearer {made['key']}"}
    async with httpx2.AsyncClient(
        base_url=own.url, headers=headers, timeout=PATIENCE_S, trust_env=False
    ) as client:
        yield client


@asynccontextmanager
async def away(proxy: Proxy, how: str) -> AsyncIterator[None]:
    (proxy.cut if how == "cut" else proxy.freeze)()
    try:
        yield
    finally:
        (proxy.heal if how == "cut" else proxy.thaw)()


async def has_caught_up(own: World) -> bool:
    answer = await own.http.get("/v1/budgets")
    return answer.status_code == 200 and answer.json()["waiting_calls"] == 0


def _pico(amount: str) -> int:
    units, _, decimals = amount.partition(".")
    return int(units) * 10**12 + int(decimals.ljust(12, "0"))
