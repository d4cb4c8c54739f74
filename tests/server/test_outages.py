"""The database goes away under a whole server: clear answers meanwhile, and afterwards nothing lost and nothing twice."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from freehold.config import Runtime
from tests._postgres import disconnect_all
from tests._waiting import within
from tests.gateway._vendors import ANTHROPIC_TEXT, OPENAI_TEXT, reply
from tests.server._raw import connected, request
from tests.server._world import World, world
from tests.store._proxy import Proxy, proxied

pytestmark = pytest.mark.slow

TEMPLATE = """
kind: tool
name: inventory
type: kv
description: Stock by SKU.
config: {table: inventory}
---
kind: rules
name: count
rules:
  - name: count
    when: "how many (?P<sku>[A-Z0-9-]+)"
    steps:
      - {tool: inventory_get, arguments: {keys: ["{{ sku }}"]}, save_as: stock}
    answer: "There are {{ results.stock }} of {{ sku }}."
---
kind: agent
name: counter
model: rules/count
rules: count
tools: [inventory]
---
kind: agent
name: clerk
model: openai/gpt-4o
"""
CHAT = {"model": "openai/gpt-4o", "messages": []}
MESSAGES = {"model": "anthropic/claude-sonnet-4-5", "max_tokens": 9, "messages": []}


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with proxied(database_url) as one:
        yield one


@pytest.fixture
async def own(proxy: Proxy, tmp_path: Path) -> AsyncIterator[World]:
    async with world(proxy.url, tmp_path, runtime=Runtime(lease_s=2.0)) as opened:
        await opened.apply(TEMPLATE)
        await opened.http.put("/v1/tables/inventory/items", content=b'{"key":"SKU-1","value":7}')
        yield opened


async def healthy(own: World) -> None:
    async with within("/healthz to be well"):
        while (await own.http.get("/healthz")).status_code != 200:
            pass


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events if not event["type"].startswith(("freehold.", "span."))]


async def test_while_it_is_away_requests_are_told_to_come_again_and_models_still_answer(
    own: World, proxy: Proxy
) -> None:
    session_id = await own.session("counter", "how many SKU-1")
    await own.until_idle(session_id)
    own.script("openai", reply(OPENAI_TEXT))
    own.script("anthropic", reply(ANTHROPIC_TEXT))
    proxy.cut()
    for method, path, body in (
        ("POST", "/v1/sessions", {"agent": "counter"}),
        ("GET", f"/v1/sessions/{session_id}", None),
        ("POST", f"/v1/sessions/{session_id}/events", {"events": [{"type": "user.message", "content": "x"}]}),
        ("GET", "/v1/agents", None),
        ("POST", "/v1/templates/apply", {"template": TEMPLATE}),
    ):
        answer = await own.http.request(method, path, json=body)
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"] == "1"
        told = answer.json()["error"]
        assert told["type"] == "api_error"
        assert "the database cannot be reached" in told["message"] or "not known whether" in told["message"]
        assert "127.0.0.1" not in answer.text
    health = await own.http.get("/healthz")
    assert (health.status_code, health.json()["status"]) == (503, "degraded")
    assert "database" in health.json()["checks"]["database"]
    assert (await own.http.post("/v1/chat/completions", json=CHAT)).status_code == 200
    assert (await own.http.post("/v1/messages", json=MESSAGES)).status_code == 200
    proxy.heal()
    await healthy(own)
    again = await own.session("counter", "how many SKU-1")
    assert kinds(await own.until_idle(again))[-1] == "session.status_idle"


async def test_one_that_hangs_is_told_as_degraded_soon(own: World, proxy: Proxy) -> None:
    proxy.freeze()
    try:
        async with within("all answers, which wait for one look"):
            answers = await asyncio.gather(*(own.http.get("/healthz") for _ in range(20)))
    finally:
        proxy.thaw()
    assert {answer.status_code for answer in answers} == {503}
    assert "did not answer within 3 s" in answers[0].json()["checks"]["database"]
    await healthy(own)


async def test_a_turn_whose_database_goes_away_goes_on_when_it_is_back(own: World, proxy: Proxy) -> None:
    """It goes away while the model is asked; the answer waits to be recorded, or is asked for again."""
    body = OPENAI_TEXT
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    own.script("openai", [head, body])
    session_id = await own.session("clerk", "Hello")
    async with own.stream(session_id, after="0") as events:
        async for event in events:
            if event.type == "session.status_running":
                break
    proxy.cut()
    await asyncio.sleep(0.05)
    proxy.heal()
    log = await own.until_idle(session_id)
    assert kinds(log) == ["user.message", "session.status_running", "agent.message", "session.status_idle"]


async def test_sessions_under_way_survive_every_connection_being_killed(
    own: World, database_url: str
) -> None:
    ids = [await own.session("counter", "how many SKU-1") for _ in range(10)]
    for _ in range(5):
        await disconnect_all(database_url)
        await asyncio.sleep(0.02)
    await healthy(own)
    for session_id in ids:
        found = kinds(await own.until_idle(session_id))
        assert found.count("agent.message") == 1
        assert found.count("agent.tool_result") == 1
        assert found.count("session.status_idle") == 1


async def test_an_event_stream_lives_through_an_outage_and_misses_nothing(own: World, proxy: Proxy) -> None:
    session = await own.json("POST", "/v1/sessions", {"agent": "counter"})
    path = f"/v1/sessions/{session['id']}/events"
    async with own.stream(session["id"], after="0") as events:
        seen = [await anext(events)]
        proxy.cut()
        proxy.heal()
        await healthy(own)
        await own.json("POST", path, {"events": [{"type": "user.message", "content": "how many SKU-1"}]})
        async with within("the end of the turn", seen):
            while seen[-1].type != "session.status_idle":
                seen.append(await anext(events))
    log = await own.events(session["id"])
    assert [event.cursor for event in seen] == [event["freehold"]["cursor"] for event in log]


async def test_what_was_sent_with_a_key_may_be_sent_again_after_an_outage(own: World, proxy: Proxy) -> None:
    """Nobody knows whether a write arrived whose connection broke: the idempotency key makes the second try safe."""
    session = await own.json("POST", "/v1/sessions", {"agent": "counter"})
    path = f"/v1/sessions/{session['id']}/events"
    body = b'{"events":[{"type":"user.message","content":"how many SKU-1"}]}'
    for number in range(5):
        sent = request("POST", path, f"idempotency-key: once-{number}", key=own.key, body=body)
        async with connected(own.url) as raw:
            await raw.send(sent)
            proxy.cut()
            await raw.answer()
        proxy.heal()
        await healthy(own)
        async with connected(own.url) as raw:
            await raw.send(sent)
            assert (await raw.answer()).status == 200
        log = await own.until_idle(session["id"], turns=number + 1)
        assert kinds(log).count("user.message") == number + 1
