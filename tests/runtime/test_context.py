"""What a model is shown of a long conversation: always one that vendors take, within its tokens, and the log stays whole."""

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from freehold.core import tokens
from freehold.core.context import Context, Reach
from freehold.core.errors import ContextTooLong, Unavailable
from freehold.core.messages import Message, Text, ToolCall, ToolResult, Usage, text_of
from freehold.core.ports import ToolOutcome
from freehold.core.resources import Limits
from freehold.core.session import (
    Compacted,
    ModelAnswered,
    ModelFailed,
    Recorded,
    SessionStarted,
    ToolFinished,
    TurnFinished,
    TurnStarted,
    UserSpoke,
)
from freehold.core.session_state import SessionState
from freehold.runtime.context import ContextPlan, compacted, compaction, shown, summary_request
from tests.runtime._world import AGENT, OWNER, calls, events_of, results_in, said, world
from tests.runtime.test_decide import assert_speakable

AT = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = "some words that a tool returned " * 20


class Talk:
    """A session's log, as it grows."""

    def __init__(self) -> None:
        self.state = SessionState()
        self.add(SessionStarted(agent="a", agent_version=1))

    def add(self, *events) -> "Talk":
        for event in events:
            self.state.apply(Recorded(self.state.seq + 1, AT, event))
        return self

    def ask(self, text: str = "please") -> "Talk":
        if self.state.in_turn:
            self.add(TurnFinished(outcome="completed"))
        return self.add(UserSpoke(content=(Text(text),)), TurnStarted(turn=self.state.turn + 1))

    def step(self, count: int = 1, *, result: str = WORDS) -> "Talk":
        """An answer with so many calls, and their results."""
        seq = self.state.seq
        made = [ToolCall(f"c{seq}_{place}", "look", "{}") for place in range(count)]
        self.add(answer(self.state, *made))
        return self.add(*(ToolFinished(call_id=call.id, content=(Text(result),)) for call in made))

    def end(self, text: str = "done") -> "Talk":
        return self.add(answer(self.state, Text(text)), TurnFinished(outcome="completed"))


def answer(state: SessionState, *content) -> ModelAnswered:
    counted = sum(tokens.of_message(message) for message in state.conversation())
    stop = "tool_use" if any(isinstance(part, ToolCall) for part in content) else "end_turn"
    usage = Usage(input_tokens=counted, output_tokens=10)
    return ModelAnswered(
        seen_seq=state.seq, model="m", served_by="p/m", content=content, stop_reason=stop, usage=usage
    )


def plan(tokens_max: int = 2000, **policy) -> ContextPlan:
    policy = {"keep_messages": 4, **policy}
    whole = policy.pop("whole_turns", False)
    declared = Context(**policy)
    return ContextPlan(declared, tokens_max, summarises=declared.strategy == "summary", whole_turns=whole)


TURNS = st.lists(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["short", WORDS])), max_size=6),
    min_size=1,
    max_size=5,
)


@example([[(1, WORDS)] * 3], "window", 50, 0, None, False)
@given(
    TURNS,
    st.sampled_from(["window", "summary"]),
    st.integers(50, 3000),
    st.integers(0, 12),
    st.none() | st.integers(1, 3),
    st.booleans(),
)
def test_what_is_left_can_be_said_to_every_vendor(turns, strategy, tokens_max, keep, keep_turns, whole):
    talk = Talk()
    policy = plan(tokens_max, strategy=strategy, keep_messages=keep, keep_turns=keep_turns, whole_turns=whole)
    for steps in turns:
        talk.ask()
        for count, result in steps:
            talk.step(count, result=result)
            step = compaction(talk.state, policy)
            if step is not None:
                before = talk.state.conversation()
                talk.add(
                    compacted(
                        talk.state, step, answer(talk.state, Text("in short")) if step.summarise else None
                    )
                )
                after = talk.state.conversation()
                assert after[-1] == before[-1] or step.left_out == len(before)
                assert after[0].role == "user"
                assert compaction(talk.state, policy) is None
            assert_speakable(talk.state.conversation())
        talk.end()


def test_nothing_gives_way_below_the_limit():
    talk = Talk().ask().step().step()
    assert compaction(talk.state, plan(100_000)) is None
    assert compaction(talk.state, None) is None
    assert compaction(talk.state, structs.replace(plan(), tokens_max=None)) is None
    assert compaction(talk.state, plan(10, strategy="none")) is None


def test_the_vendors_own_count_goes_before_ours():
    talk = Talk().ask().step().step()
    assert compaction(talk.state, plan(2000)) is None
    told = structs.replace(answer(talk.state, ToolCall("c", "look", "{}")), usage=Usage(input_tokens=5000))
    talk.add(told, ToolFinished(call_id="c", content=(Text("ok"),)))
    step = compaction(talk.state, plan(2000))
    assert step is not None
    assert step.tokens_before >= 5000


def test_a_turn_cut_in_its_middle_keeps_its_question():
    talk = Talk().ask("Count the crates in dock 7.")
    for _ in range(3):
        for _ in range(20):
            talk.step()
        step = compaction(talk.state, plan(strategy="window"))
        assert step is not None
        talk.add(compacted(talk.state, step, None))
        first = talk.state.conversation()[0]
        assert text_of(first.content).endswith("Count the crates in dock 7.")
        talk.step()


@pytest.mark.slow
def test_a_summary_is_asked_for_as_one_text_of_bounded_size():
    talk = Talk().ask("Count the crates.")
    for _ in range(60):
        talk.step(result="x" * 50_000)
    policy = plan(3000)
    step = compaction(talk.state, policy)
    request = summary_request(talk.state, policy, step, model="p/m")
    assert request.model == "p/m"
    assert request.tools == ()
    text = text_of(request.messages[0].content)
    assert len(text) < 3000 * 3 + 200
    assert text.startswith("user: Count the crates.")
    other = structs.replace(policy, policy=Context(summary_model="p/small", summary_instructions="Briefly."))
    request = summary_request(talk.state, other, step, model="p/m")
    assert (request.model, request.instructions) == ("p/small", (Text("Briefly."),))


def test_older_results_are_shown_shortened_in_batches():
    talk = Talk().ask()
    policy = Context(tool_results_full=4, tool_result_chars=30)
    views = []
    for _ in range(9):
        talk.step()
        views.append([len(text_of(part.content)) < 100 for part in results(shown(talk.state, policy))])
    assert [sum(view) for view in views] == [0, 0, 0, 0, 0, 2, 2, 4, 4]
    assert all(view == sorted(view, reverse=True) for view in views)
    assert "characters not shown" in text_of(results(shown(talk.state, policy))[0].content)
    assert [text_of(part.content) for part in results(talk.state.conversation())] == [WORDS] * 9
    assert_speakable(shown(talk.state, policy))


def results(messages: tuple[Message, ...]) -> list[ToolResult]:
    return [part for message in messages if message.role == "tool" for part in message.content]


# --------------------------------------------------------------------------------------------- in a running session

LONG = structs.replace(
    AGENT,
    limits=Limits(steps_max=200),
    context=Context(tokens_max=1500, keep_messages=4, summary_model="scripted/small"),
)
STEPS = 40


def measured(response, request):
    return structs.replace(response, usage=Usage(input_tokens=tokens.of_request(request), output_tokens=10))


def scripted(request):
    """Calls on until it was told of forty results, by what it can see of them and by the summaries."""
    if not request.tools:
        return measured(
            said(f"So far: {text_of(request.messages[0].content).count('look done')} looks."), request
        )
    last = results_in(request)[-1:]
    number = int(text_of(last[0].content).split()[2]) + 1 if last else 0
    if number >= STEPS:
        return measured(said("all done"), request)
    return measured(calls(("ledger_look", f'{{"n": {number}}}'), start=number), request)


async def wordy(run):
    return ToolOutcome((Text(f"look done: {run.arguments['n']} " + WORDS),))


async def test_a_session_goes_on_behind_its_summaries(place):
    async with world(place, scripted, agent=LONG) as here, here.worker().running():
        here.kind.do = wordy
        row = await here.start("Look forty times.")
        await here.settled(row.id)
        log = await here.log_of(row.id)
        assert events_of(log, TurnFinished)[-1].outcome == "completed"
        made = events_of(log, Compacted)
        assert len(made) > 2
        assert all(one.tokens_after < one.tokens_before for one in made)
        assert all("Look forty times." in one.summary and "So far:" in one.summary for one in made)
        assert all(one.cost_pico > 0 and one.model == "scripted/small" for one in made)
        asked = [request for request in here.model.requests if request.tools]
        assert max(tokens.of_request(request) for request in asked) < 2500
        for request in asked:
            assert_speakable(request.messages)
        assert len([one for one in log if isinstance(one.event, ToolFinished)]) == STEPS
        final = await here.log.get("acme", row.id)
        assert final.cost_pico == sum(
            one.event.cost_pico for one in log if isinstance(one.event, ModelAnswered | Compacted)
        )


async def test_what_was_too_long_is_shortened_and_asked_again(place):
    agent = structs.replace(AGENT, context=Context(keep_messages=2))

    def script(request):
        if not request.tools:
            return said("They looked.")
        if len(results_in(request)) > 3:
            return ContextTooLong("too many tokens")
        if "They looked." in str(request.messages):
            return said("done")
        return calls(("ledger_look", "{}"), start=len(results_in(request)))

    async with world(place, script, agent=agent) as here, here.worker().running():
        row = await here.start()
        await here.settled(row.id)
        log = await here.log_of(row.id)
        assert events_of(log, TurnFinished)[-1].outcome == "completed"
        assert [one.code for one in events_of(log, ModelFailed)] == ["context_too_long"]
        assert len(events_of(log, Compacted)) == 1


@pytest.mark.parametrize("strategy", ["none", "summary"])
async def test_what_stays_too_long_fails_after_one_attempt(place, strategy):
    agent = structs.replace(AGENT, context=Context(strategy=strategy, keep_messages=1))

    def script(request):
        if not request.tools:
            return said("They looked.")
        done = len(results_in(request))
        return (
            calls(("ledger_look", "{}"), start=done)
            if done < 3 and "They" not in str(request.messages)
            else ContextTooLong("no")
        )

    async with world(place, script, agent=agent) as here, here.worker().running():
        row = await here.start()
        await here.settled(row.id)
        log = await here.log_of(row.id)
        finished = events_of(log, TurnFinished)[-1]
        assert (finished.outcome, finished.code) == ("failed", "context_too_long")
        assert len(events_of(log, Compacted)) == (1 if strategy == "summary" else 0)


async def test_a_summary_that_fails_leaves_a_note(place):
    def script(request):
        return Unavailable("away") if not request.tools else scripted(request)

    async with world(place, script, agent=LONG) as here, here.worker().running():
        here.kind.do = wordy
        row = await here.start("Look forty times.")
        await here.settled(row.id)
        log = await here.log_of(row.id)
        assert events_of(log, TurnFinished)[-1].outcome == "completed"
        assert all("is left out" in one.summary for one in events_of(log, Compacted))
        assert all("Look forty times." in one.summary for one in events_of(log, Compacted))


async def test_the_context_of_a_model_is_found_out(place):
    async with world(place, scripted) as here:
        reach = await here.means.gateway.reach(OWNER, "scripted/scripted-1")
        assert reach == Reach(None, is_language_model=True)
