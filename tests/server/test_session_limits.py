"""Every limit of a session on a whole server: a runaway ends, and its end says which limit, how large, how much was used, what to do."""

from typing import Any

import pytest

from tests._waiting import within
from tests.gateway._vendors import HOLD, openai_chunk, sse, stream
from tests.server._world import World
from tests.server.test_sessions import calls, of, says

TEMPLATE = """
kind: tool
name: shelf
type: kv
config: {table: limits, writable: true}
---
kind: agent
name: NAME
model: openai/gpt-4o
tools: [shelf]
limits: LIMITS
"""
TURN = "Send another message to go on in a new turn, or raise limits."
SESSION = "Go on in a new session or a fork, or raise limits."


def runaway(count: int = 40) -> list[Any]:
    """Never the same call twice."""
    return [calls(("shelf_put", {"items": {"n": number}})) for number in range(count)]


async def ended(world: World, name: str, limits: str, *scripts: Any, turns: int = 1) -> dict[str, Any]:
    """The last end of a session with a new agent, after so many turns."""
    await world.apply(TEMPLATE.replace("NAME", name).replace("LIMITS", limits))
    world.script("openai", *scripts)
    session_id = await world.session(name, "Go")
    for turn in range(1, turns + 1):
        events = await world.until_idle(session_id, turns=turn)
        if turn < turns:
            more = {"events": [{"type": "user.message", "content": "On"}]}
            await world.json("POST", f"/v1/sessions/{session_id}/events", more)
    return of(events, "session.status_idle")[-1]


@pytest.mark.parametrize(
    ("limit", "size", "used"),
    [
        ("steps_max", "5", "5 done, 1 more wanted"),
        ("tokens_max", "60", "tokens used"),
        ("cost_max_usd", '"0.0001"', "spent"),
        ("session_steps_max", "5", "5 done"),
        ("session_tokens_max", "60", "tokens used"),
        ("session_cost_max_usd", '"0.0001"', "spent"),
    ],
)
async def test_what_is_counted_has_an_end_that_names_itself(
    shared: World, limit: str, size: str, used: str
) -> None:
    name = limit.replace("_", "-")
    idle = await ended(shared, name, f"{{{limit}: {size}}}", *runaway())
    told = idle["freehold"]
    assert (told["outcome"], told["limit"], told["code"]) == ("limit_reached", limit, "limit_reached")
    assert f"reached {limit} = {size.strip(chr(34))}" in told["message"]
    assert used in told["message"]
    assert told["message"].endswith(
        f"{SESSION if limit.startswith('session_') else TURN}{limit} of the agent."
    )
    expected = "budget_reached" if limit.endswith("cost_max_usd") else "end_turn"
    assert idle["stop_reason"]["type"] == expected


@pytest.mark.parametrize("limit", ["wall_time_s_max", "session_wall_time_s_max"])
async def test_time_stops_what_hangs(shared: World, limit: str) -> None:
    held = stream(sse(openai_chunk({"content": "Hm"})), HOLD)
    name, vendor = limit.replace("_", "-"), shared.vendors["openai"]
    # Where the machine is late, the time is over before anybody is asked.
    for number, seconds in enumerate((0.3, 3.0, 30.0)):
        told = (await ended(shared, f"{name}-{number}", f"{{{limit}: {seconds}}}", held))["freehold"]
        assert (told["outcome"], told["limit"]) == ("limit_reached", limit)
        assert f"reached {limit} = {seconds:g}" in told["message"]
        if vendor.asked:
            break
    async with within("the vendor to be hung up on"):
        await vendor.hung_up.wait()


async def test_a_loop_is_found_long_before_its_steps_are_used_up(shared: World) -> None:
    same = [calls(("shelf_get", {"keys": ["SKU-1"]})) for _ in range(40)]
    told = (await ended(shared, "looping", "{repeats_max: 4}", *same))["freehold"]
    assert (told["outcome"], told["limit"]) == ("limit_reached", "repeats_max")
    assert "shelf_get gave the same result 4 times" in told["message"]


@pytest.mark.parametrize("limit", ["session_steps_max: 3", "session_tokens_max: 40"])
@pytest.mark.slow
async def test_a_sessions_limit_holds_over_its_turns_and_a_turns_does_not(shared: World, limit: str) -> None:
    name = "over-" + limit.partition(":")[0].replace("_", "-")
    told = (await ended(shared, name, f"{{{limit}}}", *(says("Well.") for _ in range(9)), turns=6))[
        "freehold"
    ]
    assert (told["outcome"], told["limit"]) == ("limit_reached", limit.partition(":")[0])
    fresh = await ended(shared, f"{name}-turn", "{steps_max: 2}", *(says("Well.") for _ in range(9)), turns=4)
    assert fresh["freehold"]["outcome"] == "completed"


@pytest.mark.slow
async def test_an_answer_that_its_own_limit_cuts_off_says_so(shared: World) -> None:
    cut = stream(
        sse(openai_chunk({"content": "Half an ans"})), sse(openai_chunk({}, "length")), sse(b"[DONE]")
    )
    told = (await ended(shared, "cut", "{}", cut))["freehold"]
    assert (told["outcome"], told["limit"]) == ("limit_reached", "answer_tokens_max")
    assert "raise the agent's tokens_max" in told["message"]
