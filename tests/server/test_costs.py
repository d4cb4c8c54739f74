"""What a month cost, over the whole server: records, sums by day and the bill are the same money, also after SIGKILL."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from freehold.core.billing import Month
from freehold.store.embedded import EmbeddedServer
from tests._postgres import MIGRATED, fresh_database
from tests._waiting import PATIENCE_S, eventually, until
from tests.cli._freehold import Freehold
from tests.gateway._vendors import ANTHROPIC_TEXT, CUT, OPENAI_TEXT, Vendor, reply
from tests.server._process import freehold
from tests.server._world import World, world

TEMPLATE = """
kind: price_book
name: contract
valid_from: "2020-01-01"
prices:
  - { models: "openai/gpt-4o", input: "1.25", output: "5", cache_read: "0.125" }
volume:
  tiers: [{ reached: "0.0001", percent: "50" }]
---
kind: capacity
name: reserved
models: anthropic/claude-sonnet-4-5
tokens_per_minute: 1000000
hourly: "0.50"
valid_from: 2020-01-01T00:00:00Z
valid_until: 2020-01-01T01:00:00Z
"""
CHAT = {"model": "openai/gpt-4o", "messages": []}
CONTRACT_PICO = 20 * 1_250_000 + 100 * 125_000 + 7 * 5_000_000


@pytest.fixture(scope="module")
async def own(
    postgres_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    async with (
        fresh_database(postgres_server, template=MIGRATED) as url,
        world(url, tmp_path_factory.mktemp("costs")) as opened,
    ):
        await opened.apply(TEMPLATE)
        yield opened


@pytest.mark.slow
async def test_calls_are_on_the_bill_as_soon_as_they_are_answered(own: World) -> None:
    own.script("openai", reply(OPENAI_TEXT))
    own.script("anthropic", reply(ANTHROPIC_TEXT))
    for _ in range(3):
        await own.openai.chat.completions.create(model="openai/gpt-4o", messages=[])
    await own.openai.chat.completions.create(model="openai/no-such-model-is-listed", messages=[])
    await own.anthropic.messages.create(model="anthropic/claude-sonnet-4-5", max_tokens=9, messages=[])
    bill = await own.json("GET", "/v1/costs?by=model,price_source&recount=true")
    told = {(line["group"]["model"], line["group"]["price_source"]): line for line in bill["lines"]}
    agreed = told["openai/gpt-4o", "book:contract"]
    assert (agreed["calls"], agreed["amount"]) == (3, f"0.{3 * CONTRACT_PICO:012}".rstrip("0"))
    assert told["anthropic/claude-sonnet-4-5", "list"]["calls"] == 1
    unknown = told["openai/no-such-model-is-listed", ""]
    assert (unknown["calls"], unknown["unpriced_calls"], unknown["amount"]) == (1, 1, "0")
    assert (bill["calls"], bill["unpriced_calls"], bill["waiting_calls"], bill["recounted"]) == (
        5,
        1,
        0,
        True,
    )
    (discount,) = bill["adjustments"]
    assert (discount["reason"], discount["name"]) == ("volume_discount", "contract")
    lines = sum(_pico(line["amount"]) for line in bill["lines"])
    assert _pico(bill["totals"]["USD"]) == lines + _pico(discount["amount"])


async def test_capacity_is_charged_in_the_month_in_which_it_was_bought(own: World) -> None:
    bill = await own.json("GET", "/v1/costs?by=&month=2020-01")
    assert (bill["lines"], bill["totals"]) == ([], {"USD": "0.5"})
    assert (bill["adjustments"][0]["hours"], bill["adjustments"][0]["tokens_bought"]) == (1, 60_000_000)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("by=teem", "by: expected some of day, organisation, team"),
        ("month=2026-13", "month: expected a month like 2026-11, got '2026-13'"),
        ("month=9999-12", "month: expected a month like 2026-11, got '9999-12'"),
        ("month=0001-01", "month: expected a month like 2026-11, got '0001-01'"),
        ("mouth=2026-12", "unknown field 'mouth'"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(own: World, query: str, said: str) -> None:
    answer = await own.http.get(f"/v1/costs?{query}")
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


async def test_costs_are_for_who_may_see_them(own: World) -> None:
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "model:Call", "Resource": "*"}],
    }
    made = await own.json("POST", "/v1/keys", {"name": "caller", "policy": policy})
    answer = await own.http.get("/v1/costs", headers={"authorization": f"Bearer {made['key']}"})
    assert answer.status_code == 403
    assert "may not costs:Get on costs/" in answer.json()["error"]["message"]


@pytest.mark.slow
async def test_the_command_tells_the_same_bill(own: World, tmp_path: Path) -> None:
    command = Freehold(tmp_path, {"FREEHOLD_URL": own.url, "FREEHOLD_API_KEY": own.key})
    bill = await own.json("GET", "/v1/costs?by=model")
    told = await asyncio.to_thread(command, "costs", "--by", "model", "--json")
    assert told.json == bill
    table = await asyncio.to_thread(command, "costs", "--by", "model")
    assert "volume discount: contract" in table.out
    assert "1 of 5 calls have no price" in table.err
    listed = await asyncio.to_thread(command, "costs", "--by", "team,model", "--csv")
    header, *rows = [line.split(",") for line in listed.out.splitlines()]
    assert header[:4] == ["month", "kind", "team", "model"]
    assert sum(_pico(row[-2]) for row in rows) == _pico(bill["totals"]["USD"])


def _pico(amount: str) -> int:
    sign = -1 if amount.startswith("-") else 1
    units, _, decimals = amount.lstrip("-").partition(".")
    return sign * (int(units) * 10**12 + int(decimals.ljust(12, "0")))


# -- money is conserved


def answer_of(tokens: int) -> list[Any]:
    """A whole answer that used so many tokens: the number that finds its record again."""
    body = msgspec.json.decode(OPENAI_TEXT)
    body["usage"] = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
    return reply(msgspec.json.encode(body))


FAILURES = (
    reply(b'{"error":{"message":"no"}}', status=500),
    [b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", CUT],
)


@pytest.mark.slow
@settings(
    max_examples=2,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 2**32),
    micros=st.integers(0, 10**9),
    tiers=st.lists(st.integers(1, 10**6), min_size=1, max_size=3, unique=True),
)
async def test_money_is_conserved_whatever_is_killed(
    postgres_server: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    micros: int,
    tiers: list[int],
) -> None:
    """Random prices and tiers, vendors that fail, and a server that is killed while it answers, twice."""
    chance, folder = random.Random(seed), tmp_path_factory.mktemp("killed")
    steps = ", ".join(
        f'{{ reached: "{at / 10**6:.6f}", percent: "{place + 1}.5" }}'
        for place, at in enumerate(sorted(tiers))
    )
    price = f"{micros / 10**6:.6f}"
    template = f"""
kind: price_book
name: contract
prices: [{{ models: "openai/*", input: "{price}", output: "{price}" }}]
volume: {{ applies: above, tiers: [{steps}] }}
"""
    answered: list[int] = []
    over = asyncio.Event()
    async with fresh_database(postgres_server, template=MIGRATED) as url, Vendor([]) as vendor:
        numbers = list(range(1, 3001))
        vendor.play(
            *(chance.choice(FAILURES) if chance.random() < 0.1 else answer_of(number) for number in numbers)
        )
        (folder / "freehold.toml").write_text(f'[models.upstreams]\nopenai_chat = "{vendor.url}/v1"\n')
        environment = {"DATABASE_URL": url, "OPENAI_API_KEY": "sk-x"}
        for life in range(3):
            with freehold(folder, environment=environment) as running:
                await asyncio.to_thread(running.ready)
                headers = {"authorization": f"Bearer {running.key}"}
                async with httpx2.AsyncClient(
                    base_url=running.url, headers=headers, timeout=PATIENCE_S, trust_env=False
                ) as client:
                    if life == 0:
                        applied = await client.post("/v1/templates/apply", json={"template": template})
                        assert applied.status_code == 200, applied.text
                    callers = [asyncio.create_task(_call(client, answered, over)) for _ in range(8)]
                    wanted = len(answered) + chance.randrange(40, 160)
                    await eventually(lambda wanted=wanted: len(answered) >= wanted)  # type: ignore[misc]
                    if life < 2:
                        await asyncio.to_thread(running.ended, signal.SIGKILL)
                    else:
                        over.set()  # No call is under way when the bill is asked for.
                    await asyncio.gather(*callers, return_exceptions=True)
                    if life == 2:
                        await asyncio.to_thread(
                            until, lambda: len(list((folder / "spool").glob("*.lock"))) <= 2
                        )
                        told = await client.get(f"/v1/costs?by=&month={_month()}&recount=true")
                        assert told.status_code == 200, told.text
                        bill = told.json()
        kept = await _amounts(
            url, "SELECT input_tokens AS tokens, cost_pico, outcome FROM freehold.call_records"
        )
        days = await _amounts(
            url, "SELECT sum(cost_pico)::text AS cost, sum(calls)::int AS calls FROM freehold.call_days"
        )
    ok = [row["tokens"] for row in kept if row["outcome"] == "ok"]
    assert len(answered) == len(set(answered))
    assert set(answered) <= set(ok), "an answer that a client has, has a record"
    assert len(ok) == len(set(ok)), "each once"
    assert all(row["cost_pico"] == (row["tokens"] + 1) * micros for row in kept if row["outcome"] == "ok")
    spent = sum(row["cost_pico"] for row in kept)
    assert (days[0]["cost"], days[0]["calls"]) == (str(spent), len(kept))
    assert sum(_pico(line["amount"]) for line in bill["lines"]) == spent
    adjusted = sum(_pico(one["amount"]) for one in bill["adjustments"])
    assert _pico(bill["totals"].get("USD", "0")) == spent + adjusted
    assert bill["calls"] == len(kept)


async def _call(client: httpx2.AsyncClient, answered: list[int], over: asyncio.Event) -> None:
    while not over.is_set():
        answer = await client.post("/v1/chat/completions", json=CHAT)
        if answer.status_code == 200:
            answered.append(answer.json()["usage"]["prompt_tokens"])


async def _amounts(url: str, query: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


def _month() -> str:
    return str(Month(datetime.now(UTC).date().replace(day=1)))
