"""Data that Freehold keeps for applications: key-value tables and objects. What agents read through `kv` and `objects`."""

import asyncio
import io
import tarfile
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct
from starlette.responses import Response

from freehold.core.errors import BadRequest, FreeholdError, NotFound
from freehold.core.policy import authorize
from freehold.core.ports import KeyValues, Objects
from freehold.core.validation import check_limit
from freehold.server.operations import Call, Operation

ITEMS_MAX: Final = 10_000
PAGE_MAX: Final = 1_000
OBJECT_BYTES_MAX: Final = 33_554_432
ARCHIVE_FILES_MAX: Final = 10_000
WRITES_AT_ONCE: Final = 16


class Item(Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    value: Any


class Written(Struct, frozen=True):
    count: int


class ItemPage(Struct, frozen=True):
    data: tuple[Item, ...]
    next_page: str | None


class TablesShown(Struct, frozen=True):
    """Table name to number of items."""

    data: dict[str, int]


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    prefix: str = ""
    limit: int = 100
    page: str | None = None


class ObjectShown(Struct, frozen=True):
    key: str
    size_bytes: int
    modified_at: datetime | None = None


class ObjectList(Struct, frozen=True):
    data: tuple[ObjectShown, ...]
    next_page: str | None


class ArchiveQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`prefix` stands before every path of the archive."""

    prefix: str = ""


def _limit(query: PageQuery) -> int:
    check_limit(query.limit, PAGE_MAX)
    return query.limit


class Data:
    def __init__(self, key_values: KeyValues, objects: Objects) -> None:
        self._key_values = key_values
        self._objects = objects
        self._line = msgspec.json.Decoder(Item)

    async def tables(self, call: Call) -> TablesShown:
        authorize(call.principal, "table:List", "table/*")
        return TablesShown(dict(await self._key_values.tables(call.principal.tenant)))

    async def put_items(self, call: Call) -> Written:
        """One JSON object a line: `{"key": ..., "value": ...}`. All or nothing."""
        table = call.path["table"]
        authorize(call.principal, "table:Write", f"table/{table}")
        items: dict[str, Any] = {}
        for number, line in enumerate(call.body.splitlines(), 1):
            if not line.strip():
                continue
            try:
                item = self._line.decode(line)
            except msgspec.DecodeError as error:
                raise BadRequest(
                    f'expected {{"key": "...", "value": ...}}: {error}', field=f"line {number}"
                ) from error
            if len(items) >= ITEMS_MAX:
                raise BadRequest(
                    f"expected {ITEMS_MAX} items at most; send the rest in another request",
                    field=f"line {number}",
                )
            items[item.key] = item.value
        return Written(await self._key_values.put(call.principal.tenant, table, items))

    async def list_items(self, call: Call) -> ItemPage:
        table = call.path["table"]
        authorize(call.principal, "table:Read", f"table/{table}")
        query: PageQuery = call.query
        page = await self._key_values.scan(
            call.principal.tenant, table, prefix=query.prefix, limit=_limit(query), cursor=query.page
        )
        return ItemPage(tuple(Item(key, value) for key, value in page.items), page.next)

    async def get_item(self, call: Call) -> Item:
        table, key = call.path["table"], call.path["key"]
        authorize(call.principal, "table:Read", f"table/{table}")
        found = await self._key_values.get(call.principal.tenant, table, [key])
        if key not in found:
            raise NotFound(f"table {table!r} has no item {key!r}")
        return Item(key, found[key])

    async def delete_item(self, call: Call) -> Written:
        table, key = call.path["table"], call.path["key"]
        authorize(call.principal, "table:Write", f"table/{table}")
        return Written(await self._key_values.delete(call.principal.tenant, table, [key]))

    async def put_object(self, call: Call) -> ObjectShown:
        key = call.path["key"]
        authorize(call.principal, "object:Write", f"object/{key}")
        await self._objects.put(call.principal.tenant, key, call.body)
        return ObjectShown(key, len(call.body))

    async def put_archive(self, call: Call) -> Written:
        """A tar archive, not compressed: every regular file becomes an object. A failure leaves some written; send it again."""
        query: ArchiveQuery = call.query
        files = await asyncio.to_thread(_files_of, call.body, query.prefix)
        for key in files:
            authorize(call.principal, "object:Write", f"object/{key}")
        slots = asyncio.Semaphore(WRITES_AT_ONCE)

        async def put(key: str, content: bytes) -> None:
            async with slots:
                await self._objects.put(call.principal.tenant, key, content)

        try:
            async with asyncio.TaskGroup() as group:
                for key, content in files.items():
                    group.create_task(put(key, content))
        except* FreeholdError as failures:
            raise failures.exceptions[0] from failures
        return Written(len(files))

    async def get_object(self, call: Call) -> Response:
        key = call.path["key"]
        authorize(call.principal, "object:Read", f"object/{key}")
        data = await self._objects.get(call.principal.tenant, key, size_max=OBJECT_BYTES_MAX)
        return Response(
            data, media_type="application/octet-stream", headers={"x-content-type-options": "nosniff"}
        )

    async def delete_object(self, call: Call) -> Written:
        key = call.path["key"]
        authorize(call.principal, "object:Write", f"object/{key}")
        await self._objects.delete(call.principal.tenant, key)
        return Written(1)

    async def list_objects(self, call: Call) -> ObjectList:
        query: PageQuery = call.query
        authorize(call.principal, "object:List", f"object/{query.prefix}")
        page = await self._objects.list(
            call.principal.tenant, prefix=query.prefix, limit=_limit(query), cursor=query.page
        )
        return ObjectList(
            tuple(ObjectShown(one.key, one.size_bytes, one.modified_at) for one in page.objects), page.next
        )


def _files_of(archive: bytes, prefix: str) -> dict[str, bytes]:
    """Key to content. Where a path comes twice the later one counts, as tar has it."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as opened:
            for member in opened:
                content = opened.extractfile(member) if member.isreg() else None
                if content is None:
                    continue
                if len(found) >= ARCHIVE_FILES_MAX:
                    raise BadRequest(
                        f"expected {ARCHIVE_FILES_MAX} files at most; send the rest in another archive"
                    )
                found[f"{prefix}{member.name.removeprefix('./')}"] = content.read()
    except (tarfile.TarError, EOFError, UnicodeError) as error:
        raise BadRequest(f"expected a tar archive, not compressed: {error}") from error
    return found


def operations(key_values: KeyValues, objects: Objects) -> list[Operation]:
    data = Data(key_values, objects)
    items, item = "/v1/tables/{table}/items", "/v1/tables/{table}/items/{key:path}"
    objects_path, object_path = "/v1/objects", "/v1/objects/{key:path}"
    return [
        Operation(method="GET", path="/v1/tables", id="listTables", tag="data", summary="Key-value tables and their sizes.",
                  handler=data.tables, answer=TablesShown),
        Operation(method="PUT", path=items, id="putItems", tag="data", summary="Write items, one JSON object a line.",
                  handler=data.put_items, raw_body=True, answer=Written),
        Operation(method="GET", path=items, id="listItems", tag="data", summary="Items by key.",
                  handler=data.list_items, query=PageQuery, answer=ItemPage),
        Operation(method="GET", path=item, id="getItem", tag="data", summary="One item.", handler=data.get_item, answer=Item),
        Operation(method="DELETE", path=item, id="deleteItem", tag="data", summary="Delete an item; idempotent.",
                  handler=data.delete_item, answer=Written),
        Operation(method="GET", path=objects_path, id="listObjects", tag="data", summary="Objects by key.",
                  handler=data.list_objects, query=PageQuery, answer=ObjectList),
        Operation(method="PUT", path=objects_path, id="putArchive", tag="data",
                  summary="Write every file of a tar archive (not compressed) as an object.",
                  handler=data.put_archive, raw_body=True, query=ArchiveQuery, answer=Written),
        Operation(method="PUT", path=object_path, id="putObject", tag="data", summary="Write an object.",
                  handler=data.put_object, raw_body=True, answer=ObjectShown),
        Operation(method="GET", path=object_path, id="getObject", tag="data", summary="An object's bytes.",
                  handler=data.get_object, media_type="application/octet-stream"),
        Operation(method="DELETE", path=object_path, id="deleteObject", tag="data", summary="Delete an object; idempotent.",
                  handler=data.delete_object, answer=Written),
    ]  # fmt: skip
