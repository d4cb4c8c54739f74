"""Replays: a recorded session is decided again as it was, and what was tampered with shows; another model in its place."""

import msgspec
import pytest
from msgspec import structs

from freehold.core.errors import BadRequest, NotFound
from freehold.core.messages import Text, text_of
from freehold.core.session import ModelAnswered, Recorded, ToolFinished, ToolStarted, TurnFinished
from freehold.core.session_state import SessionState
from freehold.runtime.compare import compared
from freehold.runtime.digests import RequestDigests
from freehold.runtime.recording import Recording, lines, read_lines, recording
from freehold.runtime.replay import replayed
from freehold.runtime.replays import Replays
from tests.runtime._world import (
    COST_PICO,
    OWNER,
    TENANT,
    World,
    calls,
    in_turn,
    said,
    world,
)

LOOK, SET = ("ledger_look", '{"n": 1}'), ("ledger_set", '{"n": 2}')


async def _recorded(here: World, text: str = "go") -> Recording:
    row = await here.start(text)
    await here.settled(row.id)
    return await recording(here.log, TENANT, row.id)


def _check(found: Recording):
    return replayed(found.session_id, found.events, found.equipments)


def _with(found: Recording, kind: type, **changes) -> Recording:
    """The last event of a kind is another."""
    events = list(found.events)
    place = max(index for index, one in enumerate(events) if isinstance(one.event, kind))
    events[place] = structs.replace(events[place], event=structs.replace(events[place].event, **changes))
    return structs.replace(found, events=events)


@pytest.fixture(scope="module")
async def recorded(place) -> Recording:
    """Two turns, three calls, one fork."""
    script = in_turn(calls(LOOK, SET), calls(("ledger_pay", "{}")), said("done"), said("again"))
    async with world(place, script) as here, here.worker().running():
        origin = await _recorded(here)
        fork = await here.sessions.fork(OWNER, origin.session_id)
        await here.sessions.send(OWNER, fork.id, [Text("more")])
        await here.settled(fork.id)
        return await recording(here.log, TENANT, fork.id)


def test_a_session_is_decided_again_as_it_was(recorded):
    found = _check(recorded)
    assert found.divergence is None
    assert (found.unchecked, found.requests) == (0, 4)
    assert found.events == len(recorded.events)
    assert found.decisions == sum(
        1 for one in recorded.events if type(one.event).__name__ in ("TurnStarted", "ModelAnswered", "TurnFinished")
    ) + 2  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        (ModelAnswered, {"request_digest": "0" * 64}, "another digest"),
        (ToolStarted, {"arguments": '{"n": 99}'}, "tool_started"),
        (ToolStarted, {"key": "sess_x.1.1.1"}, "tool_started"),
        (TurnFinished, {"outcome": "refused"}, "turn_finished"),
    ],
)
def test_what_was_not_decided_so_shows(recorded, kind, changes, says):
    tampered = _with(recorded, kind, **changes)
    divergence = _check(tampered).divergence
    assert divergence is not None
    assert says in divergence.what
    assert tampered.events[divergence.seq - 1] != recorded.events[divergence.seq - 1]


def test_another_result_shows_in_the_next_request(recorded):
    divergence = _check(_with(recorded, ToolFinished, content=(Text("forged"),))).divergence
    assert divergence is not None
    assert "another digest" in divergence.what


def test_without_its_equipment_a_log_is_said_not_to_be_checked(recorded):
    found = replayed(recorded.session_id, recorded.events, {})
    assert found.divergence is None
    assert (found.decisions, found.requests) == (0, 0)
    assert found.unchecked > 0


async def test_an_export_is_read_back_and_written_the_same(place):
    async with world(place, in_turn(calls(LOOK), said("done"))) as here, here.worker().running():
        found = await _recorded(here)
        written = [line async for line in lines(here.log, TENANT, found.session_id)]
        again = [line async for line in lines(here.log, TENANT, found.session_id)]
    assert written == again
    assert read_lines(written) == found
    assert len(written) == 1 + 1 + len(found.events)
    with pytest.raises(BadRequest, match=r"line 2 .*expected event 1, got 2"):
        read_lines([written[0], *written[2:]])
    with pytest.raises(BadRequest, match=r"line 5 .*digest"):
        read_lines([line.replace(b"Keep the ledger", b"Burn the ledger") for line in written])
    with pytest.raises(BadRequest, match="line 1"):
        read_lines([b"{}\n"])


async def _reask(here: World, session_id: str, *, past_divergence: bool = False):
    replays = Replays(here.log, here.means.gateway, here.means.clock)
    reasking = await replays.reask(OWNER, session_id, model="scripted/other", past_divergence=past_divergence)
    steps = [step async for step in reasking.steps()]
    return steps, reasking.end


async def test_another_model_that_does_the_same_is_asked_at_every_step(place):
    script = in_turn(calls(LOOK), said("one"), calls(("ledger_look", '{ "n":1 }'), start=50), said("uno"))
    async with world(place, script) as here, here.worker().running():
        found = await _recorded(here)
        before = await here.kind.pool.fetchval("SELECT count(*) FROM runs")
        steps, end = await _reask(here, found.session_id)
        assert [step.difference for step in steps] == [None, None]
        assert (steps[1].recorded.text, steps[1].asked.text) == ("one", "uno")
        assert (end.why, end.steps, end.same) == ("completed", 2, 2)
        assert (end.recorded_cost_pico, end.asked_cost_pico) == (2 * COST_PICO, 2 * COST_PICO)
        assert [request.model for request in here.model.requests] == ["scripted-1"] * 2 + ["other"] * 2
        assert await here.kind.pool.fetchval("SELECT count(*) FROM runs") == before
        assert await here.log_of(found.session_id) == list(found.events)


async def test_it_ends_where_the_other_model_does_something_else(place):
    script = in_turn(calls(LOOK), said("one"), calls(SET))
    async with world(place, script) as here, here.worker().running():
        found = await _recorded(here)
        steps, end = await _reask(here, found.session_id)
        assert (end.why, end.same) == ("diverged", 0)
        assert steps[0].difference == "call 1 is ledger_set instead of ledger_look"


async def test_it_goes_past_a_divergence_as_far_as_results_are_recorded(place):
    script = in_turn(
        calls(LOOK), calls(SET), said("one"),
        calls(SET), calls(LOOK, start=9), calls(("ledger_pay", "{}"), start=20),
    )  # fmt: skip
    async with world(place, script) as here, here.worker().running():
        found = await _recorded(here)
        steps, end = await _reask(here, found.session_id, past_divergence=True)
        assert [step.seq is None for step in steps] == [False, True, True]
        assert end.why == "not_covered"
        assert "ledger_pay" in end.message
        last = here.model.requests[-1].messages
        told = [
            text_of(part.content) for message in last for part in message.content if hasattr(part, "call_id")
        ]
        assert told == ["set done: 2", "look done: 1"]


async def test_the_turn_after_a_divergence_is_replayed_too(place):
    script = in_turn(calls(LOOK), said("one"), said("two"), said("uno"), said("due"))
    async with world(place, script) as here, here.worker().running():
        row = await here.start()
        await here.settled(row.id)
        await here.sessions.send(OWNER, row.id, [Text("next")])
        await here.settled(row.id)
        steps, end = await _reask(here, row.id, past_divergence=True)
        assert [step.asked.text for step in steps] == ["uno", "due"]
        assert (end.why, end.same) == ("completed", 1)


async def test_another_tenants_session_is_not_found(place):
    async with world(place, in_turn(said("one"))) as here, here.worker().running():
        found = await _recorded(here)
        replays = Replays(here.log, here.means.gateway, here.means.clock)
        with pytest.raises(NotFound):
            await replays.replay(structs.replace(OWNER, tenant="other"), found.session_id)


def test_a_digest_rolls_to_what_it_would_be_made_at_once(recorded):
    equipment = next(iter(recorded.equipments.values()))
    rolling, state = RequestDigests(), SessionState()
    for one in recorded.events:
        state.apply(one)
        if state.open_calls:
            continue
        request = equipment.request(state)
        assert rolling.of(request) == RequestDigests().of(request)
    shorter = structs.replace(request, messages=request.messages[1:])
    assert rolling.of(shorter) == RequestDigests().of(shorter) != RequestDigests().of(request)


async def test_a_comparison_tells_where_two_sessions_part(place):
    script = in_turn(calls(LOOK), said("one"), calls(SET), said("other"))
    async with world(place, script) as here, here.worker().running():
        first = await _recorded(here)
        fork = await here.sessions.fork(OWNER, first.session_id, at="3", model="scripted/other")
        await here.settled(fork.id)
        second = await recording(here.log, TENANT, fork.id)
    found = compared(first, second)
    assert (found.same_events, found.parted_seq) == (3, 4)
    assert found.parted[1] == f"session_forked from {first.session_id} at 3, with scripted/other"
    assert [(left and left.kind, right and right.kind) for left, right in found.done] == [
        ("ledger_look", "ledger_set"),
        ("answer", "answer"),
    ]
    assert found.second.models == ("scripted/other",)
    same = compared(first, first)
    assert (same.parted_seq, same.same_events, same.done) == (None, len(first.events), ())
    assert msgspec.json.encode(found)


def test_the_same_work_in_two_sessions_is_the_same(recorded):
    moved = [
        Recorded(one.seq, one.at, structs.replace(one.event, duration_ms=99.0))
        if isinstance(one.event, ToolFinished)
        else one
        for one in recorded.events
    ]
    assert compared(recorded, structs.replace(recorded, events=moved)).parted_seq is None
