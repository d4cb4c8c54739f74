"""A session is its log. Here are the facts that a log can hold, and the state that they amount to.

Facts are in the past tense, hold only what is new (history is linear), and never change once written. `SessionState` is a
fold: apply the same events in the same order and you have the same state, on any machine, at any time. What to do next is
not decided here (runtime/decide.py), nor is anything stored (store/).
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, TypeAlias, assert_never

from msgspec import Struct

from freehold.core.messages import (
    AnswerPart,
    Media,
    Message,
    Part,
    StopReason,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from freehold.core.resources import Effect

SessionStatus: TypeAlias = Literal["idle", "running", "cancelled"]
"""`running`: a worker has something to do. `idle`: waits for input. `cancelled`: ended for good by someone."""


class SessionStarted(Struct, frozen=True, tag="session_started", omit_defaults=True, kw_only=True):
    """First, once. `model` overrides the agent's own."""

    agent: str
    agent_version: int
    model: str | None = None
    title: str = ""
    by: str = ""


class UserSpoke(Struct, frozen=True, tag="user_spoke", omit_defaults=True, kw_only=True):
    """Input. May come at any time; while a turn runs it is queued and taken up by the next model call."""

    content: tuple[Text | Media, ...]
    by: str = ""


class CancelRequested(Struct, frozen=True, tag="cancel_requested", omit_defaults=True, kw_only=True):
    """`turn`: stop what runs now, the session stays. `session`: that, and for good."""

    scope: Literal["turn", "session"] = "turn"
    by: str = ""
    reason: str = ""


class TurnStarted(Struct, frozen=True, tag="turn_started", omit_defaults=True, kw_only=True):
    turn: int


class ModelAnswered(Struct, frozen=True, tag="model_answered", omit_defaults=True, kw_only=True):
    """`seen_seq` is the last event that the model was shown: input that came later stands after this answer.

    `model` is what was asked for, `served_by` who answered (`provider/name`). `call_id` is the call's record. `usage` and
    `cost_pico` include what failed attempts before it used. The ids of tool calls are unique within the session: the runtime
    sees to that before it records. `is_language_model` is false where declared rules answered.
    """

    seen_seq: int
    model: str
    served_by: str
    content: tuple[AnswerPart, ...]
    stop_reason: StopReason
    usage: Usage = Usage()
    cost_pico: int = 0
    priced: bool = True
    call_id: str = ""
    duration_ms: float = 0.0
    first_event_ms: float | None = None
    is_language_model: bool = True


class ModelFailed(Struct, frozen=True, tag="model_failed", omit_defaults=True, kw_only=True):
    """After all retries. `code` is an error's code from core/errors.py, or `cancelled` where someone stopped the call.

    `attempts` is 0 where the model could not even be asked: a tool did not open, the agent is gone, its owner lost the right.
    """

    seen_seq: int
    model: str
    code: str
    message: str
    attempts: int = 1
    cost_pico: int = 0
    usage: Usage = Usage()
    duration_ms: float = 0.0


class ToolStarted(Struct, frozen=True, tag="tool_started", omit_defaults=True, kw_only=True):
    """The claim: written before the tool runs. `key` is the idempotency key handed to the tool, the same on every attempt."""

    call_id: str
    tool: str
    function: str
    arguments: str
    effect: Effect
    key: str
    attempt: int = 1


class ToolFinished(Struct, frozen=True, tag="tool_finished", omit_defaults=True, kw_only=True):
    """The commit. A failure is an answer for the model: `failed`, with a `code` and the message as content."""

    call_id: str
    content: tuple[Text | Media, ...]
    failed: bool = False
    code: str | None = None
    duration_ms: float = 0.0
    cost_pico: int = 0


class ToolOutcomeUnknown(Struct, frozen=True, tag="tool_outcome_unknown", omit_defaults=True, kw_only=True):
    """An irreversible tool was running when its worker died: it may have happened. Told to the model; never run again."""

    call_id: str
    message: str


TurnOutcome: TypeAlias = Literal["completed", "limit_reached", "failed", "cancelled", "refused"]


class TurnFinished(Struct, frozen=True, tag="turn_finished", omit_defaults=True, kw_only=True):
    """`limit` names the limit that was reached (`steps_max`, `tokens_max`, `cost_max_usd`, `wall_time_s_max`)."""

    outcome: TurnOutcome
    message: str = ""
    limit: str | None = None
    code: str | None = None


SessionEvent: TypeAlias = (
    SessionStarted
    | UserSpoke
    | CancelRequested
    | TurnStarted
    | ModelAnswered
    | ModelFailed
    | ToolStarted
    | ToolFinished
    | ToolOutcomeUnknown
    | TurnFinished
)


class Recorded(Struct, frozen=True):
    """An event in its place. `seq` is 1, 2, 3 ... without gaps within its session; `at` is UTC, by the database's clock."""

    seq: int
    at: datetime
    event: SessionEvent


class RowChange(Struct, frozen=True):
    """What some events mean for the session's row, which is only a projection of the log kept for lists and for workers."""

    status: SessionStatus | None
    usage: Usage
    cost_pico: int


def row_change(events: Iterable[SessionEvent]) -> RowChange:
    """`status` is None where the events leave it as it is. Cancelling a session for good is the last word (the store sees to it).

    A turn that finishes while further input is queued is followed at once by TurnStarted in the same append, which makes
    the row `running` again; hence the order of events matters.
    """
    status: SessionStatus | None = None
    usage, cost = Usage(), 0
    for event in events:
        match event:
            case UserSpoke() | TurnStarted() | CancelRequested():
                status = "running"
            case TurnFinished():
                status = "cancelled" if event.outcome == "cancelled" and event.code == "session" else "idle"
            case ModelAnswered() | ModelFailed():
                usage, cost = usage.plus(event.usage), cost + event.cost_pico
            case ToolFinished():
                cost += event.cost_pico
            case SessionStarted() | ToolStarted() | ToolOutcomeUnknown():
                pass
            case _ as unreachable:
                assert_never(unreachable)
    return RowChange(status, usage, cost)


class OpenCall(Struct):
    """A tool call that the model made and that has no result yet. `started` is its latest attempt.

    `place` is turn, step and number within the answer: no other call of the session has it, so its idempotency key is made of it.
    """

    call: ToolCall
    place: tuple[int, int, int]
    started: ToolStarted | None = None


class SessionState:
    """What the log says so far. Grows in place, one event at a time, in constant time: a turn owns its state alone.

    `messages` is the conversation a model has seen or will see, in order; `queued` is input that no model call has taken up.
    `call_ids` are the ids of all tool calls that were ever made here. Everything `turn_...` starts anew with each turn; a step
    is a model's answer or a tool's run (its further attempts don't count).
    """

    def __init__(self) -> None:
        self.seq = 0
        self.started: SessionStarted | None = None
        self.messages: list[Message] = []
        self.queued: list[tuple[int, UserSpoke]] = []
        self.open_calls: dict[str, OpenCall] = {}
        self.results: dict[str, ToolResult] = {}
        self.call_order: list[str] = []
        self.call_ids: set[str] = set()
        self.cancel: CancelRequested | None = None
        self.cancel_seq = 0
        self.closed = False
        self.failed: ModelFailed | None = None
        self.last_answer: ModelAnswered | None = None
        self.turn = 0
        self.turn_seq = 0
        self.in_turn = False
        self.turn_started_at: datetime | None = None
        self.turn_steps = 0
        self.turn_usage = Usage()
        self.turn_cost_pico = 0
        self.usage = Usage()
        self.cost_pico = 0

    def apply(self, recorded: Recorded) -> None:
        """Events must come in order, without gaps, and make sense where they stand; raises ValueError otherwise (a bug of
        whoever wrote or read the log, not a user's)."""
        if recorded.seq != self.seq + 1:
            raise ValueError(f"event {recorded.seq} cannot follow event {self.seq}")
        self.seq = recorded.seq
        match recorded.event:
            case SessionStarted() as event:
                self.started = event
            case UserSpoke() as event:
                self.queued.append((recorded.seq, event))
            case CancelRequested() as event:
                self._ask_to_cancel(event)
            case TurnStarted() as event:
                self._begin_turn(event, recorded.at)
            case ModelAnswered() as event:
                self._answer(event)
            case ModelFailed() as event:
                self._take_queued(event.seen_seq)
                self.failed = event
                self._count(event.usage, event.cost_pico)
            case ToolStarted() as event:
                self._open_call(event.call_id).started = event
                self.turn_steps += event.attempt == 1
            case ToolFinished() as event:
                self.cost_pico += event.cost_pico
                self.turn_cost_pico += event.cost_pico
                self._result(ToolResult(event.call_id, event.content, event.failed))
            case ToolOutcomeUnknown() as event:
                self._result(ToolResult(event.call_id, (Text(event.message),), failed=True))
            case TurnFinished() as event:
                self._end_turn(event)
            case _ as unreachable:
                assert_never(unreachable)

    def conversation(self) -> tuple[Message, ...]:
        """What the next model call is shown: all of `messages`, then the queued input. Only whole: not while calls are open."""
        return (*self.messages, *(Message("user", event.content) for _, event in self.queued))

    def input_left(self, outcome: TurnOutcome) -> bool:
        """Whether, if the turn ended so now, there would be input left for a turn of its own.

        A turn uses up the input that was there when it began, whatever becomes of it, and what its model calls took up; a
        cancelled one, all that was said before the cancel.
        """
        return any(seq > self._used_up_to(outcome) for seq, _ in self.queued)

    def _used_up_to(self, outcome: TurnOutcome) -> int:
        return max(self.turn_seq, self.cancel_seq) if outcome == "cancelled" else self.turn_seq

    def _ask_to_cancel(self, event: CancelRequested) -> None:
        """The wider of two requests holds: a session that someone ended is not saved by cancelling its turn."""
        if self.cancel is None or self.cancel.scope == "turn":
            self.cancel = event
        self.cancel_seq = self.seq

    def _begin_turn(self, event: TurnStarted, at: datetime) -> None:
        self.turn, self.turn_seq, self.in_turn, self.turn_started_at = event.turn, self.seq, True, at
        self.turn_steps, self.turn_usage, self.turn_cost_pico = 0, Usage(), 0
        self.failed = self.last_answer = None

    def _answer(self, event: ModelAnswered) -> None:
        self._take_queued(event.seen_seq)
        if event.content:
            content: tuple[Part, ...] = event.content
            self.messages.append(Message("assistant", content))
        self.last_answer = event
        self.turn_steps += 1
        self._count(event.usage, event.cost_pico)
        calls = [part for part in event.content if isinstance(part, ToolCall)]
        for index, call in enumerate(calls):
            if call.id in self.call_ids:
                raise ValueError(f"event {self.seq} repeats the tool call id {call.id!r}")
            self.call_ids.add(call.id)
            self.open_calls[call.id] = OpenCall(call, (self.turn, self.turn_steps, index))
            self.call_order.append(call.id)

    def _count(self, usage: Usage, cost_pico: int) -> None:
        self.usage, self.cost_pico = self.usage.plus(usage), self.cost_pico + cost_pico
        self.turn_usage, self.turn_cost_pico = self.turn_usage.plus(usage), self.turn_cost_pico + cost_pico

    def _take_queued(self, seen_seq: int) -> None:
        taken = [event for seq, event in self.queued if seq <= seen_seq]
        self.queued = [(seq, event) for seq, event in self.queued if seq > seen_seq]
        self.messages.extend(Message("user", event.content) for event in taken)

    def _open_call(self, call_id: str) -> OpenCall:
        try:
            return self.open_calls[call_id]
        except KeyError:
            raise ValueError(f"event {self.seq} names the tool call {call_id!r}, which is not open") from None

    def _result(self, result: ToolResult) -> None:
        """Results stand in the order of their calls, in one message, once the last of them is in."""
        self._open_call(result.call_id)
        del self.open_calls[result.call_id]
        self.results[result.call_id] = result
        if not self.open_calls:
            self.messages.append(Message("tool", tuple(self.results[call_id] for call_id in self.call_order)))
            self.results, self.call_order = {}, []

    def _end_turn(self, event: TurnFinished) -> None:
        """Calls that will never be answered get a result that says so, or no vendor would take the conversation again."""
        for call_id in [call_id for call_id in self.call_order if call_id in self.open_calls]:
            what = "not run" if self.open_calls[call_id].started is None else "interrupted"
            self._result(
                ToolResult(call_id, (Text(f"{what}: the turn ended ({event.outcome})"),), failed=True)
            )
        self._take_queued(self._used_up_to(event.outcome))
        self.in_turn, self.cancel, self.cancel_seq = False, None, 0
        self.closed = event.outcome == "cancelled" and event.code == "session"


def replay(events: Iterable[Recorded]) -> SessionState:
    state = SessionState()
    for recorded in events:
        state.apply(recorded)
    return state
