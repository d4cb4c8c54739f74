"""One real server, with a scripted vendor for every provider's wire behind it and the vendors' SDKs in front."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import httpx2
from msgspec import Struct

import tests.matrix.clients
import tests.matrix.vendors
from freehold.app import open_house
from freehold.config import Config, Database, Models
from tests._waiting import PATIENCE_S
from tests.gateway._vendors import Step, Vendor
from tests.matrix._tap import Tap, tapped
from tests.server._world import served

KEY = "sk-of-the-scripted-vendor"
MODEL = "the-model"


@cache
def found(package: ModuleType) -> Mapping[str, Any]:
    """The drivers of a folder by the wire that they speak: a new one joins by being there. `_name` is shared by them."""
    names = sorted(module.name for module in iter_modules(package.__path__) if module.name[0] != "_")
    modules = [import_module(f"{package.__name__}.{name}") for name in names]
    return {module.WIRE: module for module in modules}


def clients() -> Mapping[str, Any]:
    return found(tests.matrix.clients)


def vendors() -> Mapping[str, Any]:
    return found(tests.matrix.vendors)


def provider(wire: str) -> str:
    return "scripted-" + wire.replace("_", "-")


class MatrixWorld(Struct):
    """`url` is of the tap before the server: what it answers is noted there."""

    url: str
    tap: Tap
    key: str
    made: dict[str, str]
    vendors: dict[str, Vendor]
    sdks: dict[str, Any]

    def play(self, wire: str, *scripts: Sequence[Step]) -> Vendor:
        vendor = self.vendors[wire]
        vendor.play(*scripts)
        self.tap.taken()
        return vendor


@asynccontextmanager
async def matrix_world(database_url: str, folder: Path) -> AsyncIterator[MatrixWorld]:
    async with AsyncExitStack() as stack:
        behind = {wire: await stack.enter_async_context(Vendor([])) for wire in vendors()}
        config = Config(
            data_folder=folder,
            database=Database(url=database_url),
            models=Models(discover_local=False),
            environment={"SCRIPTED_KEY": KEY},
        )
        house = await stack.enter_async_context(open_house(config))
        door = await stack.enter_async_context(served(house))
        await _declare(door.url, house.operator_key, behind)
        made = await _key(door.url, house.operator_key)
        tap = await stack.enter_async_context(tapped(door.url))
        sdks = {wire: client.opened(tap.url, made) for wire, client in clients().items()}
        try:
            yield MatrixWorld(tap.url, tap, house.operator_key, made, behind, sdks)
        finally:
            for sdk in sdks.values():
                await sdk.close()


async def _key(url: str, operator_key: str) -> dict[str, str]:
    """An API key, and the pair that AWS's SDK signs with."""
    headers = {"authorization": f"Bearer {operator_key}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_S, trust_env=False) as http:
        answer = await http.post("/v1/keys", json={"name": "matrix"})
        assert answer.status_code < 300, answer.text
        made: dict[str, str] = answer.json()
        return made


async def _declare(url: str, key: str, behind: Mapping[str, Vendor]) -> None:
    declared = "---\n".join(
        f"kind: provider\nname: {provider(wire)}\ntype: {vendors()[wire].TYPE}\n"
        f"base_url: {vendor.url}{vendors()[wire].BASE}\napi_key: env:SCRIPTED_KEY\nwire: {wire}\n"
        for wire, vendor in behind.items()
    )
    headers = {"authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_S, trust_env=False) as http:
        answer = await http.post("/v1/templates/apply", json={"template": declared, "variables": {}})
        assert answer.status_code == 200, answer.text
