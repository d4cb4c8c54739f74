"""Runtime: a recorded session, decided again: offline, from its log and what its models were equipped with. Pure.

At every place where a worker took a decision, decide.py is asked for its own, and the request that would go to the model is made
anew; both must be what was recorded. What came from outside is taken as recorded: input, answers, tools' results, times.

Our own clock's readings are not in a log, the times of its events are. So what depends on time is decided at the time of the event
before and at that of the event itself; where a reading was put into a text or a deadline, it is taken from there (replay_readings.py).
Of a compaction, only what a model said in the summary is taken as recorded.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, assert_never

import msgspec
from msgspec import Struct, structs

from freehold.core.session import (
    CallAwaited,
    Compacted,
    FromOutside,
    ModelAnswered,
    ModelFailed,
    Recorded,
    SessionEvent,
    SessionForked,
    SessionStarted,
    ToolFinished,
    ToolOutcomeUnknown,
    ToolStarted,
    TurnFinished,
    TurnStarted,
)
from freehold.core.session_state import SessionState
from freehold.runtime.context import Compact, compacted, said_for
from freehold.runtime.decide import (
    CallModel,
    FinishTurn,
    Plan,
    Rest,
    RunTools,
    StartTurn,
    Step,
    Wait,
    decide,
    finish,
)
from freehold.runtime.digests import RequestDigests
from freehold.runtime.equipment import Equipment
from freehold.runtime.replay_readings import CLOCK_LIMITS, made_at, reading_of

CLOCKS_APART: Final = timedelta(seconds=5)
"""How far a worker's clock may have been from the database's."""


class Divergence(Struct, frozen=True):
    """The first event that is not what is decided now: `expected` are the events that would be recorded, in JSON."""

    seq: int
    what: str
    recorded: Any
    expected: Any


class Replayed(Struct, frozen=True, kw_only=True):
    """`decisions` and `requests` that came out the same; `unchecked` were recorded without what it takes to check them."""

    session_id: str
    events: int
    decisions: int
    requests: int
    taken: int
    unchecked: int
    divergence: Divergence | None = None


def replayed(session_id: str, events: Sequence[Recorded], equipments: Mapping[str, Equipment]) -> Replayed:
    """Raises ValueError where the events are no log at all."""
    again = _Again(session_id, events, equipments)
    for recorded in events:
        if (found := again.check(recorded)) is not None:
            again.divergence = found
            break
    return Replayed(
        session_id=session_id,
        events=again.state.seq,
        decisions=again.decisions,
        requests=again.requests,
        taken=again.taken,
        unchecked=again.unchecked,
        divergence=again.divergence,
    )


class Decided(Struct, frozen=True):
    """A step, and what the clock was taken to say."""

    step: Step
    at: datetime


class _Again:
    """`points` are the decisions that a worker may have acted on: the one after the last event of its own, and those after each
    input since (it may not have known of it yet). `rest` is what must follow of a decision that is recorded as several events, made
    `later` than it is made here; `running` are the calls whose results are yet to come. `known_at` is when the event was recorded that
    the first of `points` goes by."""

    def __init__(
        self, session_id: str, events: Sequence[Recorded], equipments: Mapping[str, Equipment]
    ) -> None:
        self.state = SessionState()
        self.decisions = self.requests = self.taken = self.unchecked = 0
        self.divergence: Divergence | None = None
        self._equipments = equipments
        self._owners = deque(owners(session_id, events))
        self._owner = self._owners.popleft()
        self._asked = {
            one.event.seen_seq: one.event for one in events if isinstance(one.event, ModelAnswered)
        }
        self._asks: dict[int, tuple[Step, str]] = {}
        self._digests = RequestDigests()
        self._first_of_turn = _first_of_turns(events)
        self._begun = _begun_with(events)
        self._plan: Plan | None = None
        self._equip(next((one.equipment for one in self._asked.values()), None))
        self._points: list[Decided] = []
        self._rest: deque[SessionEvent] = deque()
        self._later = timedelta(0)
        self._known_at: datetime | None = None
        self._running: set[str] = set()
        self._given = False

    def check(self, recorded: Recorded) -> Divergence | None:
        """Takes the event in, unless it is not what it should be."""
        event = recorded.event
        found = None if self._comes_from_outside(event) else self._checked(recorded, event)
        if found is not None:
            return found
        self._given = isinstance(event, SessionForked) and event.edited_seq is not None
        if not isinstance(event, FromOutside):
            self._points, self._known_at = [], recorded.at
        if isinstance(event, SessionForked):
            self._owner = self._owners.popleft()
            self._plan = self._plan and structs.replace(self._plan, session_id=self._owner)
            self._running, self._rest = set(), deque()
        self.state.apply(recorded)
        if isinstance(event, TurnStarted):
            self._equip(self._first_of_turn.get(recorded.seq))
        self._look(recorded.at)
        return None

    def _comes_from_outside(self, event: SessionEvent) -> bool:
        match event:
            case SessionStarted() | SessionForked():
                return True
            case ToolFinished() | ToolOutcomeUnknown() | CallAwaited() if event.call_id in self._running:
                self._running.discard(event.call_id)
                self.taken += 1
                return True
            case _:
                return isinstance(event, FromOutside) or self._given

    def _checked(self, recorded: Recorded, event: SessionEvent) -> Divergence | None:
        match event:
            case ModelAnswered() | ModelFailed():
                return self._asked_rightly(recorded, event)
            case Compacted():
                return self._compacted_rightly(recorded, event)
            case _ if self._rest:
                expected = self._rest.popleft()
                return None if made_at(expected, self._later, event) else _diverged(recorded, [expected])
            case _:
                return self._decided_rightly(recorded, event)

    def _asked_rightly(self, recorded: Recorded, event: ModelAnswered | ModelFailed) -> Divergence | None:
        """Which it was when the model was asked, `seen_seq` events ago. A model that could not be asked was no decision's matter."""
        self.taken += 1
        if isinstance(event, ModelFailed):
            return None
        if event.seen_seq not in self._asks:
            self.unchecked += 1
            return None
        step, digest = self._asks.pop(event.seen_seq)
        if not isinstance(step, CallModel):
            return _diverged(recorded, _events_of(step))
        self.decisions += 1
        if digest != event.request_digest:
            what = "the model was asked something else: its request has another digest"
            return Divergence(recorded.seq, what, event.request_digest, digest)
        self.requests += 1
        return None

    def _decided_rightly(self, recorded: Recorded, event: SessionEvent) -> Divergence | None:
        if self._plan is None:
            self.unchecked += 1
            self._note_running(event)
            return None
        points = [*self._points, *self._late_points(recorded, event)]
        for point in points:
            expected = _events_of(point.step, limited=self._plan.limited, begun=self._begun[recorded.seq])
            reading = reading_of(expected[0], point.at, event) if expected else None
            if reading is not None and self._possible(reading, recorded):
                self.decisions += 1
                self._rest, self._later = deque(expected[1:]), reading - point.at
                for one in (event, *self._rest):
                    self._note_running(one)
                return None
        return _diverged(recorded, _events_of(points[-2].step))

    def _possible(self, reading: datetime, recorded: Recorded) -> bool:
        """Between the event that was gone by and what was made of it, if clocks were not too far apart."""
        known_at = self._known_at or recorded.at
        return known_at - CLOCKS_APART <= reading <= max(recorded.at, known_at) + CLOCKS_APART

    def _compacted_rightly(self, recorded: Recorded, event: Compacted) -> Divergence | None:
        self.taken += 1
        if self._plan is None:
            self.unchecked += 1
            return None
        points = [*self._points, *self._late_points(recorded, event)]
        would = [again for point in points if (again := self._compacted_again(point.step, event)) is not None]
        if event not in would:
            return _diverged(recorded, would[-1:] or _events_of(points[-2].step))
        self.decisions += 1
        return None

    def _compacted_again(self, step: Step, event: Compacted) -> Compacted | None:
        """With what a model said for it; None where nothing was to be compacted."""
        if not isinstance(step, Compact) or step.up_to_seq != event.up_to_seq:
            return None
        answered = said_for(self.state, step, event)
        if answered is not None and not step.summarise:
            return None
        return compacted(self.state, step, answered)

    def _late_points(self, recorded: Recorded, event: SessionEvent) -> "list[Decided]":
        """What would be decided at the event's own time; a fault of ours, too, may end a turn."""
        assert self._plan is not None  # noqa: S101 - for the type checker; its only caller has looked
        waits = self.state.waits
        now = max(recorded.at, waits.until) if waits and waits.until else recorded.at
        begun = self._begun[recorded.seq]
        points = [
            Decided(decide(self.state, self._plan, moment, places=begun), moment)
            for moment in (now, now + CLOCKS_APART)
        ]
        if isinstance(event, TurnFinished) and event.code == "internal":
            points.insert(
                0, Decided(finish(self.state, "failed", message=event.message, code="internal"), now)
            )
        return points

    def _note_running(self, event: SessionEvent) -> None:
        match event:
            case ToolStarted():
                self._running.add(event.call_id)
            case TurnFinished():
                self._running.clear()
            case _:
                pass

    def _look(self, at: datetime) -> None:
        """What is decided where the log now stands."""
        answer = self._asked.get(self.state.seq)
        if answer is not None:
            equipment = self._equip(answer.equipment)
            if equipment is None:
                self._plan = None
            else:
                step = _in_time(self.state, equipment.plan(self._owner), at).step
                self._asks[self.state.seq] = (step, self._digests.of(equipment.request(self.state)))
        if self._plan is not None and not self._rest:
            self._points.append(_in_time(self.state, self._plan, at))

    def _equip(self, digest: str | None) -> Equipment | None:
        equipment = None if digest is None else self._equipments.get(digest)
        if equipment is not None:
            self._plan = equipment.plan(self._owner)
        return equipment


def _in_time(state: SessionState, plan: Plan, at: datetime) -> "Decided":
    """Where our clock was behind the database's, there was time left."""
    step = decide(state, plan, at)
    out_of_time = isinstance(step, FinishTurn) and any(
        isinstance(one, TurnFinished) and one.limit in CLOCK_LIMITS for one in step.events
    )
    return (
        Decided(decide(state, plan, at - CLOCKS_APART), at - CLOCKS_APART)
        if out_of_time
        else Decided(step, at)
    )


def owners(session_id: str, events: Sequence[Recorded]) -> list[str]:
    """Whose decisions they are, fork after fork: `session_id` last. A fork may name an origin that had these events from its own."""
    found: list[str] = []
    key_of = ""
    for recorded in events:
        match recorded.event:
            case ToolStarted(attempt=1, key=key):
                key_of = key_of or key.partition(".")[0]
            case SessionForked(origin=origin):
                found.append(key_of or origin)
                key_of = ""
            case _:
                pass
    return [*found, session_id]


def _first_of_turns(events: Sequence[Recorded]) -> dict[int, str]:
    """What the turn's model was equipped with, by the event that began the turn: it holds before the first answer, too."""
    found: dict[int, str] = {}
    began = 0
    for recorded in events:
        match recorded.event:
            case TurnStarted():
                began = recorded.seq
            case ModelAnswered(equipment=equipment):
                found.setdefault(began, equipment)
            case _:
                pass
    return found


def _begun_with(events: Sequence[Recorded]) -> dict[int, frozenset[str]]:
    """By event: the tool calls that were begun with it, in one append, where there are any. Which of them had a place, nothing else says."""
    found: dict[int, frozenset[str]] = {}
    begun: frozenset[str] = frozenset()
    for recorded in reversed(events):
        match recorded.event:
            case ToolStarted(call_id=call_id):
                begun |= {call_id}
            case ToolFinished() | ToolOutcomeUnknown() | CallAwaited():
                pass
            case _:
                begun = frozenset()
        found[recorded.seq] = begun
    return found


def _events_of(
    step: Step, *, limited: Collection[str] = (), begun: Collection[str] = ()
) -> tuple[SessionEvent, ...]:
    """Of the calls of `limited` tools, those that were `begun`."""
    match step:
        case StartTurn():
            return (TurnStarted(turn=step.turn),)
        case RunTools():
            started = [claim.started for claim in step.claims]
            return (*step.facts, *(one for one in started if one.tool not in limited or one.call_id in begun))
        case FinishTurn():
            return step.events
        case Wait():
            return (step.waits,)
        case CallModel() | Compact() | Rest():
            return ()
        case _ as unreachable:
            assert_never(unreachable)


def _diverged(recorded: Recorded, expected: Sequence[SessionEvent]) -> Divergence:
    would = ", ".join(_kind(one) for one in expected) or "a model call, or nothing"
    what = f"recorded is {_kind(recorded.event)}; decided now is {would}"
    return Divergence(
        recorded.seq,
        what,
        msgspec.to_builtins(recorded.event),
        [msgspec.to_builtins(one) for one in expected],
    )


def _kind(event: SessionEvent) -> str:
    return str(type(event).__struct_config__.tag)
