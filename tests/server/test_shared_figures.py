"""Two servers on one database speak of one installation: how quick models are, whether they fail, how routes serve, what is bought."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
import pytest

from freehold.store.embedded import EmbeddedServer
from tests._postgres import MIGRATED, fresh_database
from tests._waiting import eventually
from tests.gateway._vendors import ANTHROPIC_TEXT, OPENAI_STREAM, OPENAI_TEXT, reply, stream
from tests.server._world import World, world

MINUTE_S, TRIES_MAX = 60, 3
TEMPLATE = """
kind: route
name: quick
strategy: fastest
models: [openai/gpt-4o, anthropic/claude-sonnet-4-5]
---
kind: route
name: held
models: [openai/gpt-4o-mini, anthropic/claude-haiku-4-5]
retries: { again_max: 0 }
slo: { error_share_max: 0.01 }
---
kind: capacity
name: bought
models: "openai/gpt-4.1"
tokens_per_minute: 1000
hourly: "6"
valid_from: "2026-01-01T00:00:00Z"
"""
BUSY = reply(b'{"error":{"message":"no"}}', status=503)
OK = reply(OPENAI_TEXT)


@pytest.fixture(scope="module")
async def two(
    postgres_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[World, World]]:
    async with (
        fresh_database(postgres_server, template=MIGRATED) as url,
        world(url, tmp_path_factory.mktemp("here")) as here,
        world(url, tmp_path_factory.mktemp("there")) as there,
    ):
        await here.apply(TEMPLATE)
        yield here, there


async def ask(own: World, model: str, **more: Any) -> httpx2.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}
    return await own.http.post("/v1/chat/completions", json=body)


async def explained(own: World, route: str) -> list[dict[str, Any]]:
    body = msgspec.json.encode({"model": route, "messages": [{"role": "user", "content": "Hi"}]})
    answer = await own.http.post(f"/v1/routes/{route}/explain?draw=0.5", content=body)
    return list(answer.json().get("models", ()))


@pytest.mark.slow
async def test_an_idle_server_knows_how_quick_models_are(two: tuple[World, World]) -> None:
    here, there = two
    here.script("openai", stream(*OPENAI_STREAM))
    assert (await ask(here, "quick", stream=True)).status_code == 200

    async def known() -> bool:
        told = {one["model"]: one for one in await explained(there, "quick")}
        return bool(told and told["openai/gpt-4o"]["first_token_p95_s"])

    await eventually(known)
    first = (await explained(there, "quick"))[0]
    assert first["model"] == "openai/gpt-4o"
    assert first["tokens_per_s"] > 0


@pytest.mark.slow
async def test_what_burns_in_one_server_is_asked_last_in_the_other(two: tuple[World, World]) -> None:
    """Every other call fails, so that the breaker has a say only late."""
    here, there = two
    here.script("openai", *[OK, BUSY] * 6)
    here.script("anthropic", reply(ANTHROPIC_TEXT))
    for _ in range(12):
        assert (await ask(here, "held")).status_code == 200

    async def demoted() -> bool:
        (told,) = (await there.json("GET", "/v1/slos"))["data"]
        all_heard = told["objectives"][0]["ended"] >= 12
        return all_heard and any(one["demoted"] for one in told["models"])

    await eventually(demoted)
    (told,) = (await there.json("GET", "/v1/slos"))["data"]
    assert (told["objectives"][0]["ended"], told["objectives"][0]["bad"]) == (12, 0)
    by_model = {one["model"]: one for one in told["models"]}
    counted = by_model["openai/gpt-4o-mini"]["objectives"][0]
    assert counted["bad"] >= 5
    assert counted["burn_rates"]["5m"] > 14.4
    assert [(act["model"], act["what"]) for act in told["acts"]] == [("openai/gpt-4o-mini", "demoted")]
    there.script("anthropic", reply(ANTHROPIC_TEXT))
    answer = await ask(there, "held")
    assert answer.headers["x-freehold-model"] == "anthropic/claude-haiku-4-5"
    why = await explained(there, "held")
    assert why[0]["model"] == "anthropic/claude-haiku-4-5"


async def test_capacity_is_filled_by_both(two: tuple[World, World]) -> None:
    here, there = two
    used = msgspec.json.decode(OPENAI_TEXT)
    used["usage"] = {"prompt_tokens": 400, "completion_tokens": 200}
    for own in two:
        own.script("openai", reply(msgspec.json.encode(used)))
    for tries in range(1, TRIES_MAX + 1):
        before = await served(there, calls_count=2 * (tries - 1))
        minute = time.time() // MINUTE_S
        assert (await ask(here, "openai/gpt-4.1")).status_code == 200
        await explained(there, "quick")  # Tells, and hears what was told.
        await explained(here, "quick")
        await explained(there, "quick")
        assert (await ask(there, "openai/gpt-4.1")).status_code == 200
        if time.time() // MINUTE_S == minute:
            break
        await asyncio.sleep(
            MINUTE_S - time.time() % MINUTE_S
        )  # They were of two minutes: once more, in a new one.
    now = await served(there, calls_count=2 * tries)
    assert now - before == 600, "the other 600 did not fit into this minute's 1000"


async def served(own: World, *, calls_count: int) -> int:
    """How many tokens the capacity has served, once so many calls are in the bill."""

    async def counted() -> bool:
        bill = await own.json("GET", "/v1/costs?by=model")
        lines = [one for one in bill["lines"] if one["group"]["model"].endswith("gpt-4.1")]
        return sum(one["calls"] for one in lines) == calls_count

    await eventually(counted)
    bill = await own.json("GET", "/v1/costs?by=model")
    return sum(one["tokens_served"] for one in bill["adjustments"] if one["name"] == "bought")
