"""Sessions that wait for something that happens outside: by token, by correlation, signed, repeated, too late, too large, and through a kill."""

import asyncio
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from standardwebhooks import Webhook as Signer

from freehold.core.outside import EARLY_KEPT_S, PAYLOAD_BYTES_MAX
from tests._waiting import PATIENCE_S, eventually, until, within
from tests.server._process import freehold
from tests.server._world import World
from tests.server.test_sessions import calls, of, says

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TEMPLATE = """
kind: tool
name: payment
type: event
description: Of a customer's order.
config: {event: payment.settled, deadline_s: 600}
---
kind: tool
name: signed
type: event
config: {event: parcel.delivered, secret: "file:${FOLDER}/parcel"}
---
kind: tool
name: hasty
type: event
config: {event: soon.over, deadline_s: 0.3}
---
kind: agent
name: cashier
model: openai/gpt-4o
tools: [payment, signed, hasty]
"""


@pytest.fixture(scope="module")
def secrets_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secrets")


@pytest.fixture(scope="module")
async def ready(shared: World, secrets_folder: Path) -> World:
    await shared.apply(TEMPLATE, FOLDER=str(secrets_folder))
    return shared


async def waiting(world: World, tool: str = "payment", correlation: str = "order-17") -> tuple[str, str]:
    """A session that waits, and the token that its log tells."""
    world.script("openai", calls((f"{tool}_wait", {"correlation": correlation})), says("Thank you."))
    session_id = await world.session("cashier", "Wait for the payment.")
    async with within("the call to be awaited"):
        while True:
            awaited = of(await world.events(session_id), "freehold.call_awaited")
            if awaited:
                return session_id, awaited[0]["awaits"]["token"]
            await asyncio.sleep(0.01)


def anyone(world: World) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=world.url, trust_env=False, timeout=PATIENCE_S)


async def test_a_token_is_good_for_one_event_and_says_nothing(ready: World) -> None:
    session_id, token = await waiting(ready)
    assert session_id.removeprefix("sess_") not in token
    async with anyone(ready) as client:
        first = await client.post(f"/v1/events/{token}", content=b'{"amount": "17.00"}')
        assert (first.status_code, first.json()["status"]) == (200, "received")
        again = await client.post(f"/v1/events/{token}", content=b'{"amount": "99.00"}')
        assert (again.status_code, again.json()["status"]) == (200, "repeated")
        events = await ready.until_idle(session_id)
        late = await client.post(f"/v1/events/{token}", content=b"{}")
        assert (late.status_code, late.json()["status"]) == (200, "repeated")
    [result] = of(events, "agent.tool_result")
    assert result["content"][0]["text"] == '{"amount": "17.00"}'
    assert result["freehold"]["source"] == "event"
    assert of(await ready.events(session_id), "agent.tool_result") == [result]


async def test_an_event_finds_its_sessions_by_what_it_is_about(ready: World) -> None:
    session_id, _ = await waiting(ready, correlation="order-18")
    other_id, _ = await waiting(ready, correlation="order-19")
    event = {"type": "payment.settled", "correlation": "order-18", "data": {"amount": "1.00"}}
    taken = await ready.json("POST", "/v1/events", event)
    assert (taken["status"], taken["received_count"]) == ("received", 1)
    events = await ready.until_idle(session_id)
    assert of(events, "agent.tool_result")[0]["content"][0]["text"] == '{"amount":"1.00"}'
    again = await ready.json("POST", "/v1/events", event | {"data": {"amount": "2.00"}})
    assert (again["status"], again["received_count"]) == ("repeated", 0)

    async def waits() -> bool:
        shown = await ready.json("GET", f"/v1/sessions/{other_id}")
        return bool(shown["freehold"]["status"] == "waiting")

    await eventually(waits)  # The log says so a moment after it says what is waited for.
    assert of(await ready.events(other_id), "agent.tool_result") == []
    await ready.json("POST", f"/v1/sessions/{other_id}/cancel", {})


async def test_an_event_that_comes_early_is_kept_for_whoever_begins_to_wait_for_it(ready: World) -> None:
    event = {"type": "payment.settled", "correlation": "order-20", "data": {"amount": "3.00"}}
    kept = await ready.json("POST", "/v1/events", event)
    assert (kept["status"], kept["received_count"]) == ("kept", 0)
    left = datetime.fromisoformat(kept["kept_until"]) - datetime.now(UTC)
    assert EARLY_KEPT_S - 60 < left.total_seconds() <= EARLY_KEPT_S
    again = await ready.json("POST", "/v1/events", event | {"data": {"amount": "4.00"}})
    assert (again["status"], again["kept_until"]) == ("repeated", kept["kept_until"])
    for _ in range(2):
        session_id, _ = await waiting(ready, correlation="order-20")
        [result] = of(await ready.until_idle(session_id), "agent.tool_result")
        assert result["content"][0]["text"] == '{"amount":"3.00"}'
    wait = calls(("payment_wait", {"correlation": "order-20"}))
    ready.script("openai", wait, wait)
    twice = await ready.session("cashier", "Wait for it, and then for it again.")
    waits = await until_waits(ready, twice, calls_count=2)
    assert len(of(waits, "agent.tool_result")) == 1, "the second time, it is another one that is waited for"
    await ready.json("POST", f"/v1/sessions/{twice}/cancel", {})


async def until_waits(world: World, session_id: str, *, calls_count: int) -> list[dict[str, Any]]:
    """The log, once the session has made so many calls and waits."""
    async with world.seen(session_id, after="0") as events:
        seen = 0
        async for event in events:
            seen += event.type == "agent.tool_use"
            if seen == calls_count and event.type == "freehold.session_waits":
                return await world.events(session_id)
    raise AssertionError("the stream ended")


async def test_what_is_too_late_too_large_or_unknown_is_refused(ready: World) -> None:
    session_id, token = await waiting(ready, tool="hasty")
    async with anyone(ready) as client:
        large = await client.post(f"/v1/events/{token}", content=b"x" * (PAYLOAD_BYTES_MAX + 1))
        assert large.status_code == 413
        assert (await client.post("/v1/events/fhe_nobody", content=b"{}")).status_code == 404
        assert (await client.post("/v1/events/" + "x" * 50, content=b"{}")).status_code == 404
        events = await ready.until_idle(session_id)
        gone = await client.post(f"/v1/events/{token}", content=b"{}")
        assert gone.status_code == 410
        assert "any more" in gone.json()["error"]["message"]
        binary = await waiting(ready)
        refused = await client.post(f"/v1/events/{binary[1]}", content=b"\xff\xfe")
        assert refused.status_code == 400
        await ready.json("POST", f"/v1/sessions/{binary[0]}/cancel", {})
        await ready.until_idle(binary[0])
        assert (await client.post(f"/v1/events/{binary[1]}", content=b"{}")).status_code == 410
        without = await client.post("/v1/events", json={"type": "x", "correlation": "y"})
        assert without.status_code == 401
    [result] = of(events, "agent.tool_result")
    assert result["is_error"]
    assert "nothing was heard of it in time" in result["content"][0]["text"]


async def test_where_a_secret_is_declared_an_event_must_be_signed_with_it(
    ready: World, secrets_folder: Path
) -> None:
    session_id, token = await waiting(ready, tool="signed", correlation="parcel-1")
    body = b'{"left_at": "the door"}'
    async with anyone(ready) as client:
        unreadable = await client.post(f"/v1/events/{token}", content=body)
        assert unreadable.status_code in {503, 529}
        (secrets_folder / "parcel").write_text(SECRET)
        bare = await client.post(f"/v1/events/{token}", content=body)
        assert bare.status_code == 401
        for wrong in (
            headers(body, key="whsec_" + "QUFB" * 8),
            headers(body, seconds_ago=3600),
            headers(b"{}"),
        ):
            assert (await client.post(f"/v1/events/{token}", content=body, headers=wrong)).status_code == 401
        taken = await client.post(f"/v1/events/{token}", content=body, headers=headers(body))
        assert taken.json()["status"] == "received"
    events = await ready.until_idle(session_id)
    assert "the door" in of(events, "agent.tool_result")[0]["content"][0]["text"]


def headers(body: bytes, *, key: str = SECRET, seconds_ago: int = 0) -> dict[str, str]:
    at = datetime.fromtimestamp(int(time.time()) - seconds_ago, UTC)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Signer(key).sign("msg_1", at, body.decode()),
    }


@pytest.mark.slow
def test_what_a_session_waits_for_survives_a_kill(tmp_path: Path) -> None:
    """Waiting, killed, told to the next server, killed again at once: told once all the same."""
    template = """
kind: rules
name: patient
rules:
  - {name: pay, when: pay, steps: [{tool: payment_wait, arguments: {correlation: order-1}, save_as: paid}], answer: "Paid {{ results.paid.data.amount }}."}
otherwise: "?"
---
kind: tool
name: payment
type: event
config: {event: payment.settled}
---
kind: agent
name: patient
model: rules/patient
rules: patient
tools: [payment]
"""
    with freehold(tmp_path) as server, server.ready().client() as client:
        applied = client.post("/v1/templates/apply", json={"template": template})
        assert applied.status_code == 200, applied.text
        message = {"type": "user.message", "content": "pay"}
        created = client.post("/v1/sessions", json={"agent": "patient", "initial_events": [message]})
        session_id = created.json()["id"]
        until(lambda: status(client, session_id) == "waiting")
        server.ended(signal.SIGKILL)
    with freehold(tmp_path) as server, server.ready().client() as client:
        assert status(client, session_id) == "waiting"
        event = {"type": "payment.settled", "correlation": "order-1", "data": {"amount": "5.00"}}
        assert client.post("/v1/events", json=event).json()["status"] == "received"
        server.ended(signal.SIGKILL)
    with freehold(tmp_path) as server, server.ready().client() as client:
        until(lambda: status(client, session_id) == "idle")
        assert client.post("/v1/events", json=event).json()["status"] == "repeated"
        events = client.get(f"/v1/sessions/{session_id}/events").json()["data"]
        assert len(of(events, "agent.tool_result")) == 1
        assert of(events, "agent.message")[-1]["content"][0]["text"] == "Paid 5.00."
        server.ended(signal.SIGTERM)


def status(client: httpx2.Client, session_id: str) -> Any:
    return client.get(f"/v1/sessions/{session_id}").json()["freehold"]["status"]
