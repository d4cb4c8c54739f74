"""Suppliers: their record with us, and what they wrote to all their customers.

A notice speaks of the supplier's own trouble and names none of our products, orders or centers.
"""

import datetime as dt
import random
from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

from retail_world import AS_OF, HISTORY_DAYS, SEED
from retail_world.catalogue import POWER_BANK, SUPPLIERS, Supplier
from retail_world.orders import Order
from retail_world.records import SupplierNotice, SupplierRecord

NoticeKind: TypeAlias = Literal["capacity", "delay", "quality", "holiday", "price", "contact"]
Text: TypeAlias = tuple[NoticeKind, str, str]

ORDINARY: Final[tuple[Text, ...]] = (
    (
        "holiday",
        "Closure at the turn of the year",
        "Works and warehouse are closed from 24 December to 2 January.",
    ),
    ("price", "Price list from January", "Material surcharges change by about two percent from 1 January."),
    ("contact", "New contact for order desk", "Please send orders to the address in our footer from now on."),
    ("holiday", "Stock-taking", "No pick-ups on the last two working days of the quarter."),
)
LATE: Final[tuple[Text, ...]] = (
    ("delay", "Injection line down", "A press failed on 24 October. Parts are on site; the line restarts in the third week of November."),
    ("delay", "Labour dispute", "Our packing hall was on strike from 19 October to 6 November. We work through the backlog by date of order."),
    ("quality", "Lot blocked by quality control", "An incoming lot of components failed inspection. Affected work orders are being made again."),
    ("delay", "Flooding at the plant", "Water entered the finished-goods store on 21 October. Nothing can be picked up before it is cleared."),
    ("capacity", "Shortage of packaging film", "Our film supplier delivers at half rate. Shipments leave about three weeks late."),
)  # fmt: skip
RATIONED: Final[Text] = (
    "capacity",
    "Lithium-polymer pouch cells rationed",
    (
        "Our cell maker rations us: orders from 14 September on are confirmed at 70 percent, in full cartons. "
        "Balances are not carried over and must be ordered again for production from week 51."
    ),
)
RATIONED_DAYS_AGO: Final = 53


def write_notices(late: Iterable[Supplier]) -> tuple[SupplierNotice, ...]:
    """`late` are the suppliers that moved pick-ups; each says why, in general. Oldest first."""
    rng = random.Random(SEED + 7)
    ordinary = [
        (supplier, text) for supplier in SUPPLIERS for text in rng.sample(ORDINARY, rng.randint(0, 2))
    ]
    moved = zip(sorted(set(late)), rng.sample(LATE, len(LATE)), strict=False)
    written = [
        *((rng.randint(6, 120), supplier.supplier_id, text) for supplier, text in ordinary),
        *((rng.randint(12, 20), supplier.supplier_id, text) for supplier, text in moved),
        (RATIONED_DAYS_AGO, POWER_BANK.supplier_id, RATIONED),
    ]
    return tuple(
        SupplierNotice(f"NOT-{number:04d}", supplier_id, AS_OF - dt.timedelta(days=days_ago), *text)
        for number, (days_ago, supplier_id, text) in enumerate(sorted(written, reverse=True), start=2101)
    )


def record_suppliers(orders: Sequence[Order]) -> tuple[SupplierRecord, ...]:
    return tuple(_record(supplier, orders) for supplier in SUPPLIERS)


def _record(supplier: Supplier, orders: Sequence[Order]) -> SupplierRecord:
    mine = [order for order in orders if order.pair.supplier == supplier]
    due = [
        shipment.plan for order in mine for shipment in order.shipments if shipment.plan.due < HISTORY_DAYS
    ]
    in_time = sum(plan.arrives is not None and plan.arrives <= plan.due + 1 for plan in due)
    ordered = sum(line.ordered for order in mine for line in order.lines)
    confirmed = sum(line.confirmed for order in mine for line in order.lines)
    domain = "".join(letter for letter in supplier.name.lower() if letter.isalnum())
    return SupplierRecord(
        supplier_id=supplier.supplier_id,
        name=supplier.name,
        city=supplier.city,
        country=supplier.country,
        contact=f"orders@{domain}.example",
        lead_time_days=supplier.lead_time_days,
        categories=supplier.categories,
        on_time_share=round(in_time / len(due), 3) if due else 1.0,
        filled_share=round(confirmed / ordered, 3) if ordered else 1.0,
    )
