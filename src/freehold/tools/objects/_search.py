"""Finds words in objects' texts: every object under a prefix is looked at, and its text is kept for the next time.

No inverted index: a few thousand small objects are matched in milliseconds once their texts are here, and nothing has to
be kept up to date. A kept text counts while the store lists the same size and time of change for its key.
"""

import asyncio
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest, NotFound, TooLarge
from freehold.core.ports import ObjectInfo, Objects

PAGE: Final = 1_000
FETCHES_AT_ONCE: Final = 32
KEPT_BYTES_MAX: Final = 64_000_000
"""Texts kept in one opened tool, counted as characters in both of their forms."""

SMALL_BYTES: Final = 65_536
"""Larger texts are matched off the event loop."""

TERMS_MAX: Final = 12
SNIPPETS_MAX: Final = 3
SNIPPET_CHARS: Final = 60
WHOLE_BYTES_MAX: Final = 4_000
WHOLE_TOTAL_BYTES_MAX: Final = 100_000

_TERM: Final = re.compile(r'"([^"]+)"|(\S+)')
_SPACE: Final = re.compile(r"\s+")


class Query(Struct, frozen=True):
    """Lower-cased words and phrases, all of which must occur."""

    terms: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Query":
        terms = tuple((quoted or word).strip('"').lower() for quoted, word in _TERM.findall(text))
        terms = tuple(dict.fromkeys(term for term in terms if term.strip()))
        if not terms:
            raise BadRequest("expected at least one word", field="query")
        if len(terms) > TERMS_MAX:
            raise BadRequest(f"expected at most {TERMS_MAX} words, got {len(terms)}", field="query")
        return cls(terms)

    def fits(self, lowered: str) -> bool:
        return all(term in lowered for term in self.terms)


class Kept(Struct, frozen=True):
    modified_at: datetime
    size_bytes: int
    text: str
    lowered: str


class Index:
    """One opened tool's view of the store."""

    def __init__(self, store: Objects, *, suffixes: tuple[str, ...], size_max: int, objects_max: int) -> None:
        self._store = store
        self._suffixes = suffixes
        self._size_max = size_max
        self._objects_max = objects_max
        self._kept: dict[tuple[str, str], Kept] = {}
        self._kept_size = 0
        self._fetching = asyncio.Lock()
        """Searches that begin at once don't each fetch the same texts."""

    async def search(
        self, tenant: str, query: Query, prefix: str, *, limit: int, whole: bool
    ) -> dict[str, Any]:
        """Matches in the order of keys. `matched` counts all of them; `skipped` what was too large or no text."""
        infos, more = await self._listed(tenant, prefix)
        small = [info for info in infos if info.size_bytes <= self._size_max]
        async with self._fetching:
            known, unknown = self._told_apart(tenant, small)
            fresh, unreadable = await self._fetch_fitting(tenant, query, unknown)
        found = await asyncio.to_thread(_fitting, query, known)
        found = sorted([*found, *fresh], key=lambda pair: pair[0])
        result: dict[str, Any] = {
            "matched": len(found),
            "matches": list(_shown(found[:limit], query, whole=whole)),
            "searched": len(small) - unreadable,
        }
        if skipped := len(infos) - len(small) + unreadable:
            result["skipped"] = skipped
        if more:
            result["note"] = f"only the first {self._objects_max} objects were searched; give a longer prefix"
        return result

    def _told_apart(
        self, tenant: str, infos: Iterable[ObjectInfo]
    ) -> tuple[list[tuple[str, Kept]], list[ObjectInfo]]:
        """Texts that are kept, and objects that are to be fetched."""
        known: list[tuple[str, Kept]] = []
        unknown: list[ObjectInfo] = []
        for info in infos:
            kept = self._kept.get((tenant, info.key))
            if kept and (kept.modified_at, kept.size_bytes) == (info.modified_at, info.size_bytes):
                known.append((info.key, kept))
            else:
                unknown.append(info)
        return known, unknown

    async def _listed(self, tenant: str, prefix: str) -> tuple[list[ObjectInfo], bool]:
        infos: list[ObjectInfo] = []
        cursor: str | None = None
        while True:
            page = await self._store.list(tenant, prefix=prefix, limit=PAGE, cursor=cursor)
            infos += [
                info for info in page.objects if not self._suffixes or info.key.endswith(self._suffixes)
            ]
            cursor = page.next
            if cursor is None or len(infos) >= self._objects_max:
                break
        self._forget_gone(tenant, prefix, infos)
        return infos[: self._objects_max], cursor is not None or len(infos) > self._objects_max

    def _forget_gone(self, tenant: str, prefix: str, infos: Iterable[ObjectInfo]) -> None:
        there = {info.key for info in infos}
        gone = [k for k in self._kept if k[0] == tenant and k[1].startswith(prefix) and k[1] not in there]
        for key in gone:
            self._forget(key)

    def _forget(self, key: tuple[str, str]) -> None:
        if old := self._kept.pop(key, None):
            self._kept_size -= 2 * len(old.text)

    def _keep(self, key: tuple[str, str], kept: Kept) -> None:
        """When full, what is kept stays: throwing out the oldest would lose everything on each walk over more than fits."""
        self._forget(key)
        if self._kept_size + 2 * len(kept.text) <= KEPT_BYTES_MAX:
            self._kept[key] = kept
            self._kept_size += 2 * len(kept.text)

    async def _fetch_fitting(
        self, tenant: str, query: Query, infos: list[ObjectInfo]
    ) -> tuple[list[tuple[str, Kept]], int]:
        found: list[tuple[str, Kept]] = []
        unreadable = 0
        waiting = iter(infos)

        async def work() -> None:
            nonlocal unreadable
            for info in waiting:
                kept = await self._fetch(tenant, info)
                if kept is None:
                    unreadable += 1
                    continue
                large = info.size_bytes > SMALL_BYTES
                if await asyncio.to_thread(query.fits, kept.lowered) if large else query.fits(kept.lowered):
                    found.append((info.key, kept))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(FETCHES_AT_ONCE, len(infos))):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return found, unreadable

    async def _fetch(self, tenant: str, info: ObjectInfo) -> Kept | None:
        try:
            data = await self._store.get(tenant, info.key, size_max=self._size_max)
        except (NotFound, TooLarge):  # gone, or grown, since it was listed
            return None
        text = text_of(data)
        if text is None:
            return None
        kept = Kept(info.modified_at, info.size_bytes, text, text.lower())
        self._keep((tenant, info.key), kept)
        return kept


def _fitting(query: Query, known: Iterable[tuple[str, Kept]]) -> list[tuple[str, Kept]]:
    return [(key, kept) for key, kept in known if query.fits(kept.lowered)]


def _shown(found: Iterable[tuple[str, Kept]], query: Query, *, whole: bool) -> Iterator[dict[str, Any]]:
    given = 0
    for key, kept in found:
        if whole and kept.size_bytes <= WHOLE_BYTES_MAX and given + kept.size_bytes <= WHOLE_TOTAL_BYTES_MAX:
            given += kept.size_bytes
            yield {"key": key} | json_or_text(kept.text)
        else:
            yield {"key": key, "size_bytes": kept.size_bytes, "snippets": _snippets(kept, query)}


def _snippets(kept: Kept, query: Query) -> list[str]:
    """Where the words stand. Places are those of the lowered text, which is a little off where lowering changed lengths."""
    snippets: list[str] = []
    end = 0
    for at in sorted(kept.lowered.find(term) for term in query.terms):
        if len(snippets) == SNIPPETS_MAX:
            break
        if snippets and at < end:
            continue
        start, end = max(0, at - SNIPPET_CHARS), at + 2 * SNIPPET_CHARS
        snippets.append(_SPACE.sub(" ", kept.text[start:end]).strip())
    return snippets


def text_of(data: bytes, *, cut_start: bool = False, cut_end: bool = False) -> str | None:
    """UTF-8 text, or None. Where a piece was cut out of a larger text, characters split at its ends are forgiven."""
    if b"\0" in data:
        return None
    start = 0
    while cut_start and start < min(3, len(data)) and data[start] & 0xC0 == 0x80:
        start += 1
    try:
        return data[start:].decode()
    except UnicodeDecodeError as error:
        if cut_end and error.end >= len(data) - start and len(data) - start - error.start < 4:
            return data[start : start + error.start].decode()
        return None


def json_or_text(text: str) -> dict[str, Any]:
    """`content` where the text is JSON, else `text`."""
    try:
        return {"content": msgspec.json.decode(text)}
    except (msgspec.DecodeError, RecursionError):
        return {"text": text}
