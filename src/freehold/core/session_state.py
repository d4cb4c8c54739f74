"""What a session's log says so far: a fold over its facts (session.py). Pure.

Apply the same events in the same order and you have the same state, on any machine, at any time. What to do next is not
decided here (runtime/decide.py).
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct, structs

from freehold.core.errors import ContextTooLong
from freehold.core.messages import Message, Part, Text, ToolCall, ToolResult, Usage
from freehold.core.session import (
    ApprovalDecided,
    Awaits,
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
    SessionEvent,
    SessionForked,
    SessionStarted,
    SessionWaits,
    ThreadAsks,
    ToolFinished,
    ToolOutcomeUnknown,
    ToolStarted,
    TurnFinished,
    TurnOutcome,
    TurnStarted,
    UserSpoke,
    asked_of,
)

_encoder: Final = msgspec.json.Encoder()

STATE_FORMAT: Final = 2
"""Of what `apply` makes of events. Snapshots of another are not read; a change of fields alone is found out without it."""

CALL_IDS_REMEMBERED_MAX: Final = 4096
"""An id that a vendor used longer ago than this many calls may come again: no conversation that a model is shown has both."""

REPEATS_REMEMBERED_MAX: Final = 64
"""A loop over more different calls than this is not taken for one."""


class OpenCall(Struct):
    """A tool call that the model made and that has no result yet. `started` is its latest attempt, `awaited` what it waits for.

    `place` is turn, step and number within the answer: no other call of the session has it, so its idempotency key is made of it.
    `votes` are those on the awaited approval as it is now, by principal. `early` came for a run before the log knew that it had only begun
    something: whoever works on it may be quicker than the worker's next append.
    """

    call: ToolCall
    place: tuple[int, int, int]
    started: ToolStarted | None = None
    awaited: CallAwaited | None = None
    votes: dict[str, ApprovalDecided] = {}
    early: ResultGiven | None = None


class Repeated(Struct):
    """A call of a turn, by the function's name, and how often in a row it gave the result that has this digest."""

    name: str
    result_digest: str
    count: int


class SessionState(Struct):
    """What the log says so far. Grows in place, one event at a time, in constant time: a turn owns its state alone.

    `messages` is the conversation a model has seen or will see, in order, what was compacted left out; `message_seqs` are the
    seqs of the events that completed them. Of those up to `measured_seq`, `measured_tokens` is what the model's vendor, `measured_by`, counted (0: nothing was
    counted yet); `answered_since` says whether a model answered since the last compaction. `queued` is input that no model call has taken up. `call_ids` are
    the ids of the latest tool calls that were made here. `origins` are the sessions that this one was forked from, `results_kept` is how many results
    were put aside, to be read by their handles. Everything `turn_...` starts anew with each turn; a step is a model's answer or a tool's run
    (its further attempts don't count). `waits` holds as long as nothing was written since; `settled`: nothing since a turn's end. `turn_repeats` are the turn's
    latest calls, by a digest of function and arguments. `elsewhere_pico` is what subagents spent: limits count it, this session's bill doesn't. `asked` are the calls that the turn last waited for somebody to act on, `threads` those of
    subagents that do so now, by their sessions.

    A struct, so that it can be kept as a snapshot: whoever changes what an event does to it counts STATE_FORMAT up.
    """

    seq: int = 0
    started: SessionStarted | None = None
    messages: list[Message] = []
    message_seqs: list[int] = []
    measured_seq: int = 0
    measured_tokens: int = 0
    measured_by: str = ""
    answered_since: bool = True
    compacted: Compacted | None = None
    queued: list[tuple[int, UserSpoke]] = []
    open_calls: dict[str, OpenCall] = {}
    results: dict[str, ToolResult] = {}
    call_order: list[str] = []
    call_ids: dict[str, None] = {}
    results_kept: int = 0
    origins: list[str] = []
    cancel: CancelRequested | None = None
    cancel_seq: int = 0
    paused: bool = False
    settled: bool = False
    waits: SessionWaits | None = None
    _waiting_since: datetime | None = None
    closed: bool = False
    failed: ModelFailed | None = None
    last_answer: ModelAnswered | None = None
    turn: int = 0
    turn_seq: int = 0
    in_turn: bool = False
    turn_started_at: datetime | None = None
    turn_steps: int = 0
    turn_usage: Usage = Usage()
    turn_cost_pico: int = 0
    turn_waited: timedelta = timedelta(0)
    turn_repeats: dict[str, Repeated] = {}
    steps: int = 0
    _worked: timedelta = timedelta(0)
    usage: Usage = Usage()
    cost_pico: int = 0
    elsewhere_pico: int = 0
    turn_elsewhere_pico: int = 0
    asked: tuple[str, ...] = ()
    threads: dict[str, tuple[str, ...]] = {}

    def apply(self, recorded: Recorded) -> None:
        """Events must come in order, without gaps, and make sense where they stand; raises ValueError otherwise (a bug of
        whoever wrote or read the log, not a user's)."""
        if recorded.seq != self.seq + 1:
            raise ValueError(f"event {recorded.seq} cannot follow event {self.seq}")
        self.add(recorded.event, recorded.at)

    def add(self, event: SessionEvent, at: datetime) -> None:
        """`apply`, of the event that comes next."""
        self.seq += 1
        self.settled = False
        if self.waits is not None:
            self.waits = None
            if self._waiting_since is not None:
                self.turn_waited += at - self._waiting_since
        # The frequent ones first, and by their type: a match asks each class in turn, and a struct's takes 0.3 us to say no.
        if type(event) is ModelAnswered:
            self._answer(event)
        elif type(event) is ToolStarted:
            self._start_call(event)
        elif type(event) is ToolFinished:
            self._finish_call(event)
        else:
            self._add_other(event, at)

    def _add_other(self, event: SessionEvent, at: datetime) -> None:
        match event:
            case SessionStarted():
                self.started, self.settled = event, True
            case UserSpoke():
                self.queued.append((self.seq, event))
            case TurnStarted():
                self._begin_turn(event, at)
            case TurnFinished():
                self._end_turn(event, at)
            case SessionForked():
                self._fork(event, at)
            case CancelRequested():
                self._ask_to_cancel(event)
            case PauseRequested():
                self.paused = True
            case ResumeRequested():
                self.paused = False
            case ModelAnswered():
                self._answer(event)
            case ToolStarted():
                self._start_call(event)
            case ToolFinished():
                self._finish_call(event)
            case ModelFailed():
                self._take_queued(event.seen_seq)
                self.failed = event
                self._count(event.usage, event.cost_pico)
            case ToolOutcomeUnknown():
                self._result(ToolResult(event.call_id, (Text(event.message),), failed=True))
            case CallAwaited():
                call = self._open_call(event.call_id)
                call.awaited, call.votes = event, {}
                if call.early is not None and _is_whose(event.awaits, call.early):
                    self._take_result(call.early)
            case ApprovalDecided():
                self._vote(event)
            case ResultGiven():
                self._take_result(event)
            case SessionWaits():
                self.waits, self._waiting_since = event, at
                self.asked = asked_of(event) if event.why == "calls" else self.asked
            case ThreadAsks():
                self._hear_thread(event)
            case Compacted():
                self._compact(event)
            case _:
                raise ValueError(f"event {self.seq} belongs to no agent's session: {type(event).__name__}")

    def _start_call(self, event: ToolStarted) -> None:
        call = self._open_call(event.call_id)
        call.started, call.awaited = event, None
        if event.attempt == 1:
            self._count_step()

    def _finish_call(self, event: ToolFinished) -> None:
        self.cost_pico += event.cost_pico
        self.turn_cost_pico += event.cost_pico
        self.results_kept += len(event.kept)
        self._result(ToolResult(event.call_id, event.content, event.failed))

    def conversation(self) -> tuple[Message, ...]:
        """What the next model call is shown: all of `messages`, then the queued input. Only whole: not while calls are open."""
        if not self.queued:
            return tuple(self.messages)
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
        self.turn_elsewhere_pico = 0
        self.failed = self.last_answer = None

    def _answer(self, event: ModelAnswered) -> None:
        self._take_queued(event.seen_seq)
        if event.content:
            content: tuple[Part, ...] = event.content
            self._say(Message("assistant", content))
        self.last_answer, self.answered_since = event, True
        if event.usage.input_tokens:
            self.measured_seq, self.measured_by = self.seq, event.served_by
            self.measured_tokens = event.usage.input_tokens + event.usage.output_tokens
        self._count_step()
        self._count(event.usage, event.cost_pico)
        calls = [part for part in event.content if type(part) is ToolCall]
        for index, call in enumerate(calls):
            if call.id in self.call_ids:
                raise ValueError(f"event {self.seq} repeats the tool call id {call.id!r}")
            self.call_ids[call.id] = None
            self.open_calls[call.id] = OpenCall(call, (self.turn, self.turn_steps, index))
            self.call_order.append(call.id)
        while len(self.call_ids) > CALL_IDS_REMEMBERED_MAX:
            del self.call_ids[next(iter(self.call_ids))]

    def _say(self, message: Message) -> None:
        self.messages.append(message)
        self.message_seqs.append(self.seq)

    def _fork(self, event: SessionForked, at: datetime) -> None:
        """What was asked of the origin (to stop, to pause), and what it waits for, is not this one's: people and clients are asked
        again, for a word that was given to one session is no word for another. Only time passes for both. What counts against the session's limits,
        and the turn's time, begin anew; of whom it works for nobody waits for it."""
        if self.started is None:
            raise ValueError(f"event {self.seq} forks a session that did not start")
        self.origins.append(event.origin)
        self.started = structs.replace(
            self.started, model=event.model or self.started.model, by=event.by or self.started.by, parent=None
        )
        self.cancel, self.cancel_seq, self.paused, self.closed = None, 0, False, False
        self.settled = not self.in_turn
        self.steps, self.usage, self.cost_pico, self._worked = 0, Usage(), 0, timedelta(0)
        self.elsewhere_pico = 0
        self.turn_waited = timedelta(0)
        if self.in_turn:
            self.turn_started_at = at
        self.asked, self.threads = (), {}
        for call in self.open_calls.values():
            call.early = None
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
            call.votes = call.votes | {event.person or event.by: event}

    def _take_result(self, event: ResultGiven) -> None:
        call = self.open_calls.get(event.call_id)
        if call is None:
            return
        if call.awaited is None:
            call.early = event if call.started is not None else None
        elif isinstance(call.awaited.awaits, AwaitsClient | AwaitsEvent | AwaitsSession):
            self._count(Usage(), event.cost_pico)
            self.results_kept += len(event.kept)
            self.elsewhere_pico += event.elsewhere_pico
            self.turn_elsewhere_pico += event.elsewhere_pico
            self._result(ToolResult(event.call_id, event.content, event.failed))

    def _hear_thread(self, event: ThreadAsks) -> None:
        """One that comes when its turn is over is not waited for any more."""
        self.threads.pop(event.session_id, None)
        if event.calls and self.in_turn:
            self.threads[event.session_id] = tuple(call.call_id for call in event.calls)

    def _compact(self, event: Compacted) -> None:
        kept = next(
            (i for i, seq in enumerate(self.message_seqs) if seq > event.up_to_seq), len(self.messages)
        )
        self.messages, self.message_seqs = self.messages[kept:], self.message_seqs[kept:]
        if event.summary:
            self.messages.insert(0, Message("user", (Text(event.summary),)))
            self.message_seqs.insert(0, event.up_to_seq)
        self.compacted, self.answered_since = event, False
        self.measured_seq = self.measured_tokens = 0
        if self.failed is not None and self.failed.code == ContextTooLong.code:
            self.failed = None
        self._count(event.usage, event.cost_pico)

    def _count_step(self) -> None:
        self.turn_steps += 1
        self.steps += 1

    def _count(self, usage: Usage, cost_pico: int) -> None:
        self.usage, self.cost_pico = self.usage.plus(usage), self.cost_pico + cost_pico
        self.turn_usage, self.turn_cost_pico = self.turn_usage.plus(usage), self.turn_cost_pico + cost_pico

    def _take_queued(self, seen_seq: int) -> None:
        if not self.queued:
            return
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
        self._repeat(call, result)
        if not self.open_calls:
            self._say(Message("tool", tuple([self.results[call_id] for call_id in self.call_order])))
            self.results, self.call_order = {}, []

    def _repeat(self, call: ToolCall, result: ToolResult) -> None:
        key = _digest((call.name, call.arguments))
        outcome = _digest((result.content, result.failed))
        known = self.turn_repeats.pop(key, None)
        same = known is not None and known.result_digest == outcome
        count = known.count + 1 if known is not None and same else 1
        self.turn_repeats[key] = Repeated(call.name, outcome, count)
        if len(self.turn_repeats) > REPEATS_REMEMBERED_MAX:
            del self.turn_repeats[next(iter(self.turn_repeats))]

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
        self.asked, self.threads = (), {}
        self.closed = event.outcome == "cancelled" and event.code == "session"


def _is_whose(awaits: Awaits, early: ResultGiven) -> bool:
    """Whether what came early is what is awaited now."""
    match awaits:
        case AwaitsSession(session_id=session_id):
            return early.source == "session" and early.by == session_id
        case AwaitsEvent():
            return early.source == "event"
        case _:
            return False


def _digest(value: object) -> str:
    return hashlib.blake2b(_encoder.encode(value), digest_size=16).hexdigest()


def replay(events: Iterable[Recorded]) -> SessionState:
    state = SessionState()
    for recorded in events:
        state.apply(recorded)
    return state
