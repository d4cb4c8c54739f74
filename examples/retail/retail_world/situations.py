"""What is out of the ordinary in the weeks before the day on which everything is told.

A situation changes demand or deliveries and never an outcome: that a shelf is empty follows in `stock.py`. Each is one
cause; several of them meet only at the power bank in Shanghai. Rows are chosen where the ordinary course of things,
simulated first, would have been saved by a delivery that now does not come, or by demand that now is not ordinary.
"""

import random
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from retail_world import HISTORY_DAYS, SEED
from retail_world.catalogue import POWER_BANK, Stocked
from retail_world.demand import Counts, Demand, Surge, with_surges
from retail_world.stock import Delivery, Disturbances, Hold, OrderLine, Stock, simulate, transit_days

Kind: TypeAlias = Literal[
    "power_bank", "customs", "late_supplier", "lost", "transport", "spike", "promotion", "count", "allocation", "discontinued"
]  # fmt: skip

HELD: Final[dict[Kind, int]] = {"customs": 2, "late_supplier": 5, "lost": 3, "transport": 5}
SPIKES: Final[dict[Kind, int]] = {"spike": 3, "promotion": 2}
COUNTS_WRONG: Final = 4
ALLOCATIONS: Final = 3
DISCONTINUED_SKUS: Final = 3
DISCONTINUED_DAY: Final = HISTORY_DAYS - 150

MEAN_UNITS_MIN: Final = 2.5
"""Below this many a day nobody would have noticed by now."""

HELD_WINDOW: Final = (HISTORY_DAYS - 26, HISTORY_DAYS - 4)
SPIKE_DAY: Final = HISTORY_DAYS - 18
QUIET_FROM: Final = HISTORY_DAYS - 18
"""A count or an allocation shows only where no delivery came in after it."""


@dataclass(frozen=True)
class World:
    pairs: tuple[Stocked, ...]
    demand: Demand
    stock: Stock
    disturbances: Disturbances
    reserved: Counts
    discontinued: frozenset[str]
    kinds: dict[int, Kind]
    """Which row is in which situation: for tests, and written nowhere."""


@dataclass(frozen=True)
class _Ordinary:
    """The course of things without situations, and what was chosen from it so far."""

    pairs: tuple[Stocked, ...]
    demand: Demand
    on_hand: Counts
    receipts: Counts
    kinds: dict[int, Kind]
    rng: random.Random

    def free(self, row: int) -> bool:
        recent = self.demand.mean[row, -30:].mean()
        old = self.demand.listed_from[row] < HISTORY_DAYS - 200
        return bool(
            row not in self.kinds
            and recent >= MEAN_UNITS_MIN
            and old
            and self.pairs[row].product.sku != POWER_BANK.sku
        )

    def choose(self, rows: list[int], kind: Kind, count: int) -> list[int]:
        chosen = sorted(self.rng.sample([row for row in rows if self.free(row)], count))
        self.kinds.update(dict.fromkeys(chosen, kind))
        return chosen


def make_world(pairs: tuple[Stocked, ...], ordinary_demand: Demand) -> World:
    ordinary = _ordinary(pairs, ordinary_demand)
    discontinued, stopped = _discontinue(ordinary)
    holds = _hold(ordinary)
    surges = _surge(ordinary)
    emptied, unsold = _miscount(ordinary)
    allocated = _allocate(ordinary)
    row, surge, lines = _power_bank(pairs)
    ordinary.kinds[row] = "power_bank"
    stopped[row] = lines[0].ordered_day
    disturbances = Disturbances(
        holds=holds,
        scripted=lines,
        stopped=stopped,
        emptied=emptied,
        unsold={**unsold, **allocated},
    )
    demand = with_surges(ordinary_demand, (*surges, surge))
    stock = simulate(pairs, demand, disturbances)
    reserved = _reserved(stock.on_hand, demand, allocated)
    return World(
        pairs, demand, stock, disturbances, reserved, discontinued, dict(sorted(ordinary.kinds.items()))
    )


def _ordinary(pairs: tuple[Stocked, ...], demand: Demand) -> _Ordinary:
    stock = simulate(pairs, demand, Disturbances())
    on_hand = stock.opening[:, None] + np.cumsum(stock.receipts - stock.sales, axis=1)
    return _Ordinary(pairs, demand, on_hand, stock.receipts, {}, random.Random(SEED + 4))


def _discontinue(ordinary: _Ordinary) -> tuple[frozenset[str], dict[int, int]]:
    rows = [row for row in range(len(ordinary.pairs)) if ordinary.pairs[row].supplier.lead_time_days < 30]
    skus = frozenset(
        ordinary.pairs[row].product.sku for row in ordinary.choose(rows, "discontinued", DISCONTINUED_SKUS)
    )
    stopped = {row: DISCONTINUED_DAY for row, pair in enumerate(ordinary.pairs) if pair.product.sku in skus}
    ordinary.kinds.update(dict.fromkeys(stopped, "discontinued"))
    return skus, stopped


def _hold(ordinary: _Ordinary) -> dict[int, Hold]:
    """Rows that one delivery of the last weeks kept from running out: it does not come."""
    first, last = HELD_WINDOW
    came = np.cumsum(ordinary.receipts[:, first:], axis=1)
    without = ordinary.on_hand[:, first:] - came
    saved = (ordinary.receipts[:, first:last].sum(axis=1) > 0) & (without[:, : last - first + 1] < 0).any(
        axis=1
    )
    holds: dict[int, Hold] = {}
    for kind, count in HELD.items():
        abroad = [int(row) for row in np.flatnonzero(saved) if _suits(kind, ordinary.pairs[row])]
        for row in ordinary.choose(abroad, kind, count):
            holds[row] = _held(kind, row, first + int(np.flatnonzero(came[row])[0]), ordinary)
    return holds


def _suits(kind: Kind, pair: Stocked) -> bool:
    return kind != "customs" or pair.supplier.country != pair.center.country


def _held(kind: Kind, row: int, first_day: int, ordinary: _Ordinary) -> Hold:
    match kind:
        case "transport":
            return Hold(first_day, kind, HISTORY_DAYS + ordinary.rng.randint(1, 4))
        case "late_supplier":
            departs = HISTORY_DAYS + ordinary.rng.randint(3, 12)
            return Hold(first_day, kind, departs + transit_days(ordinary.pairs[row]), departs)
        case _:
            return Hold(first_day, kind, None)


def _surge(ordinary: _Ordinary) -> list[Surge]:
    """Rows without a delivery in the last weeks: just so much more is bought that what is there runs out."""
    quiet = ordinary.receipts[:, SPIKE_DAY:].sum(axis=1) == 0
    expected = ordinary.demand.units[:, SPIKE_DAY : HISTORY_DAYS - 4].sum(axis=1)
    factor = 1.15 * ordinary.on_hand[:, SPIKE_DAY - 1] / np.maximum(expected, 1)
    rows = [int(row) for row in np.flatnonzero(quiet & (factor > 1.8) & (factor < 3.4))]
    surges = []
    for kind, count in SPIKES.items():
        for row in ordinary.choose(rows, kind, count):
            discount = 20 if kind == "promotion" else 0
            surges.append(Surge(row, SPIKE_DAY, float(factor[row]), discount))
    return surges


def _miscount(ordinary: _Ordinary) -> tuple[dict[int, int], dict[int, int]]:
    """The books have stock that the shelf has not: nothing is sold for days, then somebody counts."""
    emptied = {}
    for row in ordinary.choose(_quiet(ordinary), "count", COUNTS_WRONG):
        emptied[row] = HISTORY_DAYS - ordinary.rng.randint(4, 8)
    return emptied, {row: day - ordinary.rng.randint(5, 9) for row, day in emptied.items()}


def _allocate(ordinary: _Ordinary) -> dict[int, int]:
    rows = ordinary.choose(_quiet(ordinary), "allocation", ALLOCATIONS)
    return {row: HISTORY_DAYS - ordinary.rng.randint(4, 8) for row in rows}


def _quiet(ordinary: _Ordinary) -> list[int]:
    quiet = (ordinary.receipts[:, QUIET_FROM:].sum(axis=1) == 0) & (ordinary.on_hand[:, -1] > 30)
    return [int(row) for row in np.flatnonzero(quiet)]


def _reserved(on_hand: Counts, demand: Demand, allocated: dict[int, int]) -> Counts:
    """Everywhere a little is promised to orders being packed; where it was allocated, all of it."""
    rng = np.random.RandomState(SEED + 5)
    packing = rng.poisson(demand.mean[:, -1] * 0.3)
    reserved = np.minimum(packing, on_hand // 2)
    rows = list(allocated)
    reserved[rows] = on_hand[rows]
    return np.asarray(reserved, dtype=np.int64)


def _power_bank(pairs: tuple[Stocked, ...]) -> tuple[int, Surge, tuple[OrderLine, ...]]:
    row = next(
        row
        for row, pair in enumerate(pairs)
        if pair.product.sku == POWER_BANK.sku and pair.center.code == "SHA"
    )
    day = HISTORY_DAYS
    surge = Surge(row, day - 34, 2.05)
    earlier = OrderLine(
        row, day - 89, 2832, 2832, (Delivery(2832, day - 76, day - 56, day - 57),), alone=True
    )
    parts = (
        Delivery(2400, day - 41, day - 21, None, "certificate"),
        Delivery(960, day + 5, day + 25, day + 25),
    )
    return row, surge, (earlier, OrderLine(row, day - 54, 4800, 3360, parts, alone=True))
