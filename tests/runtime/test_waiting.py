"""Sessions that wait for people, clients and time: decided by the log and the clock alone, and through a worker on the real store."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

from freehold.core.errors import BadRequest
from freehold.core.messages import Message, Text, ToolCall, ToolResult
from freehold.core.resources import Approval, Escalation, Limits
from freehold.core.session import (
    ApprovalDecided,
    AwaitsApproval,
    CallAwaited,
    CancelRequested,
    Compacted,
    ModelAnswered,
    PauseRequested,
    Recorded,
    ResultGiven,
    ResumeRequested,
    SessionEvent,
    SessionStarted,
    SessionWaits,
    ToolFinished,
    TurnFinished,
    TurnStarted,
    UserSpoke,
    approval_binding,
    row_change,
)
from freehold.core.session_state import SessionState, replay
from freehold.runtime.calls import PlannedFunction
from freehold.runtime.decide import CallModel, FinishTurn, Plan, Rest, RunTools, Wait, decide
from freehold.runtime.waiting import TIMER_S_MAX, timer_end

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
RULE = Approval(quorum=2, deadline_s=3600, escalations=(Escalation(approvers=("boss",), deadline_s=600),))
PAY = PlannedFunction("bank", "pay", "irreversible", 5.0, version=3, approval=RULE)
FUNCTIONS = {
    "pay": PAY,
    "look": PlannedFunction("bank", "look", "pure", 5.0),
    "pick": PlannedFunction("desk", "pick", "irreversible", 5.0, settled_by="client"),
    "wait": PlannedFunction("clock", "wait", "pure", 5.0, settled_by="timer"),
}
PLAN = Plan("sess_1", Limits(), FUNCTIONS)
ARGUMENTS = '{"amount": 7}'
BINDING = approval_binding("bank", 3, "pay", ARGUMENTS)
BEGUN = (
    SessionStarted(agent="clerk", agent_version=1),
    UserSpoke(content=(Text("hello"),)),
    TurnStarted(turn=1),
)


def answer(*calls: tuple[str, str]) -> ModelAnswered:
    content = tuple(
        ToolCall(f"t{place}", name, arguments) for place, (name, arguments) in enumerate(calls, 1)
    )
    return ModelAnswered(seen_seq=3, model="m", served_by="p/m", content=content, stop_reason="tool_use")


def state_after(*events: SessionEvent) -> SessionState:
    return replay(Recorded(seq, T0, event) for seq, event in enumerate(events, 1))


def after(*events: SessionEvent, now: datetime = T0, plan: Plan = PLAN):
    return decide(state_after(*events), plan, now)


def vote(
    by: str, *, allow: bool = True, binding: str = BINDING, arguments: str | None = None
) -> ApprovalDecided:
    return ApprovalDecided(call_id="t1", binding=binding, allow=allow, by=by, arguments=arguments)


def asked(*, now: datetime = T0, plan: Plan = PLAN) -> CallAwaited:
    step = after(*BEGUN, answer(("pay", ARGUMENTS)), now=now, plan=plan)
    assert isinstance(step, RunTools)
    assert not step.claims
    [fact] = step.facts
    assert isinstance(fact, CallAwaited)
    return fact


def waiting(*more: SessionEvent, now: datetime = T0, plan: Plan = PLAN):
    return after(*BEGUN, answer(("pay", ARGUMENTS)), asked(), *more, now=now, plan=plan)


def result_of(step) -> ToolFinished:
    [fact] = step.facts
    assert isinstance(fact, ToolFinished)
    return fact


def test_people_are_asked_before_anything_runs():
    fact = asked()
    assert fact.until == T0 + HOUR
    assert isinstance(fact.awaits, AwaitsApproval)
    assert (fact.awaits.binding, fact.awaits.quorum) == (BINDING, 2)
    step = waiting()
    assert step == Wait(SessionWaits(why="calls", calls=(fact,), until=T0 + HOUR))
    assert waiting(step.waits) == Rest()
    assert row_change([fact, step.waits]).status == "waiting"


def test_the_binding_is_of_the_arguments_not_of_their_layout():
    assert approval_binding("bank", 3, "pay", '{ "amount":7 }') == BINDING
    assert approval_binding("bank", 3, "pay", '{"amount":8}') != BINDING
    assert approval_binding("bank", 4, "pay", ARGUMENTS) != BINDING


def test_a_quorum_must_allow_and_nobody_counts_twice():
    assert isinstance(waiting(vote("ann")), Wait)
    assert isinstance(waiting(vote("ann"), vote("ann")), Wait)
    step = waiting(vote("ann"), vote("bob"))
    [claim] = step.claims
    assert claim.arguments == {"amount": 7}
    assert claim.started.key == "sess_1.1.1.0"


def test_one_denial_denies_and_the_model_is_told_by_whom():
    told = result_of(waiting(vote("ann"), vote("bob", allow=False)))
    assert told.failed
    assert told.code == "forbidden"
    assert "denied by bob" in told.content[0].text


def test_changed_arguments_need_the_others_word_again():
    new = '{"amount": 5}'
    edit = vote("bob", binding=approval_binding("bank", 3, "pay", new), arguments=new)
    assert isinstance(waiting(vote("ann"), edit), Wait)
    assert isinstance(waiting(vote("ann"), edit, vote("ann")), Wait), "a word on the former arguments"
    step = waiting(vote("ann"), edit, vote("ann", binding=edit.binding))
    [claim] = step.claims
    assert claim.arguments == {"amount": 5}
    assert claim.started.arguments == new


def test_a_changed_rule_asks_anew():
    plan = structs.replace(PLAN, functions={"pay": structs.replace(PAY, version=4)})
    step = waiting(vote("ann"), vote("bob"), plan=plan)
    [fact] = step.facts
    assert isinstance(fact, CallAwaited)
    assert fact.awaits.binding == approval_binding("bank", 4, "pay", ARGUMENTS)
    assert isinstance(waiting(vote("ann"), vote("bob"), fact, plan=plan), Wait)


def test_expiry_escalates_and_is_then_told_and_is_no_denial():
    step = waiting(now=T0 + HOUR)
    [raised] = step.facts
    assert isinstance(raised, CallAwaited)
    assert (raised.awaits.level, raised.awaits.approvers) == (1, ("boss",))
    assert raised.until == T0 + HOUR + timedelta(seconds=600)
    told = result_of(waiting(raised, now=raised.until))
    assert told.code == "timed_out"
    assert "no denial" in told.content[0].text


@pytest.mark.parametrize(("on_expiry", "code"), [("deny", "forbidden"), ("allow", None)])
def test_expiry_does_what_the_rule_says(on_expiry, code):
    rule = Approval(deadline_s=1, on_expiry=on_expiry)
    plan = structs.replace(PLAN, functions={"pay": structs.replace(PAY, approval=rule)})
    fact = asked(plan=plan)
    waits = SessionWaits(why="calls", calls=(fact,), until=fact.until)
    step = after(*BEGUN, answer(("pay", ARGUMENTS)), fact, waits, now=T0 + HOUR, plan=plan)
    if code:
        assert result_of(step).code == code
    else:
        assert len(step.claims) == 1


def test_a_rule_may_ask_for_some_functions_or_effects_only():
    for rule in (Approval(functions=("other",)), Approval(effects=("pure",))):
        plan = structs.replace(PLAN, functions={"pay": structs.replace(PAY, approval=rule)})
        assert after(*BEGUN, answer(("pay", ARGUMENTS)), plan=plan).claims


def test_what_need_not_wait_runs_while_people_are_asked():
    step = after(*BEGUN, answer(("pay", ARGUMENTS), ("look", "{}")))
    assert [one.started.function for one in step.claims] == ["look"]
    assert [one.call_id for one in step.facts] == ["t1"]


def test_a_clients_result_goes_to_the_model():
    step = after(*BEGUN, answer(("pick", "{}")))
    [fact] = step.facts
    given = ResultGiven(call_id="t1", source="client", content=(Text("blue"),), by="app")
    state = state_after(*BEGUN, answer(("pick", "{}")), fact, given)
    assert decide(state, PLAN, T0) == CallModel()
    assert state.messages[-1] == Message("tool", (ToolResult("t1", (Text("blue"),)),))


def test_a_result_that_nobody_waits_for_changes_nothing():
    given = ResultGiven(call_id="t9", source="client", content=(Text("late"),))
    state = state_after(*BEGUN, answer(("pick", "{}")), given)
    assert list(state.open_calls) == ["t1"]


def test_a_timer_ends_by_itself():
    step = after(*BEGUN, answer(("wait", '{"seconds": 90}')))
    [fact] = step.facts
    assert fact.until == T0 + timedelta(seconds=90)
    events = (*BEGUN, answer(("wait", '{"seconds": 90}')), fact)
    assert isinstance(after(*events, now=T0 + timedelta(seconds=89)), Wait)
    assert "it is 2026-01-01T00:01:30Z" in result_of(after(*events, now=fact.until)).content[0].text


@pytest.mark.parametrize(
    "arguments",
    [{}, {"seconds": -1}, {"seconds": True}, {"seconds": TIMER_S_MAX + 1}, {"until": "soon"}, {"until": "2026-01-01T00:00:00"},
     {"seconds": 1, "until": "2026-01-01T00:00:00Z"}, {"until": "2030-01-01T00:00:00Z"}],
)  # fmt: skip
def test_a_timer_without_a_sensible_time_is_refused(arguments):
    with pytest.raises(BadRequest):
        timer_end(arguments, T0)


def test_a_time_in_the_past_is_over_at_once():
    assert timer_end({"until": "2025-01-01T01:00:00+01:00"}, T0) == T0


def test_waiting_does_not_count_as_wall_time():
    limits = Limits(wall_time_s_max=60)
    plan = structs.replace(PLAN, limits=limits)
    fact = after(*BEGUN, answer(("wait", '{"seconds": 3600}'))).facts[0]
    waits = SessionWaits(why="calls", calls=(fact,), until=fact.until)
    at = [T0, T0, T0, T0, T0, T0, T0 + HOUR]
    finished = ToolFinished(call_id="t1", content=(Text("now"),))
    events = [*BEGUN, answer(("wait", '{"seconds": 3600}')), fact, waits, finished]
    state = replay(
        Recorded(seq, when, event) for seq, (when, event) in enumerate(zip(at, events, strict=True), 1)
    )
    assert decide(state, plan, T0 + HOUR) == CallModel()
    over = decide(state, plan, T0 + HOUR + timedelta(seconds=61))
    assert isinstance(over, FinishTurn)
    assert over.events[0].limit == "wall_time_s_max"


def test_a_pause_keeps_what_comes_and_a_resume_goes_on():
    paused = (*BEGUN, PauseRequested(by="ann"))
    step = after(*paused)
    assert step == Wait(SessionWaits(why="paused"))
    assert row_change([step.waits]).status == "paused"
    assert after(*paused, step.waits, UserSpoke(content=(Text("more"),))) == step
    assert after(*paused, step.waits, ResumeRequested(by="ann")) == CallModel()
    idle = after(BEGUN[0], PauseRequested(), SessionWaits(why="paused"), ResumeRequested())
    assert idle == Wait(SessionWaits(why="input"))
    assert row_change([idle.waits]).status == "idle"


def test_a_cancel_ends_a_wait():
    step = waiting(CancelRequested(by="ann"))
    assert isinstance(step, FinishTurn)
    assert step.events[-1].outcome == "cancelled"


def test_a_loop_is_found_by_its_results_not_by_its_length():
    limits = Limits(repeats_max=3)
    plan = structs.replace(PLAN, limits=limits)

    def life(*results: str):
        events: list[SessionEvent] = list(BEGUN)
        for place, result in enumerate(results):
            call = ToolCall(f"t{place}", "look", "{}")
            events.append(structs.replace(answer(), content=(call,), seen_seq=len(events)))
            events.append(ToolFinished(call_id=call.id, content=(Text(result),)))
        return after(*events, plan=plan)

    assert life("a", "a") == CallModel()
    assert life("a", "a", "b", "a") == CallModel()
    assert life("a", "a", "a").events[0].limit == "repeats_max"


def test_limits_over_the_whole_session_name_themselves():
    plan = structs.replace(PLAN, limits=Limits(session_steps_max=2))
    events = (
        *BEGUN,
        answer(("look", "{}")),
        ToolFinished(call_id="t1", content=()),
        TurnFinished(outcome="completed"),
    )
    again = (*events, UserSpoke(content=(Text("again"),)), TurnStarted(turn=2))
    assert after(*again, plan=plan) == CallModel()
    plan = structs.replace(PLAN, limits=Limits(session_steps_max=1))
    assert after(*again, plan=plan).events[0].limit == "session_steps_max"


def test_a_compaction_stands_in_for_what_was_before():
    state = state_after(
        *BEGUN,
        structs.replace(answer(), content=(Text("hi"),), stop_reason="end_turn"),
        TurnFinished(outcome="completed"),
        UserSpoke(content=(Text("more"),)),
        TurnStarted(turn=2),
        Compacted(up_to_seq=5, summary="they said hello"),
    )
    assert [message.content[0].text for message in state.conversation()] == ["they said hello", "more"]
