"""The shapes of what is written down: orders, notices, shipments, stock levels. They are also the service's answers."""

import datetime as dt
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

Sku: TypeAlias = Annotated[str, Meta(pattern="^SKU-[0-9]{4}$", examples=["SKU-4482"])]
CenterCode: TypeAlias = Annotated[
    str, Meta(pattern="^[A-Z]{3}$", description="Code of a distribution center.", examples=["SHA"])
]
OrderId: TypeAlias = Annotated[str, Meta(pattern="^PO-[0-9]{4}-[0-9]{5}$", examples=["PO-2026-00042"])]
SupplierId: TypeAlias = Annotated[str, Meta(pattern="^SUP-[0-9]{3}$", examples=["SUP-001"])]
ManifestId: TypeAlias = Annotated[
    str, Meta(pattern="^MAN-[A-Z]{3}-[0-9]{4}-[0-9]{4}$", examples=["MAN-RTM-2611-0042"])
]

OrderStatus: TypeAlias = Literal["submitted", "confirmed", "partially_shipped", "in_transit", "received"]
ShipmentStatus: TypeAlias = Literal["booked", "in_transit", "delayed", "customs_hold", "lost", "delivered"]
Mode: TypeAlias = Literal["ocean", "air", "road"]


class OrderedLine(Struct, frozen=True):
    sku: Sku
    ordered: int
    confirmed: Annotated[int | None, Meta(description="What the supplier agreed to; null until it answered.")]
    shipped: int
    received: int
    unit_cost: Annotated[str, Meta(description="In US dollars.", examples=["16.55"])]


class PlannedDelivery(Struct, frozen=True):
    manifest_id: Annotated[ManifestId | None, Meta(description="null until the shipment is booked.")]
    units: int
    departs_on: dt.date
    due_on: Annotated[dt.date, Meta(description="Arrival as first promised.")]
    expected_on: Annotated[
        dt.date | None, Meta(description="Arrival as known now; null when nobody can say.")
    ]
    status: Annotated[str, Meta(description="Status of the shipment, or `not_booked`.")]


class OrderEvent(Struct, frozen=True):
    on: dt.date
    event: str


class PurchaseOrder(Struct, frozen=True):
    po_id: OrderId
    supplier_id: SupplierId
    dc: CenterCode
    ordered_on: dt.date
    promised_on: Annotated[dt.date, Meta(description="Last arrival as first promised.")]
    status: OrderStatus
    lines: tuple[OrderedLine, ...]
    deliveries: tuple[PlannedDelivery, ...]
    history: tuple[OrderEvent, ...]


class SupplierRecord(Struct, frozen=True):
    supplier_id: SupplierId
    name: str
    city: str
    country: str
    contact: str
    lead_time_days: Annotated[int, Meta(description="From order to arrival, as agreed.")]
    categories: tuple[str, ...]
    on_time_share: Annotated[
        float, Meta(description="Deliveries of the last half year at most a day late, 0 to 1.")
    ]
    filled_share: Annotated[
        float, Meta(description="Units confirmed of units ordered in the last half year, 0 to 1.")
    ]


class SupplierNotice(Struct, frozen=True):
    notice_id: str
    supplier_id: SupplierId
    issued_on: dt.date
    kind: Literal["capacity", "delay", "quality", "holiday", "price", "contact"]
    subject: str
    body: str


class TrackingEvent(Struct, frozen=True):
    at: dt.datetime
    code: Annotated[str, Meta(description="The carrier's event code.", examples=["DISCHARGED"])]
    location: str


class Tracking(Struct, frozen=True):
    manifest_id: ManifestId
    carrier: str
    mode: Mode
    dc: CenterCode
    status: ShipmentStatus
    expected_on: Annotated[
        dt.date | None, Meta(description="Arrival as known now; null when nobody can say.")
    ]
    events: tuple[TrackingEvent, ...]


class Place(Struct, frozen=True):
    city: str
    country: str
    port: str | None = None
    dc: str | None = None


class StatusEntry(Struct, frozen=True):
    at: dt.datetime
    status: str
    location: str
    note: str = ""


class ManifestLine(Struct, frozen=True):
    po_id: str
    sku: str
    description: str
    units: int
    cartons: int


class Document(Struct, frozen=True):
    type: str
    number: str | None
    status: Literal["on_file", "missing", "under_review"]


class CustomsHold(Struct, frozen=True):
    authority: str
    since: dt.date
    reason: str


class Manifest(Struct, frozen=True):
    manifest_id: str
    status: ShipmentStatus
    mode: Mode
    carrier: str
    conveyance: str
    container: str | None
    origin: Place
    destination: Place
    departure: dt.date
    eta: dt.date
    revised_eta: dt.date | None
    delivered_on: dt.date | None
    hold: CustomsHold | None
    lines: tuple[ManifestLine, ...]
    gross_weight_kg: int
    documents: tuple[Document, ...]
    status_history: tuple[StatusEntry, ...]


class Movement(Struct, frozen=True):
    type: Literal["sale", "receipt", "cycle_count", "allocation"]
    units: int
    on: dt.date
    reference: str


class StockLevel(Struct, frozen=True):
    sku: str
    dc: str
    on_hand: int
    reserved: int
    available: int
    in_transit: int
    on_order: int
    reorder_point: int
    safety_stock: int
    policy_set_on: dt.date
    bin: str
    last_counted_at: dt.datetime
    last_movement: Movement | None
    updated_at: dt.datetime


class SupplyChain(Struct, frozen=True):
    """What the service answers from: one file."""

    version: str
    as_of: dt.date
    suppliers: tuple[SupplierRecord, ...]
    notices: tuple[SupplierNotice, ...]
    orders: tuple[PurchaseOrder, ...]
    shipments: tuple[Tracking, ...]
