"""What the demo concludes from a session's log about a crash: a true log proves it, a tampered one does not."""

from collections.abc import Callable
from typing import Any

import pytest

from freehold.cli._demo_evidence import judge

Log = list[dict[str, Any]]


def log() -> Log:
    """A lookup finishes, a forecast is killed and runs again, the answer comes."""
    return [
        event(3, "agent.tool_use", id="a", name="lookup"),
        event(3, "agent.tool_use", id="b", name="forecast"),
        event(3, "span.model_request_end", is_error=False),
        started(4, "a"),
        started(5, "b"),
        result(6, "a"),
        started(7, "b", attempt=2),
        result(8, "b"),
        event(9, "agent.message"),
        event(9, "span.model_request_end", is_error=False),
        event(10, "session.status_idle", freehold={"outcome": "completed"}),
    ]


def event(seq: int, kind: str, *, freehold: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "freehold": {"cursor": f"{seq}.0", **(freehold or {})}, **fields}


def started(seq: int, call: str, *, attempt: int = 1, key: str | None = None) -> dict[str, Any]:
    return event(
        seq, "freehold.tool_started", tool_use_id=call, attempt=attempt, idempotency_key=key or f"key {call}"
    )


def result(seq: int, call: str) -> dict[str, Any]:
    return event(seq, "agent.tool_result", tool_use_id=call)


def test_a_true_log_proves_it() -> None:
    judgement = judge(log())
    assert judgement.holds
    assert judgement.answers_before == 1
    lookup, forecast = judgement.steps
    assert (lookup.name, lookup.finished_before, lookup.running) == ("lookup", True, False)
    assert (forecast.name, forecast.finished_before, forecast.running) == ("forecast", False, True)
    assert forecast.started_at == ("5.0", "7.0")


def without(kind: str, seq: int) -> Callable[[Log], Log]:
    return lambda events: [
        one for one in events if not (one["type"] == kind and one["freehold"]["cursor"] == f"{seq}.0")
    ]


@pytest.mark.parametrize(
    "tamper",
    [
        without("freehold.tool_started", 7),
        without("agent.tool_result", 6),
        without("agent.tool_result", 8),
        without("agent.message", 9),
        without("session.status_idle", 10),
        lambda events: [*events, started(11, "a", attempt=2)],
        lambda events: [*events, result(11, "a")],
        lambda events: [*events, result(11, "b")],
        lambda events: [one if one["freehold"]["cursor"] != "7.0" else started(7, "b", attempt=2, key="new") for one in events],
    ],
)  # fmt: skip
def test_a_log_that_tells_otherwise_does_not(tamper: Callable[[Log], Log]) -> None:
    assert not judge(tamper(log())).holds


def test_an_empty_log_proves_nothing() -> None:
    assert not judge([]).holds
