"""Two years of one rule: sell what is there, look once a week, order when too little is there or on its way.

Stock at the end is stock at the start, plus what came in, minus what was sold, plus what counting corrected; a test
holds it to that. What goes wrong is given as `Disturbances`; which ones there are is decided in `situations.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from retail_world import FIRST_DAY, HISTORY_DAYS, SEED
from retail_world.catalogue import Stocked
from retail_world.demand import Counts, Demand, Numbers

AHEAD_DAYS: Final = 160
"""How far past the history a delivery can be planned."""

REVIEW_DAYS: Final = 7
POLICY_EVERY_DAYS: Final = 42
POLICY_LAST_DAY: Final = HISTORY_DAYS - 50
"""Reorder points are computed anew every six weeks from the four weeks before; this is the last time it was done."""
POLICY_WINDOW_DAYS: Final = 28

SAFETY_SIGMAS: Final = 2.2
SAFETY_LEVEL_SHARE: Final = 0.3
"""Safety stock also covers that the level of demand is itself known only roughly."""

# What happens to a whole order: how late it is (days, share), how much of it the supplier has, whether it is split.
LATENESS: Final = (
    (-2, 0.12),
    (-1, 0.2),
    (0, 0.34),
    (1, 0.16),
    (2, 0.08),
    (4, 0.05),
    (6, 0.03),
    (9, 0.015),
    (13, 0.005),
)
SHORT_SHARE: Final = 0.04
SPLIT_SHARE: Final = 0.10
SPLIT_AFTER_DAYS: Final = 9


class Delivery(NamedTuple):
    """Part of an ordered line. Days count from the first of the history."""

    units: int
    departs: int
    due: int
    arrives: int | None
    """None: nobody can say when."""
    trouble: str | None = None
    """A key of `shipping.TROUBLES` when it did not go as planned for a reason of its own."""


class OrderLine(NamedTuple):
    row: int
    ordered_day: int
    ordered: int
    confirmed: int
    deliveries: tuple[Delivery, ...]
    alone: bool = False
    """Ordered by itself and shared with no other product's order."""


class Hold(NamedTuple):
    """Deliveries that would arrive from `first_day` on are in trouble, and arrive on `arrives` if at all."""

    first_day: int
    trouble: str
    arrives: int | None
    departs: int | None = None
    """When the trouble is that it has not even left: the day on which it is to leave now."""


@dataclass(frozen=True)
class Disturbances:
    holds: Mapping[int, Hold] = field(default_factory=dict)
    scripted: tuple[OrderLine, ...] = ()
    stopped: Mapping[int, int] = field(default_factory=dict)
    """By row: the day from which no orders are made by rule."""
    emptied: Mapping[int, int] = field(default_factory=dict)
    """By row: the day of a count that found nothing on the shelf."""
    unsold: Mapping[int, int] = field(default_factory=dict)
    """By row: the day from which stock is on the books but cannot be sold."""


@dataclass(frozen=True)
class Stock:
    """Arrays are pairs x days, or one value a pair as of the end."""

    opening: Counts
    receipts: Counts
    sales: Counts
    corrections: Counts
    on_hand: Counts
    reorder_point: Counts
    safety_stock: Counts
    lines: tuple[OrderLine, ...]


def lead_days(pair: Stocked) -> int:
    return pair.supplier.lead_time_days


def transit_days(pair: Stocked) -> int:
    """The part of the lead time that the goods are on their way."""
    if pair.supplier.region == pair.center.region and pair.center.region != "asia":
        return 3
    if pair.supplier.lead_time_days < 18:
        return 4
    return round(pair.supplier.lead_time_days * 0.6)


class _Luck(NamedTuple):
    """Groups (supplier, center) x days: what is in store for an order made then."""

    late: Counts
    filled: Numbers
    split: Counts


def simulate(pairs: tuple[Stocked, ...], demand: Demand, disturbances: Disturbances) -> Stock:
    run = _Run(pairs, demand, disturbances)
    for day in range(HISTORY_DAYS):
        run.live(day)
    return Stock(
        opening=run.opening,
        receipts=run.receipts[:, :HISTORY_DAYS],
        sales=run.sales,
        corrections=run.corrections,
        on_hand=run.on_hand,
        reorder_point=run.reorder_point,
        safety_stock=run.safety_stock,
        lines=tuple(run.lines),
    )


class _Run:
    """One pass over the history; every step changes all pairs at once."""

    def __init__(self, pairs: tuple[Stocked, ...], demand: Demand, disturbances: Disturbances) -> None:
        count = len(pairs)
        self.pairs, self.demand, self.disturbances = pairs, demand, disturbances
        self.lead = np.array([lead_days(pair) for pair in pairs], dtype=np.int64)
        self.carton = np.array([pair.product.carton for pair in pairs], dtype=np.int64)
        groups = sorted({(pair.supplier.supplier_id, pair.center.code) for pair in pairs})
        index = {group: number for number, group in enumerate(groups)}
        self.group = np.array(
            [index[pair.supplier.supplier_id, pair.center.code] for pair in pairs], dtype=np.int64
        )
        self.luck = _draw_luck(len(groups))
        self.stopped = np.full(count, HISTORY_DAYS + 1, dtype=np.int64)
        for row, day in disturbances.stopped.items():
            self.stopped[row] = day
        self.unsold = np.full(count, HISTORY_DAYS + 1, dtype=np.int64)
        for row, day in disturbances.unsold.items():
            self.unsold[row] = day
        self.sales = np.zeros((count, HISTORY_DAYS), dtype=np.int64)
        self.corrections = np.zeros_like(self.sales)
        self.receipts = np.zeros((count, HISTORY_DAYS + AHEAD_DAYS), dtype=np.int64)
        self.outstanding = np.zeros(count, dtype=np.int64)
        self.safety_stock, self.reorder_point, self.quantity = np.zeros((3, count), dtype=np.int64)
        self.lines: list[OrderLine] = []
        self._set_policy(0)
        self.opening = np.where(demand.listed_from == 0, self.reorder_point + self.quantity // 2, 0).astype(
            np.int64
        )
        self.on_hand = self.opening.copy()

    def live(self, day: int) -> None:
        if (POLICY_LAST_DAY - day) % POLICY_EVERY_DAYS == 0 and POLICY_WINDOW_DAYS <= day <= POLICY_LAST_DAY:
            self._set_policy(day)
        self._list_new(day)
        self.on_hand += self.receipts[:, day]
        self.outstanding -= self.receipts[:, day]
        for row in (row for row, counted in self.disturbances.emptied.items() if counted == day):
            self.corrections[row, day] = -self.on_hand[row]
            self.on_hand[row] = 0
        wanted = np.where(self.unsold <= day, 0, self.demand.units[:, day])
        self.sales[:, day] = np.minimum(wanted, self.on_hand)
        self.on_hand -= self.sales[:, day]
        for line in self.disturbances.scripted:
            if line.ordered_day == day:
                self._book(line)
        self._order(day)

    def _set_policy(self, day: int) -> None:
        """Reorder point, safety stock and order quantity from the weeks before `day` (at the start: those after)."""
        window = slice(day - POLICY_WINDOW_DAYS, day) if day else slice(0, POLICY_WINDOW_DAYS)
        mean = self.demand.mean[:, window].mean(axis=1)
        cover = self.lead + REVIEW_DAYS
        noise = np.sqrt(cover * (mean + mean**2 / 20.0))
        safety = SAFETY_SIGMAS * noise + SAFETY_LEVEL_SHARE * mean * cover
        cycle = np.where(self.lead < 20, 28, 42)
        cartons = np.maximum(np.ceil(mean * cycle / self.carton), 1).astype(np.int64)
        # A product without a whole window behind it keeps the plan that it was listed with.
        known = self.demand.listed_from <= max(window.start, 0)
        self.safety_stock[known] = np.ceil(safety)[known]
        self.reorder_point[known] = np.ceil(mean * cover + safety)[known]
        self.quantity[known] = (cartons * self.carton)[known]

    def _list_new(self, day: int) -> None:
        """A newly listed product has no past: its policy comes from the buyer's plan, and a first load is there."""
        rows = np.flatnonzero((self.demand.listed_from == day) & (day > 0))
        if not len(rows):
            return
        plan = self.demand.mean[rows, day : day + POLICY_WINDOW_DAYS].mean(axis=1)
        cover = self.lead[rows] + REVIEW_DAYS
        self.safety_stock[rows] = np.ceil(0.6 * plan * cover)
        self.reorder_point[rows] = np.ceil(plan * cover) + self.safety_stock[rows]
        self.quantity[rows] = np.maximum(np.ceil(plan * 42 / self.carton[rows]), 1) * self.carton[rows]
        self.receipts[rows, day] += self.reorder_point[rows] + self.quantity[rows]
        self.outstanding[rows] += self.receipts[rows, day]

    def _order(self, day: int) -> None:
        weekday = (FIRST_DAY.weekday() + day) % 7
        due = (self.group % 5 == weekday) & (self.demand.listed_from <= day) & (self.stopped > day)
        for row in np.flatnonzero(due & (self.on_hand + self.outstanding <= self.reorder_point)):
            self._book(self._line(int(row), day))

    def _line(self, row: int, day: int) -> OrderLine:
        group, carton = self.group[row], int(self.carton[row])
        missing = int(self.reorder_point[row] - self.on_hand[row] - self.outstanding[row])
        units = int(self.quantity[row]) + max(missing, 0) // carton * carton
        confirmed = max(int(units * self.luck.filled[group, day]) // carton, 1) * carton
        late = int(self.luck.late[group, day])
        arrival = day + int(self.lead[row])
        departs = arrival - transit_days(self.pairs[row])
        parts = [confirmed]
        if self.luck.split[group, day] and confirmed >= 4 * carton:
            parts = [confirmed // carton // 2 * carton]
            parts.append(confirmed - parts[0])
        deliveries = []
        for number, part in enumerate(parts):
            wait = number * SPLIT_AFTER_DAYS
            plan = Delivery(part, departs + wait, arrival + wait, arrival + wait + late)
            deliveries.append(self._disturbed(row, plan))
        alone = row in self.disturbances.holds
        return OrderLine(row, day, units, confirmed, tuple(deliveries), alone)

    def _disturbed(self, row: int, plan: Delivery) -> Delivery:
        hold = self.disturbances.holds.get(row)
        if hold is None or plan.arrives is None or not hold.first_day <= plan.arrives < HISTORY_DAYS + 2:
            return plan
        return plan._replace(arrives=hold.arrives, departs=hold.departs or plan.departs, trouble=hold.trouble)

    def _book(self, line: OrderLine) -> None:
        self.lines.append(line)
        for delivery in line.deliveries:
            self.outstanding[line.row] += delivery.units
            if delivery.arrives is not None and delivery.arrives < self.receipts.shape[1]:
                self.receipts[line.row, delivery.arrives] += delivery.units


def _draw_luck(groups: int) -> _Luck:
    rng = np.random.RandomState(SEED + 2)
    shape = (groups, HISTORY_DAYS)
    days, shares = zip(*LATENESS, strict=True)
    late = rng.choice(np.array(days), size=shape, p=np.array(shares))
    short = rng.uniform(size=shape) < SHORT_SHARE
    filled = np.where(short, rng.uniform(0.6, 0.92, size=shape), 1.0)
    split = rng.uniform(size=shape) < SPLIT_SHARE
    return _Luck(late.astype(np.int64), filled, split.astype(np.int64))
