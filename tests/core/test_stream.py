"""A stream and its whole answer say the same: in both directions, in pieces, and when it is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import BrokenOff
from freehold.core.messages import Raw, Text, ToolCall, Usage
from freehold.core.stream import (
    ArgumentsAdded,
    Finished,
    Folding,
    PartFinished,
    PartStarted,
    Started,
    TextAdded,
    UsageReported,
    fold,
    unfold,
)
from tests.wires._values import any_responses, told_in_pieces


@given(any_responses)
def test_folding_what_was_unfolded_gives_the_same_answer(response):
    assert fold(unfold(response)) == response


@given(st.data())
def test_how_texts_and_arguments_are_cut_changes_nothing(data):
    response = data.draw(any_responses)
    assert fold(told_in_pieces(response, data.draw)) == response


@given(any_responses)
def test_a_stream_without_its_end_is_broken_off_and_its_beginning_can_be_had(response):
    folding = Folding()
    for event in unfold(response):
        if not isinstance(event, Finished):
            folding.add(event)
    assert not folding.finished
    assert folding.partial().content == response.content
    with pytest.raises(BrokenOff):
        folding.response()


def test_parts_may_be_told_by_turns():
    events = [
        Started("r", "m"),
        PartStarted(0, ToolCall("a", "f", "")),
        PartStarted(1, ToolCall("b", "g", "")),
        ArgumentsAdded(0, '{"x"'),
        ArgumentsAdded(1, "{}"),
        ArgumentsAdded(0, ":1}"),
        PartFinished(1),
        PartFinished(0),
        Finished("tool_use"),
    ]
    assert fold(events).content == (ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", "{}"))


def test_the_last_report_of_usage_counts():
    events = [Started("r", "m"), UsageReported(Usage(1, 1)), UsageReported(Usage(1, 5)), Finished("end_turn")]
    assert fold(events).usage == Usage(1, 5)


def test_what_is_said_of_a_text_when_it_ends_joins_what_was_said_when_it_began():
    events = [
        Started("r", "m"),
        PartStarted(0, Text("a", None, {"w": {"x": Raw(b"1")}})),
        TextAdded(0, "b"),
        PartFinished(0, {"w": {"citations": Raw(b"[2]")}}),
        Finished("end_turn", extra={"w": {"y": Raw(b"3")}}),
    ]
    response = fold(events)
    assert response.content == (Text("ab", None, {"w": {"x": Raw(b"1"), "citations": Raw(b"[2]")}}),)
    assert response.extra == {"w": {"y": Raw(b"3")}}
