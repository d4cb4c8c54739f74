"""Approvals on a whole server, by people with keys of their own: who may, how many must, until when, who is asked next, and what an expiry
does. What is allowed is what was seen: this call, with these arguments, under this declaration."""

from typing import Any

import httpx2
import pytest

from tests._waiting import eventually
from tests.server._world import World
from tests.server.test_sessions import calls, of, says
from tests.server.test_waiting import until

TEMPLATE = """
kind: tool
name: vault
type: kv
config: {table: approved, writable: true}
approval:
  functions: [put]
  RULE
---
kind: agent
name: treasurer
model: openai/gpt-4o
tools: [vault]
"""
PUT = {"items": {"SKU-1": 5}}


class People:
    """Keys: ann and bob, a second one of ann's, carl of the team `finance`, and eve, who may only read."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.keys: dict[str, Any] = {}

    async def hire(self, name: str, **more: Any) -> None:
        self.keys[name] = await self.world.json("POST", "/v1/keys", {"name": name, **more})

    def id(self, name: str) -> str:
        return str(self.keys[name]["id"])

    async def decide(
        self, name: str, session_id: str, call_id: str, *, allow: bool = True, **ours: Any
    ) -> httpx2.Response:
        event = {
            "type": "user.tool_confirmation",
            "tool_use_id": call_id,
            "result": "allow" if allow else "deny",
        }
        return await self.world.http.post(
            f"/v1/sessions/{session_id}/events",
            json={"events": [event | {"freehold": ours}]},
            headers={"authorization": f"Bearer {self.keys[name]['key']}"},
        )


@pytest.fixture(scope="module")
async def people(shared: World) -> People:
    staff = People(shared)
    await staff.hire("ann", user="ann")
    await staff.hire("ann again", user="ann")
    await staff.hire("bob", user="bob")
    await staff.hire("carl", user="carl", team="finance")
    reads = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "session:Read", "Resource": "*"}],
    }
    await staff.hire("eve", policy=reads)
    return staff


async def asked(people: People, rule: str, *answers: Any) -> tuple[str, str]:
    """A session that waits for approval under the rule, and its call."""
    world = people.world
    await world.apply(TEMPLATE.replace("RULE", rule))
    world.script("openai", calls(("vault_put", PUT)), *(answers or [says("Well.")]))
    session_id = await world.session("treasurer", "Set it")
    # Not the session at rest: a deadline may have passed before it comes to rest.
    return session_id, str((await until(world, session_id, "freehold.call_awaited"))["tool_use_id"])


async def ended(people: People, session_id: str) -> list[dict[str, Any]]:
    """The log once the turn is over."""
    async with people.world.seen(session_id, after="0") as events:
        async for event in events:
            if event.type == "session.status_idle" and event.body["stop_reason"]["type"] != "requires_action":
                return await people.world.events(session_id)
    raise AssertionError("the stream ended")


async def test_only_who_was_asked_decides_and_a_quorum_must(people: People) -> None:
    rule = f"quorum: 2\n  approvers: [user/ann, {people.id('bob')}, team/finance]"
    session_id, call_id = await asked(people, rule)
    stranger = await people.world.http.post(
        f"/v1/sessions/{session_id}/events",
        json={"events": [{"type": "user.tool_confirmation", "tool_use_id": call_id, "result": "allow"}]},
    )
    assert stranger.status_code == 403, "the operator may approve, but was not asked"
    assert "not one of those who were asked" in stranger.text
    assert (await people.decide("eve", session_id, call_id)).status_code == 403
    for name in ("ann", "ann", "ann again"):
        assert (await people.decide(name, session_id, call_id)).status_code == 200
    row = await people.world.json("GET", f"/v1/sessions/{session_id}")
    assert of(await people.world.events(session_id), "freehold.tool_started") == [], (
        "one person, however often"
    )
    assert row["freehold"]["status"] in {"waiting", "running"}
    assert (await people.decide("carl", session_id, call_id)).status_code == 200
    events = await ended(people, session_id)
    assert len(of(events, "freehold.tool_started")) == 1
    said = [(one["freehold"]["person"], one["result"]) for one in of(events, "user.tool_confirmation")]
    assert said == [("ann", "allow")] * 3 + [("carl", "allow")]


async def test_one_denial_is_enough(people: People) -> None:
    session_id, call_id = await asked(people, "quorum: 2")
    await people.decide("ann", session_id, call_id)
    await people.decide("bob", session_id, call_id, allow=False)
    events = await ended(people, session_id)
    assert of(events, "freehold.tool_started") == []
    [result] = of(events, "agent.tool_result")
    assert (result["is_error"], result["freehold"]["code"]) == (True, "forbidden")
    assert (await people.decide("ann", session_id, call_id)).status_code == 404, "it is settled"


async def test_edited_arguments_need_the_others_again_and_a_stale_word_is_refused(people: People) -> None:
    session_id, call_id = await asked(people, "quorum: 2")

    async def asked_for(*but: str) -> dict[str, Any] | None:
        """What the session shows, once its turn has come to rest."""
        row = await people.world.json("GET", f"/v1/sessions/{session_id}")
        waits = row["freehold"].get("waits") or {"calls": []}
        return next((one["awaits"] for one in waits["calls"] if one["awaits"]["binding"] not in but), None)

    first = await eventually(asked_for)
    assert first is not None
    seen = first["binding"]
    await people.decide("ann", session_id, call_id, binding=seen)
    edited = {"items": {"SKU-1": 4}}
    assert (await people.decide("bob", session_id, call_id, binding=seen, input=edited)).status_code == 200
    # Bob's arguments are what is asked for, once the turn has come to rest again.
    now = await eventually(lambda: asked_for(seen))
    assert now is not None
    stale = await people.decide("ann", session_id, call_id, binding=seen)
    assert (stale.status_code, "not what you saw" in stale.text) == (409, True)
    assert "4" in now["arguments"]
    await people.decide("ann", session_id, call_id, binding=now["binding"])
    [started] = of(await ended(people, session_id), "freehold.tool_started")
    assert started["input"] == edited


@pytest.mark.slow
async def test_a_rule_that_changed_meanwhile_asks_anew(people: People) -> None:
    session_id, call_id = await asked(people, "quorum: 1")
    await people.world.apply(TEMPLATE.replace("RULE", "quorum: 2"))
    assert (await people.decide("ann", session_id, call_id)).status_code == 200
    again = await until_asked_again(people.world, session_id)
    assert again["awaits"]["quorum"] == 2
    assert of(await people.world.events(session_id), "freehold.tool_started") == []
    await people.decide("ann", session_id, call_id)
    await people.decide("bob", session_id, call_id)
    assert len(of(await ended(people, session_id), "freehold.tool_started")) == 1


async def until_asked_again(world: World, session_id: str) -> dict[str, Any]:
    asked_count = 0
    async with world.seen(session_id, after="0") as events:
        async for event in events:
            asked_count += event.type == "freehold.call_awaited"
            if asked_count == 2:
                return event.body
    raise AssertionError("the stream ended")


async def test_who_is_asked_next_decides_alone(people: People) -> None:
    rule = f"quorum: 2\n  approvers: [user/ann, user/bob]\n  deadline_s: 0.2\n  escalations: [{{approvers: [{people.id('bob')}], deadline_s: 600}}]"
    session_id, call_id = await asked(people, rule)
    raised = await until_asked_again(people.world, session_id)
    assert (raised["awaits"]["level"], raised["awaits"]["approvers"]) == (1, [people.id("bob")])
    assert raised["awaits"].get("quorum", 1) == 1, "one alone can be no two"
    late = await people.decide("ann", session_id, call_id)
    assert late.status_code in {403, 404}
    assert (await people.decide("bob", session_id, call_id)).status_code == 200
    assert len(of(await ended(people, session_id), "freehold.tool_started")) == 1


@pytest.mark.parametrize(
    ("on_expiry", "code", "ran"), [("tell", "timed_out", 0), ("deny", "forbidden", 0), ("allow", None, 1)]
)
@pytest.mark.slow
async def test_an_expiry_does_what_the_rule_says_and_is_no_denial(
    people: People, on_expiry: str, code: str | None, ran: int
) -> None:
    session_id, call_id = await asked(people, f"deadline_s: 0.2\n  on_expiry: {on_expiry}")
    events = await ended(people, session_id)
    [result] = of(events, "agent.tool_result")
    assert (result["freehold"]["code"], len(of(events, "freehold.tool_started"))) == (code, ran)
    if on_expiry == "tell":
        assert "That is no denial" in result["content"][0]["text"]
    assert (await people.decide("ann", session_id, call_id)).status_code == 404


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("quorum: 0", "approval.quorum: expected 1 or more"),
        ("quorum: 2\n  approvers: [key_1]", "approval.approvers: expected as many as the quorum (2)"),
        ("deadline_s: 0", "approval.deadline_s: expected more than 0"),
        ("quorum: 2\n  escalations: [{approvers: [key_1], quorum: 2}]", "approval.escalations[0].approvers"),
    ],
)
async def test_a_rule_that_nobody_could_ever_meet_is_refused(people: People, rule: str, said: str) -> None:
    answer = await people.world.http.post(
        "/v1/templates/plan", json={"template": TEMPLATE.replace("RULE", rule)}
    )
    assert answer.status_code == 400
    assert said in answer.text
