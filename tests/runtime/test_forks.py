"""Forks: what they share, what they own, and what of a turn under way is decided anew."""

import pytest
from msgspec import structs

from freehold.core.errors import BadRequest, Conflict, Forbidden, NotFound
from freehold.core.messages import Text, text_of
from freehold.core.policy import Policy, Principal, Statement
from freehold.core.resources import Approval
from freehold.core.session import (
    ModelAnswered,
    SessionForked,
    ToolFinished,
    ToolOutcomeUnknown,
    ToolStarted,
    UserSpoke,
)
from freehold.core.session_state import replay
from freehold.runtime.forks import Edit
from freehold.store._forks import referenced
from tests._waiting import within
from tests.runtime._world import (
    AGENT,
    COST_PICO,
    LEDGER,
    OWNER,
    TENANT,
    World,
    calls,
    events_of,
    in_turn,
    kinds_of,
    results_in,
    said,
    world,
)


async def _settled(here: World, text: str = "go", **options) -> str:
    row = await here.start(text, **options)
    await here.settled(row.id)
    return row.id


async def _fork(here: World, session_id: str, **options) -> str:
    return (await here.sessions.fork(OWNER, session_id, **options)).id


async def test_a_fork_has_its_origins_events_and_goes_on_by_its_own(place):
    async with world(place, in_turn(said("one"), said("two"), said("three"))) as here:
        async with here.worker().running():
            origin = await _settled(here, "first")
            fork = await _fork(here, origin)
            await here.sessions.send(OWNER, fork, [Text("second")])
            await here.sessions.send(OWNER, origin, [Text("elsewhere")])
            await here.settled(fork)
            await here.settled(origin)
        shared, own = await here.log_of(origin), await here.log_of(fork)
        assert own[:5] == shared[:5]
        assert kinds_of(own[5:]) == [
            "SessionForked",
            "UserSpoke",
            "TurnStarted",
            "ModelAnswered",
            "TurnFinished",
        ]
        assert [one.seq for one in own] == list(range(1, 11))
        said_there = [text_of(message.content) for message in replay(own).messages]
        assert said_there[:3] == ["first", "one", "second"]
        stored = await here.kind.pool.fetchval(
            "SELECT count(*) FROM freehold.events WHERE session_id = $1", fork
        )
        assert stored == 5


async def test_the_shared_part_is_not_billed_again(place):
    async with world(place, in_turn(said("one"), said("two"))) as here:
        async with here.worker().running():
            origin = await _settled(here)
            fork = await _fork(here, origin)
            row = await here.log.get(TENANT, fork)
            assert (row.status, row.cost_pico, row.usage.input_tokens) == ("idle", 0, 0)
            assert (row.origin_id, row.origin_seq, row.version) == (origin, 5, 6)
            await here.sessions.send(OWNER, fork, [Text("more")])
            assert (await here.settled(fork)).cost_pico == COST_PICO
        assert replay(await here.log_of(fork)).cost_pico == COST_PICO


async def test_a_fork_of_a_fork_of_a_fork_reads_as_one_log(place):
    answers = [said(f"answer {number}") for number in range(12)]
    async with world(place, in_turn(*answers)) as here, here.worker().running():
        line = [await _settled(here, "turn 0")]
        for number in range(1, 4):
            line.append(await _fork(here, line[-1]))
            await here.sessions.send(OWNER, line[-1], [Text(f"turn {number}")])
            await here.settled(line[-1])
        whole = await here.log_of(line[-1])
        assert [one.seq for one in whole] == list(range(1, len(whole) + 1))
        assert [text_of(one.content) for one in events_of(whole, UserSpoke)] == [
            f"turn {n}" for n in range(4)
        ]
        for after in range(len(whole)):
            assert await here.log.read(line[-1], after=after, limit=3) == whole[after : after + 3]
        early = await _fork(here, line[-1], at="3")
        assert (await here.log_of(early))[:3] == whole[:3]
        holders = await here.kind.pool.fetch(
            "SELECT holder_id FROM freehold.fork_segments WHERE session_id = $1", early
        )
        assert [row["holder_id"] for row in holders] == [line[0]]
        await here.settled(early)
        assert await referenced(here.store.database, line) == frozenset(line[:-1])


async def test_whoever_follows_a_fork_sees_every_event_once(place):
    async with world(place, in_turn(said("one"), said("two"))) as here, here.worker().running():
        origin = await _settled(here)
        fork = await _fork(here, origin)
        seen: list[int] = []
        async with within("all events of the fork", seen), here.log.follow(fork) as batches:
            await here.sessions.send(OWNER, fork, [Text("more")])
            async for batch in batches:
                seen += [one.seq for one in batch]
                if seen[-1] == 10:
                    break
        assert seen == list(range(1, 11))


async def test_what_was_said_can_be_said_otherwise(place):
    async with world(place, in_turn(said("one"), said("two"), said("other"))) as here:
        async with here.worker().running():
            origin = await _settled(here, "first")
            await here.sessions.send(OWNER, origin, [Text("second")])
            await here.settled(origin)
            fork = await _fork(here, origin, edit=Edit((Text("second, better"),)))
            await here.settled(fork)
        log = await here.log_of(fork)
        assert [text_of(one.content) for one in events_of(log, UserSpoke)] == ["first", "second, better"]
        [forked] = events_of(log, SessionForked)
        assert (forked.origin_seq, forked.edited_seq) == (5, 6)
        assert text_of(events_of(log, ModelAnswered)[-1].content) == "other"


async def test_a_tools_result_can_be_another(place):
    script = in_turn(calls(("ledger_look", '{"n": 1}')), said("one"), said("changed"))
    async with world(place, script) as here, here.worker().running():
        origin = await _settled(here)
        fork = await _fork(here, origin, edit=Edit((Text("42"),), result=True))
        await here.settled(fork)
        assert [text_of(one.content) for one in results_in(here.model.requests[-1])] == ["42"]
        assert len(events_of(await here.log_of(fork), ToolStarted)) == 1


@pytest.mark.parametrize("function", ["look", "set", "pay"])
async def test_a_call_that_the_origin_began_is_run_anew_or_unknown(place, function):
    script = in_turn(calls((f"ledger_{function}", '{"n": 1}')), said("one"), said("again"))
    async with world(place, script) as here, here.worker().running():
        origin = await _settled(here)
        log = await here.log_of(origin)
        begun = next(one for one in log if isinstance(one.event, ToolStarted))
        fork = await _fork(here, origin, at=str(begun.seq))
        await here.settled(fork)
        own = (await here.log_of(fork))[begun.seq :]
        if function == "pay":
            assert events_of(own, ToolStarted) == []
            [unknown] = events_of(own, ToolOutcomeUnknown)
            assert "begun before the fork" in unknown.message
        else:
            [again] = events_of(own, ToolStarted)
            assert again.key != begun.event.key
            assert again.key.startswith(f"{fork}.")
            assert len(events_of(own, ToolFinished)) == 1
        ran = await here.kind.pool.fetchval(
            "SELECT count(*) FROM runs WHERE key LIKE $1 OR key LIKE $2", f"{origin}.%", f"{fork}.%"
        )
        assert ran == (1 if function == "pay" else 2)


async def test_a_word_that_was_given_to_the_origin_is_no_word_for_the_fork(place):
    tool = structs.replace(LEDGER, approval=Approval(functions=("pay",), deadline_s=600))
    script = in_turn(calls(("ledger_pay", '{"n": 1}')), said("paid"))
    async with world(place, script) as here:
        await here.declare(tool)
        async with here.worker().running():
            row = await here.start()
            waiting = await here.reaches(row.id, lambda one: one.status == "waiting")
            [call] = waiting.waits.calls
            decided = await here.sessions.decide(OWNER, row.id, call_id=call.call_id, allow=True)
            await here.sessions.tell(OWNER, row.id, [decided])
            await here.settled(row.id)
            seq = next(one.seq for one in await here.log_of(row.id) if one.event == decided)
            fork = await _fork(here, row.id, at=str(seq))
            asked = await here.reaches(fork, lambda one: one.status == "waiting")
        assert [one.call_id for one in asked.waits.calls] == [call.call_id]
        assert await here.kind.pool.fetchval("SELECT count(*) FROM runs WHERE key LIKE $1", f"{fork}.%") == 0


async def test_a_fork_of_a_session_that_was_ended_lives(place):
    async with world(place, in_turn(said("one"), said("two"))) as here, here.worker().running():
        origin = await _settled(here)
        await here.sessions.cancel(OWNER, origin, for_good=True)
        await here.reaches(origin, lambda row: row.status == "cancelled")
        fork = await _fork(here, origin, model="scripted/other")
        await here.sessions.send(OWNER, fork, [Text("go on")])
        assert (await here.settled(fork)).status == "idle"
        assert here.model.requests[-1].model == "other"


async def test_a_place_may_be_named_by_cursor_or_id(place):
    async with world(place, in_turn(said("one"))) as here, here.worker().running():
        origin = await _settled(here)
        base = origin.removeprefix("sess_")
        for at, seq in (("5", 5), ("4.1", 4), (f"evt_{base}_5_0", 5), (f"evt_{base}_answer_3", 4)):
            assert (await here.sessions.fork(OWNER, origin, at=at)).origin_seq == seq
        for at in ("0", "99", "x", "evt_0123_1_0", "-1", "1.x"):
            with pytest.raises(BadRequest, match="a number from 1 to 5"):
                await here.sessions.fork(OWNER, origin, at=at)
        with pytest.raises(BadRequest, match="event 3 is turn_started; those are: 2"):
            await here.sessions.fork(OWNER, origin, at="3", edit=Edit((Text("x"),)))
        with pytest.raises(Conflict, match="tool call's result"):
            await here.sessions.fork(OWNER, origin, edit=Edit((Text("x"),), result=True))


async def test_a_key_makes_one_fork(place):
    async with world(place, in_turn(said("one"))) as here, here.worker().running():
        origin = await _settled(here)
        first, second = [await _fork(here, origin, idempotency_key="once") for _ in range(2)]
        assert first == second


async def test_who_may_not_read_may_not_fork(place):
    async with world(place, in_turn(said("one"))) as here, here.worker().running():
        origin = await _settled(here)
        reader = Principal(
            TENANT, "service", "key_reader", (Policy((Statement("Allow", "session:Read", "*"),)),)
        )
        with pytest.raises(Forbidden):
            await here.sessions.fork(reader, origin)
        with pytest.raises(NotFound):
            await here.sessions.fork(structs.replace(OWNER, tenant="other"), origin)


async def test_limits_of_the_session_begin_anew(place):
    limited = structs.replace(AGENT, limits=structs.replace(AGENT.limits, session_steps_max=1))
    async with world(place, in_turn(said("one"), said("two")), agent=limited) as here:
        async with here.worker().running():
            origin = await _settled(here)
            fork = await _fork(here, origin)
            await here.sessions.send(OWNER, fork, [Text("more")])
            await here.settled(fork)
        assert len(events_of(await here.log_of(fork), ModelAnswered)) == 2


async def test_large_texts_are_shared_and_said_anew_like_any(place):
    large, other = "origin " * 20_000, "fork " * 20_000
    async with world(place, in_turn(said("one"), said("two"))) as here, here.worker().running():
        origin = await _settled(here, large)
        fork = await _fork(here, origin)
        edited = await _fork(here, origin, edit=Edit((Text(other),)))
        await here.settled(edited)
        [shared] = events_of(await here.log_of(fork), UserSpoke)
        [own] = events_of(await here.log_of(edited), UserSpoke)
        assert (text_of(shared.content), text_of(own.content)) == (large, other)
        async with within("the first events of the fork"), here.log.follow(fork) as batches:
            [spoken] = events_of(await anext(batches), UserSpoke)
        assert text_of(spoken.content) == large
