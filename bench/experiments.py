"""Whether experiments may be believed: `python bench/experiments.py [--experiments N]`. Simulated; asks nobody, needs no database.

A month of traffic with a canary that is sound, and one that breaks after five days. Then experiments of two arms between which there
is no difference, each looked at after every observation: how many say at any look that there is one; and how soon one is found.
"""

import argparse
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from math import exp, log, sqrt
from statistics import median
from typing import Final, TypeAlias

from msgspec import Struct

from freehold.core.confidence import ALPHA, Mean, Proportion, difference
from freehold.core.experiments import CANARY, Canary, CanaryState, Experiment, Seen, assigned, judged

START: Final = datetime(2026, 11, 1, tzinfo=UTC)
MONTH: Final = Canary(model="p/new", step_s=2 * 86_400, calls_min=30)
SEED: Final = 20261121
LOOKS: Final = 400
LONG: Final = 20_000
ORDINARY_FROM: Final = 10
Draw: TypeAlias = Callable[[random.Random], float]


class Measure(Struct, frozen=True):
    """What one observation of each arm is, and what adds them up."""

    kind: type[Proportion] | type[Mean]
    a: Draw
    b: Draw

    @staticmethod
    def same(kind: type[Proportion] | type[Mean], draw: Draw) -> "Measure":
        return Measure(kind, draw, draw)


MEASURES: Final[Mapping[str, Measure]] = {
    "errors, 2 %": Measure.same(Proportion, lambda chance: chance.random() < 0.02),
    "errors, 30 %": Measure.same(Proportion, lambda chance: chance.random() < 0.3),
    "latency (log-normal)": Measure.same(Mean, lambda chance: chance.lognormvariate(0.0, 0.8)),
    "cost (log-normal)": Measure.same(Mean, lambda chance: exp(chance.gauss(-3.0, 0.5))),
    "score, mostly 1": Measure.same(Mean, lambda chance: float(chance.random() < 0.95)),
    "score (0 or 1)": Measure.same(Mean, lambda chance: float(chance.random() < 0.7)),
}
DIFFERENT: Final[Mapping[str, Measure]] = {
    "errors, 2 % and 6 %": Measure(
        Proportion, lambda chance: chance.random() < 0.02, lambda chance: chance.random() < 0.06
    ),
    "latency, 20 % more": Measure(
        Mean,
        lambda chance: chance.lognormvariate(0.0, 0.8),
        lambda chance: 1.2 * chance.lognormvariate(0.0, 0.8),
    ),
    "score, 0.7 and 0.8": Measure(
        Mean, lambda chance: float(chance.random() < 0.7), lambda chance: float(chance.random() < 0.8)
    ),
}


class Decided(Struct):
    """After how many observations an experiment said that there is a difference, if it did. `ordinary`: by 95 % intervals that hold at
    one look alone.
    """

    ours: int | None = None
    ordinary: int | None = None


def looked_at(measure: Measure, chance: random.Random, *, looks: int) -> Decided:
    """One experiment, after every observation."""
    a, b, found = measure.kind(), measure.kind(), Decided()
    for number in range(1, looks + 1):
        arm, draw = (a, measure.a) if chance.random() < 0.5 else (b, measure.b)
        arm.add(draw(chance))  # type: ignore[arg-type]  # a rate's draws are truths
        if a.count < ORDINARY_FROM or b.count < ORDINARY_FROM:
            continue
        if found.ordinary is None and _differ_ordinarily(a, b):
            found.ordinary = number
        if found.ours is None and _differ(a, b):
            found.ours = number
        if found.ours and found.ordinary:
            break
    return found


def _differ(a: Proportion | Mean, b: Proportion | Mean) -> bool:
    """As `difference` has it, but not how large it is, for that takes a rate a thousand times as long."""
    if isinstance(a, Proportion) and isinstance(b, Proportion):
        return a.together(b, 0.0) >= log(1 / ALPHA)
    return difference(a, b, ALPHA).decided


def _differ_ordinarily(a: Proportion | Mean, b: Proportion | Mean) -> bool:
    spread = sqrt(_variance(a) / a.count + _variance(b) / b.count)
    return spread > 0 and abs(a.estimate - b.estimate) > 1.96 * spread


def _variance(one: Proportion | Mean) -> float:
    return one.estimate * (1 - one.estimate) if isinstance(one, Proportion) else one.variance


def false_alarms(measure: Measure, *, experiments: int, looks: int = LOOKS) -> tuple[float, float]:
    """The share of experiments that ever found a difference where there is none: ours, and by ordinary intervals."""
    chance = random.Random(SEED)
    found = [looked_at(measure, chance, looks=looks) for _ in range(experiments)]
    ours, ordinary = (
        sum(one is not None for one in times)
        for times in zip(*((one.ours, one.ordinary) for one in found), strict=True)
    )
    return ours / experiments, ordinary / experiments


def simulated(
    canary: Canary,
    error_rate: Callable[[datetime], float],
    *,
    seed: int,
    days: int = 30,
    calls_an_hour: int = 100,
) -> tuple[CanaryState, list[str], int]:
    """Looked at after each of the canary's calls. How it ended, its steps, and how many errors clients saw."""
    chance, experiment = random.Random(seed), Experiment(canary=canary)
    state, seen = CanaryState("running", 0, START), Seen()
    told: list[str] = []
    errors = 0
    for number in range(days * 24 * calls_an_hour):
        now = START + timedelta(hours=number / calls_an_hour)
        if assigned(experiment, "smart", f"s{number}", state.percent(canary))[0] != CANARY:
            continue
        failed = chance.random() < error_rate(now)
        errors += failed
        seen = Seen(seen.calls + 1, seen.errors + failed)
        if (step := judged(canary, state, seen, now)) is not None:
            state, seen = CanaryState(step.status, step.step, now), Seen()
            told.append(f"{now:%m-%d %H:%M} {step.status} at {state.percent(canary):g} %: {step.reason}")
        if state.status != "running":
            break
    return state, told, errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=2000, metavar="N")
    experiments = parser.parse_args().experiments
    broken_from = START + timedelta(days=5)
    _, up, errors = simulated(MONTH, lambda _: 0.01, seed=1)
    print(
        f"a canary with 1 % of errors, at most 2 % allowed ({errors} errors of its calls):", *up, sep="\n  "
    )
    _, back, errors = simulated(MONTH, lambda now: 0.15 if now > broken_from else 0.005, seed=1)
    print(f"one that breaks on {broken_from:%m-%d} ({errors} errors of its calls):", *back, sep="\n  ")
    print(f"\n{experiments} experiments of two equal arms, looked at after each of {LOOKS} observations:")
    for name, measure in MEASURES.items():
        ours, ordinary = false_alarms(measure, experiments=experiments)
        print(f"  {name:22} {ours:6.2%} erred; {ordinary:.0%} by ordinary 95 % intervals", flush=True)
    print("\nhow soon a difference is found, where there is one (median of 20 experiments):")
    for name, measure in DIFFERENT.items():
        chance = random.Random(SEED)
        found = [looked_at(measure, chance, looks=LONG).ours or LONG for _ in range(20)]
        print(f"  {name:22} after {median(found):,.0f} observations", flush=True)


if __name__ == "__main__":
    main()
