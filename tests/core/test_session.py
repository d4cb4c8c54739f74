"""A session's state is a fold over its facts: what it makes of each, and what it refuses as no log of ours."""

from datetime import UTC, datetime

import pytest

from freehold.core.messages import Text, ToolCall, Usage, text_of
from freehold.core.session import (
    CancelRequested,
    ModelAnswered,
    ModelFailed,
    Recorded,
    SessionEvent,
    SessionStarted,
    ToolFinished,
    ToolOutcomeUnknown,
    ToolStarted,
    TurnFinished,
    TurnStarted,
    UserSpoke,
    row_change,
)
from freehold.core.session_state import replay

NONE = Usage()
AT = datetime(2026, 1, 1, tzinfo=UTC)


def state_after(*events: SessionEvent):
    return replay(Recorded(seq, AT, event) for seq, event in enumerate(events, 1))


def said(text: str) -> UserSpoke:
    return UserSpoke(content=(Text(text),))


def answered(seen: int, *call_ids: str, cost_pico: int = 0, usage: Usage = NONE) -> ModelAnswered:
    content = tuple(ToolCall(call_id, "look", "{}") for call_id in call_ids) or (Text("done"),)
    return ModelAnswered(
        seen_seq=seen,
        model="m",
        served_by="p/m",
        content=content,
        stop_reason="tool_use" if call_ids else "end_turn",
        cost_pico=cost_pico,
        usage=usage,
    )


def started(call_id: str, attempt: int = 1) -> ToolStarted:
    return ToolStarted(
        call_id=call_id, tool="t", function="look", arguments="{}", effect="pure", key="k", attempt=attempt
    )


def result(call_id: str, text: str = "ok", cost_pico: int = 0) -> ToolFinished:
    return ToolFinished(call_id=call_id, content=(Text(text),), cost_pico=cost_pico)


START = SessionStarted(agent="a", agent_version=1)
BEGUN = (START, said("one"), TurnStarted(turn=1))


def words(state) -> list[str]:
    return [text_of(message.content) for message in state.conversation() if message.role == "user"]


def test_input_that_an_answer_has_not_seen_stands_after_it():
    state = state_after(*BEGUN, said("two"), answered(3))
    assert [message.role for message in state.conversation()] == ["user", "assistant", "user"]


def test_results_stand_in_the_order_of_their_calls_however_they_came():
    state = state_after(*BEGUN, answered(3, "a", "b"), result("b"), result("a"))
    assert [part.call_id for part in state.messages[-1].content] == ["a", "b"]


def test_calls_that_a_turn_leaves_open_are_answered_by_its_end():
    state = state_after(
        *BEGUN, answered(3, "a", "b"), started("a"), TurnFinished(outcome="cancelled", code="turn")
    )
    first, second = state.messages[-1].content
    assert text_of(first.content).startswith("interrupted")
    assert text_of(second.content).startswith("not run")


def test_a_cancelled_turn_uses_up_what_was_said_before_the_cancel_alone():
    log = (*BEGUN, said("two"), CancelRequested(), said("three"))
    assert state_after(*log).input_left("cancelled")
    state = state_after(*log, TurnFinished(outcome="cancelled", code="turn"))
    assert [seq for seq, _ in state.queued] == [6]
    assert words(state) == ["one", "two", "three"]


def test_a_turn_that_ends_before_any_call_uses_up_its_input():
    state = state_after(*BEGUN, TurnFinished(outcome="limit_reached", limit="steps_max"))
    assert not state.queued
    assert words(state) == ["one"]


def test_a_failed_call_uses_up_what_it_was_shown():
    state = state_after(
        *BEGUN, said("two"), ModelFailed(seen_seq=4, model="m", code="overloaded", message="")
    )
    assert not state.queued


def test_steps_are_answers_and_first_attempts():
    state = state_after(*BEGUN, answered(3, "a"), started("a"), started("a", 2), result("a"), answered(7))
    assert state.turn_steps == 3


def test_what_was_spent_is_counted_by_turn_and_in_all():
    first = answered(3, cost_pico=5, usage=Usage(input_tokens=10))
    end = TurnFinished(outcome="completed")
    state = state_after(
        *BEGUN,
        first,
        end,
        said("two"),
        TurnStarted(turn=2),
        answered(7, "a", cost_pico=7),
        result("a", cost_pico=1),
    )
    assert (state.turn_cost_pico, state.cost_pico, state.usage.input_tokens) == (8, 13, 10)


def test_the_row_says_the_same_as_the_state():
    log = (
        *BEGUN,
        answered(3, "a", cost_pico=7),
        result("a", cost_pico=1),
        answered(5),
        TurnFinished(outcome="completed"),
    )
    change = row_change(log)
    assert (change.status, change.cost_pico) == ("idle", state_after(*log).cost_pico)


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ((*BEGUN, result("a")), "not open"),
        ((*BEGUN, started("a")), "not open"),
        ((*BEGUN, ToolOutcomeUnknown(call_id="a", message="")), "not open"),
        ((*BEGUN, answered(3, "a", "a")), "repeats"),
        ((*BEGUN, answered(3, "a"), result("a"), answered(5, "a")), "repeats"),
    ],
)
def test_what_makes_no_sense_where_it_stands_is_refused(events, why):
    with pytest.raises(ValueError, match=why):
        state_after(*events)


def test_a_gap_is_refused():
    with pytest.raises(ValueError, match="event 3 cannot follow event 1"):
        replay([Recorded(1, AT, START), Recorded(3, AT, said("late"))])
