"""Limits in money, of turns, sessions and subagents: none is ever passed, not even by the one call too many, however long its answer wants to be."""

from collections.abc import Sequence

import pytest
from msgspec import structs

from freehold.core.messages import Text, ToolCall, Usage, text_of
from freehold.core.resources import Agent, Limits, Tool
from freehold.core.session import ModelAnswered, ModelFailed, TurnFinished
from freehold.core.session_log import SessionRow
from freehold.gateway.bounds import most_of_request
from freehold.tools.agent import KIND
from tests.runtime._world import AGENT, OWNER, TENANT, World, calls, events_of, said, world

LONGEST = 20_000
"""What the model says where it is let."""

HELPER = Tool(name="helper", type="agent", config={"agent": "clerk"})
BOSS = Agent(name="boss", model="scripted/scripted-1", instructions="Boss.", tools=("helper",))
UNBOUND = Limits(steps_max=10_000, tokens_max=10**9, repeats_max=10_000)


def talkative(request):
    """Reads as much as a vendor could count, says as much as it may, and always calls again."""
    longest = min(request.tokens_max or LONGEST, LONGEST)
    usage = Usage(input_tokens=most_of_request(request, None).input_tokens, output_tokens=longest)
    wanted = ("helper_delegate", '{"task": "Look."}') if _is_boss(request) else ("ledger_look", "{}")
    stop = "tool_use" if longest == LONGEST else "tokens_max"
    return structs.replace(calls(wanted), usage=usage, stop_reason=stop)


def _is_boss(request) -> bool:
    return text_of(request.instructions) == "Boss."


async def _ended(place: World, agent: str) -> tuple[SessionRow, TurnFinished]:
    async with place.worker().running():
        made = await place.sessions.create(OWNER, agent, content=(Text("go"),))
        row = await place.reaches(made.id, lambda row: row.status == "idle")
    return row, events_of(await place.log_of(row.id), TurnFinished)[-1]


@pytest.mark.parametrize(
    "usd",
    [
        "0.0001",
        pytest.param("0.002", marks=pytest.mark.slow),
        "0.0123",
        pytest.param("0.05", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("limit", ["cost_max_usd", "session_cost_max_usd"])
async def test_no_turn_and_no_session_costs_more_than_it_may(database_url: str, limit: str, usd: str) -> None:
    agent = structs.replace(AGENT, limits=structs.replace(UNBOUND, **{limit: usd}))
    async with world(database_url, talkative, agent=agent) as place:
        row, end = await _ended(place, "clerk")
        log = await place.log_of(row.id)
    assert row.cost_pico <= int(float(usd) * 10**12)
    assert (end.outcome, end.limit, end.code) == ("limit_reached", limit, "limit_reached")
    assert f"reached {limit} = {usd} (" in end.message
    [refused] = events_of(log, ModelFailed)
    assert (refused.cost_pico, refused.limit) == (0, limit)
    assert "is left, and this call could cost $" in end.message
    assert bool(events_of(log, ModelAnswered)) == (usd != "0.0001"), "nothing that is never enough is asked"


async def test_a_subagents_last_call_passes_neither_its_share_nor_its_parents_limit(
    database_url: str,
) -> None:
    boss = structs.replace(BOSS, limits=structs.replace(UNBOUND, cost_max_usd="0.05"))
    clerk = structs.replace(AGENT, limits=UNBOUND)
    async with world(
        database_url, talkative, agent=clerk, kinds={"agent": KIND}, resources=[HELPER, boss]
    ) as place:
        row, end = await _ended(place, "boss")
        children: Sequence[SessionRow] = (await place.log.list(TENANT, parent_id=row.id)).rows
    assert children
    for child in children:
        assert child.setup is not None
        assert 0 <= child.cost_pico <= int(float(child.setup.cost_max_usd or 0) * 10**12)
    assert row.cost_pico + sum(child.cost_pico for child in children) <= 50_000_000_000
    assert end.limit == "cost_max_usd"


async def test_an_answer_that_money_cuts_off_is_told_as_such(database_url: str) -> None:
    def script(request):
        assert request.tokens_max is not None
        usage = Usage(input_tokens=1000, output_tokens=request.tokens_max)
        return said("On and", stop="tokens_max", usage=usage)

    agent = structs.replace(AGENT, limits=structs.replace(UNBOUND, cost_max_usd="0.004"))
    async with world(database_url, script, agent=agent) as place:
        row, end = await _ended(place, "clerk")
    assert 3_000_000_000 < row.cost_pico <= 4_000_000_000
    assert (end.outcome, end.limit) == ("limit_reached", "cost_max_usd")
    assert "the answer was cut off where it ended" in end.message


async def test_what_the_vendor_counted_bounds_a_long_conversation_better_than_its_bytes(
    database_url: str,
) -> None:
    """A hundred thousand characters are twenty-five thousand tokens, and the limit is one of what they cost."""
    turns = 0

    def script(request):
        nonlocal turns
        turns += 1
        usage = Usage(input_tokens=25_000 + 50 * turns, output_tokens=50)
        return (
            said("Well.", usage=usage)
            if turns > 3
            else structs.replace(
                said(ToolCall(f"t{turns}", "ledger_look", "{}"), stop="tool_use"), usage=usage
            )
        )

    # By its bytes, each call could cost more than 0.001.
    agent = structs.replace(
        AGENT, tokens_max=300, limits=structs.replace(UNBOUND, session_cost_max_usd="0.0021")
    )
    async with (
        world(database_url, script, agent=agent) as place,
        place.worker().running(),
    ):
        made = await place.sessions.create(OWNER, "clerk", content=(Text("go " * 33_333),))
        row = await place.reaches(made.id, lambda row: row.status == "idle")
        [end] = events_of(await place.log_of(made.id), TurnFinished)
    assert (end.outcome, turns) == ("completed", 4)
    assert row.cost_pico <= 2_100_000_000
