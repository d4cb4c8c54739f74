"""Reads the histories that chaos left, and the ledger's counts: is everything there once, in order, and as often as promised?"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from freehold.core.messages import ToolCall, text_of
from freehold.core.session import (
    ApprovalDecided,
    ModelAnswered,
    Recorded,
    ResultGiven,
    ToolFinished,
    ToolOutcomeUnknown,
    ToolStarted,
    TurnFinished,
    TurnStarted,
)
from freehold.core.session_state import replay
from tests.chaos._place import DELEGATE, rounds_of


class Found(Counter[str]):
    """What was seen over all histories."""


def check_history(
    log: Sequence[Recorded], plan: str, counts: Mapping[str, int], found: Found, children: Mapping[str, int]
) -> set[str]:
    """Raises AssertionError. Returns the ledger's lines that this history accounts for. `children`: how many sessions work for this one,
    by the call that asked for them."""
    assert [one.seq for one in log] == list(range(1, len(log) + 1)), "each event once, in order"
    assert all(one.at <= other.at for one, other in itertools.pairwise(log)), "time goes on"
    state = replay(log)
    assert not state.in_turn
    assert not state.open_calls
    events = [one.event for one in log]
    ends = [one for one in events if isinstance(one, TurnFinished)]
    assert [one.outcome for one in ends] == ["completed"], ends
    assert sum(isinstance(one, TurnStarted) for one in events) == 1
    answers = [one for one in events if isinstance(one, ModelAnswered)]
    assert len(answers) == len(rounds_of(plan)) + 1, "each model call is recorded once"
    assert text_of(answers[-1].content) == "all done"
    called = [[part.name for part in one.content if isinstance(part, ToolCall)] for one in answers[:-1]]
    assert called == rounds_of(plan)
    found.update(events=len(log), sessions=1, answers=len(answers))
    return _check_calls(events, counts, found, children)


def _check_calls(
    events: Sequence[object], counts: Mapping[str, int], found: Found, children: Mapping[str, int]
) -> set[str]:
    results: Counter[str] = Counter()
    started: dict[str, list[ToolStarted]] = defaultdict(list)
    unknown: set[str] = set()
    failed: set[str] = set()
    asked: Counter[str] = Counter()
    for event in events:
        match event:
            case ToolFinished() | ResultGiven():
                results[event.call_id] += 1
                if event.failed:
                    failed.add(event.call_id)
            case ToolOutcomeUnknown():
                results[event.call_id] += 1
                unknown.add(event.call_id)
            case ToolStarted():
                assert not results[event.call_id], f"a finished step never runs again: {event}"
                started[event.call_id].append(event)
            case ApprovalDecided():
                asked[event.call_id] += 1
            case _:
                pass
    wanted = {
        part.id
        for one in events
        if isinstance(one, ModelAnswered)
        for part in one.content
        if isinstance(part, ToolCall)
    }
    given = {one.call_id for one in events if isinstance(one, ResultGiven)}
    assert set(results) == wanted, "each call has a result"
    assert all(results[one] == 1 for one in wanted - given), "and only one"
    lines = set()
    delegated = {call_id for call_id, attempts in started.items() if attempts[0].function == DELEGATE}
    assert set(children) <= delegated, "no session for what was never asked"
    assert all(count == 1 for count in children.values()), "one for each task, whoever asked for it again"
    assert delegated - set(children) <= failed, (
        "none only where the database could not be told, which was said"
    )
    found["subagents"] += len(children)
    for call_id, attempts in started.items():
        if call_id in delegated:
            continue
        lines.add(_check_effect(attempts, counts, found, unknown=call_id in unknown))
    return lines


def _check_effect(
    attempts: Sequence[ToolStarted], counts: Mapping[str, int], found: Found, *, unknown: bool
) -> str:
    first = attempts[0]
    assert {one.key for one in attempts} == {first.key}, "the same key on every attempt"
    assert [one.attempt for one in attempts] == list(range(1, len(attempts) + 1))
    line = f"{first.function} {first.key}"
    count = counts.get(line, 0)
    if first.effect == "irreversible":
        assert len(attempts) == 1
        assert count <= 1, f"{line}: an irreversible effect happened {count} times"
        assert count == 1 or unknown, f"{line}: it is said to have happened, and has not"
        found["unknown"] += unknown
        found["unknown that happened"] += unknown and count == 1
    else:
        assert not unknown
        assert 1 <= count <= len(attempts), f"{line}: {count} runs in {len(attempts)} attempts"
        found["run again"] += len(attempts) - 1
    found["effects"] += 1
    return line
