"""Tool kind `objects`: files in the object store under one prefix: list, read, search. Looking only; nothing is written.

Search is `_search.py`. A model sees keys whole, as the store has them, and can name only keys under the prefix.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar, Final

from msgspec import Meta, Struct

from freehold.core.errors import BadRequest, NotFound
from freehold.core.ports import Objects, OpenTool, ToolHost, ToolKind, ToolOutcome, ToolRun
from freehold.core.resources import Tool
from freehold.tools._functions import Function, Functions, answer, described, function
from freehold.tools.objects._search import Index, Query, json_or_text, text_of

LIST_MAX: Final = 500
READ_BYTES_MAX: Final = 100_000
WHOLE_BYTES_MAX: Final = 16_000_000
"""An object of at most this size is fetched at once, also when only its beginning is read."""

MATCHES_MAX: Final = 50

Key = Annotated[str, Meta(min_length=1, max_length=1024)]
Prefix = Annotated[str, Meta(max_length=1024, description="What keys begin with; empty for all.")]


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`suffixes`: search only keys that end so (`.json`); empty for all. Objects over `search_bytes_max` are not searched."""

    prefix: str = ""
    suffixes: tuple[str, ...] = ()
    search_bytes_max: Annotated[int, Meta(ge=1, le=16_000_000)] = 1_000_000
    search_objects_max: Annotated[int, Meta(ge=1, le=100_000)] = 20_000


class List(Struct, frozen=True, forbid_unknown_fields=True):
    prefix: Prefix = ""
    limit: Annotated[int, Meta(ge=1, le=LIST_MAX)] = 100
    cursor: Annotated[str | None, Meta(description="`next` of the page before.")] = None


class Read(Struct, frozen=True, forbid_unknown_fields=True):
    key: Key
    start: Annotated[int, Meta(ge=0, description="First byte, from 0.")] = 0
    length: Annotated[int, Meta(ge=1, le=READ_BYTES_MAX, description="Bytes at most.")] = 20_000


class Search(Struct, frozen=True, forbid_unknown_fields=True):
    query: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=300,
            description='Words that must all occur, in any case and order; "quoted words" occur together.',
        ),
    ]
    prefix: Prefix = ""
    limit: Annotated[int, Meta(ge=1, le=MATCHES_MAX)] = 20
    whole: Annotated[
        bool, Meta(description="Give small objects whole, rather than only where the words stand.")
    ] = False


class ObjectTool:
    name: ClassVar[str] = "objects"
    config: ClassVar[type[Struct]] = Config

    @asynccontextmanager
    async def open(self, tool: Tool, config: Config, host: ToolHost) -> AsyncIterator[OpenTool]:
        yield Functions(tool, _functions(tool, config, host.objects))


def _functions(tool: Tool, config: Config, store: Objects) -> list[Function]:
    index = Index(
        store,
        suffixes=config.suffixes,
        size_max=config.search_bytes_max,
        objects_max=config.search_objects_max,
    )

    async def list_(asked: List, run: ToolRun) -> ToolOutcome:
        prefix = _prefix_within(config.prefix, asked.prefix)
        page = await store.list(run.principal.tenant, prefix=prefix, limit=asked.limit, cursor=asked.cursor)
        return answer({"objects": page.objects, "next": page.next})

    async def read(asked: Read, run: ToolRun) -> ToolOutcome:
        _key_within(config.prefix, asked.key)
        return await _read(store, run.principal.tenant, asked)

    async def search(asked: Search, run: ToolRun) -> ToolOutcome:
        prefix = _prefix_within(config.prefix, asked.prefix)
        query = Query.parse(asked.query)
        found = await index.search(run.principal.tenant, query, prefix, limit=asked.limit, whole=asked.whole)
        return answer(found)

    where = f" Keys begin with {config.prefix!r}." if config.prefix else ""

    def offer(name: str, arguments: type[Struct], handler: Any, does: str) -> Function:
        return function(name, arguments, handler, description=described(tool, does) + where, effect="pure")

    return [
        offer("list", List, list_, "List objects in the order of their keys, with size and time of change."),
        offer("read", Read, read, "Read one object's text, or a piece of it."),
        offer("search", Search, search, "Find objects whose text has all of the given words."),
    ]


async def _read(store: Objects, tenant: str, asked: Read) -> ToolOutcome:
    try:
        info = await store.head(tenant, asked.key)
        if asked.start >= info.size_bytes > 0:
            raise BadRequest(f"the object ends at byte {info.size_bytes}", field="start")
        # The port refuses to cut an object short from its first byte, so its beginning is cut here.
        size_max = WHOLE_BYTES_MAX if asked.start == 0 else asked.length
        data = await store.get(tenant, asked.key, start=asked.start, size_max=size_max)
    except NotFound:
        return answer({"error": f"there is no object {asked.key!r}"}, failed=True)
    piece = data[: asked.length]
    end = asked.start + len(piece)
    text = text_of(piece, cut_start=asked.start > 0, cut_end=end < info.size_bytes)
    if text is None:
        kind = "binary" if b"\0" in piece else "not UTF-8"
        return answer(
            {"error": f"{asked.key} is {kind}, {info.size_bytes} bytes: only text can be read"}, failed=True
        )
    body: dict[str, Any] = {"key": asked.key, "size_bytes": info.size_bytes, "modified_at": info.modified_at}
    if len(piece) == info.size_bytes:
        return answer(body | json_or_text(text))
    return answer(
        body | {"start": asked.start, "text": text, "next_start": end if end < info.size_bytes else None}
    )


def _prefix_within(prefix: str, asked: str) -> str:
    if not asked:
        return prefix
    if not asked.startswith(prefix):
        raise BadRequest(
            f"expected a prefix that begins with {prefix!r}, got {asked[:120]!r}", field="prefix"
        )
    return asked


def _key_within(prefix: str, asked: str) -> None:
    if not asked.startswith(prefix) or ".." in asked.split("/"):
        raise BadRequest(f"expected a key that begins with {prefix!r}, got {asked[:120]!r}", field="key")


KIND: ToolKind = ObjectTool()
