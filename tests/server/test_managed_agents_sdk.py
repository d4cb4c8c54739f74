"""Claude Managed Agents' API through Anthropic's unmodified SDK: agents, environments, sessions, events, threads; and what is refused.

Each test goes by the SDK's own types: what it could not place in them would be missing, not an extra.
"""

import asyncio
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from pydantic import BaseModel

from tests._waiting import eventually, within
from tests.gateway._vendors import HOLD, OPENAI_USAGE_CHUNK, openai_chunk, sse, stream
from tests.matrix._node import node_folder
from tests.server._world import World
from tests.server.test_sessions import calls, says

PAGE = Path(__file__).resolve().parents[2] / "docs" / "managed-agents.md"
WEATHER: Any = {
    "type": "custom",
    "name": "get_weather",
    "description": "The weather somewhere.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
SUBAGENT = """
kind: agent
name: researcher
model: openai/gpt-4o
---
kind: tool
name: researcher
type: agent
config: {agent: researcher}
---
kind: tool
name: service
type: http
config:
  base_url: http://127.0.0.1:9
  allow_private: true
  document: {openapi: 3.0.0, info: {title: x, version: "1"}, paths: {/x: {get: {operationId: look, responses: {}}}}}
"""


@pytest.fixture(scope="module")
async def ready(shared: World) -> World:
    await shared.apply(SUBAGENT)
    return shared


def placed(value: Any) -> None:
    """Everything that came has a place in the SDK's types, but for what is ours."""
    if isinstance(value, BaseModel):
        extra = set(value.model_extra or {}) - {"freehold", "workflow_run_id"}
        assert not extra, (type(value).__name__, extra)
        for name in type(value).model_fields:
            placed(getattr(value, name))
    elif isinstance(value, list):
        for one in value:
            placed(one)


async def heard(world: World, session_id: str, last: str) -> list[Any]:
    """What the log says up to the first event of the type `last`, through the SDK."""
    async with within(f"an event {last}"):
        while True:
            found = [one async for one in world.anthropic.beta.sessions.events.list(session_id)]
            if last in (one.type for one in found):
                return found
            await asyncio.sleep(0.02)


async def test_a_whole_story(ready: World) -> None:
    beta = ready.anthropic.beta
    agent = await beta.agents.create(
        name="Travel Assistant",
        model="openai/gpt-4o",
        system="You plan journeys.",
        tools=[WEATHER],
        metadata={"team": "travel"},
    )
    placed(agent)
    assert agent.name == "Travel Assistant"
    assert agent.id.startswith("travel-assistant-")
    assert agent.tools[0].name == "get_weather"  # type: ignore[union-attr]
    environment = await beta.environments.create(
        name="journeys", config={"type": "cloud", "networking": {"type": "unrestricted"}}
    )
    placed(environment)
    ready.script("openai", calls(("get_weather", {"city": "Oslo"})), says("Take a coat."))
    session = await beta.sessions.create(
        agent={"id": agent.id, "type": "agent", "version": agent.version},
        environment_id=environment.id,
        title="A trip",
        metadata={"order": "17"},
    )
    placed(session)
    assert (session.status, session.environment_id, session.agent.name) == (
        "idle",
        environment.id,
        "Travel Assistant",
    )
    assert (session.agent.system, session.agent.model.id) == ("You plan journeys.", "openai/gpt-4o")
    kinds: list[str] = []
    async with (
        within("the whole story", kinds),
        await beta.sessions.events.stream(session.id, event_deltas=["agent.message"]) as events,
    ):
        await beta.sessions.events.send(
            session.id,
            events=[{"type": "user.message", "content": [{"type": "text", "text": "What shall I pack?"}]}],
        )
        async for event in events:
            placed(event)
            kinds.append(event.type)
            if event.type == "agent.custom_tool_use":
                assert (event.name, event.input) == ("get_weather", {"city": "Oslo"})
                await beta.sessions.events.send(
                    session.id,
                    events=[
                        {
                            "type": "user.custom_tool_result",
                            "custom_tool_use_id": event.id,
                            "content": [{"type": "text", "text": "2 degrees"}],
                        }
                    ],
                )
            if event.type == "session.status_idle" and event.stop_reason.type == "end_turn":
                break
    assert "event_delta" in kinds
    assert kinds.count("agent.message") == 1
    done = await beta.sessions.retrieve(session.id)
    assert done.usage.output_tokens == 14
    changed = await beta.sessions.update(
        session.id, title="A trip to Oslo", metadata={"order": None, "to": "Oslo"}
    )
    assert (changed.title, changed.metadata) == ("A trip to Oslo", {"to": "Oslo"})
    archived = await beta.sessions.archive(session.id)
    assert archived.archived_at is not None
    with pytest.raises(anthropic.ConflictError, match="sessions in it"):
        await beta.environments.delete(environment.id)
    assert (await beta.environments.archive(environment.id)).archived_at is not None
    assert (await beta.agents.archive(agent.id)).archived_at is not None
    assert (await beta.agents.retrieve(agent.id)).archived_at is not None
    assert (await beta.sessions.delete(session.id)).type == "session_deleted"
    assert (await beta.environments.delete(environment.id)).type == "environment_deleted"
    with pytest.raises(anthropic.NotFoundError):
        await beta.environments.retrieve(environment.id)


async def test_a_models_effort_is_kept_until_another_is_said(ready: World) -> None:
    agents = ready.anthropic.beta.agents
    made = await agents.create(name="thinker", model={"id": "anthropic/claude-opus-5-5", "effort": "high"})
    placed(made)
    again = await agents.update(made.id, model="anthropic/claude-opus-5-5", name="A Thinker")
    assert again.model.effort is not None
    assert (again.id, again.name, again.model.effort.type) == ("thinker", "A Thinker", "high")
    other = await agents.update(made.id, model={"id": "anthropic/claude-opus-5-5", "effort": {"type": "low"}})
    assert other.model.effort is not None
    assert other.model.effort.type == "low"
    listed = [
        one.id async for one in agents.list(created_at_gte=made.created_at, created_at_lte=made.created_at)
    ]
    assert listed == [made.id]


@pytest.mark.slow
async def test_the_documented_program_runs(ready: World) -> None:
    [program] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    ready.script("openai", calls(("get_weather", {"city": "Oslo"})), says("Take a coat."))
    environment = os.environ | {"FREEHOLD_URL": ready.url, "FREEHOLD_API_KEY": ready.key}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environment, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert said.decode().strip() == "Take a coat."


async def test_the_same_from_a_thread_by_the_sdk_without_async(ready: World) -> None:
    ready.script("openai", says("Hello."))

    def story() -> tuple[list[str], list[str]]:
        with Anthropic(base_url=ready.url, api_key=ready.key, max_retries=0) as client:
            beta = client.beta
            agent = beta.agents.create(name="plain-story", model="openai/gpt-4o")
            environment = beta.environments.create(name="plain-story")
            session = beta.sessions.create(agent=agent.id, environment_id=environment.id)
            seen = []
            with beta.sessions.events.stream(session.id) as events:
                beta.sessions.events.send(
                    session.id,
                    events=[{"type": "user.message", "content": [{"type": "text", "text": "Hi"}]}],
                )
                for event in events:
                    placed(event)
                    seen.append(event.type)
                    if event.type == "session.status_idle":
                        break
            listed = [event.type for event in beta.sessions.events.list(session.id, limit=2)]
            beta.environments.update(environment.id, description="A place")
            assert beta.environments.retrieve(environment.id).description == "A place"
            assert environment.id in [one.id for one in beta.environments.list(limit=1)]
            assert [one.version for one in beta.agents.versions.list(agent.id)] == [1]
            assert [one.id for one in beta.sessions.threads.list(session.id)]
            return seen, listed

    seen, listed = await asyncio.to_thread(story)
    assert seen == listed


async def test_an_interrupt_ends_the_turn(ready: World) -> None:
    beta = ready.anthropic.beta
    held = stream(sse(openai_chunk({"content": "Hm"})), HOLD)
    vendor = ready.script("openai", held)
    session = await beta.sessions.create(
        agent="researcher",
        environment_id="default",
        initial_events=[
            {"type": "user.message", "content": [{"type": "text", "text": "Think."}]},
            {"type": "user.message", "content": [{"type": "text", "text": "Long."}]},
        ],
    )
    await eventually(lambda: vendor.asked)
    await beta.sessions.events.send(session.id, events=[{"type": "user.interrupt"}])
    events = await heard(ready, session.id, "session.status_idle")
    assert [one.type for one in events].count("user.message") == 2
    assert "user.interrupt" in [one.type for one in events]
    placed(await beta.sessions.retrieve(session.id))


async def test_a_subagent_is_a_thread_of_its_session(ready: World) -> None:
    beta = ready.anthropic.beta
    agent = await beta.agents.create(
        name="editor-in-chief", model="openai/gpt-4o", extra_body={"freehold": {"tools": ["researcher"]}}
    )
    delegate = calls(("researcher_delegate", {"task": "Find out about rain."}))
    ready.script("openai", delegate, says("It rains."), says("Rain, then."))
    session = await beta.sessions.create(
        agent=agent.id,
        environment_id="default",
        initial_events=[{"type": "user.message", "content": [{"type": "text", "text": "Rain?"}]}],
    )
    events = await heard(ready, session.id, "session.status_idle")
    for event in events:
        placed(event)
    [created] = [one for one in events if one.type == "session.thread_created"]
    assert created.agent_name == "researcher"
    [sent] = [one for one in events if one.type == "agent.thread_message_sent"]
    assert (sent.to_agent_name, sent.to_session_thread_id) == ("researcher", created.session_thread_id)
    assert [block.text for block in sent.content] == ["Find out about rain."]
    assert [one.session_thread_id for one in events if one.type == "session.thread_status_idle"] == [
        created.session_thread_id
    ]
    threads = beta.sessions.threads
    first, child = [one async for one in threads.list(session.id, limit=1)]
    placed(first)
    placed(child)
    assert (first.parent_thread_id, child.parent_thread_id) == (None, first.id)
    assert child.id == created.session_thread_id
    assert (child.session_id, child.agent.name, child.status) == (session.id, "researcher", "idle")
    assert [one.id async for one in threads.list(session.id, statuses=["running"])] == []
    told = [one async for one in threads.events.list(child.id, session_id=session.id)]
    for event in told:
        placed(event)
    assert told[0].type == "agent.thread_message_received"
    assert told[0].from_session_thread_id == first.id
    assert told[-1].type == "session.thread_status_idle"
    streamed = []
    async with await threads.events.stream(
        child.id, session_id=session.id, extra_query={"after": "0"}
    ) as parts:
        async for event in parts:
            streamed.append(event.type)
            if event.type == "session.thread_status_idle":
                break
    assert streamed == [one.type for one in told]
    assert (await threads.archive(child.id, session_id=session.id)).archived_at is not None
    other = await beta.sessions.create(agent="researcher", environment_id="default")
    with pytest.raises(anthropic.NotFoundError, match="no thread"):
        await threads.retrieve(child.id, session_id=other.id)


ASK_ANN: Any = {
    "type": "custom",
    "name": "ask_ann",
    "description": "Asks Ann.",
    "input_schema": {"type": "object"},
}


async def asking_through(world: World, name: str, *scripts: Any) -> str:
    """A session whose subagent asks a client of it."""
    agents = world.anthropic.beta.agents
    await agents.create(name=f"{name}-asker", model="openai/gpt-4o", tools=[ASK_ANN])
    await world.apply(f"kind: tool\nname: {name}\ntype: agent\nconfig: {{agent: {name}-asker}}\n")
    chief = await agents.create(
        name=f"{name}-chief", model="openai/gpt-4o", extra_body={"freehold": {"tools": [name]}}
    )
    # The same id as its parent's own call, which is open meanwhile: vendors' ids are unique in one conversation alone.
    world.script("openai", calls((f"{name}_delegate", {"task": "Ask."})), *scripts)
    session = await world.anthropic.beta.sessions.create(agent=chief.id, environment_id="default")
    return session.id


async def test_a_client_of_the_session_answers_its_subagents_call(ready: World) -> None:
    sessions = ready.anthropic.beta.sessions
    session_id = await asking_through(
        ready, "through", calls(("ask_ann", {"of": "rain"})), says("Ann says yes."), says("Yes.")
    )
    seen: list[Any] = []
    async with within("the child to wait"), await sessions.events.stream(session_id) as events:
        await sessions.events.send(
            session_id, events=[{"type": "user.message", "content": [{"type": "text", "text": "May I?"}]}]
        )
        async for event in events:
            placed(event)
            seen.append(event)
            if event.type == "session.status_idle" and event.stop_reason.type == "end_turn":
                break
            if event.type == "session.status_idle" and event.stop_reason.type == "requires_action":
                assert (await sessions.retrieve(session_id)).status == "idle"
                [use] = [one for one in seen if one.type == "agent.custom_tool_use"]
                assert event.stop_reason.event_ids == [use.id]
                content: Any = [{"type": "text", "text": "yes"}]
                sent = await sessions.events.send(
                    session_id,
                    events=[
                        {"type": "user.custom_tool_result", "custom_tool_use_id": use.id, "content": content}
                    ],
                )
                [answered] = sent.data or []
                placed(answered)
                assert answered.type == "user.custom_tool_result"
                assert (answered.custom_tool_use_id, answered.session_thread_id) == (
                    use.id,
                    use.session_thread_id,
                )
    child = next(one.session_thread_id for one in seen if one.type == "session.thread_created")
    assert (use.name, use.input, use.session_thread_id) == ("ask_ann", {"of": "rain"}, child)
    idles = [one.stop_reason.type for one in seen if one.type == "session.thread_status_idle"]
    assert idles == ["requires_action", "end_turn"]
    [received] = [one for one in seen if one.type == "agent.thread_message_received"]
    assert (received.content[0].text.strip(), received.from_session_thread_id) == ("Ann says yes.", child)
    assert [one.id async for one in sessions.events.list(session_id)] == [one.id for one in seen]
    own = [
        one
        async for one in sessions.threads.events.list(child, session_id=session_id)
        if one.type == "agent.custom_tool_use"
    ]
    assert [(one.id, one.session_thread_id) for one in own] == [(use.id.partition(".")[2], None)]


async def test_a_session_runs_again_while_its_subagent_goes_on(ready: World) -> None:
    sessions = ready.anthropic.beta.sessions
    held = stream(sse(openai_chunk({"content": "Hm"})), HOLD)
    session_id = await asking_through(
        ready, "goes-on", calls(("ask_ann", {}), ("ask_ann", {"of": "snow"})), held
    )
    message: Any = {"type": "user.message", "content": [{"type": "text", "text": "May I?"}]}
    statuses = []
    async with within("the answer"), await sessions.events.stream(session_id) as events:
        await sessions.events.send(session_id, events=[message])
        async for event in events:
            if event.type == "session.status_running" and statuses:
                break
            if event.type == "session.status_idle":
                assert event.stop_reason.type == "requires_action"
                asked = event.stop_reason.event_ids
                statuses.append(len(asked))
                result: Any = {"type": "user.custom_tool_result", "custom_tool_use_id": asked[0]}
                await sessions.events.send(session_id, events=[result])
    assert statuses == [2, 1]
    uses = [one async for one in sessions.events.list(session_id, types=["agent.custom_tool_use"])]
    assert len(uses) == 2
    assert (await sessions.retrieve(session_id)).status == "running"
    assert [one.id async for one in sessions.list(statuses=["idle"]) if one.id == session_id] == []
    await eventually(lambda: len(ready.vendors["openai"].asked) == 3)
    await ready.json("POST", f"/v1/sessions/{session_id}/cancel", {})


async def test_events_are_listed_in_both_directions_by_type_and_time(ready: World) -> None:
    beta = ready.anthropic.beta
    ready.script("openai", says("One."))
    session_id = await ready.session("researcher", "Count")
    up = await heard(ready, session_id, "session.status_idle")
    for limit in (1, 3, 100):
        down = [one async for one in beta.sessions.events.list(session_id, order="desc", limit=limit)]
        assert [one.id for one in reversed(down)] == [one.id for one in up]
        assert [one.id async for one in beta.sessions.events.list(session_id, limit=limit)] == [
            one.id for one in up
        ]
    only = [one.type async for one in beta.sessions.events.list(session_id, types=["agent.message"])]
    assert only == ["agent.message"]
    moment = up[2].processed_at
    assert moment is not None
    later = [one.id async for one in beta.sessions.events.list(session_id, created_at_gt=moment)]
    earlier = [one.id async for one in beta.sessions.events.list(session_id, created_at_lte=moment)]
    assert earlier + later == [one.id for one in up]
    since = [
        one.id async for one in beta.sessions.events.list(session_id, created_at_gte=moment, order="desc")
    ]
    before = [one.id async for one in beta.sessions.events.list(session_id, created_at_lt=moment)]
    assert before + list(reversed(since)) == [one.id for one in up]


async def test_sessions_are_listed_by_agent_version_time_and_status(ready: World) -> None:
    beta = ready.anthropic.beta
    agent = await beta.agents.create(name="listed", model="openai/gpt-4o")
    first = await beta.sessions.create(agent=agent.id, environment_id="default")
    await beta.agents.update(agent.id, version=1, system="Changed.")
    second = await beta.sessions.create(agent=agent.id, environment_id="default")

    async def listed(**wanted: Any) -> list[str]:
        return [one.id async for one in beta.sessions.list(agent_id=agent.id, **wanted)]

    assert await listed() == [second.id, first.id]
    assert await listed(order="asc", limit=1) == [first.id, second.id]
    assert await listed(agent_version=1) == [first.id]
    assert await listed(created_at_gt=first.created_at) == [second.id]
    assert await listed(created_at_lte=first.created_at) == [first.id]
    assert await listed(created_at_gte=datetime.now(UTC) + timedelta(hours=1)) == []
    assert await listed(statuses=["idle"]) == [second.id, first.id]
    assert await listed(statuses=["rescheduling"]) == []
    with pytest.raises(anthropic.BadRequestError, match="created_at"):
        await listed(created_at_gt="2026-01-01T00:00:00")


async def test_a_session_may_be_set_up_otherwise_than_its_agent(ready: World) -> None:
    beta = ready.anthropic.beta
    agent = await beta.agents.create(name="overridden", model="openai/gpt-4o", system="Be brief.")
    vendor = ready.script("openai", says("Ja."))
    session = await beta.sessions.create(
        agent={
            "id": agent.id,
            "type": "agent_with_overrides",
            "model": "openai/gpt-4o-mini",
            "system": "Answer in Norwegian.",
            "tools": [WEATHER],
        },
        environment_id="default",
        budget={"type": "limit", "max_list_cost": {"amount": "2500", "currency": "USD"}},
        initial_events=[{"type": "user.message", "content": [{"type": "text", "text": "Yes?"}]}],
    )
    placed(session)
    assert (session.agent.system, session.agent.model.id) == ("Answer in Norwegian.", "openai/gpt-4o-mini")
    assert session.budget is not None
    assert session.budget.max_list_cost.amount == "2500"
    await heard(ready, session.id, "session.status_idle")
    asked = vendor.asked[0].json
    assert asked["model"] == "gpt-4o-mini"
    assert asked["messages"][0]["content"] == "Answer in Norwegian."
    assert [one["function"]["name"] for one in asked["tools"]] == ["get_weather"]


async def test_a_session_that_has_spent_its_budget_stops_and_says_so(ready: World) -> None:
    beta = ready.anthropic.beta
    agent = await beta.agents.create(name="spender", model="openai/gpt-4o", tools=[WEATHER])
    dear = OPENAI_USAGE_CHUNK | {
        "usage": {"prompt_tokens": 100_000, "completion_tokens": 10, "total_tokens": 100_010}
    }
    asks = {"name": "get_weather", "arguments": "{}"}
    call = {"index": 0, "id": "call_0", "type": "function", "function": asks}
    spent = stream(
        sse(openai_chunk({"role": "assistant", "tool_calls": [call]})),
        sse(openai_chunk({}, "tool_calls")),
        sse(dear, b"[DONE]"),
    )
    vendor = ready.script("openai", spent, says("Never asked."))
    session = await beta.sessions.create(
        agent=agent.id,
        environment_id="default",
        budget={"type": "limit", "max_list_cost": {"amount": "1", "currency": "USD"}},
        initial_events=[{"type": "user.message", "content": [{"type": "text", "text": "Go"}]}],
    )
    await heard(ready, session.id, "session.status_idle")
    result: Any = {"type": "user.custom_tool_result", "custom_tool_use_id": "call_0"}
    await beta.sessions.events.send(session.id, events=[result])
    events = await ready.until_idle(session.id, turns=2)
    assert events[-1]["stop_reason"]["type"] == "budget_reached"
    assert len(vendor.asked) == 1
    spent_now = (await beta.sessions.retrieve(session.id)).usage.list_cost
    assert spent_now is not None
    assert int(spent_now.amount) > 1


NODE_STORY = """
import Anthropic from "@anthropic-ai/sdk";
const { beta } = new Anthropic({ baseURL: process.env.FREEHOLD_URL, apiKey: process.env.FREEHOLD_API_KEY });
const agent = await beta.agents.create({ name: "Node Assistant", model: "openai/gpt-4o", tools: [{
  type: "custom", name: "get_weather", description: "?", input_schema: { type: "object" } }] });
const environment = await beta.environments.create({ name: "Node" });
const session = await beta.sessions.create({ agent: agent.id, environment_id: environment.id });
const events = await beta.sessions.events.stream(session.id);
const say = (event) => beta.sessions.events.send(session.id, { events: [event] });
await say({ type: "user.message", content: [{ type: "text", text: "Oslo?" }] });
for await (const event of events) {
  if (event.type === "agent.custom_tool_use")
    await say({ type: "user.custom_tool_result", custom_tool_use_id: event.id, content: [{ type: "text", text: "2" }] });
  if (event.type === "agent.message") console.log(event.content[0].text);
  if (event.type === "session.status_idle" && event.stop_reason.type === "end_turn") break;
}
let count = 0;
for await (const event of beta.sessions.events.list(session.id, { limit: 2, order: "desc" })) count += 1;
const [thread] = (await beta.sessions.threads.list(session.id)).data;
await beta.sessions.archive(session.id);
console.log(count > 5, thread.session_id === session.id, (await beta.agents.retrieve(agent.id)).name);
"""


@pytest.mark.slow
async def test_the_sdk_for_node_tells_the_same_story(ready: World) -> None:
    ready.script("openai", calls(("get_weather", {})), says("Take a coat."))
    environment = os.environ | {"FREEHOLD_URL": ready.url, "FREEHOLD_API_KEY": ready.key}
    folder = await asyncio.to_thread(node_folder)
    process = await asyncio.create_subprocess_exec(
        "node", "--input-type=module", "-e", NODE_STORY,
        cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert [line.strip() for line in said.decode().splitlines()] == [
        "Take a coat.",
        "true true Node Assistant",
    ]


async def test_an_environment_limits_what_tools_reach(ready: World) -> None:
    beta = ready.anthropic.beta
    environment = await beta.environments.create(
        name="Only Ours",
        config={"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["api.example.com"]}},
    )
    placed(environment)
    bag = {"team": "travel", "place": "Oslo", "kept": "yes"}
    assert (await beta.environments.update(environment.id, metadata=bag)).metadata == bag
    gone = await beta.environments.update(environment.id, metadata={"team": "", "place": None})
    assert gone.metadata == {"kept": "yes"}
    changed = await beta.environments.update(
        environment.id, config={"type": "cloud", "networking": {"type": "limited", "allow_mcp_servers": True}}
    )
    assert changed.config.type == "cloud"
    assert changed.config.networking.type == "limited"
    assert changed.config.networking.allowed_hosts == ["api.example.com"]
    agent = await beta.agents.create(
        name="reaches-out", model="openai/gpt-4o", extra_body={"freehold": {"tools": ["service"]}}
    )
    ready.script("openai", calls(("service_look", {})), says("I may not."))
    session = await beta.sessions.create(
        agent=agent.id,
        environment_id=environment.id,
        initial_events=[{"type": "user.message", "content": [{"type": "text", "text": "Look"}]}],
    )
    events = await heard(ready, session.id, "session.status_idle")
    [result] = [one for one in events if one.type == "agent.tool_result"]
    assert result.is_error
    assert "does not let it reach 127.0.0.1" in result.content[0].text
    assert (await beta.environments.retrieve("default")).config.type == "cloud"
    hosted = await beta.environments.create(name="ours", config={"type": "self_hosted"})
    assert hosted.config.type == "self_hosted"


async def test_what_cannot_be_done_is_refused_by_its_path(ready: World) -> None:
    beta = ready.anthropic.beta
    agent = await beta.agents.create(name="strict", model="openai/gpt-4o")
    environment = await beta.environments.create(name="strict")

    async def refused(attempt: Any, match: str) -> None:
        with pytest.raises(anthropic.BadRequestError, match=match):
            await attempt

    toolset: Any = {"type": "agent_toolset_20260401"}
    await refused(beta.agents.update(agent.id, tools=[toolset]), r"tools\[0\]\.type: expected custom")
    await refused(
        beta.agents.update(agent.id, model={"id": "openai/gpt-4o", "speed": "fast"}), r"model\.speed"
    )
    await refused(
        beta.agents.update(agent.id, multiagent={"type": "coordinator", "agents": []}),
        "multiagent: declare a tool",
    )
    packages: Any = {"type": "cloud", "packages": {"pip": ["numpy"]}}
    await refused(
        beta.environments.update(environment.id, config=packages), r"config\.packages\.pip: expected none"
    )
    await refused(beta.environments.update(environment.id, scope="account"), "scope")
    hosts: Any = {"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["https://x.com"]}}
    await refused(
        beta.environments.update(environment.id, config=hosts), r"config\.networking\.allowed_hosts\[0\]"
    )
    await refused(beta.environments.work.poll(environment.id, block_ms=1), "hands out no work")
    await refused(anext(aiter(beta.environments.work.list(environment.id))), "hands out no work")
    create = beta.sessions.create
    await refused(create(agent=agent.id, environment_id="default", vault_ids=["vlt_1"]), "vault_ids")
    memory: Any = {"type": "memory_store", "memory_store_id": "memstore_1"}
    await refused(create(agent=agent.id, environment_id="default", resources=[memory]), "resources")
    with pytest.raises(anthropic.NotFoundError, match="environment"):
        await create(agent=agent.id, environment_id="nowhere")
    session = await create(agent=agent.id, environment_id=environment.id)
    outcome: Any = {
        "type": "user.define_outcome",
        "description": "x",
        "rubric": {"type": "text", "text": "y"},
    }
    await refused(beta.sessions.events.send(session.id, events=[outcome]), r"events\[0\]\.type")
    await refused(beta.sessions.update(session.id, agent={"tools": []}), "agent: a session keeps the tools")
    assert [one async for one in beta.sessions.resources.list(session.id)] == []
    await refused(beta.sessions.resources.add(session.id, file_id="file_1", type="file"), "no files")
    with pytest.raises(anthropic.NotFoundError):
        await beta.sessions.resources.retrieve("r_1", session_id=session.id)
