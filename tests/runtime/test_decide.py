"""What follows from a log, decided without any I/O: tables of logs, and properties over whole lives of sessions."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from freehold.core.errors import BadRequest
from freehold.core.messages import Message, StopReason, Text, ToolCall, ToolResult, Usage, text_of
from freehold.core.resources import Effect, Limits
from freehold.core.session import (
    CallAwaited,
    CancelRequested,
    ModelAnswered,
    ModelFailed,
    Recorded,
    ResultGiven,
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
from freehold.core.session_state import SessionState, replay
from freehold.runtime.calls import PlannedFunction, with_unique_ids
from freehold.runtime.decide import (
    ATTEMPTS_MAX,
    CallModel,
    FinishTurn,
    Plan,
    Rest,
    RunTools,
    StartTurn,
    decide,
    money_pico,
)

T0 = datetime(2026, 1, 1, tzinfo=UTC)
EFFECTS: dict[str, Effect] = {
    "look": "pure",
    "set": "idempotent",
    "undo": "compensatable",
    "pay": "irreversible",
}
FUNCTIONS = {name: PlannedFunction("ledger", name, effect, 5.0) for name, effect in EFFECTS.items()}
PLAN = Plan("sess_1", Limits(), FUNCTIONS)
START = SessionStarted(agent="clerk", agent_version=1)
HELLO = UserSpoke(content=(Text("hello"),))


def answer(seen: int, *names: str, stop: StopReason = "tool_use", first: int = 1) -> ModelAnswered:
    content = tuple(ToolCall(f"t{place}", name, "{}") for place, name in enumerate(names, first)) or (
        Text("done"),
    )
    return ModelAnswered(
        seen_seq=seen, model="m", served_by="p/m", content=content, stop_reason=stop if names else "end_turn"
    )


def started(name: str, call_id: str = "t1", attempt: int = 1) -> ToolStarted:
    return ToolStarted(
        call_id=call_id,
        tool="ledger",
        function=name,
        arguments="{}",
        effect=EFFECTS[name],
        key="sess_1.1.1.0",
        attempt=attempt,
    )


def finished(call_id: str = "t1") -> ToolFinished:
    return ToolFinished(call_id=call_id, content=(Text("ok"),))


def log_of(*events: SessionEvent) -> list[Recorded]:
    return [Recorded(seq, T0, event) for seq, event in enumerate(events, 1)]


def after(*events: SessionEvent, plan: Plan = PLAN, now: datetime = T0):
    return decide(replay(log_of(*events)), plan, now)


def end_of(step) -> TurnFinished:
    assert isinstance(step, FinishTurn)
    return next(event for event in step.events if isinstance(event, TurnFinished))


BEGUN = (START, HELLO, TurnStarted(turn=1))


def test_a_session_without_input_rests():
    assert after(START) == Rest()


def test_input_starts_a_turn():
    assert after(START, HELLO) == StartTurn(1)


def test_a_turn_begins_with_the_model():
    assert after(*BEGUN) == CallModel()


def test_calls_of_an_answer_are_claimed_in_order_with_keys_of_their_place():
    step = after(*BEGUN, answer(3, "look", "pay"))
    assert [one.started.key for one in step.claims] == ["sess_1.1.1.0", "sess_1.1.1.1"]
    assert [one.started.effect for one in step.claims] == ["pure", "irreversible"]


def test_answered_calls_lead_back_to_the_model():
    assert after(*BEGUN, answer(3, "look"), started("look"), finished()) == CallModel()


@pytest.mark.parametrize("name", ["set", "pay"])
def test_a_call_whose_result_came_before_the_log_knew_of_a_wait_is_neither_begun_again_nor_unknown(name):
    given = ResultGiven(call_id="t1", source="session", content=(Text("ok"),), by="sess_2")
    cut_off = (*BEGUN, answer(3, name), started(name), given)
    step = after(*cut_off)
    assert (step.claims, [type(fact) for fact in step.facts]) == ((), [CallAwaited])
    assert after(*cut_off, *step.facts) == CallModel()


def test_the_rest_of_a_batch_follows_what_is_done():
    plan = structs.replace(PLAN, limits=Limits(tool_calls_parallel_max=1))
    step = after(*BEGUN, answer(3, "look", "set"), started("look"), finished(), plan=plan)
    assert [one.started.call_id for one in step.claims] == ["t2"]


@pytest.mark.parametrize("name", ["look", "set"])
def test_what_is_harmless_to_repeat_runs_again_with_the_same_key(name):
    step = after(*BEGUN, answer(3, name), started(name))
    [again] = step.claims
    assert (again.started.attempt, again.started.key) == (2, "sess_1.1.1.0")


@pytest.mark.parametrize("name", ["undo", "pay"])
def test_what_must_not_be_repeated_has_an_unknown_outcome(name):
    step = after(*BEGUN, answer(3, name), started(name))
    assert not step.claims
    [unknown] = step.facts
    assert isinstance(unknown, ToolOutcomeUnknown)
    assert "not tried again" in unknown.message


def test_what_kills_its_worker_every_time_is_given_up():
    attempts = [started("look", attempt=number) for number in range(1, ATTEMPTS_MAX + 1)]
    step = after(*BEGUN, answer(3, "look"), *attempts)
    [gave_up] = step.facts
    assert gave_up.failed
    assert f"{ATTEMPTS_MAX} attempts" in text_of(gave_up.content)


def test_a_final_answer_completes_the_turn():
    assert end_of(after(*BEGUN, answer(3))).outcome == "completed"


def test_calls_count_whatever_the_stop_reason_says():
    assert isinstance(after(*BEGUN, answer(3, "look", stop="end_turn")), RunTools)


def test_calls_beside_a_refusal_are_not_run():
    assert end_of(after(*BEGUN, answer(3, "pay", stop="refusal"))).outcome == "refused"


def test_input_that_the_last_answer_has_not_seen_starts_the_next_turn_in_the_same_append():
    step = after(*BEGUN, HELLO, answer(3))
    assert [type(event) for event in step.events] == [TurnFinished, TurnStarted]
    assert row_change(step.events).status == "running"


def test_a_cancel_ends_a_turn_before_anything_else():
    step = after(*BEGUN, answer(3, "look"), CancelRequested())
    assert (end_of(step).outcome, end_of(step).code) == ("cancelled", "turn")


def test_a_cancel_says_unknown_of_what_may_have_happened():
    step = after(*BEGUN, answer(3, "pay"), started("pay"), CancelRequested())
    assert [type(event) for event in step.events] == [ToolOutcomeUnknown, TurnFinished]


def test_a_cancel_while_nothing_runs_brings_the_session_to_rest():
    log = (START, HELLO, CancelRequested())
    step = after(*log)
    assert end_of(step).outcome == "cancelled"
    assert after(*log, *step.events) == Rest()


def test_ending_a_session_outweighs_a_later_cancel_of_its_turn():
    log = (*BEGUN, CancelRequested(scope="session"), CancelRequested(), HELLO)
    step = after(*log)
    assert (end_of(step).code, row_change(step.events).status) == ("session", "cancelled")
    assert after(*log, *step.events) == Rest()


@pytest.mark.parametrize(
    ("code", "outcome"),
    [("overloaded", "failed"), ("content_refused", "refused"), ("limit_reached", "limit_reached")],
)
def test_a_failed_model_ends_the_turn_by_its_cause(code, outcome):
    step = after(*BEGUN, ModelFailed(seen_seq=3, model="m", code=code, message="why"))
    assert (end_of(step).outcome, end_of(step).message) == (outcome, "why")


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (Limits(steps_max=2), "steps_max"),
        (Limits(tokens_max=10), "tokens_max"),
        (Limits(cost_max_usd="0.001"), "cost_max_usd"),
        (Limits(wall_time_s_max=5), "wall_time_s_max"),
    ],
)
@pytest.mark.parametrize("before", ["model", "tools"])
def test_limits_hold_before_each_model_call_and_before_tools(limits, limit, before):
    plan = structs.replace(
        PLAN, limits=limits, cost_max_pico=money_pico(limits.cost_max_usd, field="cost_max_usd")
    )
    spent = structs.replace(answer(3, "look"), usage=Usage(input_tokens=11), cost_pico=10**9)
    log = (*BEGUN, spent, started("look"), finished()) if before == "model" else (*BEGUN, spent)
    if before == "tools" and limit == "steps_max":
        plan = structs.replace(plan, limits=Limits(steps_max=1))
    assert end_of(after(*log, plan=plan, now=T0 + timedelta(seconds=5))).limit == limit


def test_a_batch_that_does_not_fit_the_steps_left_runs_nothing():
    plan = structs.replace(PLAN, limits=Limits(steps_max=3))
    assert end_of(after(*BEGUN, answer(3, "pay", "pay", "pay"), plan=plan)).limit == "steps_max"


def test_limits_do_not_take_back_a_finished_answer():
    plan = structs.replace(PLAN, limits=Limits(steps_max=1, tokens_max=1))
    assert end_of(after(*BEGUN, answer(3), plan=plan)).outcome == "completed"


@pytest.mark.parametrize("text", ["a lot", "-1", "NaN", "Infinity"])
def test_a_cost_that_is_no_money_is_refused(text):
    with pytest.raises(BadRequest, match="cost_max_usd"):
        money_pico(text, field="cost_max_usd")


# ------------------------------------------------------------------------------ whole lives of sessions


class Life:
    """A session lived in memory: does what decide says; `draw` chooses answers, crashes and what people do meanwhile."""

    def __init__(self, draw) -> None:
        self.draw = draw
        self.log: list[Recorded] = []
        self.now = T0
        self.plan = structs.replace(
            PLAN, limits=Limits(steps_max=draw(st.integers(0, 12)), tool_calls_parallel_max=2)
        )
        self.ran: dict[str, int] = {}
        self.inputs_left = draw(st.integers(0, 4))
        self.crashes_left = draw(st.integers(0, 6))
        self.append(START, HELLO)

    @property
    def state(self) -> SessionState:
        return replay(self.log)

    def append(self, *events: SessionEvent) -> None:
        for event in events:
            self.log.append(Recorded(len(self.log) + 1, self.now, event))

    def crashes(self) -> bool:
        if self.crashes_left and self.draw(st.integers(0, 4)) == 0:
            self.crashes_left -= 1
            return True
        return False

    def someone_may_speak(self) -> None:
        if self.inputs_left and self.draw(st.integers(0, 3)) == 0:
            self.inputs_left -= 1
            self.append(self.draw(st.sampled_from([HELLO, HELLO, CancelRequested()])))

    def step(self) -> bool:
        self.now += timedelta(seconds=1)
        state = self.state
        step = decide(state, self.plan, self.now)
        match step:
            case Rest():
                return False
            case StartTurn():
                self.append(TurnStarted(turn=step.turn))
            case FinishTurn():
                self.append(*step.events)
            case CallModel():
                assert_speakable(state.conversation())
                self.call_model(state)
            case RunTools():
                self.run_tools(step)
        return True

    def call_model(self, state: SessionState) -> None:
        seen = state.seq
        self.someone_may_speak()
        if self.crashes():
            return
        what = self.draw(st.sampled_from(["text", "calls", "calls", "fail", "cut", "pause", "refuse"]))
        if what == "fail":
            self.append(ModelFailed(seen_seq=seen, model="m", code="overloaded", message="full"))
            return
        names = self.draw(st.lists(st.sampled_from([*EFFECTS, "nonsense"]), min_size=1, max_size=3))
        content = [ToolCall("t", name, self.draw(st.sampled_from(["{}", "", "{", "[]"]))) for name in names]
        stop: StopReason = "tool_use"
        if what in {"text", "pause", "refuse"}:
            content = [Text("so be it")]
            stop = {"text": "end_turn", "pause": "pause", "refuse": "refusal"}[what]
        elif what == "cut":
            stop = "tokens_max"
        unique = with_unique_ids(tuple(content), self.state)
        self.append(
            ModelAnswered(seen_seq=seen, model="m", served_by="p/m", content=unique, stop_reason=stop)
        )

    def run_tools(self, step: RunTools) -> None:
        self.append(*step.facts, *(one.started for one in step.claims))
        for one in step.claims:
            if self.crashes():
                return
            self.ran[one.started.key] = self.ran.get(one.started.key, 0) + 1
            self.someone_may_speak()
            if self.state.cancel or self.crashes():
                return
            self.append(finished(one.started.call_id))


def assert_speakable(conversation: tuple[Message, ...]) -> None:
    """Every vendor's rule: the calls of an answer are answered, each once, right after it."""
    for place, message in enumerate(conversation):
        asked = [part.id for part in message.content if isinstance(part, ToolCall)]
        following = conversation[place + 1] if place + 1 < len(conversation) else None
        if asked:
            assert following is not None
            assert following.role == "tool"
            assert [part.call_id for part in following.content if isinstance(part, ToolResult)] == asked
        elif following is not None:
            assert following.role != "tool"


STEPS_TO_REST_MAX = 400


@given(st.data())
def test_every_life_comes_to_rest_says_all_that_was_heard_and_repeats_nothing(data):
    life = Life(data.draw)
    for _ in range(STEPS_TO_REST_MAX):
        life.someone_may_speak()
        if not life.step():
            break
    else:
        raise AssertionError("never came to rest")
    state = life.state
    assert not state.open_calls
    assert not state.queued
    assert_speakable(state.conversation())
    spoken = sum(isinstance(one.event, UserSpoke) for one in life.log)
    assert sum(message.role == "user" for message in state.messages) == spoken
    assert row_status(life.log) == "idle"
    once = {
        one.event.key
        for one in life.log
        if isinstance(one.event, ToolStarted) and one.event.effect in {"irreversible", "compensatable"}
    }
    assert all(life.ran.get(key, 0) <= 1 for key in once)
    done = [one.event.call_id for one in life.log if isinstance(one.event, ToolFinished | ToolOutcomeUnknown)]
    assert len(done) == len(set(done))


@given(st.data())
def test_a_crash_after_any_event_leaves_a_log_to_go_on_from(data):
    life = Life(data.draw)
    for _ in range(STEPS_TO_REST_MAX):
        life.someone_may_speak()
        if not life.step():
            break
    for length in range(1, len(life.log) + 1):
        state = replay(life.log[:length])
        step = decide(state, life.plan, life.now)
        assert step == decide(replay(life.log[:length]), life.plan, life.now)
        if isinstance(step, CallModel):
            assert_speakable(state.conversation())
        for one in life.log[length:]:
            state.apply(one)
        assert state.conversation() == life.state.conversation()


def row_status(log: list[Recorded]) -> str:
    return row_change(one.event for one in log).status or "idle"
