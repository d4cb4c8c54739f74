"""Messages that come while a turn runs, on a whole server: queued, breaking off what runs, or refused; as the agent, the session or the
request says."""

import asyncio
from typing import Any

import httpx2
import pytest

from tests._waiting import eventually, within
from tests.gateway._vendors import HOLD, openai_chunk, sse, stream
from tests.server._world import World
from tests.server.test_sessions import of, says

TEMPLATE = """
kind: agent
name: patient
model: openai/gpt-4o
---
kind: agent
name: quick
model: openai/gpt-4o
when_busy: interrupt
---
kind: agent
name: strict
model: openai/gpt-4o
when_busy: reject
"""


@pytest.fixture(scope="module")
async def ready(shared: World) -> World:
    await shared.apply(TEMPLATE)
    return shared


def held() -> Any:
    """An answer that begins and then stands still."""
    return stream(sse(openai_chunk({"content": "Hm"})), HOLD)


async def busy(world: World, agent: str, *after: Any, **more: Any) -> str:
    """A session in the middle of an answer that never ends by itself: who is asked next hears what comes `after`."""
    vendor = world.script("openai", held(), *after)
    session_id = await world.session(agent, "First", **more)
    async with within("the turn to begin"), world.stream(session_id, after="0") as events:
        async for event in events:
            if event.type == "session.status_running":
                break
    await eventually(lambda: vendor.asked)
    return session_id


async def send(world: World, session_id: str, text: str, **more: Any) -> httpx2.Response:
    headers = {"idempotency-key": key} if (key := more.pop("key", None)) else {}
    body = {"events": [{"type": "user.message", "content": text}], **more}
    return await world.http.post(f"/v1/sessions/{session_id}/events", json=body, headers=headers)


async def test_by_itself_a_message_waits_for_the_turn(ready: World) -> None:
    session_id = await busy(ready, "patient", says("Never asked."))
    assert (await send(ready, session_id, "Second")).status_code == 200
    await ready.json("POST", f"/v1/sessions/{session_id}/cancel", {"scope": "session"})
    events = await ready.until_idle(session_id)
    assert len(of(events, "session.status_running")) == 1


async def test_an_interrupting_message_breaks_off_what_runs_and_is_answered(ready: World) -> None:
    session_id = await busy(ready, "quick", says("You said second."))
    answer = await send(ready, session_id, "Second")
    assert answer.status_code == 200, answer.text
    [sent] = answer.json()["data"]
    assert sent["content"][0]["text"] == "Second"
    events = await ready.until_idle(session_id, turns=2)
    outcomes = [one["freehold"]["outcome"] for one in of(events, "session.status_idle")]
    assert outcomes == ["cancelled", "completed"]
    [interrupt] = of(events, "user.interrupt")
    assert interrupt["freehold"]["reason"] == "new input came"
    [said] = of(events, "agent.message")
    assert said["content"][0]["text"].strip() == "You said second."


async def test_a_rejecting_session_says_its_state_and_takes_nothing(ready: World) -> None:
    session_id = await busy(ready, "strict")
    refused = await send(ready, session_id, "Second")
    assert refused.status_code == 409
    assert f"session {session_id} is running" in refused.json()["error"]["message"]
    assert [one["content"][0]["text"] for one in of(await ready.events(session_id), "user.message")] == [
        "First"
    ]
    interrupt_first = {"events": [{"type": "user.interrupt"}, {"type": "user.message", "content": "Third"}]}
    ready.vendors["openai"].play(says("Third."))
    await ready.json("POST", f"/v1/sessions/{session_id}/events", interrupt_first)
    events = await ready.until_idle(session_id, turns=2)
    assert of(events, "agent.message")[-1]["content"][0]["text"].strip() == "Third."
    ready.vendors["openai"].play(says("Fourth."))
    assert (await send(ready, session_id, "At rest it takes input")).status_code == 200
    await ready.until_idle(session_id, turns=3)


async def test_a_repeated_request_is_not_refused_for_what_it_began_itself(ready: World) -> None:
    vendor = ready.script("openai", held())
    session_id = (await ready.json("POST", "/v1/sessions", {"agent": "strict"}))["id"]
    first = await send(ready, session_id, "Once", key="the-same")
    again = await send(ready, session_id, "Once", key="the-same")
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert (await send(ready, session_id, "Other", key="another")).status_code == 409
    await eventually(lambda: vendor.asked)
    await ready.json("POST", f"/v1/sessions/{session_id}/cancel", {"scope": "session"})


async def test_the_session_goes_before_the_agent_and_the_request_before_both(ready: World) -> None:
    session_id = await busy(ready, "quick", freehold={"when_busy": "reject"})
    shown = await ready.json("GET", f"/v1/sessions/{session_id}")
    assert shown["freehold"]["when_busy"] == "reject"
    assert (await send(ready, session_id, "Second")).status_code == 409
    queued = await send(ready, session_id, "Second", freehold={"when_busy": "queue"})
    assert queued.status_code == 200
    assert of(await ready.events(session_id), "user.interrupt") == []
    unknown = await send(ready, session_id, "Third", freehold={"when_busy": "rollback"})
    assert (unknown.status_code, "freehold.when_busy" in unknown.text) == (400, True)
    forked = await ready.json("POST", f"/v1/sessions/{session_id}/fork", {"at": 1})
    assert forked["freehold"]["when_busy"] == "reject"
    await ready.json("POST", f"/v1/sessions/{session_id}/cancel", {"scope": "session"})


async def test_of_two_at_once_a_rejecting_session_takes_one(ready: World) -> None:
    vendor = ready.script("openai", held())
    session_id = (await ready.json("POST", "/v1/sessions", {"agent": "strict"}))["id"]
    answers = await asyncio.gather(*(send(ready, session_id, f"Number {place}") for place in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]
    await eventually(lambda: vendor.asked)
    await ready.json("POST", f"/v1/sessions/{session_id}/cancel", {"scope": "session"})
