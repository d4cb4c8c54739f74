"""Bytes by key: implements core.ports.Objects on a folder or an S3-compatible store, through obstore.

Each tenant has a folder (or prefix) of its own and cannot name a key outside it. A put is atomic: readers see the old object or
the new one. In a folder a put survives this process's death; the operating system decides when it survives a power cut.
S3's settings: https://developmentseed.org/obstore/latest/api/store/aws/#obstore.store.S3Config
"""

import heapq
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, S3Store

from freehold.core.errors import BadRequest, Conflict, FreeholdError, NotFound, TooLarge, Unavailable
from freehold.core.ports import ObjectInfo, ObjectPage, Objects
from freehold.core.validation import check_limit

OBJECT_BYTES_MAX: Final = 256 * 1024 * 1024
KEY_BYTES_MAX: Final = 900
SEGMENT_BYTES_MAX: Final = 200
LIST_MAX: Final = 1000
TIMEOUT: Final = "60s"
CONNECT_TIMEOUT: Final = "5s"
RETRIES_MAX: Final = 3
FOLDER_MODE: Final = 0o700

_STAGED: Final = re.compile(r"#\d+$")
"""How obstore names a file that is still being written."""


class ObstoreObjects:
    def __init__(self, store: Any, *, sorted_listing: bool) -> None:
        self._store = store
        self._sorted_listing = sorted_listing

    async def get(self, tenant: str, key: str, *, start: int = 0, size_max: int) -> bytes:
        """From byte `start` on; empty from the end on. With a `start`, at most `size_max` bytes come."""
        path = _path(tenant, key)
        if start < 0 or size_max < 0:
            raise BadRequest(
                f"expected 0 or more, got {min(start, size_max)}", field="start" if start < 0 else "size_max"
            )
        with _translated(f"reading object {key}", key):
            if start:
                size = (await self._store.head_async(path))["size"]
                end = min(size, start + size_max)
                return (
                    bytes(await self._store.get_range_async(path, start=start, end=end))
                    if start < end
                    else b""
                )
            answer = await self._store.get_async(path)
            if answer.meta["size"] > size_max:
                raise TooLarge(
                    f"object {key} has {answer.meta['size']} bytes, expected at most {size_max}: read it in parts with `start`"
                )
            return bytes(await answer.bytes_async())

    async def head(self, tenant: str, key: str) -> ObjectInfo:
        path = _path(tenant, key)
        with _translated(f"reading object {key}", key):
            return _info(tenant, await self._store.head_async(path))

    async def list(
        self, tenant: str, *, prefix: str = "", limit: int = 100, cursor: str | None = None
    ) -> ObjectPage:
        """In order of the keys' bytes. `cursor` is the last key of the page before."""
        check_limit(limit, LIST_MAX)
        folder = f"{_checked_tenant(tenant)}/{_folder(prefix)}".rstrip("/")
        offset = None if cursor is None else _path(tenant, cursor, field="cursor")
        with _translated("listing objects", prefix):
            found = await self._first(folder, f"{tenant}/{prefix}", offset, limit + 1)
        page = tuple(_info(tenant, meta) for meta in found[:limit])
        return ObjectPage(page, page[-1].key if len(found) > limit else None)

    async def _first(
        self, folder: str, prefix: str, offset: str | None, count: int
    ) -> Sequence[Mapping[str, Any]]:
        """The first `count` in order. A folder lists in no order: there all of it is walked, and only these are held."""
        found = []
        async for chunk in self._store.list(prefix=folder, offset=offset):
            found += [
                meta
                for meta in chunk
                if meta["path"].startswith(prefix) and (offset is None or meta["path"] > offset)
            ]
            if self._sorted_listing and len(found) >= count:
                break
            found = heapq.nsmallest(count, found, key=lambda meta: str(meta["path"]))
        return found[:count]

    async def put(self, tenant: str, key: str, data: bytes) -> None:
        path = _path(tenant, key)
        if len(data) > OBJECT_BYTES_MAX:
            raise TooLarge(f"an object holds at most {OBJECT_BYTES_MAX} bytes, {key} has {len(data)}")
        with _translated(f"writing object {key}", key, writing=True):
            await self._store.put_async(path, data)

    async def delete(self, tenant: str, key: str) -> None:
        """Idempotent."""
        path = _path(tenant, key)
        try:
            with _translated(f"deleting object {key}", key):
                await self._store.delete_async(path)
        except NotFound:
            return


def open_objects(location: str, settings: Mapping[str, str] | None = None) -> Objects:
    """`location` is a folder, made if need be, or `s3://bucket/prefix`; `settings` are S3's: endpoint, region, access_key_id,
    secret_access_key ... An `http:` endpoint is taken as it is: it is for a store on the same machine or network.
    """
    if not location.startswith("s3://"):
        if "://" in location:
            raise BadRequest("expected a folder or s3://bucket/prefix", field="objects")
        return _open_folder(location)
    given = dict(settings or {})
    plain = given.get("endpoint", "").startswith("http://")
    try:
        store = S3Store.from_url(
            location,
            config=given,  # type: ignore[arg-type]  # its keys are an operator's: obstore refuses those it doesn't know
            client_options={"timeout": TIMEOUT, "connect_timeout": CONNECT_TIMEOUT, "allow_http": plain},
            retry_config={"max_retries": RETRIES_MAX},
        )
    except (BaseError, ValueError, TypeError) as error:
        raise BadRequest(
            "expected s3://bucket/prefix with S3 settings such as endpoint and region",
            field="objects",
            detail=str(error),
        ) from error
    return ObstoreObjects(store, sorted_listing=True)


def _open_folder(location: str) -> Objects:
    folder = Path(location)
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"the object store's folder cannot be made: {error.strerror}", detail=str(error)
        ) from error
    return ObstoreObjects(LocalStore(folder), sorted_listing=False)


def _checked_tenant(tenant: str) -> str:
    if "/" in tenant:
        raise BadRequest("expected a name without '/'", field="tenant")
    _check_segments(tenant, "tenant")
    return tenant


def _path(tenant: str, key: str, *, field: str = "key") -> str:
    """Refuses what could leave the tenant's folder, or means different keys to different stores."""
    _check_segments(key, field)
    if _STAGED.search(key):
        raise BadRequest("expected a key that does not end in '#' and a number", field=field)
    return f"{_checked_tenant(tenant)}/{key}"


def _folder(prefix: str) -> str:
    """The folders of a prefix: it may end in the middle of a name."""
    folder = prefix.rpartition("/")[0]
    if folder:
        _check_segments(folder, "prefix")
    return folder


def _check_segments(text: str, field: str) -> None:
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        raise BadRequest("expected text in Unicode, got a lone surrogate", field=field) from error
    if not 1 <= size_bytes <= KEY_BYTES_MAX:
        raise BadRequest(f"expected 1 to {KEY_BYTES_MAX} bytes, got {size_bytes}", field=field)
    for segment in text.split("/"):
        if segment in {"", ".", ".."}:
            raise BadRequest(
                f"expected names between single '/', without '.' and '..', got {text[:80]!r}", field=field
            )
        if "\\" in segment or any(ord(char) < 32 or ord(char) == 127 for char in segment):
            raise BadRequest("expected a key without backslashes and control characters", field=field)
        if len(segment.encode()) > SEGMENT_BYTES_MAX:
            raise BadRequest(f"expected at most {SEGMENT_BYTES_MAX} bytes between two '/'", field=field)


def _info(tenant: str, meta: Mapping[str, Any]) -> ObjectInfo:
    return ObjectInfo(str(meta["path"])[len(tenant) + 1 :], int(meta["size"]), meta["last_modified"])


@contextmanager
def _translated(doing: str, key: str, *, writing: bool = False) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotFoundError) as error:
        raise NotFound(f"no object {key}") from error
    except (PermissionError, PermissionDeniedError, UnauthenticatedError) as error:
        raise Unavailable(
            f"{doing}: the object store refused us: check its credentials or the folder's owner",
            detail=str(error),
        ) from error
    except (BaseError, OSError, ValueError) as error:
        raise _of_text(str(error), doing, key, writing=writing) from error


def _of_text(text: str, doing: str, key: str, *, writing: bool) -> FreeholdError:
    """obstore gives the operating system's error only as text."""
    match re.search(r"\(os error (\d+)\)", text):
        case re.Match() as found if found[1] in {"28", "122", "112"}:
            return Unavailable(
                f"{doing}: the object store's disk is full: free space, then try again", detail=text
            )
        case re.Match() as found if found[1] in {"20", "21", "39"}:
            if writing:
                return Conflict(
                    f"{doing}: {key} is a folder, or a name before one of its '/' is an object already",
                    detail=text,
                )
            return NotFound(f"no object {key}", detail=text)
    return Unavailable(
        f"{doing}: the object store cannot be reached or failed: check that it runs", detail=text
    )
