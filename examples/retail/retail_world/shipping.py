"""Manifests as carriers and forwarders write them, and what their tracking says of the same shipments."""

import datetime as dt
import random
from collections.abc import Iterable, Sequence
from typing import Final

from retail_world import HISTORY_DAYS, SEED, day_of
from retail_world.catalogue import Stocked
from retail_world.orders import Shipment
from retail_world.records import (
    CustomsHold,
    Document,
    Manifest,
    ManifestLine,
    Mode,
    Place,
    StatusEntry,
    Tracking,
    TrackingEvent,
)

CARRIERS: Final[dict[Mode, tuple[str, ...]]] = {
    "ocean": ("Meridian Ocean Lines", "Blue Anchor Shipping", "Pacifica Container Line"),
    "air": ("SkyBridge Cargo", "Northwind Air Freight"),
    "road": ("Transgrid Haulage", "Roadrunner Freight", "Continental Trucking"),
}
VESSELS: Final = {
    "Meridian Ocean Lines": ("Meridian Aurora", "Meridian Tern", "Meridian Sol"),
    "Blue Anchor Shipping": ("Anchor Resolve", "Anchor Fidelity"),
    "Pacifica Container Line": ("Pacifica Jade", "Pacifica Coral", "Pacifica Opal"),
}

DELAYS: Final[dict[Mode, tuple[str, ...]]] = {
    "ocean": (
        "Port call omitted because of congestion; cargo transshipped to the next sailing.",
        "Vessel slowed down for heavy weather.",
        "Rolled to the following voyage: vessel overbooked.",
    ),
    "air": ("Offloaded for payload reasons; rebooked.", "Flight cancelled; rebooked on the next rotation."),
    "road": (
        "Tractor unit broke down; replacement dispatched.",
        "Border crossing closed by a blockade; queueing.",
        "Motorway closed after flooding; rerouted.",
    ),
}
LOSSES: Final[dict[Mode, str]] = {
    "ocean": "Container went overboard in heavy seas. Cargo claim opened.",
    "air": "Consignment not found at transfer station. Tracer closed without result; claim opened.",
    "road": "Trailer reported stolen from a rest area. Police report and cargo claim filed.",
}
CUSTOMS_REASONS: Final = (
    "declared value under review",
    "tariff classification under review",
    "selected for physical examination, queue at the inspection site",
)
TRACKING_CODES: Final = {
    "booked": "BOOKED",
    "departed": "DEPARTED",
    "delayed": "ETA_CHANGED",
    "arrived": "DISCHARGED",
    "customs_hold": "CUSTOMS_STOP",
    "cleared": "RELEASED",
    "lost": "EXCEPTION",
    "delivered": "DELIVERED",
}


def write_manifest(pairs: Sequence[Stocked], shipment: Shipment) -> Manifest:
    """Raises when the shipment is not booked yet and so has no manifest."""
    manifest_id = _id(shipment)
    rng = random.Random(f"{SEED}/{manifest_id}")
    pair, plan, mode = shipment.pair, shipment.plan, shipment.mode
    carrier = rng.choice(CARRIERS[mode])
    expected = shipment.expected
    changed = shipment.status not in {"delivered", "customs_hold", "lost"} and expected not in {
        None,
        plan.due,
    }
    products = [(line, part, pairs[line.row].product) for line, part in shipment.lines]
    hold = _hold(shipment, rng)
    return Manifest(
        manifest_id=manifest_id,
        status=shipment.status,
        mode=mode,
        carrier=carrier,
        conveyance=_conveyance(mode, carrier, rng),
        container=f"{carrier[:3].upper()}U{rng.randrange(10**6, 10**7)}" if mode == "ocean" else None,
        origin=Place(pair.supplier.city, pair.supplier.country),
        destination=Place(
            pair.center.city,
            pair.center.country,
            None if mode == "road" else pair.center.port,
            pair.center.code,
        ),
        departure=day_of(plan.departs),
        # A supplier that moved the pick-up past the promised day is told by the order; carriers know only the new one.
        eta=day_of(plan.due if plan.due > plan.departs or expected is None else expected),
        revised_eta=day_of(expected) if changed and expected is not None else None,
        delivered_on=day_of(plan.arrives)
        if shipment.status == "delivered" and plan.arrives is not None
        else None,
        hold=hold,
        lines=tuple(
            ManifestLine(shipment.po_id, product.sku, product.name, part.units, part.units // product.carton)
            for _, part, product in products
        ),
        gross_weight_kg=round(
            sum(part.units * product.weight_g for _, part, product in products) * 1.08 / 1000
        ),
        documents=tuple(_documents(shipment, rng)),
        status_history=tuple(_history(shipment, hold, rng)),
    )


def track(shipment: Shipment, manifest: Manifest) -> Tracking:
    """The carrier's view: codes and places of the same events, without anybody's notes."""
    expected = shipment.expected
    return Tracking(
        manifest_id=manifest.manifest_id,
        carrier=manifest.carrier,
        mode=manifest.mode,
        dc=shipment.pair.center.code,
        status=manifest.status,
        expected_on=None if expected is None else day_of(expected),
        events=tuple(
            TrackingEvent(entry.at, TRACKING_CODES[entry.status], entry.location)
            for entry in manifest.status_history
        ),
    )


def manifest_key(manifest: Manifest) -> str:
    return f"manifests/{manifest.departure:%Y/%m}/{manifest.manifest_id}.json"


def packing_list(manifest: Manifest) -> str:
    """The paper that travels with the goods: one CSV line a carton range, numbered through."""
    rows = ["carton_from,carton_to,sku,description,units,po"]
    first = 1
    for line in manifest.lines:
        last = first + line.cartons - 1
        rows.append(f'{first},{last},{line.sku},"{line.description}",{line.units},{line.po_id}')
        first = last + 1
    return "\r\n".join(rows) + "\r\n"


def packing_list_key(manifest: Manifest) -> str:
    return f"packing-lists/{manifest.departure:%Y/%m}/{manifest.manifest_id}.csv"


def _id(shipment: Shipment) -> str:
    if shipment.manifest_id is None:
        raise ValueError(
            f"the shipment of {shipment.po_id} that leaves on {day_of(shipment.plan.departs)} is not booked"
        )
    return shipment.manifest_id


def _conveyance(mode: Mode, carrier: str, rng: random.Random) -> str:
    match mode:
        case "ocean":
            return f"{rng.choice(VESSELS[carrier])}, voyage {rng.randint(20, 98)}{rng.choice('EW')}"
        case "air":
            return f"flight {rng.choice(('SB', 'NW'))}{rng.randint(200, 990)}"
        case "road":
            return f"truck {rng.choice('ABCDKLM')}{rng.choice('RSTVX')} {rng.randint(1000, 9999)}"


def _documents(shipment: Shipment, rng: random.Random) -> Iterable[Document]:
    waybill = {"ocean": "bill of lading", "air": "air waybill", "road": "CMR waybill"}[shipment.mode]
    yield Document(waybill, f"{rng.randrange(10**8, 10**9)}", "on_file")
    yield Document("commercial invoice", f"INV-{rng.randrange(10**5, 10**6)}", "on_file")
    yield Document("packing list", f"{shipment.manifest_id}", "on_file")
    abroad = shipment.pair.supplier.country != shipment.pair.center.country
    if abroad:
        held = shipment.status == "customs_hold" and shipment.plan.trouble == "customs"
        yield Document(
            "import declaration", f"{rng.randrange(10**9, 10**10)}", "under_review" if held else "on_file"
        )
    if shipment.pair.product.category == "Power":
        yield Document("UN 38.3 test summary", f"T{rng.randrange(10**5, 10**6)}", "on_file")
        if shipment.pair.center.country == "CN":
            missing = shipment.plan.trouble == "certificate"
            number = None if missing else f"20260109{rng.randrange(10**6, 10**7)}"
            yield Document("CCC certificate", number, "missing" if missing else "on_file")


def _hold(shipment: Shipment, rng: random.Random) -> CustomsHold | None:
    if shipment.status != "customs_hold":
        return None
    center = shipment.pair.center
    reason = rng.choice(CUSTOMS_REASONS)
    if shipment.plan.trouble == "certificate":
        reason = "conformity document for goods subject to compulsory certification not presented"
    since = day_of(min(shipment.plan.due - 1, HISTORY_DAYS - 1))
    return CustomsHold(f"customs, {center.port}", since, reason)


def _history(shipment: Shipment, hold: CustomsHold | None, rng: random.Random) -> Iterable[StatusEntry]:
    plan, center, supplier = shipment.plan, shipment.pair.center, shipment.pair.supplier
    gate = f"{center.port}, {center.country}"
    yield _entry(min(plan.departs, HISTORY_DAYS) - 4, "booked", supplier.city, "", rng)
    if plan.departs >= HISTORY_DAYS:
        return
    yield _entry(plan.departs, "departed", supplier.city, "", rng)
    if shipment.late:
        yield _entry(shipment.delayed_day, "delayed", "en route", rng.choice(DELAYS[shipment.mode]), rng)
    if shipment.status == "lost":
        yield _entry(shipment.delayed_day, "lost", "en route", LOSSES[shipment.mode], rng)
        return
    arrival = plan.due if plan.arrives is None else plan.arrives
    if shipment.mode != "road" and arrival - 3 < HISTORY_DAYS and arrival - 3 > plan.departs:
        yield _entry(arrival - 3, "arrived", gate, "", rng)
    if hold is not None:
        note = "Container placed under customs supervision. Storage accrues from day 7."
        yield StatusEntry(_at(hold.since, rng), "customs_hold", gate, note)
        return
    if shipment.status == "delivered" and plan.arrives is not None:
        if supplier.country != center.country and plan.arrives - 1 > plan.departs:
            yield _entry(
                plan.arrives - 1, "cleared", gate if shipment.mode != "road" else center.city, "", rng
            )
        yield _entry(plan.arrives, "delivered", center.city, "", rng)


def _entry(day: int, status: str, location: str, note: str, rng: random.Random) -> StatusEntry:
    return StatusEntry(_at(day_of(day), rng), status, location, note)


def _at(day: dt.date, rng: random.Random) -> dt.datetime:
    return dt.datetime(
        day.year, day.month, day.day, rng.randint(1, 22), rng.randrange(0, 60, 5), tzinfo=dt.UTC
    )
