"""Retention on a whole server: what would go is told before it goes, what went is counted, what people decided is kept."""

import pytest

from tests.server._world import World
from tests.server.test_sessions import calls, of, says
from tests.server.test_waiting import PUT, until_asked

TEMPLATE = """
kind: tool
name: passing
type: kv
config: {table: passing, writable: true}
approval: {functions: [put]}
---
kind: agent
name: passing
model: openai/gpt-4o
tools: [passing]
---
kind: retention
name: passing
agents: [passing]
days: 0
waiting_days: 0
evidence_days: 3650
"""


async def test_sessions_go_by_policy_and_leave_their_evidence(shared: World) -> None:
    await shared.apply(TEMPLATE)
    shared.script("openai", calls(("passing_put", PUT)), says("Then not."))
    session_id = await shared.session("passing", "Set SKU-1 to 5")
    [call_id] = await until_asked(shared, session_id)
    plan = await shared.json("GET", "/v1/retention")
    [policy] = [one for one in plan["policies"] if one["name"] == "passing"]
    assert (policy["due"], policy["waiting_due"], policy["evidence_days"]) == (0, 1, 3650)
    denial = {
        "type": "user.tool_confirmation",
        "tool_use_id": call_id,
        "result": "deny",
        "deny_message": "no",
    }
    await shared.json("POST", f"/v1/sessions/{session_id}/events", {"events": [denial]})
    await shared.until_idle(session_id, turns=2)
    plan = await shared.json("GET", "/v1/retention?limit=5")
    assert {"session_id": session_id, "policy": "passing"} in plan["due"]
    assert (await shared.json("GET", f"/v1/sessions/{session_id}"))["id"] == session_id, (
        "telling changes nothing"
    )
    [run] = (await shared.json("POST", "/v1/retention/run", {}))["data"]
    assert (run["policy"], run["deleted"], run["ended"], run["evidence"]) == ("passing", 1, 0, 2)
    assert (await shared.http.get(f"/v1/sessions/{session_id}")).status_code == 404
    assert (await shared.json("GET", "/v1/retention/runs?limit=1"))["data"][0]["deleted"] == 1
    kept = (await shared.json("GET", f"/v1/retention/evidence?session_id={session_id}"))["data"]
    assert [one["event"]["type"] for one in kept] == ["freehold.call_awaited", "user.tool_confirmation"]
    assert (kept[1]["event"]["result"], kept[1]["agent"]) == ("deny", "passing")
    assert (await shared.json("POST", "/v1/retention/run", {}))["data"] == []


@pytest.mark.slow
async def test_what_waits_too_long_is_ended_and_says_by_what(shared: World) -> None:
    await shared.apply(TEMPLATE.replace("days: 0\nwaiting", "days: 30\nwaiting"))
    shared.script("openai", calls(("passing_put", PUT)), says("Never said."))
    session_id = await shared.session("passing", "Set SKU-1 to 5")
    await until_asked(shared, session_id)
    [run] = (await shared.json("POST", "/v1/retention/run", {}))["data"]
    assert (run["deleted"], run["ended"]) == (0, 1)
    events = await shared.until_idle(session_id, turns=2)
    [interrupt] = of(events, "user.interrupt")
    assert interrupt["freehold"]["by"] == "retention/passing"
    assert of(events, "session.status_terminated")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("days: -1", "days: expected 0 to 36500 days"),
        ("hold: true\ndays: 1", "expected either hold or days"),
        ("agents: [passing]", "says nothing"),
        ("statuses: [running]\ndays: 1", "statuses"),
    ],
)
async def test_a_policy_that_makes_no_sense_is_refused(shared: World, wrong: str, said: str) -> None:
    answer = await shared.http.post(
        "/v1/templates/plan", json={"template": f"kind: retention\nname: odd\n{wrong}\n"}
    )
    assert answer.status_code == 400
    assert said in answer.text
