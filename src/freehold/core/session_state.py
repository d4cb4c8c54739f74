"""What a session's log says so far: a fold over its facts (session.py). Pure.

Apply the same events in the same order and you have the same state, on any machine, at any time. What to do next is not
decided here (runtime/decide.py).
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import assert_never

from msgspec import Struct, structs

from freehold.core.messages import Message, Part, Text, ToolCall, ToolResult, Usage
from freehold.core.session import (
    ApprovalDecided,
    AwaitsApproval,
    AwaitsClient,
    AwaitsEvent,
    AwaitsSession,
    AwaitsTimer,
    CallAwaited,
    CancelRequested,
    Compacted,
    ModelAnswered,
    ModelFailed,
    PauseRequested,
    Recorded,
    ResultGiven,
    ResumeRequested,
    SessionForked,
    SessionStarted,
    SessionWaits,
    ToolFinished,
    ToolOutcomeUnknown,
    ToolStarted,
    TurnFinished,
    TurnOutcome,
    TurnStarted,
    UserSpoke,
)


class OpenCall(Struct):
    """A tool call that the model made and that has no result yet. `started` is its latest attempt, `awaited` what it waits for.

    `place` is turn, step and number within the answer: no other call of the session has it, so its idempotency key is made of it.
    `votes` are those on the awaited approval as it is now, by principal.
    """

    call: ToolCall
    place: tuple[int, int, int]
    started: ToolStarted | None = None
    awaited: CallAwaited | None = None
    votes: dict[str, ApprovalDecided] = {}


class SessionState:
    """What the log says so far. Grows in place, one event at a time, in constant time: a turn owns its state alone.

    `messages` is the conversation a model has seen or will see, in order, what was compacted left out; `message_seqs` are the
    seqs of the events that completed them. `queued` is input that no model call has taken up. `call_ids` are the ids of all tool
    calls that were ever made here. Everything `turn_...` starts anew with each turn; a step is a model's answer or a tool's run
    (its further attempts don't count). `waits` holds as long as nothing was written since; `settled`: nothing since a turn's end. `turn_repeats` are the turn's calls, by
    function and arguments, with their last result and how often it was the same without another in between.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.started: SessionStarted | None = None
        self.messages: list[Message] = []
        self.message_seqs: list[int] = []
        self.compacted: Compacted | None = None
        self.queued: list[tuple[int, UserSpoke]] = []
        self.open_calls: dict[str, OpenCall] = {}
        self.results: dict[str, ToolResult] = {}
        self.call_order: list[str] = []
        self.call_ids: set[str] = set()
        self.cancel: CancelRequested | None = None
        self.cancel_seq = 0
        self.paused = False
        self.settled = False
        self.waits: SessionWaits | None = None
        self._waiting_since: datetime | None = None
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
        self.turn_waited = timedelta(0)
        self.turn_repeats: dict[tuple[str, str], tuple[ToolResult, int]] = {}
        self.steps = 0
        self._worked = timedelta(0)
        self.usage = Usage()
        self.cost_pico = 0

    def apply(self, recorded: Recorded) -> None:
        """Events must come in order, without gaps, and make sense where they stand; raises ValueError otherwise (a bug of
        whoever wrote or read the log, not a user's)."""
        if recorded.seq != self.seq + 1:
            raise ValueError(f"event {recorded.seq} cannot follow event {self.seq}")
        self.seq = recorded.seq
        self.settled = False
        if self.waits is not None:
            self.waits = None
            if self._waiting_since is not None:
                self.turn_waited += recorded.at - self._waiting_since
        match recorded.event:
            case SessionStarted() as event:
                self.started, self.settled = event, True
            case SessionForked() as event:
                self._fork(event, recorded.at)
            case UserSpoke() as event:
                self.queued.append((recorded.seq, event))
            case CancelRequested() as event:
                self._ask_to_cancel(event)
            case PauseRequested():
                self.paused = True
            case ResumeRequested():
                self.paused = False
            case TurnStarted() as event:
                self._begin_turn(event, recorded.at)
            case ModelAnswered() as event:
                self._answer(event)
            case ModelFailed() as event:
                self._take_queued(event.seen_seq)
                self.failed = event
                self._count(event.usage, event.cost_pico)
            case ToolStarted() as event:
                call = self._open_call(event.call_id)
                call.started, call.awaited = event, None
                self._count_steps(1 if event.attempt == 1 else 0)
            case ToolFinished() as event:
                self._count(Usage(), event.cost_pico)
                self._result(ToolResult(event.call_id, event.content, event.failed))
            case ToolOutcomeUnknown() as event:
                self._result(ToolResult(event.call_id, (Text(event.message),), failed=True))
            case CallAwaited() as event:
                call = self._open_call(event.call_id)
                call.awaited, call.votes = event, {}
            case ApprovalDecided() as event:
                self._vote(event)
            case ResultGiven() as event:
                self._take_result(event)
            case SessionWaits() as event:
                self.waits, self._waiting_since = event, recorded.at
            case Compacted() as event:
                self._compact(event)
            case TurnFinished() as event:
                self._end_turn(event, recorded.at)
            case _ as unreachable:
                assert_never(unreachable)

    def conversation(self) -> tuple[Message, ...]:
        """What the next model call is shown: all of `messages`, then the queued input. Only whole: not while calls are open."""
        return (*self.messages, *(Message("user", event.content) for _, event in self.queued))

    def waited(self, now: datetime) -> timedelta:
        """How much of the turn's time so far was waiting, which no limit counts."""
        return self.turn_waited + (
            now - self._waiting_since if self.waits and self._waiting_since else timedelta(0)
        )

    def worked(self, now: datetime) -> timedelta:
        """How long the session's turns have lasted so far, without what they waited."""
        if not self.in_turn or self.turn_started_at is None:
            return self._worked
        return self._worked + (now - self.turn_started_at) - self.waited(now)

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
        self.turn_waited, self.turn_repeats = timedelta(0), {}
        self.failed = self.last_answer = None

    def _answer(self, event: ModelAnswered) -> None:
        self._take_queued(event.seen_seq)
        if event.content:
            content: tuple[Part, ...] = event.content
            self._say(Message("assistant", content))
        self.last_answer = event
        self._count_steps(1)
        self._count(event.usage, event.cost_pico)
        calls = [part for part in event.content if isinstance(part, ToolCall)]
        for index, call in enumerate(calls):
            if call.id in self.call_ids:
                raise ValueError(f"event {self.seq} repeats the tool call id {call.id!r}")
            self.call_ids.add(call.id)
            self.open_calls[call.id] = OpenCall(call, (self.turn, self.turn_steps, index))
            self.call_order.append(call.id)

    def _say(self, message: Message) -> None:
        self.messages.append(message)
        self.message_seqs.append(self.seq)

    def _fork(self, event: SessionForked, at: datetime) -> None:
        """What was asked of the origin (to stop, to pause), and what it waits for, is not this one's: people and clients are asked
        again, for a word that was given to one session is no word for another. Only time passes for both. What counts against the session's limits,
        and the turn's time, begin anew; of whom it works for nobody waits for it."""
        if self.started is None:
            raise ValueError(f"event {self.seq} forks a session that did not start")
        self.started = structs.replace(
            self.started, model=event.model or self.started.model, by=event.by or self.started.by, parent=None
        )
        self.cancel, self.cancel_seq, self.paused, self.closed = None, 0, False, False
        self.settled = not self.in_turn
        self.steps, self.usage, self.cost_pico, self._worked = 0, Usage(), 0, timedelta(0)
        self.turn_waited = timedelta(0)
        if self.in_turn:
            self.turn_started_at = at
        for call in self.open_calls.values():
            if call.awaited is not None and not isinstance(call.awaited.awaits, AwaitsTimer):
                call.awaited, call.votes = None, {}

    def _vote(self, event: ApprovalDecided) -> None:
        """One that is too late, or on arguments that somebody has changed since, changes nothing."""
        call = self.open_calls.get(event.call_id)
        if call is None or call.awaited is None or not isinstance(call.awaited.awaits, AwaitsApproval):
            return
        wanted = call.awaited.awaits
        if event.arguments is not None and event.binding != wanted.binding:
            wanted = structs.replace(wanted, arguments=event.arguments, binding=event.binding)
            call.awaited, call.votes = structs.replace(call.awaited, awaits=wanted), {}
        if event.binding == wanted.binding:
            call.votes = call.votes | {event.by: event}

    def _take_result(self, event: ResultGiven) -> None:
        call = self.open_calls.get(event.call_id)
        awaits = call.awaited.awaits if call is not None and call.awaited is not None else None
        if isinstance(awaits, AwaitsClient | AwaitsEvent | AwaitsSession):
            self._count(Usage(), event.cost_pico)
            self._result(ToolResult(event.call_id, event.content, event.failed))

    def _compact(self, event: Compacted) -> None:
        kept = next(
            (i for i, seq in enumerate(self.message_seqs) if seq > event.up_to_seq), len(self.messages)
        )
        self.messages, self.message_seqs = self.messages[kept:], self.message_seqs[kept:]
        if event.summary:
            self.messages.insert(0, Message("user", (Text(event.summary),)))
            self.message_seqs.insert(0, event.up_to_seq)
        self.compacted = event
        self._count(event.usage, event.cost_pico)

    def _count_steps(self, count: int) -> None:
        self.turn_steps += count
        self.steps += count

    def _count(self, usage: Usage, cost_pico: int) -> None:
        self.usage, self.cost_pico = self.usage.plus(usage), self.cost_pico + cost_pico
        self.turn_usage, self.turn_cost_pico = self.turn_usage.plus(usage), self.turn_cost_pico + cost_pico

    def _take_queued(self, seen_seq: int) -> None:
        taken = [event for seq, event in self.queued if seq <= seen_seq]
        self.queued = [(seq, event) for seq, event in self.queued if seq > seen_seq]
        for event in taken:
            self._say(Message("user", event.content))

    def _open_call(self, call_id: str) -> OpenCall:
        try:
            return self.open_calls[call_id]
        except KeyError:
            raise ValueError(f"event {self.seq} names the tool call {call_id!r}, which is not open") from None

    def _result(self, result: ToolResult) -> None:
        """Results stand in the order of their calls, in one message, once the last of them is in."""
        call = self._open_call(result.call_id).call
        del self.open_calls[result.call_id]
        self.results[result.call_id] = result
        last, count = self.turn_repeats.get((call.name, call.arguments), (None, 0))
        same = last is not None and (last.content, last.failed) == (result.content, result.failed)
        self.turn_repeats[call.name, call.arguments] = (result, count + 1 if same else 1)
        if not self.open_calls:
            self._say(Message("tool", tuple(self.results[call_id] for call_id in self.call_order)))
            self.results, self.call_order = {}, []

    def _end_turn(self, event: TurnFinished, at: datetime) -> None:
        """Calls that will never be answered get a result that says so, or no vendor would take the conversation again."""
        for call_id in [call_id for call_id in self.call_order if call_id in self.open_calls]:
            what = "not run" if self.open_calls[call_id].started is None else "interrupted"
            self._result(
                ToolResult(call_id, (Text(f"{what}: the turn ended ({event.outcome})"),), failed=True)
            )
        self._take_queued(self._used_up_to(event.outcome))
        self._worked = self.worked(at)
        self.in_turn, self.cancel, self.cancel_seq = False, None, 0
        self.settled = True
        self.closed = event.outcome == "cancelled" and event.code == "session"


def replay(events: Iterable[Recorded]) -> SessionState:
    state = SessionState()
    for recorded in events:
        state.apply(recorded)
    return state
