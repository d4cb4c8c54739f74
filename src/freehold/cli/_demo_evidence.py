"""The demo: what a session's log says of a crash in the middle of a tool run. Pure: events in, a judgement out.

The first second attempt at a tool run marks where the next worker took over: what has its result before that was finished
when the server was killed, what was started and has none was running.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct


class ToolStep(Struct, frozen=True, kw_only=True):
    """One call of a tool. `keys` are those that its attempts were given, in order; `..._at` are cursors, places in the log."""

    call_id: str
    name: str
    started_at: tuple[str, ...]
    keys: tuple[str, ...]
    results_at: tuple[str, ...]
    finished_before: bool
    running: bool


class Check(Struct, frozen=True):
    says: str
    holds: bool


class Judgement(Struct, frozen=True, kw_only=True):
    steps: tuple[ToolStep, ...]
    answers_before: int
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)


def judge(events: Sequence[dict[str, Any]]) -> Judgement:
    """`events` is the whole log, with `freehold.*` events."""
    again = [
        _seq(event) for event in events if event["type"] == "freehold.tool_started" and event["attempt"] > 1
    ]
    crash = min(again, default=None)
    steps = _steps(events, crash)
    finished = [step for step in steps if step.finished_before]
    running = [step for step in steps if step.running]
    ends = [event["freehold"]["outcome"] for event in events if event["type"] == "session.status_idle"]
    answers = [
        event for event in events if event["type"] == "span.model_request_end" and not event["is_error"]
    ]
    checks = (
        Check("the kill hit a tool while it was running", bool(running)),
        Check("steps were finished before it", bool(finished)),
        Check(
            "no finished step ran again (each was started once and has one result)",
            all(len(step.started_at) == 1 and len(step.results_at) == 1 for step in finished),
        ),
        Check(
            "what was running ran again, with the same idempotency key, and has one result",
            all(
                len(step.started_at) == 2 and len(set(step.keys)) == 1 and len(step.results_at) == 1
                for step in running
            ),
        ),
        Check(
            "the turn was completed and the answer came",
            ends[-1:] == ["completed"] and _has_answer(events, crash),
        ),
    )
    before = sum(1 for event in answers if crash is not None and _seq(event) < crash)
    return Judgement(steps=steps, answers_before=before, checks=checks)


def _steps(events: Sequence[dict[str, Any]], crash: int | None) -> tuple[ToolStep, ...]:
    names = {event["id"]: event["name"] for event in events if event["type"] == "agent.tool_use"}
    started: dict[str, list[dict[str, Any]]] = {}
    results: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["type"] == "freehold.tool_started":
            started.setdefault(event["tool_use_id"], []).append(event)
        elif event["type"] == "agent.tool_result":
            results.setdefault(event["tool_use_id"], []).append(event)
    return tuple(
        _step(call_id, names.get(call_id, call_id), ran, results.get(call_id, []), crash)
        for call_id, ran in started.items()
    )


def _step(
    call_id: str,
    name: str,
    started: list[dict[str, Any]],
    results: list[dict[str, Any]],
    crash: int | None,
) -> ToolStep:
    begun = crash is not None and _seq(started[0]) < crash
    finished = crash is not None and any(_seq(result) < crash for result in results)
    return ToolStep(
        call_id=call_id,
        name=name,
        started_at=tuple(event["freehold"]["cursor"] for event in started),
        keys=tuple(event["idempotency_key"] for event in started),
        results_at=tuple(event["freehold"]["cursor"] for event in results),
        finished_before=finished,
        running=begun and not finished,
    )


def _has_answer(events: Sequence[dict[str, Any]], crash: int | None) -> bool:
    return any(event["type"] == "agent.message" and _seq(event) > (crash or 0) for event in events)


def _seq(event: dict[str, Any]) -> int:
    cursor: str = event["freehold"]["cursor"]
    return int(cursor.partition(".")[0])
