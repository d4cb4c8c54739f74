"""Runtime: another model at the places of a recorded session's, with its tools' recorded results: what would it have done?

At each answer the other model is asked for real, with the conversation as it would have been; tools are never run. As long as it
makes the same calls, the session goes on as recorded. Where it makes others, that is told, and the replay ends there; or it goes
past it for the rest of the turn, as far as the results that are recorded anywhere in the session cover its calls.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from freehold.core.messages import (
    AnswerPart,
    Carried,
    ModelRequest,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    text_of,
)
from freehold.core.session import (
    Compacted,
    ModelAnswered,
    ModelFailed,
    Recorded,
    ResultGiven,
    SessionEvent,
    SessionForked,
    SessionStarted,
    ToolFinished,
    ToolOutcomeUnknown,
    TurnFinished,
    UserSpoke,
)
from freehold.core.session_state import SessionState
from freehold.runtime.equipment import Equipment

STEPS_MAX: Final = 200
"""Model calls of one replay."""
TEXT_CHARS: Final = 2000

Ask = Callable[[ModelRequest, Equipment, SessionState], Awaitable[ModelAnswered | ModelFailed]]


class Side(Struct, frozen=True, kw_only=True):
    """One model's answer at a step. `calls` are (function, arguments as JSON)."""

    model: str
    text: str
    calls: tuple[tuple[str, str], ...]
    usage: Usage
    cost_pico: int
    duration_ms: float


class ReaskedStep(Struct, frozen=True, tag="step", kw_only=True, omit_defaults=True):
    """`seq` is the recorded answer's; None past a divergence, where there is no recorded one to stand beside."""

    seq: int | None
    turn: int
    recorded: Side | None
    asked: Side
    difference: str | None = None


class ReaskedEnd(Struct, frozen=True, tag="end", kw_only=True):
    """`why` is `completed`, `diverged`, `not_covered` (no recorded result for a call), `failed` (the model did) or `steps_max`."""

    why: str
    message: str
    steps: int
    same: int
    recorded_cost_pico: int
    asked_cost_pico: int
    recorded_duration_ms: float
    asked_duration_ms: float


class Reasking:
    """Iterate over `steps()`, then look at `end`."""

    def __init__(
        self,
        events: Sequence[Recorded],
        equipments: Mapping[str, Equipment],
        *,
        model: str,
        ask: Ask,
        past_divergence: bool,
    ) -> None:
        self._events = events
        self._equipments = equipments
        self._model = model
        self._ask = ask
        self._past_divergence = past_divergence
        self._results = _Results(events)
        self._state = SessionState()
        self._steps: list[ReaskedStep] = []
        self._stop: tuple[str, str] | None = None

    @property
    def end(self) -> ReaskedEnd:
        why, message = self._stop or ("completed", "the whole session was replayed")
        recorded = [step.recorded for step in self._steps if step.recorded is not None]
        asked = [step.asked for step in self._steps]
        return ReaskedEnd(
            why=why,
            message=message,
            steps=len(self._steps),
            same=sum(1 for step in self._steps if step.seq is not None and step.difference is None),
            recorded_cost_pico=sum(side.cost_pico for side in recorded),
            asked_cost_pico=sum(side.cost_pico for side in asked),
            recorded_duration_ms=sum(side.duration_ms for side in recorded),
            asked_duration_ms=sum(side.duration_ms for side in asked),
        )

    async def steps(self) -> AsyncIterator[ReaskedStep]:
        """The model is asked where the recorded one was: what came in while it answered, it had not seen."""
        asked_at = {
            one.event.seen_seq: one.event for one in self._events if isinstance(one.event, ModelAnswered)
        }
        answers: dict[int, ModelAnswered] = {}
        skipping = False
        for recorded in self._events:
            event = recorded.event
            if isinstance(event, ModelAnswered) and not skipping:
                answer = answers[event.seen_seq]
                step = self._compared(recorded.seq, event, answer)
                yield step
                if step.difference is None:
                    self._tell(_in_place_of(event, answer, self._state), recorded.at)
                elif not self._past_divergence:
                    self._stop = ("diverged", step.difference)
                    return
                else:
                    skipping = True
                    async for further in self._on_its_own(event, answer, recorded.at):
                        yield further
            elif isinstance(event, TurnFinished):
                if not skipping:
                    self._tell(event, recorded.at)
                skipping = False
            elif _told_anyway(event) or not (skipping or self._speaks_of_elsewhere(recorded)):
                self._tell(self._with_model(event), recorded.at)
            if self._stop is not None:
                return
            if not skipping and (wanted := asked_at.get(recorded.seq)) is not None:
                answered = await self._asked(wanted)
                if answered is None:
                    return
                answers[recorded.seq] = answered

    async def _on_its_own(
        self, recorded: ModelAnswered, answer: ModelAnswered, at: datetime
    ) -> AsyncIterator[ReaskedStep]:
        """To the end of the turn, by the other model's own answers and what results there are."""
        while True:
            self._tell(self._named_anew(answer), at)
            for call in _calls(answer):
                result = self._results.take(call)
                if result is None:
                    self._stop = (
                        "not_covered",
                        f"no result is recorded for {call.name} {call.arguments}: what it would have given is not known",
                    )
                    return
            for open_call in list(self._state.open_calls.values()):
                result = self._results.given(open_call.call)
                content = tuple(part for part in result.content if not isinstance(part, Carried))
                self._tell(ToolFinished(call_id=open_call.call.id, content=content, failed=result.failed), at)
            if not _calls(answer):
                self._tell(TurnFinished(outcome="completed"), at)
                return
            further = await self._asked(recorded)
            if further is None:
                return
            answer = further
            step = ReaskedStep(seq=None, turn=self._state.turn, recorded=None, asked=_side(answer))
            self._steps.append(step)
            yield step

    async def _asked(self, recorded: ModelAnswered) -> ModelAnswered | None:
        """None where that ends the replay."""
        if len(self._steps) >= STEPS_MAX:
            self._stop = ("steps_max", f"a replay asks {STEPS_MAX} times at most")
            return None
        equipment = self._equipments.get(recorded.equipment)
        if equipment is None:
            self._stop = ("not_covered", "it was not recorded what the model was equipped with")
            return None
        request = structs.replace(equipment.request(self._state), model=self._model)
        answered = await self._ask(request, equipment, self._state)
        if isinstance(answered, ModelFailed):
            self._stop = ("failed", f"{answered.code}: {answered.message}")
            return None
        return answered

    def _compared(self, seq: int, recorded: ModelAnswered, answer: ModelAnswered) -> ReaskedStep:
        step = ReaskedStep(
            seq=seq,
            turn=self._state.turn,
            recorded=_side(recorded),
            asked=_side(answer),
            difference=difference(recorded, answer),
        )
        self._steps.append(step)
        return step

    def _tell(self, event: SessionEvent, at: datetime) -> None:
        seq = self._state.seq + 1
        if isinstance(event, ModelAnswered | ModelFailed):
            event = structs.replace(event, seen_seq=min(event.seen_seq, seq - 1))
        self._state.apply(Recorded(seq, at, event))

    def _speaks_of_elsewhere(self, recorded: Recorded) -> bool:
        """Behind a divergence a compaction's place is no longer the same."""
        return isinstance(recorded.event, Compacted) and self._state.seq + 1 != recorded.seq

    def _with_model(self, event: SessionEvent) -> SessionEvent:
        if isinstance(event, SessionStarted | SessionForked):
            return structs.replace(event, model=self._model)
        return event

    def _named_anew(self, answer: ModelAnswered) -> ModelAnswered:
        """With ids of calls that no recorded one has."""
        place = len(self._steps)
        content: tuple[AnswerPart, ...] = tuple(
            structs.replace(part, id=f"replay_{place}_{index}") if isinstance(part, ToolCall) else part
            for index, part in enumerate(answer.content)
        )
        return structs.replace(answer, content=content, seen_seq=self._state.seq)


class _Results:
    """The recorded results by function and arguments: each is given once, in their order, and the last again and again."""

    def __init__(self, events: Sequence[Recorded]) -> None:
        calls: dict[str, ToolCall] = {}
        self._found: dict[tuple[str, str], list[ToolResult]] = defaultdict(list)
        self._given: dict[tuple[str, str], int] = defaultdict(int)
        for recorded in events:
            if isinstance(recorded.event, ModelAnswered):
                calls |= {call.id: call for call in _calls(recorded.event)}
            elif (result := _result(recorded.event)) is not None and result.call_id in calls:
                self._found[_meaning(calls[result.call_id])].append(result)

    def take(self, call: ToolCall) -> ToolResult | None:
        """Only whether there is one."""
        found = self._found.get(_meaning(call))
        return found[0] if found else None

    def given(self, call: ToolCall) -> ToolResult:
        meaning = _meaning(call)
        found = self._found[meaning]
        place = min(self._given[meaning], len(found) - 1)
        self._given[meaning] += 1
        return found[place]


def _result(event: SessionEvent) -> ToolResult | None:
    match event:
        case ToolFinished() | ResultGiven():
            return ToolResult(event.call_id, event.content, event.failed)
        case ToolOutcomeUnknown():
            return ToolResult(event.call_id, (Text(event.message),), failed=True)
        case _:
            return None


def difference(recorded: ModelAnswered, asked: ModelAnswered) -> str | None:
    """What is different in what the two do; None where only their words are."""
    ours, theirs = _calls(recorded), _calls(asked)
    for index, (call, other) in enumerate(zip(ours, theirs, strict=False), 1):
        if call.name != other.name:
            return f"call {index} is {other.name} instead of {call.name}"
        if _meaning(call) != _meaning(other):
            return f"call {index}, {call.name}, has other arguments: {other.arguments} instead of {call.arguments}"
    if len(ours) != len(theirs):
        told = ", ".join(call.name for call in theirs) or "no calls"
        return f"{told} instead of {', '.join(call.name for call in ours) or 'an answer in words'}"
    return None


def _in_place_of(recorded: ModelAnswered, answer: ModelAnswered, state: SessionState) -> ModelAnswered:
    """The other model's words with the recorded calls, whose ids their results have."""
    said = tuple(part for part in answer.content if not isinstance(part, ToolCall))
    return structs.replace(answer, content=(*said, *_calls(recorded)), seen_seq=recorded.seen_seq)


def _told_anyway(event: SessionEvent) -> bool:
    return isinstance(event, UserSpoke | SessionForked)


def _calls(answer: ModelAnswered) -> tuple[ToolCall, ...]:
    return tuple(part for part in answer.content if isinstance(part, ToolCall))


def _meaning(call: ToolCall) -> tuple[str, str]:
    """The same for arguments that mean the same, however their JSON is laid out."""
    try:
        arguments: Any = msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError:
        return call.name, call.arguments
    return call.name, msgspec.json.encode(arguments, order="sorted").decode()


def _side(answer: ModelAnswered) -> Side:
    return Side(
        model=answer.served_by,
        text=text_of(answer.content)[:TEXT_CHARS],
        calls=tuple((call.name, call.arguments) for call in _calls(answer)),
        usage=answer.usage,
        cost_pico=answer.cost_pico,
        duration_ms=answer.duration_ms,
    )
