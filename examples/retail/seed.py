"""Makes the retailer's data and puts it where the demo looks for it. The same data every time; done once, it is left alone.

    python seed.py --database-url postgresql://... --folder ./data

writes the sales history into the database, and into the folder: `inventory.ndjson` (stock levels, one key and value a
line), `objects/` (shipping manifests and packing lists under their object keys) and `supply_chain.json` (for
`supply_chain.py`).
"""

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

import asyncpg
from retail_world import AS_OF, DATASET_VERSION
from retail_world.catalogue import make_products, make_stocked
from retail_world.demand import make_demand
from retail_world.orders import make_orders
from retail_world.situations import make_world
from retail_world.writers import Dataset, database_version, folder_version, write_database, write_folder


def make_dataset() -> Dataset:
    """About a second of work, and equal every time."""
    pairs = make_stocked(make_products())
    world = make_world(pairs, make_demand(pairs))
    return Dataset(world, make_orders(pairs, world.stock.lines))


def seed(database_url: str | None, folder: Path | None, *, again: bool = False) -> list[str]:
    """Fills what is not filled with this version of the data; says what it did, a line each."""
    lines = []
    dataset: Dataset | None = None
    if folder is not None:
        if not again and folder_version(folder) == DATASET_VERSION:
            lines.append(f"{folder}: has data set {DATASET_VERSION}")
        else:
            started = time.monotonic()
            dataset = make_dataset()
            count = write_folder(dataset, folder)
            lines.append(f"{folder}: wrote {count} files in {time.monotonic() - started:.1f} s")
    if database_url is not None:
        if not again and asyncio.run(database_version(database_url)) == DATASET_VERSION:
            lines.append(f"database: has data set {DATASET_VERSION}")
        else:
            started = time.monotonic()
            rows = asyncio.run(write_database(dataset or make_dataset(), database_url))
            lines.append(f"database: wrote {rows:,} rows of sales in {time.monotonic() - started:.1f} s")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=f"Make the demo retailer's data (version {DATASET_VERSION}, as of {AS_OF}) and write it.",
        epilog="What already has this version is left alone.",
    )
    parser.add_argument(
        "--database-url",
        default=os.environ.get("SEED_DATABASE_URL"),
        help="PostgreSQL that gets the sales history [env: SEED_DATABASE_URL, which other users cannot see]",
    )
    parser.add_argument(
        "--folder", type=Path, help="folder that gets stock levels, manifests and supply_chain.json"
    )
    parser.add_argument("--again", action="store_true", help="write even what already has this version")
    options = parser.parse_args()
    if options.database_url is None and options.folder is None:
        parser.error("nothing to do: give --database-url, --folder, or both")
    try:
        lines = seed(options.database_url, options.folder, again=options.again)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        print(f"seed.py: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
