"""Canaries that two processes share, by a clock that tests move; feedback that joins its call."""

from datetime import UTC, datetime, timedelta

import msgspec
from tests.gateway._routes import HandClock

from freehold.core import ids
from freehold.core.experiments import Canary, Experiment, Feedback, judged
from freehold.core.records import CallRecord
from freehold.core.routes import Route
from freehold.gateway.canaries import Canaries
from freehold.store.store import Store

CANARY = Canary(model="b/m", steps=(5, 100), step_s=600, calls_min=20)


def route(canary: Canary) -> Route:
    return Route(name="smart", models=("a/m", "b/m"), experiment=Experiment(canary=canary))


def record(clock: HandClock, number: int, *, outcome: str = "ok", attempts: int = 1) -> CallRecord:
    return CallRecord(
        id=ids.compose("call", clock.now_ms(), bytes([number >> 5, number & 31, *bytes(14)])), at=clock.now(), tenant="acme", principal="ann",
        wire="openai_chat", model_requested="smart", provider="b", model="m", outcome=outcome, attempts=attempts,
        route="smart", arm="canary", streamed=True, first_event_ms=100.0, duration_ms=200.0, cost_pico=10**10,
    )  # fmt: skip


async def called(store: Store, clock: HandClock, first: int, calls: int, errors: int) -> None:
    for number in range(first, first + calls):
        store.records.add(record(clock, number, attempts=1 + (number < first + errors)))
    await store.records.flush()


async def looked(canaries: Canaries, clock: HandClock, canary: Canary = CANARY) -> float:
    """What it gets after a look."""
    clock.s += 60
    canaries.percent("acme", route(canary))
    await canaries.look()
    return canaries.percent("acme", route(canary))


async def test_one_process_steps_for_all(store: Store, other: Store) -> None:
    clock = HandClock()
    here, there = Canaries(store.experiments, clock), Canaries(other.experiments, clock)
    assert here.percent("acme", route(CANARY)) == 0
    assert (await looked(here, clock), await looked(there, clock)) == (5, 5)
    await called(store, clock, 0, 40, 0)
    assert await looked(here, clock) == 5
    clock.s += 600
    assert (await looked(here, clock), await looked(there, clock)) == (100, 100)
    steps = await store.experiments.steps("acme", "smart")
    assert [(one.percent, one.reason) for one in steps] == [
        (100, "0 errors in 40 calls at 5 %"),
        (5, "declared"),
    ]


async def test_a_breach_steps_back_everywhere_until_it_is_declared_anew(store: Store, other: Store) -> None:
    clock = HandClock()
    here, there = Canaries(store.experiments, clock), Canaries(other.experiments, clock)
    assert (await looked(here, clock), await looked(there, clock)) == (5, 5)
    await called(store, clock, 0, 30, 12)
    assert (await looked(here, clock), await looked(there, clock)) == (0, 0)
    clock.s += 6000
    assert await looked(here, clock) == 0
    last, *_ = await store.experiments.steps("acme", "smart")
    assert (last.status, last.reason) == ("stepped_back", "12 errors in 30 calls: certainly over 0.02")
    again = msgspec.structs.replace(CANARY, run=2)
    assert (await looked(here, clock, again), await looked(there, clock, again)) == (5, 5)


async def test_a_step_is_taken_once(store: Store, other: Store) -> None:
    clock = HandClock()
    state = await store.experiments.state("acme", "smart", CANARY, clock.now())
    await called(store, clock, 0, 40, 0)
    later = clock.now() + timedelta(seconds=CANARY.step_s)
    seen = await other.experiments.seen("acme", "smart", CANARY, state.since)
    step = judged(CANARY, state, seen, later)
    assert step is not None
    assert await store.experiments.take("acme", "smart", CANARY, state, step, later)
    assert not await other.experiments.take("acme", "smart", CANARY, state, step, later)


async def test_feedback_joins_its_call_and_is_kept_once(store: Store) -> None:
    clock = HandClock()
    await called(store, clock, 0, 2, 1)
    given = Feedback(
        tenant="acme", call_id=record(clock, 0).id, name="helpful", score=1.0, comment="", principal="ann"
    )
    assert await store.experiments.add(given)
    assert await store.experiments.add(msgspec.structs.replace(given, score=0.5))
    assert not await store.experiments.add(msgspec.structs.replace(given, tenant="other"))
    (arm,) = await store.experiments.sums(
        "acme", "smart", since=datetime(2026, 1, 1, tzinfo=UTC), currency="USD"
    )
    assert (arm.arm, arm.calls, arm.errors) == ("canary", 2, 1)
    assert (arm.scores["helpful"].count, arm.scores["helpful"].mean) == (1, 0.5)
    assert (arm.measures["cost"].count, arm.measures["cost"].mean) == (2, 0.01)
    assert arm.measures["first_token_ms"].mean == 100
