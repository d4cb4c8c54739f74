"""Turns, carried out by a real worker over a real PostgreSQL; the model is a script, the tool's runs are counted in a table."""

import asyncio

import pytest
from msgspec import structs

from freehold.core.errors import (
    BadRequest,
    ContentRefused,
    LimitReached,
    Overloaded,
    RateLimited,
    Unavailable,
)
from freehold.core.messages import Text, Usage, text_of
from freehold.core.ports import ToolOutcome
from freehold.core.resources import Limits
from freehold.core.session import (
    ModelAnswered,
    ModelFailed,
    ToolFinished,
    ToolOutcomeUnknown,
    ToolStarted,
    TurnFinished,
    UserSpoke,
)
from freehold.runtime.offload import KEPT_BYTES_MAX
from tests.runtime._world import (
    AGENT,
    COST_PICO,
    LEDGER,
    ONLY_TOLD,
    OWNER,
    Broken,
    Held,
    calls,
    events_of,
    in_turn,
    kinds_of,
    results_in,
    said,
    world,
)


async def _run(place, script, *, agent=AGENT, prepare=None, text="go"):
    """One session to its rest; returns (log, world)."""
    async with world(place, script, agent=agent) as here:
        if prepare:
            await prepare(here)
        async with here.worker().running():
            row = await here.start(text)
            await here.settled(row.id)
            return await here.log_of(row.id), here


def _end(log) -> TurnFinished:
    return events_of(log, TurnFinished)[-1]


async def test_a_turn_calls_tools_and_ends_with_the_answer(place):
    log, here = await _run(place, in_turn(calls(("ledger_look", '{"n": 1}')), said("one")))
    assert kinds_of(log) == [
        "SessionStarted",
        "UserSpoke",
        "TurnStarted",
        "ModelAnswered",
        "ToolStarted",
        "ToolFinished",
        "ModelAnswered",
        "TurnFinished",
    ]
    assert _end(log).outcome == "completed"
    assert text_of(events_of(log, ModelAnswered)[-1].content) == "one"
    [result] = results_in(here.model.requests[1])
    assert text_of(result.content) == "look done: 1"


async def test_the_model_is_told_the_agents_functions_and_instructions(place):
    _, here = await _run(place, in_turn(said("hello")))
    [request] = here.model.requests
    assert [spec.name for spec in request.tools] == ["ledger_look", "ledger_set", "ledger_pay"]
    assert text_of(request.instructions) == "Keep the ledger."


async def test_cost_and_usage_of_the_row_are_those_of_its_calls(place):
    script = in_turn(calls(("ledger_look", "{}")), said("done"))
    async with world(place, script) as here, here.worker().running():
        row = await here.settled((await here.start()).id)
    assert row.cost_pico == 2 * COST_PICO
    assert row.usage.input_tokens == 200


async def test_tools_of_one_answer_run_side_by_side_up_to_the_limit(place):
    agent = structs.replace(AGENT, limits=Limits(tool_calls_parallel_max=2))
    wanted = [("ledger_look", f'{{"n": {n}}}') for n in range(5)]
    all_in = asyncio.Event()

    async def prepare(here):
        async def both(run):
            if here.kind.running == 2 or run.arguments["n"] == 4:
                all_in.set()
            await all_in.wait()
            return ToolOutcome((Text(str(run.arguments["n"])),))

        here.kind.do = both

    log, here = await _run(place, in_turn(calls(*wanted), said("done")), agent=agent, prepare=prepare)
    assert here.kind.running_max == 2
    assert [text_of(result.content) for result in results_in(here.model.requests[1])] == list("01234")
    assert len(events_of(log, ToolFinished)) == 5


async def test_an_unknown_function_is_answered_with_the_known_ones(place):
    log, _ = await _run(place, in_turn(calls(("ledger_lok", "{}")), said("sorry")))
    [finished] = events_of(log, ToolFinished)
    assert finished.failed
    assert finished.code == "not_found"
    assert "Did you mean 'ledger_look'?" in text_of(finished.content)
    assert not events_of(log, ToolStarted)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [('{"n": ', "not valid JSON"), ("[1]", "got an array"), ('"x"', "got a string")],
)
async def test_arguments_that_are_no_object_are_answered_and_not_run(place, arguments, why):
    log, here = await _run(place, in_turn(calls(("ledger_look", arguments)), said("sorry")))
    [finished] = events_of(log, ToolFinished)
    assert finished.code == "bad_request"
    assert why in text_of(finished.content)
    assert here.kind.running_max == 0


async def test_a_call_cut_off_by_the_token_limit_is_not_run_but_those_before_it_are(place):
    cut = structs.replace(calls(("ledger_pay", '{"n": 1}'), ("ledger_pay", "")), stop_reason="tokens_max")
    log, _ = await _run(place, in_turn(cut, said("ok")))
    assert [started.arguments for started in events_of(log, ToolStarted)] == ['{"n": 1}']
    assert any("token limit" in text_of(event.content) for event in events_of(log, ToolFinished))


@pytest.mark.slow
async def test_ids_that_a_model_uses_twice_are_made_unique(place):
    script = in_turn(
        calls(("ledger_look", '{"n": 1}')),
        calls(("ledger_look", '{"n": 2}')),
        said("done"),
    )
    log, here = await _run(place, script)
    ids = [started.call_id for started in events_of(log, ToolStarted)]
    keys = {started.key for started in events_of(log, ToolStarted)}
    assert len(set(ids)) == len(keys) == 2
    assert len(results_in(here.model.requests[2])) == 2


async def test_a_tools_own_no_is_an_answer(place):
    async def prepare(here):
        async def no(run):
            return ToolOutcome((Text("no such row"),), failed=True)

        here.kind.do = no

    log, _ = await _run(place, in_turn(calls(("ledger_look", "{}")), said("ok")), prepare=prepare)
    assert events_of(log, ToolFinished)[0].failed
    assert _end(log).outcome == "completed"


@pytest.mark.slow
@pytest.mark.parametrize("function", ["ledger_look", "ledger_pay"])
async def test_a_slow_tool_ends_at_its_timeout_and_what_it_did_is_not_guessed(place, function):
    async def prepare(here):
        await here.declare(structs.replace(LEDGER, timeout_s=0.05))

        async def forever(run):
            await asyncio.Event().wait()

        here.kind.do = forever

    log, _ = await _run(place, in_turn(calls((function, "{}")), said("ok")), prepare=prepare)
    if function == "ledger_pay":
        [unknown] = events_of(log, ToolOutcomeUnknown)
        assert "may or may not have taken effect" in unknown.message
    else:
        [finished] = events_of(log, ToolFinished)
        assert finished.code == "timed_out"


async def test_a_bug_in_a_tool_is_an_answer_without_its_insides(place, caplog):
    async def prepare(here):
        async def broken(run):
            raise RuntimeError("secret-token")

        here.kind.do = broken

    log, _ = await _run(place, in_turn(calls(("ledger_look", "{}")), said("ok")), prepare=prepare)
    [finished] = events_of(log, ToolFinished)
    assert finished.code == "internal"
    assert "secret-token" not in text_of(finished.content)
    assert [record.getMessage() for record in caplog.records].count("tool.crashed") == 1


async def test_a_result_that_is_too_large_says_what_to_narrow(place):
    async def prepare(here):
        async def flood(run):
            return ToolOutcome((Text("x" * (KEPT_BYTES_MAX + 1)),))

        here.kind.do = flood

    log, _ = await _run(place, in_turn(calls(("ledger_look", "{}")), said("ok")), prepare=prepare)
    [finished] = events_of(log, ToolFinished)
    assert finished.code == "too_large"
    assert f"{KEPT_BYTES_MAX + 1} bytes" in text_of(finished.content)


async def test_transient_model_errors_are_tried_again(place):
    script = in_turn(Overloaded("full"), RateLimited("wait", retry_after_s=0.01), said("at last"))
    log, here = await _run(place, script)
    assert _end(log).outcome == "completed"
    assert len(here.model.requests) == 3


async def test_a_model_that_stays_away_fails_the_turn_and_the_session_goes_on(place):
    script = in_turn(*[Overloaded("full")] * 4, said("back"))
    async with world(place, script) as here, here.worker().running():
        row = await here.start()
        await here.settled(row.id)
        log = await here.log_of(row.id)
        assert events_of(log, ModelFailed)[0].attempts == 4
        assert (_end(log).outcome, _end(log).code) == ("failed", "overloaded")
        await here.sessions.send(OWNER, row.id, [Text("again")])
        await here.reaches(row.id, lambda one: one.status == "idle" and one.version > log[-1].seq + 1)
        assert _end(await here.log_of(row.id)).outcome == "completed"
        assert [text_of(m.content) for m in here.model.requests[-1].messages] == ["go", "again"]


async def test_an_error_that_will_not_pass_is_not_tried_again(place):
    log, here = await _run(place, in_turn(BadRequest("no", field="messages[0]")))
    assert len(here.model.requests) == 1
    assert _end(log).message == "messages[0]: no"


@pytest.mark.slow
async def test_who_asks_to_wait_too_long_gets_no_second_call(place):
    log, here = await _run(place, in_turn(RateLimited("tomorrow", retry_after_s=86_400)))
    assert len(here.model.requests) == 1
    assert _end(log).code == "rate_limited"


@pytest.mark.slow
async def test_what_broken_attempts_cost_is_counted(place):
    log, _ = await _run(place, in_turn(Broken(said("half")), said("whole")))
    [answered] = events_of(log, ModelAnswered)
    assert answered.cost_pico == 2 * COST_PICO
    assert text_of(answered.content) == "whole"


async def test_a_refusal_ends_the_turn_as_refused(place):
    log, _ = await _run(place, in_turn(said("I won't", stop="refusal")))
    assert _end(log).outcome == "refused"
    log, _ = await _run(place, in_turn(ContentRefused("filtered")))
    assert (_end(log).outcome, _end(log).code) == ("refused", "content_refused")


@pytest.mark.slow
async def test_a_pause_is_followed_by_another_call(place):
    log, here = await _run(place, in_turn(said("wait", stop="pause"), said("done")))
    assert len(here.model.requests) == 2
    assert _end(log).outcome == "completed"


@pytest.mark.slow
async def test_a_cut_answer_says_so(place):
    log, _ = await _run(place, in_turn(said("half an ans", stop="tokens_max")))
    assert (_end(log).outcome, _end(log).limit) == ("limit_reached", "answer_tokens_max")


def _forever(request):
    return calls(("ledger_look", "{}"))


@pytest.mark.parametrize(
    ("limit", "limits"),
    [
        ("steps_max", Limits(steps_max=5)),
        ("tokens_max", Limits(tokens_max=500)),
        ("cost_max_usd", Limits(cost_max_usd="0.00014")),
        ("wall_time_s_max", Limits(wall_time_s_max=0.2, steps_max=100_000, repeats_max=100_000)),
    ],
)
async def test_each_limit_ends_a_runaway_by_its_name(place, limit, limits):
    log, _ = await _run(place, _forever, agent=structs.replace(AGENT, limits=limits))
    assert (_end(log).outcome, _end(log).limit) == ("limit_reached", limit)
    assert f"limits.{limit}" in _end(log).message
    if limit == "steps_max":
        assert len(events_of(log, ModelAnswered)) + len(events_of(log, ToolStarted)) == 5


@pytest.mark.slow
async def test_wall_time_stops_a_model_that_hangs(place):
    # A slow machine may take the first before the model is asked at all.
    for wall_time_s in (0.2, 2.0, 20.0):
        held = Held(said("never"))
        agent = structs.replace(AGENT, limits=Limits(wall_time_s_max=wall_time_s, repeats_max=1_000_000))
        log, _ = await _run(place, in_turn(held), agent=agent)
        if held.reached.is_set():
            break
    assert held.hung_up
    assert (_end(log).outcome, _end(log).limit) == ("limit_reached", "wall_time_s_max")
    assert events_of(log, ModelFailed)[0].cost_pico == COST_PICO


async def test_a_budget_of_the_gateway_ends_the_turn_as_a_limit(place):
    log, _ = await _run(place, in_turn(LimitReached("the key's budget of $5 is used up")))
    assert (_end(log).outcome, _end(log).code) == ("limit_reached", "limit_reached")


async def test_a_limit_that_leaves_no_step_at_all_still_comes_to_rest(place):
    log, _ = await _run(place, _forever, agent=structs.replace(AGENT, limits=Limits(steps_max=0)))
    assert kinds_of(log)[2:] == ["TurnStarted", "TurnFinished"]


async def test_a_cancel_stops_a_running_model_call_as_soon_as_it_is_told(place):
    held = Held(said("never"))
    async with (
        world(place, in_turn(held, said("fresh")), settings=ONLY_TOLD) as here,
        here.worker().running(),
    ):
        row = await here.start()
        await held.reached.wait()
        await here.sessions.cancel(OWNER, row.id, reason="enough")
        row = await here.settled(row.id)
        assert held.hung_up
        log = await here.log_of(row.id)
        assert (_end(log).outcome, _end(log).code) == ("cancelled", "turn")
        assert row.cost_pico == COST_PICO
        await here.sessions.send(OWNER, row.id, [Text("something else")])
        await here.reaches(row.id, lambda one: one.status == "idle" and one.version > log[-1].seq + 1)
        assert _end(await here.log_of(row.id)).outcome == "completed"


@pytest.mark.parametrize("function", ["ledger_look", "ledger_pay"])
async def test_a_cancel_stops_a_running_tool_and_an_irreversible_ones_outcome_is_unknown(place, function):
    started = asyncio.Event()
    async with world(place, in_turn(calls((function, "{}")))) as here, here.worker().running():

        async def hang(run):
            started.set()
            await asyncio.Event().wait()

        here.kind.do = hang
        row = await here.start()
        await started.wait()
        await here.sessions.cancel(OWNER, row.id)
        await here.settled(row.id)
        log = await here.log_of(row.id)
    assert _end(log).outcome == "cancelled"
    assert len(events_of(log, ToolOutcomeUnknown)) == (function == "ledger_pay")
    assert here.kind.running == 0


async def test_a_session_cancelled_for_good_takes_no_more_input(place):
    held = Held(said("never"))
    async with world(place, in_turn(held)) as here, here.worker().running():
        row = await here.start()
        await held.reached.wait()
        await here.sessions.cancel(OWNER, row.id, for_good=True)
        row = await here.settled(row.id)
        assert row.status == "cancelled"
        with pytest.raises(Exception, match="cancelled for good"):
            await here.sessions.send(OWNER, row.id, [Text("hello?")])
        assert await here.sessions.cancel(OWNER, row.id) == row.version


@pytest.mark.slow
async def test_input_after_a_cancel_gets_a_turn_of_its_own(place):
    held = Held(said("never"))
    async with world(place, in_turn(held, said("as you wish"))) as here, here.worker().running():
        row = await here.start()
        await held.reached.wait()
        await here.log.append(row.id, [UserSpoke(content=(Text("before"),))])
        await here.sessions.cancel(OWNER, row.id)
        await here.sessions.send(OWNER, row.id, [Text("after")])
        await here.seen(row.id, TurnFinished, count=2)
        log = await here.log_of(row.id)
    assert [end.outcome for end in events_of(log, TurnFinished)] == ["cancelled", "completed"]
    assert [text_of(m.content) for m in here.model.requests[-1].messages] == ["go", "before", "after"]


async def test_input_during_a_turn_is_shown_to_its_next_model_call(place):
    held = Held(calls(("ledger_look", "{}")))
    async with world(place, in_turn(held, said("both"))) as here, here.worker().running():
        row = await here.start()
        await held.reached.wait()
        await here.sessions.send(OWNER, row.id, [Text("and this")])
        held.go.set()
        await here.settled(row.id)
        log = await here.log_of(row.id)
    roles = [message.role for message in here.model.requests[1].messages]
    assert roles == ["user", "assistant", "tool", "user"]
    assert len(events_of(log, TurnFinished)) == 1


@pytest.mark.slow
async def test_input_during_the_last_answer_starts_the_next_turn_at_once(place):
    held = Held(said("first"))
    async with world(place, in_turn(held, said("second"))) as here, here.worker().running():
        row = await here.start()
        await held.reached.wait()
        await here.sessions.send(OWNER, row.id, [Text("and this")])
        held.go.set()
        await here.seen(row.id, TurnFinished, count=2)
        log = await here.log_of(row.id)
    assert [end.outcome for end in events_of(log, TurnFinished)] == ["completed", "completed"]
    roles = [message.role for message in here.model.requests[1].messages]
    assert roles == ["user", "assistant", "user"]


@pytest.mark.slow
async def test_a_tool_that_does_not_open_fails_the_turn_by_name_and_the_session_goes_on(place):
    async with world(place, in_turn(said("hello"))) as here, here.worker().running():
        here.kind.fault = Unavailable("connection refused")
        row = await here.start()
        await here.settled(row.id)
        log = await here.log_of(row.id)
        assert (_end(log).outcome, _end(log).code) == ("failed", "unavailable")
        assert "tool 'ledger' of agent 'clerk' can't be used: connection refused" in _end(log).message
        here.kind.fault = None
        await here.sessions.send(OWNER, row.id, [Text("again")])
        await here.reaches(row.id, lambda one: one.status == "idle" and one.version > log[-1].seq + 1)
        assert _end(await here.log_of(row.id)).outcome == "completed"


async def test_an_owner_whose_key_was_revoked_acts_no_more(place):
    async def prepare(here):
        here.principals.revoked.add(OWNER.id)

    log, here = await _run(place, in_turn(said("never")), prepare=prepare)
    assert (_end(log).outcome, _end(log).code) == ("failed", "unauthenticated")
    assert not here.model.requests


@pytest.mark.slow
async def test_a_changed_tool_is_there_in_the_next_turn_and_the_old_one_is_closed(place):
    async with world(place, in_turn(said("one"), said("two"))) as here, here.worker().running():
        row = await here.settled((await here.start()).id)
        await here.declare(structs.replace(LEDGER, functions=("look",)))
        await here.sessions.send(OWNER, row.id, [Text("again")])
        await here.reaches(row.id, lambda one: one.status == "idle" and one.version > row.version + 1)
        assert [spec.name for spec in here.model.requests[1].tools] == ["ledger_look"]
    assert here.kind.opened == 2
    assert here.kind.open_now == 0


@pytest.mark.slow
async def test_a_bug_in_the_gateway_ends_the_turn_visibly(place, caplog):
    def broken(request):
        raise RuntimeError("boom")

    log, _ = await _run(place, broken)
    assert (_end(log).outcome, _end(log).code) == ("failed", "internal")
    assert "boom" not in _end(log).message


@pytest.mark.slow
async def test_usage_without_tokens_needs_no_record(place):
    log, _ = await _run(place, in_turn(said("hello", usage=Usage())))
    assert _end(log).outcome == "completed"
