"""Runtime: two recorded sessions side by side: where they part, and what each did. Pure."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from freehold.core.messages import Text, ToolCall, Usage, text_of
from freehold.core.session import (
    Compacted,
    ModelAnswered,
    ModelFailed,
    Recorded,
    ResultGiven,
    SessionForked,
    SessionStarted,
    SessionWaits,
    ToolFinished,
    ToolOutcomeUnknown,
    ToolStarted,
    TurnFinished,
    UserSpoke,
)
from freehold.runtime.recording import Recording

_MEASURED: Final = frozenset({
    "key",
    "duration_ms",
    "first_event_ms",
    "cost_pico",
    "usage",
    "call_id",
    "request_digest",
    "equipment",
    "until",
})
"""Differs between two runs that did the same. (The `call_id` of an answer is its record's; that of a tool call counts.)"""


class Facts(Struct, frozen=True, kw_only=True):
    """All of a session, a fork's shared part included. `waited_ms` is time in which it waited for somebody."""

    session_id: str
    agent: str
    models: tuple[str, ...]
    events: int
    turns: int
    model_calls: int
    tool_calls: int
    tools_failed: int
    usage: Usage
    cost_pico: int
    model_ms: float
    tools_ms: float
    waited_ms: float
    outcome: str


class Done(Struct, frozen=True, kw_only=True):
    """Something that a session did. `kind` is `said`, `answer` or a function's name."""

    seq: int
    kind: str
    given: str
    result: str
    duration_ms: float
    cost_pico: int


class Comparison(Struct, frozen=True, kw_only=True):
    """`parted_seq` is the first event that differs, or that only one has; None where they are the same."""

    first: Facts
    second: Facts
    same_events: int
    parted_seq: int | None
    parted: tuple[str, str]
    done: tuple[tuple[Done | None, Done | None], ...]


def compared(first: Recording, second: Recording) -> Comparison:
    same = 0
    for one, other in zip(first.events, second.events, strict=False):
        if _content(one) != _content(other):
            break
        same += 1
    ended = same == len(first.events) == len(second.events)
    return Comparison(
        first=facts(first),
        second=facts(second),
        same_events=same,
        parted_seq=None if ended else same + 1,
        parted=(_said_at(first.events, same), _said_at(second.events, same)),
        done=_beside(_done(first.events, same), _done(second.events, same)),
    )


def facts(found: Recording) -> Facts:
    models: dict[str, None] = {}
    usage, cost, model_ms, tools_ms, waited_ms = Usage(), 0, 0.0, 0.0, 0.0
    counts = {"turns": 0, "model": 0, "tools": 0, "failed": 0}
    agent, outcome = "", ""
    waits: Recorded | None = None
    for recorded in found.events:
        if waits is not None:
            waited_ms += (recorded.at - waits.at).total_seconds() * 1000
            waits = None
        match recorded.event:
            case SessionStarted() as event:
                agent = f"{event.agent} version {event.agent_version}"
            case ModelAnswered() | ModelFailed() as event:
                if isinstance(event, ModelAnswered):
                    models[event.served_by] = None
                usage, cost = usage.plus(event.usage), cost + event.cost_pico
                model_ms += event.duration_ms
                counts["model"] += 1
            case Compacted() as event:
                usage, cost = usage.plus(event.usage), cost + event.cost_pico
            case ToolFinished() | ResultGiven() as event:
                cost += event.cost_pico
                tools_ms += event.duration_ms if isinstance(event, ToolFinished) else 0.0
                counts["tools"] += 1
                counts["failed"] += event.failed
            case ToolOutcomeUnknown():
                counts["tools"] += 1
                counts["failed"] += 1
            case TurnFinished() as event:
                counts["turns"] += 1
                outcome = event.outcome
            case SessionWaits(why="calls" | "paused"):
                waits = recorded
            case _:
                pass
    return Facts(
        session_id=found.session_id,
        agent=agent,
        models=tuple(models),
        events=len(found.events),
        turns=counts["turns"],
        model_calls=counts["model"],
        tool_calls=counts["tools"],
        tools_failed=counts["failed"],
        usage=usage,
        cost_pico=cost,
        model_ms=model_ms,
        tools_ms=tools_ms,
        waited_ms=waited_ms,
        outcome=outcome,
    )


def _content(recorded: Recorded) -> Any:
    """What an event says, without what was measured or made up."""
    told = msgspec.to_builtins(recorded.event)
    kept = {name: value for name, value in told.items() if name not in _MEASURED}
    if not isinstance(recorded.event, ModelAnswered):
        kept["call_id"] = told.get("call_id")
    return kept


def _said_at(events: Sequence[Recorded], place: int) -> str:
    if place >= len(events):
        return "(nothing more)"
    event = events[place].event
    kind = str(type(event).__struct_config__.tag)
    match event:
        case UserSpoke():
            return f"{kind}: {_text(event.content)}"
        case ModelAnswered():
            calls = ", ".join(part.name for part in event.content if isinstance(part, ToolCall))
            return f"{kind} ({event.served_by}): {calls or text_of(event.content)}"
        case ToolStarted():
            return f"{kind}: {event.function} {event.arguments}"
        case ToolFinished() | ResultGiven():
            return f"{kind}: {_text(event.content)}"
        case TurnFinished():
            return f"{kind}: {event.outcome} {event.message}".strip()
        case SessionForked():
            return f"{kind} from {event.origin} at {event.origin_seq}" + (
                f", with {event.model}" if event.model else ""
            )
        case _:
            return kind


def _done(events: Sequence[Recorded], after: int) -> list[Done]:
    """What was said, called and answered behind the first `after` events."""
    calls: dict[str, ToolCall] = {}
    found: list[Done] = []
    for recorded in events:
        done = _doing(recorded, calls)
        if isinstance(recorded.event, ModelAnswered):
            calls |= {part.id: part for part in recorded.event.content if isinstance(part, ToolCall)}
        if done is not None and recorded.seq > after:
            found.append(done)
    return found


def _doing(recorded: Recorded, calls: dict[str, ToolCall]) -> Done | None:
    kind, given, result, duration_ms, cost = "said", "", "", 0.0, 0
    match recorded.event:
        case UserSpoke(content=content):
            result = _text(content)
        case ModelAnswered() as event if text := text_of(event.content):
            kind, given, result = "answer", event.served_by, text
            duration_ms, cost = event.duration_ms, event.cost_pico
        case ToolFinished() | ResultGiven() | ToolOutcomeUnknown() as event if event.call_id in calls:
            call = calls[event.call_id]
            kind, given = call.name, call.arguments
            result = event.message if isinstance(event, ToolOutcomeUnknown) else _text(event.content)
            duration_ms = event.duration_ms if isinstance(event, ToolFinished) else 0.0
            cost = 0 if isinstance(event, ToolOutcomeUnknown) else event.cost_pico
        case _:
            return None
    return Done(
        seq=recorded.seq, kind=kind, given=given, result=result, duration_ms=duration_ms, cost_pico=cost
    )


def _beside(first: Sequence[Done], second: Sequence[Done]) -> tuple[tuple[Done | None, Done | None], ...]:
    """In their orders; what is of the same kind, or does the same call, stands side by side while it can."""
    rows: list[tuple[Done | None, Done | None]] = []
    left, right = list(first), list(second)
    while left or right:
        if left and right and (left[0].kind == right[0].kind or not _later(left, right)):
            rows.append((left.pop(0), right.pop(0)))
        elif left and (not right or not _has(right, left[0].kind)):
            rows.append((left.pop(0), None))
        else:
            rows.append((None, right.pop(0)))
    return tuple(rows)


def _later(left: Sequence[Done], right: Sequence[Done]) -> bool:
    return _has(right, left[0].kind) or _has(left, right[0].kind)


def _has(found: Sequence[Done], kind: str) -> bool:
    return any(one.kind == kind for one in found)


def _text(content: Sequence[object]) -> str:
    return " ".join(part.text if isinstance(part, Text) else "(media)" for part in content)
