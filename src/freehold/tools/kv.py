"""Tool kind `kv`: JSON values by key, in a table that Freehold keeps. What tables are and how they're stored: store/.

Without `writable` a model can only look. Writes are idempotent: the same key and value may be put any number of times.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar, Final

from msgspec import Meta, Struct

from freehold.core.ports import KeyValues, OpenTool, ToolHost, ToolKind, ToolOutcome, ToolRun
from freehold.core.resources import Tool
from freehold.tools._functions import Function, Functions, answer, described, function

KEYS_MAX: Final = 100
ITEMS_MAX: Final = 200

Key = Annotated[str, Meta(min_length=1, max_length=512)]
Keys = Annotated[list[Key], Meta(min_length=1, max_length=KEYS_MAX, description="The keys, whole.")]


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`key_help` tells the model what keys look like (`SKU-4482/SHA: product, slash, center`)."""

    table: Annotated[str, Meta(min_length=1, max_length=63)]
    key_help: str = ""
    writable: bool = False


class Get(Struct, frozen=True, forbid_unknown_fields=True):
    keys: Keys


class List(Struct, frozen=True, forbid_unknown_fields=True):
    prefix: Annotated[str, Meta(max_length=512, description="What keys begin with; empty for all.")] = ""
    limit: Annotated[int, Meta(ge=1, le=ITEMS_MAX)] = 50
    cursor: Annotated[str | None, Meta(description="`next` of the page before.")] = None


class Put(Struct, frozen=True, forbid_unknown_fields=True):
    items: Annotated[
        dict[Key, Any],
        Meta(min_length=1, max_length=KEYS_MAX, description="Values by key; replaces whole values."),
    ]


class Delete(Struct, frozen=True, forbid_unknown_fields=True):
    keys: Keys


class KeyValueTool:
    name: ClassVar[str] = "kv"
    config: ClassVar[type[Struct]] = Config

    @asynccontextmanager
    async def open(self, tool: Tool, config: Config, host: ToolHost) -> AsyncIterator[OpenTool]:
        yield Functions(tool, _functions(tool, config, host.key_values))


def _functions(tool: Tool, config: Config, store: KeyValues) -> list[Function]:
    table = config.table
    keys = f" Keys: {config.key_help.strip()}" if config.key_help else ""

    async def get(asked: Get, run: ToolRun) -> ToolOutcome:
        found = await store.get(run.principal.tenant, table, asked.keys)
        missing = [key for key in asked.keys if key not in found]
        return answer({"items": found, "missing": missing})

    async def list_(asked: List, run: ToolRun) -> ToolOutcome:
        page = await store.scan(
            run.principal.tenant, table, prefix=asked.prefix, limit=asked.limit, cursor=asked.cursor
        )
        return answer({"items": dict(page.items), "next": page.next})

    async def put(asked: Put, run: ToolRun) -> ToolOutcome:
        return answer({"put": await store.put(run.principal.tenant, table, asked.items)})

    async def delete(asked: Delete, run: ToolRun) -> ToolOutcome:
        return answer({"deleted": await store.delete(run.principal.tenant, table, asked.keys)})

    def says(does: str) -> str:
        return described(tool, does) + keys

    looks = "Look up values by their keys; says which are missing."
    lists = "List keys and values in the order of keys, by what keys begin with."
    reads = [
        function("get", Get, get, description=says(looks), effect="pure"),
        function("list", List, list_, description=says(lists), effect="pure"),
    ]
    if not config.writable:
        return reads
    drops = "Delete values by key; keys that are not there are no fault."
    return [
        *reads,
        function("put", Put, put, description=says("Write values by key."), effect="idempotent"),
        function("delete", Delete, delete, description=says(drops), effect="idempotent"),
    ]


KIND: ToolKind = KeyValueTool()
