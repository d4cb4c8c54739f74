"""Intervals that hold at every look: rates of false alarms over many experiments without a difference, each looked at after every
observation; and that a difference is found in the end."""

import random
from math import exp

import pytest

from freehold.core.confidence import MEANS_FROM, Mean, Proportion, difference, worse_than

EXPERIMENTS = 2000
ALPHA = 0.05


def ever_decided(draw, kind, chance: random.Random, looks: int) -> bool:
    """One experiment of two arms with the same truth, looked at after every observation."""
    a, b = kind(), kind()
    for _ in range(looks):
        (a if chance.random() < 0.5 else b).add(draw(chance))
        if a.count and b.count and difference(a, b, ALPHA).decided:
            return True
    return False


def false_alarms(draw, kind, *, experiments: int, looks: int) -> float:
    chance = random.Random(20261121)
    return sum(ever_decided(draw, kind, chance, looks) for _ in range(experiments)) / experiments


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_no_more_than_one_in_twenty_errs_on_rates_however_often_it_is_looked_at(rate):
    found = false_alarms(
        lambda chance: chance.random() < rate, Proportion, experiments=EXPERIMENTS, looks=200
    )
    print(f"false alarms on a rate of {rate}: {found:.2%} of {EXPERIMENTS}")
    assert found <= ALPHA


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("latency", lambda chance: chance.lognormvariate(0.0, 0.8)),
        ("cost", lambda chance: exp(chance.gauss(-3.0, 0.5))),
        ("score", lambda chance: float(chance.random() < 0.7)),
    ],
)
def test_no_more_than_one_in_twenty_errs_on_means_however_often_it_is_looked_at(name, draw):
    found = false_alarms(draw, Mean, experiments=EXPERIMENTS, looks=250)
    print(f"false alarms on {name}: {found:.2%} of {EXPERIMENTS}")
    assert found <= ALPHA


def test_an_ordinary_interval_would_err_far_more_often():
    """What this is for: the same looks with 1.96 standard errors."""

    class Ordinary(Mean):
        def interval(self, alpha: float = ALPHA):
            from freehold.core.confidence import Interval

            if self.count < 10:
                return Interval(-1e9, 1e9)
            radius = 1.96 * (self.variance / self.count) ** 0.5 / 2**0.5
            return Interval(self.estimate - radius, self.estimate + radius)

    assert false_alarms(lambda chance: chance.gauss(0, 1), Ordinary, experiments=100, looks=400) > 0.2


def test_a_difference_is_found_in_the_end():
    chance = random.Random(1)
    good, bad = Proportion(), Proportion()
    for _ in range(2000):
        good.add(chance.random() < 0.02)
        bad.add(chance.random() < 0.08)
    found = difference(good, bad)
    assert found.decided
    assert found.interval.low > 0
    assert found.interval.low <= 0.06 <= found.interval.high


def test_the_interval_of_a_rate_holds_the_estimate_and_narrows():
    rate = Proportion()
    widths = []
    for place in range(400):
        rate.add(place % 10 == 0)
        interval = rate.interval()
        assert 0 <= interval.low <= rate.estimate <= interval.high <= 1
        widths.append(interval.high - interval.low)
    assert widths[-1] < widths[40] < widths[0]


def test_a_mean_says_nothing_before_it_can():
    mean = Mean()
    for place in range(MEANS_FROM - 1):
        mean.add(float(place))
    assert mean.interval().high == float("inf")
    mean.add(1.0)
    assert mean.interval().high < 1e6
    with pytest.raises(ValueError, match="finite"):
        mean.add(float("nan"))


def test_a_rate_is_worse_only_once_it_is_certain():
    rate = Proportion()
    for _ in range(3):
        rate.add(True)
    assert not worse_than(rate, 0.5)
    for _ in range(20):
        rate.add(True)
    assert worse_than(rate, 0.5)
