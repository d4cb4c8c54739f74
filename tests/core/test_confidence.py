"""Intervals that hold at every look: rates of false alarms over many experiments without a difference, each looked at after every
observation; and that a difference is found in the end."""

import random
from math import log

import pytest
from bench.experiments import MEASURES, false_alarms
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.confidence import ALPHA, MEANS_FROM, Mean, Proportion, difference, worse_than


@pytest.mark.slow
@pytest.mark.parametrize("measure", MEASURES)
def test_no_more_than_one_in_twenty_errs_however_often_it_is_looked_at(measure):
    """`python bench/experiments.py` prints these figures, of 2,000 experiments each."""
    assert false_alarms(MEASURES[measure], experiments=200)[0] <= ALPHA


def test_an_ordinary_interval_would_err_far_more_often():
    ours, ordinary = false_alarms(MEASURES["score (0 or 1)"], experiments=60, looks=300)
    assert ours <= ALPHA
    assert ordinary > 0.15


@settings(max_examples=12)
@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_a_difference_of_rates_is_decided_where_its_interval_leaves_zero_out(
    count: int, others: int, data: st.DataObject
) -> None:
    a = Proportion(count, data.draw(st.integers(0, count)))
    b = Proportion(others, data.draw(st.integers(0, others)))
    found = difference(a, b)
    assert found.interval.low <= found.estimate <= found.interval.high
    assert found.decided == (a.together(b, 0.0) >= log(1 / ALPHA))
    back = difference(b, a)
    assert back.interval.low == pytest.approx(-found.interval.high, abs=1e-6)
    assert back.decided == found.decided


def test_two_arms_are_told_apart_sooner_than_by_intervals_that_do_not_meet():
    a, b = Proportion(1000, 20), Proportion(1000, 60)
    assert difference(a, b).decided
    assert a.interval(ALPHA / 2).high > b.interval(ALPHA / 2).low


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
