"""The demo: the retailer's data and template, made once and put where the agent's tools look. What is there already is left.

Each destination says itself which version of the data it holds, so a lost one is filled again and nothing else is done.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

import asyncpg
import click
import msgspec

from freehold.cli._demo_place import DATABASE, Place
from freehold.cli.data import upload_items, upload_objects
from freehold.client.client import Client
from freehold.client.errors import ApiError

TABLE: Final = "inventory"
PREFIX: Final = "retail"
MARK: Final = f"{PREFIX}/DATASET_VERSION"
"""The object that is written last: whoever finds it finds all the items and objects of that version."""

CONNECT_TIMEOUT_S: Final = 10.0

Say = Callable[[str], None]


def stage(place: Place, say: Say, *, fresh: bool) -> None:
    """The data as files: what the supply-chain service reads, and what is then uploaded."""
    if not fresh and _staged_version(place) == place.dataset_version():
        return
    say(
        "making the retailer's data (the same every time): products, centers, two years of sales, shipments ..."
    )
    place.stage.mkdir(mode=0o700, parents=True, exist_ok=True)
    _seed(place, say, {}, "--folder", str(place.stage), *(["--again"] if fresh else []))


def fill(client: Client, place: Place, say: Say, *, fresh: bool) -> None:
    """Sales into SQL, stock levels into a table, manifests into the object store."""
    version = place.dataset_version()
    owner_url = database_url(place)
    if fresh or asyncio.run(_database_version(owner_url)) != version:
        say("writing two years of daily sales into PostgreSQL ...")
        _seed(place, say, {"SEED_DATABASE_URL": owner_url}, *(["--again"] if fresh else []))
    if fresh or _uploaded_version(client) != version:
        say("writing stock levels into a table and shipping manifests into the object store ...")
        with (place.stage / "inventory.ndjson").open("rb") as lines:
            items = upload_items(client, TABLE, iter(lines))
        objects = upload_objects(client, PREFIX, place.stage / "objects")
        client.request("PUT", f"/v1/objects/{MARK}", content=version.encode())
        say(f"  {items:,} stock levels, {objects:,} manifests and packing lists")


def apply_template(client: Client, place: Place, variables: dict[str, str]) -> list[dict[str, Any]]:
    """What changed, as the plan tells it."""
    body = {
        "template": place.template.read_text(),
        "source": place.template.name,
        "variables": variables,
    }
    plan = client.request("POST", "/v1/templates/plan", body=body)
    changed: list[dict[str, Any]] = [one for one in plan["changes"] if one["action"] != "unchanged"]
    if changed:
        client.request("POST", "/v1/templates/apply", body=body)
    return changed


def database_url(place: Place) -> str:
    """The owner's address of the demo's database, as the running server told it in `databases.json`."""
    try:
        told = msgspec.json.decode((place.data_folder / "databases.json").read_bytes())
        address: str = told[DATABASE]["owner"]
        return address
    except (OSError, msgspec.DecodeError, KeyError) as error:
        raise click.ClickException(
            f"the server that runs on {place.data_folder} does not know of the demo: stop it and run this again"
        ) from error


def _seed(place: Place, say: Say, environment: dict[str, str], *options: str) -> None:
    command = [sys.executable, str(place.examples / "seed.py"), *options]
    done = subprocess.run(
        command,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(
            f"the demo's data could not be made: {done.stderr.strip() or done.stdout.strip()}"
        )
    for line in done.stdout.splitlines():
        say(f"  {line}")


def _staged_version(place: Place) -> str | None:
    path = place.stage / "DATASET_VERSION"
    return path.read_text().strip() if path.is_file() else None


def _uploaded_version(client: Client) -> str | None:
    try:
        found: bytes = client.request("GET", f"/v1/objects/{MARK}")
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    if TABLE not in client.request("GET", "/v1/tables")["data"]:
        return None
    return found.decode()


async def _database_version(url: str) -> str | None:
    connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S)
    try:
        if await connection.fetchval("SELECT to_regclass('dataset')") is None:
            return None
        version: str | None = await connection.fetchval("SELECT version FROM dataset")
        return version
    finally:
        await connection.close()
