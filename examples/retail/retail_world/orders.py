"""Purchase orders and shipments out of the ordered lines: who carries what, when, and what their papers say.

A shipment is one delivery of one order. What carriers and customs write about trouble is in `NOTES` and `HOLDS`; the
word for it, and when it struck, came from `situations.py`.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from retail_world import HISTORY_DAYS, SEED, day_of
from retail_world.catalogue import Stocked
from retail_world.records import (
    Mode,
    OrderedLine,
    OrderEvent,
    OrderStatus,
    PlannedDelivery,
    PurchaseOrder,
    ShipmentStatus,
)
from retail_world.stock import Delivery, OrderLine, transit_days

KEPT_DAYS: Final = 180
"""Orders and shipments are kept for half a year after they left."""
BOOKED_AHEAD_DAYS: Final = 7
ANSWER_DAYS: Final = 2
"""How long suppliers take to confirm."""
LATE_DAYS: Final = 3
"""From here on a carrier calls a shipment delayed."""


class Shipment(NamedTuple):
    """One delivery of one order; `lines` are (ordered line, its part in this delivery)."""

    manifest_id: str | None
    po_id: str
    pair: Stocked
    plan: Delivery
    lines: tuple[tuple[OrderLine, Delivery], ...]

    @property
    def mode(self) -> Mode:
        days = transit_days(self.pair)
        return "road" if days == 3 else "air" if days == 4 else "ocean"

    @property
    def status(self) -> ShipmentStatus:
        plan = self.plan
        if plan.departs >= HISTORY_DAYS:
            return "booked"
        if plan.arrives is not None and plan.arrives < HISTORY_DAYS:
            return "delivered"
        if plan.trouble in {"certificate", "customs"}:
            return "customs_hold"
        if plan.trouble == "lost":
            return "lost"
        return "delayed" if self.late else "in_transit"

    @property
    def late(self) -> bool:
        """Known to be late by now: the carrier says so half-way."""
        plan = self.plan
        if plan.arrives is None or plan.arrives - plan.due < LATE_DAYS:
            return False
        return self.delayed_day < HISTORY_DAYS

    @property
    def delayed_day(self) -> int:
        return self.plan.departs + max((self.plan.due - self.plan.departs) // 2, 1)

    @property
    def expected(self) -> int | None:
        """Arrival as known now."""
        plan = self.plan
        if (
            plan.arrives is not None
            and plan.arrives >= HISTORY_DAYS
            and not self.late
            and plan.trouble is None
        ):
            return max(plan.due, HISTORY_DAYS)
        return plan.arrives

    @property
    def units(self) -> int:
        return sum(delivery.units for _, delivery in self.lines)


class Order(NamedTuple):
    po_id: str
    pair: Stocked
    """One of its lines' pairs: supplier and center are the same for all."""
    lines: tuple[OrderLine, ...]
    shipments: tuple[Shipment, ...]


def make_orders(pairs: Sequence[Stocked], lines: Iterable[OrderLine]) -> tuple[Order, ...]:
    """The kept orders, oldest first, numbered as they were made."""
    grouped: dict[tuple[int, str, str, int], list[OrderLine]] = {}
    for line in lines:
        pair = pairs[line.row]
        key = (line.ordered_day, pair.supplier.supplier_id, pair.center.code, line.row if line.alone else -1)
        grouped.setdefault(key, []).append(line)
    numbers: dict[int, int] = {}
    orders: list[tuple[str, tuple[OrderLine, ...]]] = []
    for key in sorted(grouped):
        year = day_of(key[0]).year
        numbers[year] = numbers.get(year, 0) + 1
        orders.append((f"PO-{year}-{numbers[year]:05d}", tuple(grouped[key])))
    kept = [(po_id, members) for po_id, members in orders if _kept(members)]
    return _with_shipments(pairs, kept)


def _kept(lines: tuple[OrderLine, ...]) -> bool:
    return any(delivery.departs >= HISTORY_DAYS - KEPT_DAYS for line in lines for delivery in line.deliveries)


def _with_shipments(
    pairs: Sequence[Stocked], orders: list[tuple[str, tuple[OrderLine, ...]]]
) -> tuple[Order, ...]:
    planned = []
    for po_id, lines in orders:
        for number in range(max(len(line.deliveries) for line in lines)):
            parts = tuple((line, line.deliveries[number]) for line in lines if number < len(line.deliveries))
            planned.append(Shipment(None, po_id, pairs[lines[0].row], parts[0][1], parts))
    planned.sort(key=lambda shipment: (shipment.plan.departs, shipment.po_id))
    rng = random.Random(SEED + 6)
    serial: dict[str, int] = {}
    by_order: dict[str, list[Shipment]] = {}
    for shipment in planned:
        if shipment.plan.departs < HISTORY_DAYS + BOOKED_AHEAD_DAYS:
            month = day_of(shipment.plan.departs).strftime("%y%m")
            serial[month] = serial.get(month, 100) + rng.randint(1, 9)
            shipment = shipment._replace(
                manifest_id=f"MAN-{shipment.pair.center.code}-{month}-{serial[month]:04d}"
            )
        by_order.setdefault(shipment.po_id, []).append(shipment)
    return tuple(Order(po_id, pairs[lines[0].row], lines, tuple(by_order[po_id])) for po_id, lines in orders)


def record_order(pairs: Sequence[Stocked], order: Order) -> PurchaseOrder:
    answered = order.lines[0].ordered_day + ANSWER_DAYS < HISTORY_DAYS
    return PurchaseOrder(
        po_id=order.po_id,
        supplier_id=order.pair.supplier.supplier_id,
        dc=order.pair.center.code,
        ordered_on=day_of(order.lines[0].ordered_day),
        promised_on=day_of(max(shipment.plan.due for shipment in order.shipments)),
        status=_status(order) if answered else "submitted",
        lines=tuple(_line(pairs, line, answered=answered) for line in order.lines),
        deliveries=tuple(_delivery(shipment) for shipment in order.shipments),
        history=tuple(_history(order, answered=answered)),
    )


def _status(order: Order) -> OrderStatus:
    statuses = {shipment.status for shipment in order.shipments}
    if statuses == {"delivered"}:
        return "received"
    if statuses == {"booked"}:
        return "confirmed"
    return "partially_shipped" if "booked" in statuses else "in_transit"


def _line(pairs: Sequence[Stocked], line: OrderLine, *, answered: bool) -> OrderedLine:
    product = pairs[line.row].product
    return OrderedLine(
        sku=product.sku,
        ordered=line.ordered,
        confirmed=line.confirmed if answered else None,
        shipped=sum(part.units for part in line.deliveries if part.departs < HISTORY_DAYS),
        received=sum(
            part.units for part in line.deliveries if part.arrives is not None and part.arrives < HISTORY_DAYS
        ),
        unit_cost=f"{product.cost_cents / 100:.2f}",
    )


def _delivery(shipment: Shipment) -> PlannedDelivery:
    expected = shipment.expected
    return PlannedDelivery(
        manifest_id=shipment.manifest_id,
        units=shipment.units,
        departs_on=day_of(shipment.plan.departs),
        due_on=day_of(shipment.plan.due),
        expected_on=None if expected is None else day_of(expected),
        status=shipment.status if shipment.manifest_id else "not_booked",
    )


def _history(order: Order, *, answered: bool) -> Iterable[OrderEvent]:
    ordered_day = order.lines[0].ordered_day
    yield OrderEvent(day_of(ordered_day), "sent to supplier")
    if not answered:
        return
    full = all(line.confirmed == line.ordered for line in order.lines)
    yield OrderEvent(
        day_of(ordered_day + ANSWER_DAYS), "confirmed" if full else "confirmed with changed quantities"
    )
    for shipment in order.shipments:
        if shipment.plan.trouble == "late_supplier":
            due = shipment.plan.due
            yield OrderEvent(
                day_of(min(due - transit_days(order.pair), HISTORY_DAYS - 9)), "pick-up moved by supplier"
            )
            yield OrderEvent(day_of(HISTORY_DAYS - 2), "pick-up moved by supplier")
