"""Sessions that wait for people, clients and time, on a whole server, driven by the unmodified `anthropic` SDK."""

from typing import Any

import pytest

from tests._waiting import eventually
from tests.server._world import World
from tests.server.test_sessions import calls, of, says

TEMPLATE = """
kind: tool
name: stock
type: kv
config: {table: waiting_stock, writable: true}
approval: {functions: [put], deadline_s: 600}
---
kind: tool
name: screen
type: client
config:
  functions:
    - name: pick
      description: Lets the person pick a colour.
      input_schema: {type: object, properties: {from: {type: array, items: {type: string}}}}
---
kind: tool
name: clock
type: timer
---
kind: agent
name: waiter
model: openai/gpt-4o
tools: [stock, screen, clock]
"""
PUT = {"items": {"SKU-1": 5}}


@pytest.fixture(scope="module")
async def ready(shared: World) -> World:
    await shared.apply(TEMPLATE)
    return shared


async def until(world: World, session_id: str, kind: str) -> dict[str, Any]:
    """The first event of that type after the last of the kind that were there; from the log, then live."""
    async with world.seen(session_id, after="0") as events:
        async for event in events:
            if event.type == kind:
                return event.body
    raise AssertionError("the stream ended")


async def until_asked(world: World, session_id: str) -> list[str]:
    idle = await until(world, session_id, "session.status_idle")
    assert idle["stop_reason"]["type"] == "requires_action"
    return list(idle["stop_reason"]["event_ids"])


async def test_a_call_that_needs_approval_waits_for_it_and_then_runs_once(ready: World) -> None:
    ready.script("openai", calls(("stock_put", PUT)), says("It is written."))
    session_id = await ready.session("waiter", "Set SKU-1 to 5")
    [call_id] = await until_asked(ready, session_id)
    sessions = ready.anthropic.beta.sessions
    asked = await sessions.retrieve(session_id)
    assert asked.status == "idle"
    [use] = of(await ready.events(session_id), "agent.tool_use")
    assert (use["id"], use["evaluated_permission"]) == (call_id, "ask")
    assert of(await ready.events(session_id), "freehold.tool_started") == []
    await sessions.events.send(
        session_id, events=[{"type": "user.tool_confirmation", "tool_use_id": call_id, "result": "allow"}]
    )
    events = await ready.until_idle(session_id, turns=2)
    [started] = of(events, "freehold.tool_started")
    assert started["input"] == PUT
    assert of(events, "agent.message")[-1]["content"][0]["text"].strip() == "It is written."


async def test_a_denial_reaches_the_model_in_the_persons_words(ready: World) -> None:
    vendor = ready.script("openai", calls(("stock_put", PUT)), says("Then not."))
    session_id = await ready.session("waiter", "Set SKU-1 to 5")
    [call_id] = await until_asked(ready, session_id)
    await ready.anthropic.beta.sessions.events.send(
        session_id,
        events=[
            {
                "type": "user.tool_confirmation",
                "tool_use_id": call_id,
                "result": "deny",
                "deny_message": "ask Ann first",
            }
        ],
    )
    events = await ready.until_idle(session_id, turns=2)
    assert of(events, "freehold.tool_started") == []
    assert b"ask Ann first" in vendor.asked[-1].body
    [confirmation] = of(events, "user.tool_confirmation")
    assert confirmation["deny_message"] == "ask Ann first"


async def test_arguments_may_be_edited_and_what_was_seen_is_what_is_approved(ready: World) -> None:
    ready.script("openai", calls(("stock_put", PUT)), says("Done."))
    session_id = await ready.session("waiter", "Set SKU-1 to 5")
    [call_id] = await until_asked(ready, session_id)
    confirmation = {"type": "user.tool_confirmation", "tool_use_id": call_id, "result": "allow"}
    stale = await ready.http.post(
        f"/v1/sessions/{session_id}/events",
        json={"events": [confirmation | {"freehold": {"binding": "0" * 64}}]},
    )
    assert stale.status_code == 409
    assert "not what you saw" in stale.text
    edited = {"items": {"SKU-1": 4}}
    await ready.json(
        "POST",
        f"/v1/sessions/{session_id}/events",
        {"events": [confirmation | {"freehold": {"input": edited}}]},
    )
    events = await ready.until_idle(session_id, turns=2)
    [started] = of(events, "freehold.tool_started")
    assert started["input"] == edited
    late = await ready.http.post(f"/v1/sessions/{session_id}/events", json={"events": [confirmation]})
    assert late.status_code == 404


async def test_the_client_runs_its_own_tools(ready: World) -> None:
    ready.script("openai", calls(("screen_pick", {"from": ["red", "blue"]})), says("Blue it is."))
    session_id = await ready.session("waiter", "Which colour?")
    [call_id] = await until_asked(ready, session_id)
    [use] = of(await ready.events(session_id), "agent.custom_tool_use")
    assert (use["id"], use["input"]) == (call_id, {"from": ["red", "blue"]})
    result = {"type": "user.custom_tool_result", "custom_tool_use_id": call_id}
    await ready.anthropic.beta.sessions.events.send(
        session_id, events=[result | {"content": [{"type": "text", "text": "blue"}]}]
    )
    events = await ready.until_idle(session_id, turns=2)
    assert of(events, "agent.message")[-1]["content"][0]["text"].strip() == "Blue it is."
    again = await ready.http.post(f"/v1/sessions/{session_id}/events", json={"events": [result]})
    assert again.status_code == 404


async def test_a_timer_wakes_its_session_by_itself(ready: World) -> None:
    # Where the machine is late, the time has come before the session begins to wait.
    for seconds in (0.3, 3.0, 30.0):
        vendor = ready.script("openai", calls(("clock_wait", {"seconds": seconds})), says("Good morning."))
        session_id = await ready.session("waiter", "Wake me")
        events = await ready.until_idle(session_id)
        assert b"the time has come" in vendor.asked[-1].body
        if of(events, "freehold.session_waits"):
            break
    assert len(of(events, "freehold.session_waits")) == 1


async def test_only_what_waits_for_somebody_to_act_is_idle(ready: World) -> None:
    sessions = ready.anthropic.beta.sessions
    ready.script("openai", calls(("clock_wait", {"seconds": 3600})))
    by_itself = await ready.session("waiter", "Wake me")
    await until(ready, by_itself, "freehold.session_waits")
    ready.script("openai", calls(("clock_wait", {"seconds": 3600}), ("screen_pick", {"from": ["red"]})))
    asks = await ready.session("waiter", "Wake me, and which colour?")
    [call_id] = await until_asked(ready, asks)

    async def listed(status: Any) -> set[str]:
        found = {one.id async for one in sessions.list(agent_id="waiter", statuses=[status])}
        return found & {by_itself, asks}

    assert [(await sessions.retrieve(one)).status for one in (by_itself, asks)] == ["running", "idle"]
    assert await listed("running") == {by_itself}
    assert await listed("idle") == {asks}
    assert await listed("waiting") == {by_itself, asks}
    assert await listed("working") == set()
    [thread] = [one async for one in sessions.threads.list(by_itself)]
    assert thread.status == "running"
    kinds = [one.type async for one in sessions.events.list(by_itself)]
    assert "session.status_idle" not in kinds
    result: Any = {"type": "user.custom_tool_result", "custom_tool_use_id": call_id}
    await sessions.events.send(asks, events=[result])

    async def goes_on_by_itself() -> bool:
        return (await sessions.retrieve(asks)).status == "running"

    await eventually(goes_on_by_itself)
    for one in (by_itself, asks):
        await ready.json("POST", f"/v1/sessions/{one}/cancel", {})


async def test_a_paused_session_keeps_what_is_said_and_goes_on_when_resumed(ready: World) -> None:
    ready.script("openai", says("First."), says("Second."))
    session_id = await ready.session("waiter", "One")
    await ready.until_idle(session_id)
    paused = await ready.json("POST", f"/v1/sessions/{session_id}/pause", {"reason": "lunch"})
    assert paused["id"] == session_id
    await until(ready, session_id, "freehold.session_waits")
    await ready.json(
        "POST", f"/v1/sessions/{session_id}/events", {"events": [{"type": "user.message", "content": "Two"}]}
    )
    listed = await ready.json("GET", "/v1/sessions?statuses[]=paused")
    assert (
        session_id in [one["id"] for one in listed["data"]]
        or len(of(await ready.events(session_id), "agent.message")) == 1
    )
    await ready.json("POST", f"/v1/sessions/{session_id}/resume", {})
    events = await ready.until_idle(session_id, turns=2)
    assert [message["content"][0]["text"].strip() for message in of(events, "agent.message")] == [
        "First.",
        "Second.",
    ]


async def test_the_dearest_sessions_come_first_and_page_by_page(ready: World) -> None:
    first = await ready.json("GET", "/v1/sessions?sort=cost&limit=1")
    second = await ready.json("GET", f"/v1/sessions?sort=cost&limit=1&page={first['next_page']}")
    costs = [page["data"][0]["freehold"]["cost"]["pico"] for page in (first, second)]
    assert costs == sorted(costs, reverse=True)
    assert first["data"][0]["id"] != second["data"][0]["id"]


async def test_a_clients_large_result_is_kept_aside_and_read_by_its_handle(ready: World) -> None:
    lines = "".join(f"line {number}: red\n" for number in range(20_000)) + "the last line: blue\n"
    vendor = ready.script("openai", calls(("screen_pick", {"from": ["red"]})), says("A moment."))
    session_id = await ready.session("waiter", "Which colour?")
    [call_id] = await until_asked(ready, session_id)
    event = {
        "type": "user.custom_tool_result",
        "custom_tool_use_id": call_id,
        "content": [{"type": "text", "text": lines}],
    }
    await ready.json("POST", f"/v1/sessions/{session_id}/events", {"events": [event]})
    events = await ready.until_idle(session_id, turns=2)
    [result] = of(events, "user.custom_tool_result")
    [shown] = result["content"]
    assert len(shown["text"]) < 6000 < len(lines)
    handle = shown["text"].partition('handle="')[2].partition('"')[0]
    assert b"result_read" in vendor.asked[-1].body
    ready.script("openai", calls(("result_read", {"handle": handle, "search": "blue"})), says("Blue."))
    await ready.json(
        "POST",
        f"/v1/sessions/{session_id}/events",
        {"events": [{"type": "user.message", "content": "And the last?"}]},
    )
    events = await ready.until_idle(session_id, turns=3)
    assert "the last line: blue" in of(events, "agent.tool_result")[-1]["content"][0]["text"]
