"""Logs that released versions wrote are read by this one, for ever: each line of tests/histories is an event as it was stored.

A history is never changed; a new release adds its own (the file's name begins with the version).
"""

from pathlib import Path

import msgspec
import pytest

from freehold.core.messages import text_of
from freehold.core.resources import Limits
from freehold.core.session import Recorded
from freehold.core.session_state import SessionState, replay
from freehold.runtime.calls import PlannedFunction
from freehold.runtime.decide import CallModel, Plan, Rest, decide
from tests.runtime.test_decide import assert_speakable

FOLDER = Path(__file__).parents[1] / "histories"
FUNCTIONS = {
    f"ledger_{name}": PlannedFunction("ledger", name, effect, 5.0)
    for name, effect in (("look", "pure"), ("set", "idempotent"), ("pay", "irreversible"))
}
PLAN = Plan("sess_1", Limits(), FUNCTIONS)


def history(path: Path) -> list[Recorded]:
    return [msgspec.json.decode(line, type=Recorded) for line in path.read_bytes().splitlines()]


@pytest.fixture(params=sorted(FOLDER.glob("*.jsonl")), ids=lambda path: path.stem)
def log(request) -> list[Recorded]:
    return history(request.param)


def test_a_history_is_read_and_written_the_same(log):
    for recorded in log:
        assert msgspec.json.decode(msgspec.json.encode(recorded), type=Recorded) == recorded


def test_a_history_ends_at_rest_with_all_answered(log):
    state = replay(log)
    assert decide(state, PLAN, log[-1].at) == Rest()
    assert not state.open_calls
    assert_speakable(state.conversation())


def test_every_beginning_of_a_history_has_a_next_step(log):
    state = SessionState()
    for recorded in log:
        state.apply(recorded)
        if isinstance(decide(state, PLAN, recorded.at), CallModel):
            assert_speakable(state.conversation())


def test_there_are_histories():
    said = [text_of(message.content) for message in replay(history(FOLDER / "0.1-six-tools.jsonl")).messages]
    assert said[0] == "Settle the ledger."
    assert said[-1] == "all done"
