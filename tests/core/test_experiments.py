"""Who is in which arm, and when a canary takes a step; a month of traffic that shows one going up and one coming back."""

from collections import Counter
from datetime import timedelta

import pytest
from bench.experiments import MONTH, START, simulated
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import BadRequest
from freehold.core.experiments import (
    BASELINE,
    CANARY,
    Arm,
    Canary,
    CanaryState,
    Experiment,
    Seen,
    Shadow,
    assigned,
    judged,
)
from freehold.core.routes import Route, check

KEYS = [f"session-{number}" for number in range(2000)]
percentages = st.lists(st.floats(1, 60), min_size=2, max_size=5)


def arms(weights: list[float]) -> Experiment:
    return Experiment(
        arms=tuple(Arm(model=f"p/{place}", percent=weight) for place, weight in enumerate(weights))
    )


def arm_of(experiment: Experiment, key: str, percent: float = 0.0) -> str:
    return assigned(experiment, "smart", key, percent)[0]


@given(percentages, st.floats(1, 39), st.data())
def test_raising_an_arm_moves_keys_into_that_arm_alone(
    weights: list[float], more: float, data: st.DataObject
) -> None:
    raised = data.draw(st.integers(0, len(weights) - 1))
    after = arms([weight + more * (place == raised) for place, weight in enumerate(weights)])
    before = arms(weights)
    for key in KEYS[:60]:
        was, now = arm_of(before, key), arm_of(after, key)
        assert now in (was, f"p/{raised}")


@given(percentages)
def test_an_arm_is_the_same_whatever_the_order_of_the_others(weights: list[float]) -> None:
    declared = arms(weights)
    turned = Experiment(arms=declared.arms[::-1])
    assert [arm_of(declared, key) for key in KEYS[:60]] == [arm_of(turned, key) for key in KEYS[:60]]


def test_every_arm_gets_its_percentage() -> None:
    found = Counter(arm_of(arms([70, 20, 10]), key) for key in KEYS)
    assert [round(found[f"p/{place}"] / len(KEYS), 1) for place in range(3)] == [0.7, 0.2, 0.1]


def test_experiments_do_not_put_the_same_keys_together() -> None:
    both = [
        (assigned(arms([50, 50]), "a", key, 0)[0], assigned(arms([50, 50]), "b", key, 0)[0]) for key in KEYS
    ]
    assert all(0.2 < count / len(KEYS) < 0.3 for count in Counter(both).values())


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_canary_that_grows_loses_no_key(one: float, other: float) -> None:
    experiment, low, high = Experiment(canary=Canary(model="p/new")), min(one, other), max(one, other)
    few = {key for key in KEYS[:60] if arm_of(experiment, key, low) == CANARY}
    assert few <= {key for key in KEYS[:60] if arm_of(experiment, key, high) == CANARY}
    assert arm_of(experiment, KEYS[0], 0) == BASELINE
    assert arm_of(experiment, KEYS[0], 100) == CANARY


CANARY_DECLARED = Canary(model="p/new", steps=(5, 50, 100), step_s=60, calls_min=20, first_token_p95_s_max=1)


@pytest.mark.parametrize(
    ("seen", "after_s", "status", "step"),
    [
        (Seen(20, 0), 60, "running", 1),
        (Seen(19, 0), 60, None, None),
        (Seen(20, 0), 59, None, None),
        (Seen(30, 12), 1, "stepped_back", 0),
        (Seen(30, 1), 60, "running", 1),
        (Seen(60, 0, 60, 30), 1, "stepped_back", 0),
        (Seen(60, 0, 60, 3), 60, "running", 1),
    ],
)
def test_a_canary_steps_by_time_calls_and_limits(
    seen: Seen, after_s: int, status: str | None, step: int | None
) -> None:
    found = judged(
        CANARY_DECLARED, CanaryState("running", 0, START), seen, START + timedelta(seconds=after_s)
    )
    assert (status, step) == (None, None) if found is None else (found.status, found.step) == (status, step)


def test_a_canary_is_done_after_its_last_step_and_stays_back_once_it_is() -> None:
    later = START + timedelta(hours=1)
    last = judged(CANARY_DECLARED, CanaryState("running", 2, START), Seen(20, 0), later)
    assert last is not None
    assert (last.status, last.step) == ("done", 2)
    for status, percent in (("done", 100), ("stepped_back", 0)):
        over = CanaryState(status, 2, START)
        assert judged(CANARY_DECLARED, over, Seen(500, 400), later) is None
        assert over.percent(CANARY_DECLARED) == percent


def test_in_a_month_of_traffic_a_sound_canary_goes_up_and_one_that_breaks_comes_back() -> None:
    broken_from = START + timedelta(days=5)
    sound, up, _ = simulated(MONTH, lambda _: 0.01, seed=1)
    broken, _, _ = simulated(MONTH, lambda now: 0.15 if now > broken_from else 0.005, seed=1)
    assert (sound.status, sound.percent(MONTH), len(up)) == ("done", 100, 5)
    assert (broken.status, broken.percent(MONTH)) == ("stepped_back", 0)
    assert broken_from < broken.since < broken_from + timedelta(days=1)


@pytest.mark.slow
def test_canaries_at_their_limit_step_back_in_one_of_twenty_at_most() -> None:
    quick = Canary(model="p/new", steps=(50, 100), step_s=86_400, calls_min=30)
    ended = [
        simulated(quick, lambda _: 0.02, seed=seed, days=4, calls_an_hour=20)[0].status for seed in range(100)
    ]
    assert ended.count("stepped_back") <= 100 * 0.05


@pytest.mark.parametrize(
    ("experiment", "field"),
    [
        (Experiment(), "experiment"),
        (Experiment(arms=(Arm(model="p/a", percent=50),)), "experiment.arms"),
        (Experiment(arms=(Arm(model="p/a", percent=50), Arm(model="p/b", percent=40))), "experiment.arms"),
        (Experiment(arms=(Arm(model="p/a", percent=50), Arm(model="p/a", percent=50))), "experiment.arms[1].name"),
        (Experiment(arms=(Arm(model="p/a", percent=50), Arm(model="p/c", percent=50))), "experiment.arms[1].model"),
        (Experiment(canary=Canary(model="p/c")), "experiment.canary.model"),
        (Experiment(canary=Canary(model="p/a", steps=(5, 5))), "experiment.canary.steps"),
        (Experiment(canary=Canary(model="p/a", steps=(5, 101))), "experiment.canary.steps"),
        (Experiment(canary=Canary(model="p/a", step_s=float("nan"))), "experiment.canary.step_s"),
        (Experiment(canary=Canary(model="p/a", error_rate_max=None)), "experiment.canary.error_rate_max"),
        (Experiment(shadows=(Shadow(model="gpt"),)), "experiment.shadows[0].model"),
        (Experiment(shadows=(Shadow(model="p/c", percent=0),)), "experiment.shadows[0].percent"),
    ],
)  # fmt: skip
def test_what_is_declared_wrongly_is_refused_where_it_stands(experiment: Experiment, field: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check(Route(name="smart", models=("p/a", "p/b"), experiment=experiment))
    assert refused.value.field == field
