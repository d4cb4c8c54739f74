"""Agents that work for agents, on a whole server: each in a session of its own, told and cancelled together."""

from typing import Any

import pytest

from tests._waiting import eventually
from tests.gateway._vendors import HOLD, openai_chunk, sse, stream
from tests.server._world import World
from tests.server.test_sessions import calls, of, says

TEMPLATE = """
kind: tool
name: notes
type: kv
config: {table: notes, writable: true}
---
kind: agent
name: writer
model: openai/gpt-4o
tools: [notes]
---
kind: tool
name: writer
type: agent
description: Writes notes.
config: {agent: writer, children_max: 2}
---
kind: agent
name: editor
model: openai/gpt-4o
tools: [writer]
policy: {Version: "2012-10-17", Statement: [{Effect: Allow, Action: "*", Resource: "*"},
  {Effect: Deny, Action: "tool:Run", Resource: "tool/notes/delete"}]}
---
kind: tool
name: self
type: agent
config: {agent: mirror, depth_max: 2}
---
kind: agent
name: mirror
model: openai/gpt-4o
tools: [self]
"""
DELEGATE = calls(("writer_delegate", {"task": "Write a note on rain."}))


@pytest.fixture(scope="module")
async def ready(shared: World) -> World:
    await shared.apply(TEMPLATE)
    return shared


async def children(world: World, parent_id: str) -> list[dict[str, Any]]:
    listed = await world.json("GET", "/v1/sessions?limit=100")
    return [one for one in listed["data"] if one["freehold"]["parent_id"] == parent_id]


async def test_a_subagent_answers_in_a_session_of_its_own(ready: World) -> None:
    vendor = ready.script("openai", DELEGATE, says("It rains."), says("The note says: it rains."))
    session_id = await ready.session("editor", "A note on rain, please.")
    events = await ready.until_idle(session_id)
    [result] = of(events, "agent.tool_result")
    assert result["content"][0]["text"].strip() == "It rains."
    assert not result["is_error"]
    [child] = await children(ready, session_id)
    assert child["agent"]["name"] == "writer"
    assert (
        child["freehold"]["created_by"]
        == (await ready.json("GET", f"/v1/sessions/{session_id}"))["freehold"]["created_by"]
    )
    assert b"Write a note on rain." in vendor.asked[1].body
    assert b"A note on rain, please." not in vendor.asked[1].body
    parent = await ready.json("GET", f"/v1/sessions/{session_id}")
    assert (
        parent["usage"]["output_tokens"] < parent["usage"]["output_tokens"] + child["usage"]["output_tokens"]
    )


async def test_two_subagents_work_side_by_side(ready: World) -> None:
    both = calls(("writer_delegate", {"task": "One"}), ("writer_delegate", {"task": "Two"}))
    ready.script("openai", both, says("Done."))
    session_id = await ready.session("editor", "Two notes, please.")
    events = await ready.until_idle(session_id)
    assert [one["is_error"] for one in of(events, "agent.tool_result")] == [False, False]
    assert len(await children(ready, session_id)) == 2


async def test_more_than_children_max_are_refused_and_the_model_is_told(ready: World) -> None:
    held = stream(sse(openai_chunk({"content": "Hm"})), HOLD)
    three = calls(*(("writer_delegate", {"task": name}) for name in ("One", "Two", "Three")))
    vendor = ready.script("openai", three, held)
    session_id = await ready.session("editor", "Three notes, please.")
    async with ready.stream(session_id, after="0") as events:
        async for event in events:
            if event.type == "agent.tool_result":
                assert "children_max" in event.body["content"][0]["text"]
                break
    await eventually(lambda: len(vendor.asked) == 3)
    await ready.json("POST", f"/v1/sessions/{session_id}/cancel", {})
    await ready.until_idle(session_id)


async def test_a_cancel_reaches_those_at_work(ready: World) -> None:
    held = stream(sse(openai_chunk({"content": "Hm"})), HOLD)
    vendor = ready.script("openai", DELEGATE, held)
    session_id = await ready.session("editor", "A note, please.")
    async with ready.stream(session_id, after="0") as events:
        async for event in events:
            if event.type == "freehold.session_waits":
                break
    await eventually(lambda: len(vendor.asked) == 2)
    [child] = await children(ready, session_id)
    await ready.json("POST", f"/v1/sessions/{session_id}/cancel", {"scope": "session"})
    await ready.until_idle(session_id)
    ended = await ready.until_idle(child["id"])
    assert of(ended, "session.status_terminated")
    await vendor.hung_up.wait()


async def test_a_subagent_may_do_nothing_that_its_parent_may_not(ready: World) -> None:
    ready.script(
        "openai",
        DELEGATE,
        calls(("notes_delete", {"keys": ["rain"]})),
        says("It was not allowed."),
        says("Sorry."),
    )
    session_id = await ready.session("editor", "Delete the note on rain.")
    await ready.until_idle(session_id)
    [child] = await children(ready, session_id)
    [result] = of(await ready.events(child["id"]), "agent.tool_result")
    assert result["is_error"]
    assert result["content"][0]["text"].startswith("forbidden")


async def test_depth_has_an_end(ready: World) -> None:
    deeper = calls(("self_delegate", {"task": "Again"}))
    ready.script("openai", deeper, deeper, deeper, says("Deep enough."))
    session_id = await ready.session("mirror", "Ask yourself.")
    await ready.until_idle(session_id)
    [child] = await children(ready, session_id)
    [grandchild] = await children(ready, child["id"])
    assert await children(ready, grandchild["id"]) == []
    [result] = of(await ready.events(grandchild["id"]), "agent.tool_result")
    assert "depth_max" in result["content"][0]["text"]
