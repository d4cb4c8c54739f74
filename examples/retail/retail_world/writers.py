"""Where the data goes: a folder of files (stock levels, manifests, the service's file) and a PostgreSQL database.

Both are all or nothing: a folder is complete when it holds its version file, a database is filled in one transaction.
"""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg
import msgspec

from retail_world import AS_OF, DATASET_VERSION, HISTORY_DAYS, day_of
from retail_world.catalogue import CENTERS, SUPPLIERS, Product
from retail_world.levels import stock_levels
from retail_world.notices import record_suppliers, write_notices
from retail_world.orders import Order, record_order
from retail_world.records import SupplyChain
from retail_world.shipping import manifest_key, packing_list, packing_list_key, track, write_manifest
from retail_world.situations import World

VERSION_FILE: Final = "DATASET_VERSION"
STOCK_FILE: Final = "inventory.ndjson"
SUPPLY_CHAIN_FILE: Final = "supply_chain.json"
OBJECTS_FOLDER: Final = "objects"

COPY_PAIRS: Final = 50
"""Pairs whose rows are sent to PostgreSQL in one piece: about 2 MB."""

_SQL: Final = Path(__file__).parent


class Dataset(NamedTuple):
    world: World
    orders: tuple[Order, ...]


def files(dataset: Dataset) -> Iterator[tuple[str, bytes]]:
    """Relative path and content of every file."""
    encoder = msgspec.json.Encoder()
    tracked = []
    for order in dataset.orders:
        for shipment in order.shipments:
            if shipment.manifest_id is None:
                continue
            manifest = write_manifest(dataset.world.pairs, shipment)
            tracked.append(track(shipment, manifest))
            yield f"{OBJECTS_FOLDER}/{manifest_key(manifest)}", _readable(encoder.encode(manifest))
            if manifest.status != "delivered":
                yield f"{OBJECTS_FOLDER}/{packing_list_key(manifest)}", packing_list(manifest).encode()
    late = [
        order.pair.supplier
        for order in dataset.orders
        if any(shipment.plan.trouble == "late_supplier" for shipment in order.shipments)
    ]
    supply_chain = SupplyChain(
        version=DATASET_VERSION,
        as_of=AS_OF,
        suppliers=record_suppliers(dataset.orders),
        notices=write_notices(late),
        orders=tuple(record_order(dataset.world.pairs, order) for order in dataset.orders),
        shipments=tuple(tracked),
    )
    yield SUPPLY_CHAIN_FILE, encoder.encode(supply_chain) + b"\n"
    levels = ({"key": key, "value": level} for key, level in stock_levels(dataset.world))
    yield STOCK_FILE, encoder.encode_lines(list(levels))


def write_folder(dataset: Dataset, folder: Path) -> int:
    """Replaces what an earlier run left in `folder` and touches nothing else there; returns how many files there are."""
    (folder / VERSION_FILE).unlink(missing_ok=True)
    if (folder / OBJECTS_FOLDER).is_dir():
        shutil.rmtree(folder / OBJECTS_FOLDER)
    count, known = 0, set()
    for name, content in files(dataset):
        path = folder / name
        if path.parent not in known:
            path.parent.mkdir(parents=True, exist_ok=True)
            known.add(path.parent)
        path.write_bytes(content)
        count += 1
    (folder / VERSION_FILE).write_text(f"{DATASET_VERSION}\n")
    return count


def folder_version(folder: Path) -> str | None:
    path = folder / VERSION_FILE
    return path.read_text().strip() if path.is_file() else None


async def write_database(dataset: Dataset, database_url: str) -> int:
    """Replaces the tables; returns how many rows of sales there are."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            # Whoever else fills the same database waits here instead of failing on the other's tables.
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('retail dataset'))")
            await connection.execute((_SQL / "schema.sql").read_text())
            await _write_small(connection, dataset.world)
            status = await connection.copy_to_table(
                "daily_sales",
                source=_sales(dataset.world),
                columns=["day", "sku", "dc", "units", "unit_price", "promotion"],
            )
            await connection.execute((_SQL / "keys.sql").read_text())
            await connection.execute("INSERT INTO dataset VALUES ($1, $2)", DATASET_VERSION, AS_OF)
        await connection.execute("ANALYZE products, suppliers, distribution_centers, daily_sales")
    finally:
        await connection.close()
    return int(status.split()[-1])


async def database_version(database_url: str) -> str | None:
    """The version of the data set in the database, or None where there is none."""
    connection = await asyncpg.connect(database_url)
    try:
        if await connection.fetchval("SELECT to_regclass('dataset')") is None:
            return None
        version: str | None = await connection.fetchval("SELECT version FROM dataset")
        return version
    finally:
        await connection.close()


async def _write_small(connection: asyncpg.Connection, world: World) -> None:
    await connection.copy_records_to_table(
        "distribution_centers",
        records=[
            (center.code, center.city, center.country, center.region, center.port) for center in CENTERS
        ],
    )
    await connection.copy_records_to_table(
        "suppliers",
        records=[
            (supplier.supplier_id, supplier.name, supplier.city, supplier.country, supplier.lead_time_days)
            for supplier in SUPPLIERS
        ],
    )
    products = {pair.product.sku: pair.product for pair in world.pairs}
    rows = [_product_row(product, world.discontinued) for product in products.values()]
    await connection.copy_to_table("products", source=_lines(rows))


def _product_row(product: Product, discontinued: frozenset[str]) -> str:
    status = "discontinued" if product.sku in discontinued else "active"
    price = f"{product.price_cents / 100:.2f}"
    fields = (
        product.sku,
        product.name,
        product.category,
        product.supplier_id,
        price,
        str(product.carton),
        status,
    )
    return "\t".join(fields) + "\n"


async def _lines(rows: list[str]) -> AsyncIterator[bytes]:
    yield "".join(rows).encode()


async def _sales(world: World) -> AsyncIterator[bytes]:
    """COPY's text format, written by hand: a third of the time that encoding nearly a million records takes."""
    days = [day_of(index).isoformat() for index in range(HISTORY_DAYS)]
    piece: list[str] = []
    for row, pair in enumerate(world.pairs):
        piece.append(_sales_of(world, row, pair.product, pair.center.code, days))
        if len(piece) == COPY_PAIRS:
            yield "".join(piece).encode()
            piece.clear()
    yield "".join(piece).encode()


def _sales_of(world: World, row: int, product: Product, dc: str, days: list[str]) -> str:
    first = int(world.demand.listed_from[row])
    discounts = world.demand.discount_percent[row, first:].tolist()
    tails = {
        percent: f"\t{product.price_cents * (100 - percent) / 10_000:.2f}\t{'t' if percent else 'f'}\n"
        for percent in set(discounts)
    }
    middle = f"\t{product.sku}\t{dc}\t"
    units = world.stock.sales[row, first:].tolist()
    return "".join([
        f"{day}{middle}{sold}{tails[percent]}"
        for day, sold, percent in zip(days[first:], units, discounts, strict=True)
    ])


def _readable(content: bytes) -> bytes:
    return msgspec.json.format(content, indent=1) + b"\n"
