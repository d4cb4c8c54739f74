"""What customers would buy, day by day, if the shelf were never empty.

Each (product, center) has a level, a trend, the seasons of the week and the year, promotions, a slow drift and
overdispersed noise. What was really sold is decided in `stock.py`.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from retail_world import FIRST_DAY, HISTORY_DAYS, SEED
from retail_world.catalogue import CATEGORIES, POWER_BANK, Stocked

Numbers = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

PROMOTIONS_A_YEAR: Final = 4
PROMOTION_DAYS: Final = (6, 11)
PROMOTION_DISCOUNTS: Final = (10, 15, 20, 25)
QUIET_DAYS: Final = 90
NEW_SHARE: Final = 0.10
"""Share of pairs that were listed after the history began."""

_POWER_BANK_LEVEL: Final = {"SHA": 44.0, "SIN": 17.0, "RTM": 23.0, "LAX": 29.0}


class Demand(NamedTuple):
    """Arrays of pairs x days, in the order of the pairs given."""

    units: Counts
    mean: Numbers
    discount_percent: Counts
    listed_from: Counts
    """Per pair: the first day on which the center kept the product."""


def make_demand(pairs: tuple[Stocked, ...]) -> Demand:
    # RandomState and not Generator: its streams are frozen, so every numpy makes the same data (NEP 19).
    rng = np.random.RandomState(SEED)
    count = len(pairs)
    level = np.clip(np.exp(rng.normal(2.0, 0.95, count)), 0.15, 95.0)
    for row, pair in enumerate(pairs):
        if pair.product.sku == POWER_BANK.sku:
            level[row] = _POWER_BANK_LEVEL[pair.center.code]
    days = np.arange(HISTORY_DAYS)
    growth = rng.normal(0.04, 0.10, count)[:, None] * ((days - HISTORY_DAYS) / 365.25)
    drift = np.cumsum(rng.normal(0.0, 0.006, (count, HISTORY_DAYS)), axis=1)
    drift -= drift.mean(axis=1, keepdims=True)
    discount = _promotions(pairs, rng)
    lift = 1.0 + discount / 100.0 * rng.uniform(2.5, 5.0, count)[:, None]
    mean = level[:, None] * np.exp(growth + drift) * _week(pairs) * _year(pairs) * lift
    listed_from = _listed_from(pairs, rng)
    mean[days < listed_from[:, None]] = 0.0
    dispersion = rng.uniform(14.0, 40.0, count)[:, None]
    units = rng.poisson(mean * rng.gamma(dispersion, 1.0 / dispersion, mean.shape))
    return Demand(units.astype(np.int64), mean, discount, listed_from)


class Surge(NamedTuple):
    """From `first_day` to the end, a pair's customers want `factor` times as much."""

    row: int
    first_day: int
    factor: float
    discount_percent: int = 0
    """Other than 0: it comes from a promotion, which the sales history shows."""


def with_surges(demand: Demand, surges: Iterable[Surge]) -> Demand:
    rng = np.random.RandomState(SEED + 3)
    units, mean, discount = demand.units.copy(), demand.mean.copy(), demand.discount_percent.copy()
    for surge in surges:
        days = slice(surge.first_day, None)
        units[surge.row, days] += rng.poisson(demand.mean[surge.row, days] * (surge.factor - 1.0))
        mean[surge.row, days] *= surge.factor
        discount[surge.row, days] = surge.discount_percent
    return demand._replace(units=units, mean=mean, discount_percent=discount)


def _week(pairs: tuple[Stocked, ...]) -> Numbers:
    """Monday to Sunday around 1.0, stretched over the history."""
    weekend = {category.name: category.weekend for category in CATEGORIES}
    saturday = np.array([weekend[pair.product.category] for pair in pairs])[:, None]
    shape = 1.0 + (saturday - 1.0) * np.array([0.05, 0.0, 0.05, 0.2, 0.6, 1.0, 0.8])
    shape /= shape.mean(axis=1, keepdims=True)
    weekdays = (FIRST_DAY.weekday() + np.arange(HISTORY_DAYS)) % 7
    return np.asarray(shape[:, weekdays], dtype=np.float64)


def _year(pairs: tuple[Stocked, ...]) -> Numbers:
    """A cosine with its top in the middle of the category's peak month; half a year later south of the equator."""
    categories = {category.name: category for category in CATEGORIES}
    rows = [categories[pair.product.category] for pair in pairs]
    swing = np.array([row.swing for row in rows])[:, None]
    peak = np.array([(row.peak_month - 0.5) * 30.44 for row in rows])[:, None]
    # Christmas is in December everywhere; only what the weather drives turns round.
    turned = np.array([
        182.6 if pair.center.southern and row.peak_month in range(4, 8) else 0.0
        for pair, row in zip(pairs, rows, strict=True)
    ])[:, None]
    day_of_year = FIRST_DAY.timetuple().tm_yday + np.arange(HISTORY_DAYS)
    return np.asarray(
        1.0 + swing * np.cos(2 * np.pi * (day_of_year - peak - turned) / 365.25), dtype=np.float64
    )


def _promotions(pairs: tuple[Stocked, ...], rng: np.random.RandomState) -> Counts:
    """A center promotes a category for a week or so; about half of its products take part."""
    discount = np.zeros((len(pairs), HISTORY_DAYS), dtype=np.int64)
    shelves: dict[tuple[str, str], list[int]] = {}
    for row, pair in enumerate(pairs):
        shelves.setdefault((pair.center.code, pair.product.category), []).append(row)
    for rows in shelves.values():
        for _ in range(PROMOTIONS_A_YEAR * HISTORY_DAYS // 365):
            first = rng.randint(0, HISTORY_DAYS - 30)
            last = first + rng.randint(*PROMOTION_DAYS)
            percent = rng.choice(PROMOTION_DISCOUNTS)
            for row in rows:
                if rng.uniform() < 0.5:
                    discount[row, first:last] = percent
    # What moved the power bank's demand of late must not hide behind a promotion.
    discount[[pair.product.sku == POWER_BANK.sku for pair in pairs], -QUIET_DAYS:] = 0
    return discount


def _listed_from(pairs: tuple[Stocked, ...], rng: np.random.RandomState) -> Counts:
    new = rng.uniform(size=len(pairs)) < NEW_SHARE
    first = np.where(new, rng.randint(60, HISTORY_DAYS - 25, len(pairs)), 0)
    first[[pair.product.sku == POWER_BANK.sku for pair in pairs]] = 0
    return np.asarray(first, dtype=np.int64)
