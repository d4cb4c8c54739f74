"""Replays check compactions, deadlines and texts that say a time to the letter: what was tampered with shows."""

import re
from datetime import timedelta

import pytest
from msgspec import structs

from freehold.core.messages import Text, Usage
from freehold.core.resources import Limits, Tool
from freehold.core.session import CallAwaited, Compacted, ToolFinished, TurnFinished
from freehold.runtime.recording import Recording, recording
from freehold.runtime.replay import replayed
from freehold.tools import timer
from tests.runtime._world import AGENT, TENANT, calls, events_of, results_in, said, world
from tests.runtime.test_context import LONG, scripted, wordy


def divergence(found: Recording):
    return replayed(found.session_id, found.events, found.equipments).divergence


def tampered(found: Recording, kind: type, change) -> tuple[Recording, int]:
    """The first event of a kind is another; and its seq."""
    events = list(found.events)
    place = next(index for index, one in enumerate(events) if isinstance(one.event, kind))
    events[place] = structs.replace(events[place], event=change(events[place].event))
    return structs.replace(found, events=events), place + 1


@pytest.fixture(scope="module")
async def waited(place) -> Recording:
    """Two calls that wait for a time, begun together."""

    def script(request):
        done = len(results_in(request))
        return (
            calls(("clock_wait", '{"seconds": 0.2}'), ("clock_wait", '{"seconds": 0.4}'))
            if not done
            else said("done")
        )

    agent = structs.replace(AGENT, tools=("ledger", "clock"))
    options = {
        "agent": agent,
        "kinds": {"timer": timer.KIND},
        "resources": [Tool(name="clock", type="timer")],
    }
    async with world(place, script, **options) as here, here.worker().running():
        row = await here.start()
        await here.reaches(row.id, lambda one: one.status == "idle")
        return await recording(here.log, TENANT, row.id)


@pytest.fixture(scope="module")
async def out_of_time(place) -> Recording:
    def script(request):
        return calls(("ledger_look", "{}"), start=len(results_in(request)))

    agent = structs.replace(AGENT, limits=Limits(wall_time_s_max=0.3, steps_max=10**6, repeats_max=1000))
    async with world(place, script, agent=agent) as here, here.worker().running():
        row = await here.start()
        await here.settled(row.id)
        return await recording(here.log, TENANT, row.id)


@pytest.fixture(scope="module")
async def shortened(place) -> Recording:
    async with world(place, scripted, agent=LONG) as here, here.worker().running():
        here.kind.do = wordy
        row = await here.start("Look forty times.")
        await here.settled(row.id)
        return await recording(here.log, TENANT, row.id)


def test_what_was_recorded_is_what_the_clock_made_of_it(waited, out_of_time, shortened):
    assert events_of(out_of_time.events, TurnFinished)[-1].limit == "wall_time_s_max"
    assert len(events_of(shortened.events, Compacted)) > 2
    for found in (waited, out_of_time, shortened):
        assert divergence(found) is None


@pytest.mark.parametrize("by", [timedelta(hours=1), -timedelta(seconds=30), timedelta(microseconds=1)])
def test_another_deadline_shows(waited, by):
    """Also the smallest: two that were set together go by one reading."""
    other, seq = tampered(waited, CallAwaited, lambda one: structs.replace(one, until=one.until + by))
    found = divergence(other)
    assert found is not None
    assert found.seq in {seq, seq + 1}


@pytest.mark.parametrize(
    "text",
    [
        "the time has come: it is 2031-01-01T00:00:00Z",
        "the time has come: it is 2020-01-01T00:00:00Z",
        "the time has come: it is late",
        "the time has come",
    ],
)
def test_another_time_in_a_text_shows(waited, text):
    other, seq = tampered(waited, ToolFinished, lambda one: structs.replace(one, content=(Text(text),)))
    found = divergence(other)
    assert found is not None
    assert found.seq == seq


@pytest.mark.parametrize(
    "change",
    [
        lambda text: re.sub(r"has lasted \d+ s", "has lasted 4000 s", text),
        lambda text: text.replace("wall_time_s_max = 0.3", "wall_time_s_max = 3"),
        lambda text: text + " Never mind.",
    ],
)
def test_another_word_on_how_long_a_turn_lasted_shows(out_of_time, change):
    other, seq = tampered(
        out_of_time, TurnFinished, lambda one: structs.replace(one, message=change(one.message))
    )
    found = divergence(other)
    assert found is not None
    assert found.seq == seq


@pytest.mark.parametrize(
    "change",
    [
        lambda one: structs.replace(one, tokens_before=one.tokens_before + 1),
        lambda one: structs.replace(one, tokens_after=one.tokens_after + 1),
        lambda one: structs.replace(one, up_to_seq=one.up_to_seq - 1),
        lambda one: structs.replace(one, summary="Nothing of note."),
        lambda one: structs.replace(one, summary=one.summary.replace("Look forty times.", "Look away.")),
        lambda one: structs.replace(one, model="", usage=Usage(), cost_pico=0),
    ],
)
def test_another_compaction_shows(shortened, change):
    other, seq = tampered(shortened, Compacted, change)
    found = divergence(other)
    assert found is not None
    assert found.seq == seq
