"""The sessions API on a whole server: turns with tools, streams that are cut and resumed, many sessions at once."""

import asyncio
import random
from typing import Any

import msgspec
import pytest

from tests._waiting import within
from tests.gateway._vendors import OPENAI_TEXT, OPENAI_USAGE_CHUNK, openai_chunk, reply, sse, stream
from tests.server._world import Event, World

STREAMS_CUT = 50
SESSIONS_AT_ONCE = 200

TEMPLATE = """
kind: tool
name: inventory
type: kv
description: Stock by SKU.
config: {table: inventory}
---
kind: agent
name: clerk
model: openai/gpt-4o
instructions: Look before you answer.
tools: [inventory]
---
kind: rules
name: echo
rules:
  - name: count
    when: "how many (?P<sku>[A-Z0-9-]+)"
    steps:
      - {tool: inventory_get, arguments: {keys: ["{{ sku }}"]}, save_as: stock}
    answer: "There are {{ results.stock }} of {{ sku }}."
otherwise: "I only count."
---
kind: agent
name: counter
model: rules/echo
rules: echo
tools: [inventory]
"""


def calls(*named: tuple[str, dict[str, Any]]) -> list[Any]:
    deltas = [
        {"index": index, "id": f"call_{index}", "type": "function",
         "function": {"name": name, "arguments": msgspec.json.encode(arguments).decode()}}
        for index, (name, arguments) in enumerate(named)
    ]  # fmt: skip
    return stream(
        sse(openai_chunk({"role": "assistant", "tool_calls": deltas})),
        sse(openai_chunk({}, "tool_calls")),
        sse(OPENAI_USAGE_CHUNK, b"[DONE]"),
    )


def says(text: str) -> list[Any]:
    pieces = [sse(openai_chunk({"content": word + " "})) for word in text.split()]
    return stream(*pieces, sse(openai_chunk({}, "stop")), sse(OPENAI_USAGE_CHUNK, b"[DONE]"))


@pytest.fixture(scope="module")
async def ready(shared: World) -> World:
    await shared.apply(TEMPLATE)
    items = b'{"key":"SKU-1","value":{"on_hand":7}}\n{"key":"SKU-2","value":{"on_hand":0}}\n'
    answer = await shared.http.put("/v1/tables/inventory/items", content=items)
    assert answer.json() == {"count": 2}
    return shared


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


async def test_a_turn_runs_tools_and_answers(ready: World) -> None:
    asked = ready.script("openai", calls(("inventory_get", {"keys": ["SKU-1"]})), says("There are seven."))
    session_id = await ready.session("clerk", "How many SKU-1?")
    events = await ready.until_idle(session_id)
    (result,) = of(events, "agent.tool_result")
    (message,) = of(events, "agent.message")
    assert "7" in result["content"][0]["text"]
    assert message["content"][0]["text"].strip() == "There are seven."
    assert of(events, "session.status_idle")[0]["stop_reason"] == {"type": "end_turn"}
    second = asked.asked[1].json["messages"]
    assert second[-1]["role"] == "tool"
    assert second[-1]["tool_call_id"] == "call_0"
    session = await ready.json("GET", f"/v1/sessions/{session_id}")
    assert session["status"] == "idle"
    assert session["usage"]["output_tokens"] == 14
    assert session["freehold"]["cost"]["pico"] > 0


async def test_rules_answer_without_a_language_model_and_say_so(ready: World) -> None:
    session_id = await ready.session("counter", "how many SKU-1")
    events = await ready.until_idle(session_id)
    assert "7" in of(events, "agent.message")[0]["content"][0]["text"]
    assert {event["freehold"]["served_by"] for event in of(events, "span.model_request_end")} == {
        "rules/echo"
    }


async def test_a_tools_failure_is_an_answer_for_the_model(ready: World) -> None:
    asked = ready.script(
        "openai", calls(("inventory_put", {"x": 1}), ("inventory_get", {"keys": 5})), says("Sorry.")
    )
    events = await ready.until_idle(await ready.session("clerk", "Change it"))
    assert [event["is_error"] for event in of(events, "agent.tool_result")] == [True, True]
    results = [message["content"] for message in asked.asked[1].json["messages"] if message["role"] == "tool"]
    assert "inventory_get" in str(results[0])
    assert "keys" in str(results[1])


async def test_a_model_that_refuses_fails_the_turn_and_the_session_goes_on(ready: World) -> None:
    body = b'{"error":{"message":"no such model","type":"invalid_request_error","code":"model_not_found"}}'
    ready.script("openai", reply(body, status=404))
    session_id = await ready.session("clerk", "Hello")
    events = await ready.until_idle(session_id)
    assert of(events, "session.error")[0]["error"]["retry_status"] == {"type": "exhausted"}
    ready.script("openai", says("Hello again."))
    await ready.json(
        "POST",
        f"/v1/sessions/{session_id}/events",
        {"events": [{"type": "user.message", "content": "And now?"}]},
    )
    events = await ready.until_idle(session_id, turns=2)
    assert of(events, "agent.message")[-1]["content"][0]["text"].strip() == "Hello again."


async def test_previews_carry_the_id_of_the_message_they_become(ready: World) -> None:
    session = await ready.json("POST", "/v1/sessions", {"agent": "clerk"})
    ready.script("openai", says("one two three"))
    seen: list[Event] = []
    async with ready.stream(session["id"], after="0", previews=True) as events:
        body = {"events": [{"type": "user.message", "content": "Count"}]}
        await ready.json("POST", f"/v1/sessions/{session['id']}/events", body)
        async for event in events:
            seen.append(event)
            if event.type == "session.status_idle":
                break
    deltas = [event.body for event in seen if event.type == "event_delta"]
    (message,) = [event.body for event in seen if event.type == "agent.message"]
    assert "".join(delta["delta"]["content"]["text"] for delta in deltas) == message["content"][0]["text"]
    assert {delta["event_id"] for delta in deltas} == {message["id"]}


@pytest.mark.slow
async def test_a_stream_cut_at_random_and_resumed_gives_every_event_once(ready: World) -> None:
    """Cut after a random number of events, fifty times, while turns run; half by header and half by query."""
    chance = random.Random(4482)
    session = await ready.json("POST", "/v1/sessions", {"agent": "counter"})
    path = f"/v1/sessions/{session['id']}/events"
    asking = asyncio.create_task(_ask_many(ready, session["id"], path))
    seen: list[str] = []
    for cut in range(STREAMS_CUT):
        resumed = {"last_event_id" if cut % 2 else "after": seen[-1] if seen else "0"}
        seen += await _some(ready, session["id"], chance.randint(1, 4), resumed)
    await asking
    log = await ready.until_idle(session["id"], turns=12)
    while len(seen) < len(log):
        seen += await _some(ready, session["id"], 1, {"after": seen[-1]})
    assert seen == [event["freehold"]["cursor"] for event in log]


async def _ask_many(world: World, session_id: str, path: str) -> None:
    for turn in range(12):
        body = {"events": [{"type": "user.message", "content": f"how many SKU-{turn % 2 + 1}"}]}
        await world.json("POST", path, body)
        await world.until_idle(session_id, turns=turn + 1)


async def _some(world: World, session_id: str, count: int, resumed: dict[str, str]) -> list[str]:
    found: list[str] = []
    async with within(f"{count} events", found), world.stream(session_id, **resumed) as events:
        async for event in events:
            assert event.cursor is not None
            found.append(event.cursor)
            if len(found) == count:
                break
    return found


@pytest.mark.slow
async def test_two_hundred_sessions_at_once(ready: World) -> None:
    ids = await asyncio.gather(*(ready.session("counter", "how many SKU-1") for _ in range(SESSIONS_AT_ONCE)))
    for session_id in ids:
        events = await ready.until_idle(session_id)
        assert len(of(events, "agent.message")) == 1
        assert len(of(events, "agent.tool_result")) == 1
        assert len(of(events, "session.status_idle")) == 1


async def test_sending_twice_with_one_idempotency_key_speaks_once(ready: World) -> None:
    session = await ready.json("POST", "/v1/sessions", {"agent": "counter"})
    body = {"events": [{"type": "user.message", "content": "how many SKU-1"}]}
    path, headers = f"/v1/sessions/{session['id']}/events", {"idempotency-key": "once"}
    first = await ready.json("POST", path, body, headers=headers)
    second = await ready.json("POST", path, body, headers=headers)
    assert first == second
    assert len(of(await ready.until_idle(session["id"]), "user.message")) == 1


async def test_a_cancelled_session_is_terminated_and_takes_nothing_more(ready: World) -> None:
    session = await ready.json("POST", "/v1/sessions", {"agent": "counter"})
    await ready.json("POST", f"/v1/sessions/{session['id']}/cancel", {"reason": "enough"})
    await ready.until_idle(session["id"])
    body = {"events": [{"type": "user.message", "content": "still there?"}]}
    answer = await ready.http.post(f"/v1/sessions/{session['id']}/events", content=msgspec.json.encode(body))
    assert answer.status_code == 409
    assert "cancelled" in answer.json()["error"]["message"]


async def test_events_come_in_pages(ready: World) -> None:
    session_id = await ready.session("counter", "how many SKU-1")
    whole = await ready.until_idle(session_id)
    found, page = [], None
    while True:
        query = f"include=freehold&limit=2{f'&page={page}' if page else ''}"
        answer = await ready.json("GET", f"/v1/sessions/{session_id}/events?{query}")
        found += answer["data"]
        page = answer["next_page"]
        if page is None:
            break
    assert found == whole


async def test_anthropics_sdk_drives_a_session(ready: World) -> None:
    ready.script("openai", reply(OPENAI_TEXT))
    beta = ready.anthropic.beta
    agent = await beta.agents.retrieve("counter")
    assert agent.name == "counter"
    session = await beta.sessions.create(agent="counter", environment_id="default", title="From the SDK")
    assert (session.status, session.title) == ("idle", "From the SDK")
    kinds: list[str] = []
    async with await beta.sessions.events.stream(session.id) as events:
        await beta.sessions.events.send(
            session.id,
            events=[{"type": "user.message", "content": [{"type": "text", "text": "how many SKU-1"}]}],
        )
        async for event in events:
            kinds.append(event.type)
            if event.type == "session.status_idle":
                break
    listed = [event.type async for event in beta.sessions.events.list(session.id)]
    assert listed == kinds
    assert "agent.tool_use" in kinds
    newest = await anext(aiter(beta.sessions.list()))
    assert newest.id == session.id
