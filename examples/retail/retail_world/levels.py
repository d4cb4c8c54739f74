"""Stock levels as the warehouse system shows them at dawn: one value for each center and product."""

import datetime as dt
import random
from collections.abc import Iterable
from typing import Final

import numpy as np

from retail_world import AS_OF, HISTORY_DAYS, SEED, day_of
from retail_world.records import Movement, StockLevel
from retail_world.situations import World
from retail_world.stock import POLICY_LAST_DAY

DAWN: Final = dt.datetime.combine(AS_OF, dt.time(5, 30), tzinfo=dt.UTC)


def stock_levels(world: World) -> Iterable[tuple[str, StockLevel]]:
    """Keys like `SHA/SKU-4482`, in the order of the pairs."""
    in_transit, on_order = _under_way(world)
    rng = random.Random(SEED + 8)
    for row, pair in enumerate(world.pairs):
        on_hand, reserved = int(world.stock.on_hand[row]), int(world.reserved[row])
        counted = world.disturbances.emptied.get(row, HISTORY_DAYS - rng.randint(3, 160))
        yield (
            f"{pair.center.code}/{pair.product.sku}",
            StockLevel(
                sku=pair.product.sku,
                dc=pair.center.code,
                on_hand=on_hand,
                reserved=reserved,
                available=on_hand - reserved,
                in_transit=in_transit[row],
                on_order=on_order[row],
                reorder_point=int(world.stock.reorder_point[row]),
                safety_stock=int(world.stock.safety_stock[row]),
                policy_set_on=day_of(max(POLICY_LAST_DAY, int(world.demand.listed_from[row]))),
                bin=f"{rng.choice('ABCDEFGH')}{rng.randint(1, 48):02d}-{rng.randint(1, 6)}-{rng.randint(1, 20):02d}",
                last_counted_at=dt.datetime.combine(
                    day_of(counted), dt.time(rng.randint(6, 20)), tzinfo=dt.UTC
                ),
                last_movement=_last_movement(world, row),
                updated_at=DAWN,
            ),
        )


def _under_way(world: World) -> tuple[list[int], list[int]]:
    """Units that left and did not arrive (whatever became of them), and units that are to leave."""
    in_transit, on_order = [0] * len(world.pairs), [0] * len(world.pairs)
    for line in world.stock.lines:
        for delivery in line.deliveries:
            if delivery.departs >= HISTORY_DAYS:
                on_order[line.row] += delivery.units
            elif delivery.arrives is None or delivery.arrives >= HISTORY_DAYS:
                in_transit[line.row] += delivery.units
    return in_transit, on_order


def _last_movement(world: World, row: int) -> Movement | None:
    stock = world.stock
    allocated = world.disturbances.unsold.get(row)
    if allocated is not None and row not in world.disturbances.emptied:
        return Movement("allocation", int(world.reserved[row]), day_of(allocated), f"WHS-{7000 + row}")
    moved = (stock.sales[row] > 0) | (stock.receipts[row] > 0) | (stock.corrections[row] != 0)
    days = np.flatnonzero(moved)
    if not len(days):
        return None
    day = int(days[-1])
    if stock.corrections[row, day]:
        return Movement(
            "cycle_count", int(stock.corrections[row, day]), day_of(day), f"CC-{day_of(day):%y%m%d}-{row:04d}"
        )
    if stock.sales[row, day]:
        return Movement("sale", -int(stock.sales[row, day]), day_of(day), f"DAY-{day_of(day):%y%m%d}")
    return Movement(
        "receipt", int(stock.receipts[row, day]), day_of(day), f"GR-{day_of(day):%y%m%d}-{row:04d}"
    )
