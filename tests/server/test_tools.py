"""Tools that may only run so many times at once, on a whole server: declared, waited for, shown."""

from tests.server._world import World
from tests.server.test_sessions import calls, of, says

TEMPLATE = """
kind: tool
name: scarce
type: kv
config: {table: scarce}
concurrency_max: 1
---
kind: tool
name: plenty
type: kv
config: {table: plenty}
---
kind: agent
name: queuing
model: openai/gpt-4o
tools: [scarce, plenty]
"""


async def test_two_calls_of_a_scarce_tool_run_one_after_the_other(shared: World) -> None:
    await shared.apply(TEMPLATE)
    shared.script("openai", calls(("scarce_list", {}), ("scarce_get", {"keys": ["a"]})), says("Both done."))
    session_id = await shared.session("queuing", "Look twice.")
    events = await shared.until_idle(session_id)
    kinds = [one["type"] for one in events if one["type"] in {"freehold.tool_started", "agent.tool_result"}]
    assert kinds == ["freehold.tool_started", "agent.tool_result"] * 2
    assert [one["is_error"] for one in of(events, "agent.tool_result")] == [False, False]
    told = {one["name"]: one for one in (await shared.json("GET", "/v1/tools"))["data"]}
    assert (told["scarce"]["concurrency_max"], told["scarce"]["running"], told["scarce"]["waiting"]) == (
        1,
        0,
        0,
    )
    assert told["plenty"]["running"] is None


async def test_a_limit_of_nothing_is_refused(shared: World) -> None:
    wrong = TEMPLATE.replace("concurrency_max: 1", "concurrency_max: 0")
    refused = await shared.http.post("/v1/templates/apply", json={"template": wrong})
    assert refused.status_code == 400
    assert "concurrency_max: expected 1 to 100000, got 0" in refused.text
