"""Facts and live deltas as one stream: every fact once, deltas only where they belong, slow readers lose no fact."""

import asyncio

from freehold.core.messages import Text
from freehold.core.session import ModelAnswered, Recorded, TurnFinished
from freehold.runtime.live import BUFFERED_MAX, Live, LiveGap, LiveModelStarted, LiveText, LiveToolCall
from freehold.runtime.stream import merged
from tests._waiting import eventually, within
from tests.runtime._world import OWNER, Broken, Held, calls, in_turn, results_in, said, world


async def _until_turn_ends(here, session_id, *, after=0, turns=1) -> list:
    seen = []
    async with (
        within("the end of the turn", seen),
        here.sessions.stream(OWNER, session_id, after=after) as items,
    ):
        async for item in items:
            seen.append(item)
            turns -= isinstance(item, Recorded) and isinstance(item.event, TurnFinished)
            if not turns:
                return seen
    raise AssertionError


async def _heard(here, session_id) -> None:
    await eventually(lambda: here.means.live.heard(session_id))


def _seqs(items) -> list[int]:
    return [item.seq for item in items if isinstance(item, Recorded)]


async def test_an_answers_text_comes_live_before_its_fact(place):
    held = Held(said("hello"))
    async with world(place, in_turn(held)) as here, here.worker().running():
        row = await here.start("")
        seen = []
        async with within("the end of the turn", seen), here.sessions.stream(OWNER, row.id) as items:
            await here.sessions.send(OWNER, row.id, [Text("hi")])
            async for item in items:
                seen.append(item)
                if isinstance(item, LiveText):
                    held.go.set()
                if isinstance(item, Recorded) and isinstance(item.event, TurnFinished):
                    break
    shown = [type(item.event if isinstance(item, Recorded) else item).__name__ for item in seen]
    assert shown == [
        "SessionStarted",
        "UserSpoke",
        "TurnStarted",
        "LiveModelStarted",
        "LiveText",
        "ModelAnswered",
        "TurnFinished",
    ]
    started = next(item for item in seen if isinstance(item, LiveModelStarted))
    answered = next(
        one.event for one in seen if isinstance(one, Recorded) and isinstance(one.event, ModelAnswered)
    )
    assert (started.provider, started.is_language_model, started.seen_seq) == (
        "scripted",
        True,
        answered.seen_seq,
    )


async def test_a_reader_that_joins_in_the_middle_sees_all_facts_first(place):
    held = Held(said("hello"))
    async with world(place, in_turn(held)) as here, here.worker().running():
        row = await here.start()
        await held.reached.wait()
        reading = asyncio.create_task(_until_turn_ends(here, row.id))
        held.go.set()
        seen = await reading
    assert _seqs(seen) == [1, 2, 3, 4, 5]


async def test_a_stream_cut_anywhere_and_resumed_gives_every_fact_once(place):
    script = lambda request: said("ok") if len(results_in(request)) == 5 else calls(("ledger_look", "{}"))  # noqa: E731
    async with world(place, script) as here, here.worker().running():
        row = await here.start()
        got: list[int] = []
        last = (await here.settled(row.id)).version
        while not got or got[-1] < last:
            async with here.sessions.stream(OWNER, row.id, after=got[-1] if got else 0) as items:
                for _ in range(3):
                    item = await anext(items)
                    if isinstance(item, Recorded):
                        got.append(item.seq)
                    if got and got[-1] == last:
                        break
    assert got == list(range(1, last + 1))


async def test_an_answer_that_starts_anew_says_so(place):
    async with world(place, in_turn(Broken(said("half")), said("whole"))) as here:
        row = await here.start()
        reading = asyncio.create_task(_until_turn_ends(here, row.id))
        await _heard(here, row.id)
        async with here.worker().running():
            seen = await reading
    assert [item.attempt for item in seen if isinstance(item, LiveModelStarted)] == [1, 2]


async def test_calls_are_shown_while_they_are_written(place):
    held = Held(calls(("ledger_look", '{"n": 1}')))
    async with world(place, in_turn(held, said("ok"))) as here:
        row = await here.start()
        reading = asyncio.create_task(_until_turn_ends(here, row.id))
        held.go.set()
        await _heard(here, row.id)
        async with here.worker().running():
            seen = await reading
    assert [item.name for item in seen if isinstance(item, LiveToolCall)] == ["ledger_look"]


def test_a_slow_reader_loses_deltas_and_is_told():
    live = Live()
    wake = asyncio.Event()
    with live.reading("sess_1", wake) as reader:
        for number in range(BUFFERED_MAX + 5):
            live.publish("sess_1", LiveText(1, 3, 0, str(number)))
        assert isinstance(reader.first(), LiveGap)
        held = []
        while (event := reader.first()) is not None:
            held.append(event)
            reader.drop_first()
        assert held[-1].text == str(BUFFERED_MAX + 4)
    assert not live.heard("sess_1")


async def test_deltas_of_an_answer_that_is_known_are_left_out(place):
    async with world(place, in_turn(said("hello"))) as here, here.worker().running():
        row = await here.start()
        last = (await here.settled(row.id)).version
        async with merged(here.log, here.means.live, row.id, after=0) as items:
            facts = [await anext(items) for _ in range(last)]
            here.means.live.publish(row.id, LiveText(1, 3, 0, "stale"))
            here.means.live.publish(row.id, LiveText(2, last, 0, "fresh"))
            async with within("text"):
                delta = await anext(items)
    assert _seqs(facts) == list(range(1, last + 1))
    assert delta.text == "fresh"
