"""Runtime: results of tools that are too large for a conversation. They are kept aside, and the model gets a beginning and a handle.

What is kept is named by its SHA-256, so the same bytes are there once, and lies under its session: a handle opens nothing elsewhere, but in
the session's forks and in those that work for it. No tool can reach it: it belongs to a tenant whose name nobody can have. It goes with its
session (store/_deletions.py). The function `result_read` is offered as soon as a session has a handle.
"""

import asyncio
import codecs
import hashlib
import re
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest, FreeholdError, NotFound, TooLarge
from freehold.core.messages import Bytes, JsonObject, Media, Text, ToolSpec, raw
from freehold.core.ports import Objects, ToolOutcome
from freehold.core.session import KeptResult
from freehold.runtime.calls import PlannedFunction

TENANT: Final = ".results"
TOOL: Final = ".results"
"""No tool can be declared with this name."""
RESULT_READ: Final = "result_read"
TIMEOUT_S: Final = 30.0

SHOWN_BYTES: Final = 4096
"""Of the beginning of what is kept."""
MEDIA_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of one result; what is more is kept aside, unseen."""
KEPT_BYTES_MAX: Final = 32 * 1024 * 1024
READ_BYTES: Final = 8 * 1024
READ_BYTES_MAX: Final = 32 * 1024
MATCHES_MAX: Final = 20
MATCH_MARGIN_BYTES: Final = 120
SEARCH_CHARS_MAX: Final = 200

_HANDLE: Final = re.compile(r"result_[0-9a-f]{32}")

SPEC: Final = ToolSpec(
    RESULT_READ,
    "Reads in a tool's result that was too large to be shown whole. Give the `handle` that stands in it, and either the byte `offset` "
    "to read from, or a text to `search` for (capitals don't matter), which tells where it stands.",
    raw({
        "type": "object",
        "properties": {
            "handle": {"type": "string"},
            "offset": {"type": "integer", "minimum": 0},
            "limit": {"type": "integer", "minimum": 1, "maximum": READ_BYTES_MAX, "description": "Bytes."},
            "search": {"type": "string", "maxLength": SEARCH_CHARS_MAX},
        },
        "required": ["handle"],
        "additionalProperties": False,
    }),
)
PLANNED: Final = PlannedFunction(TOOL, RESULT_READ, "pure", TIMEOUT_S)


class _Arguments(Struct, frozen=True, forbid_unknown_fields=True):
    handle: str
    offset: int = 0
    limit: int = READ_BYTES
    search: str | None = None


class Fitted(Struct, frozen=True):
    content: tuple[Text | Media, ...]
    kept: tuple[KeptResult, ...] = ()


class Results:
    """All that is kept of one process's sessions, in its object store."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def of(self, tenant: str, session_ids: Sequence[str], *, bytes_max: int) -> "SessionResults":
        """Of the first of `session_ids`; it reads what the others have kept, too."""
        return SessionResults(self._objects, tenant, session_ids, bytes_max)


class SessionResults:
    def __init__(self, objects: Objects, tenant: str, session_ids: Sequence[str], bytes_max: int) -> None:
        self._objects = objects
        self._tenant = tenant
        self._session_ids = session_ids
        self._bytes_max = bytes_max

    async def fitted(self, content: Sequence[Text | Media]) -> Fitted:
        """What the model is shown. Raises TooLarge where it can't be kept; the tool has run then."""
        text = "\n".join([part.text for part in content if type(part) is Text])
        data = text.encode("utf-8", "replace")
        shown: list[Text | Media] = [*content]
        kept: list[KeptResult] = []
        if len(data) > self._bytes_max:
            one = await self._keep(data, "text/plain")
            kept.append(one)
            shown = [Text(_beginning(data, one)), *(part for part in shown if isinstance(part, Media))]
        room = MEDIA_BYTES_MAX
        for place, part in enumerate(shown):
            if not isinstance(part, Media) or not isinstance(part.source, Bytes):
                continue
            if len(part.source.data) <= room:
                room -= len(part.source.data)
                continue
            one = await self._keep(part.source.data, part.media_type)
            kept.append(one)
            shown[place] = Text(
                f"[{part.kind} {part.name or ''} ({one.media_type}, {one.size_bytes} bytes) is too large to be shown; kept as {one.handle}]"
            )
        return Fitted(tuple(shown), tuple(kept))

    async def _keep(self, data: bytes, media_type: str) -> KeptResult:
        if len(data) > KEPT_BYTES_MAX:
            raise TooLarge(
                f"it ran, but its result has {len(data)} bytes and {KEPT_BYTES_MAX} is the most that is kept. "
                "Ask for less: fewer rows or fields, a narrower filter, a smaller range."
            )
        handle = f"result_{hashlib.sha256(data).hexdigest()[:32]}"
        try:
            await self._objects.put(TENANT, f"{self._tenant}/{self._session_ids[0]}/{handle}", data)
        except FreeholdError as error:
            raise TooLarge(
                f"it ran, but its result has {len(data)} bytes and could not be kept aside ({error}). Ask for less.",
                detail=error.detail,
            ) from error
        return KeptResult(handle, len(data), media_type)

    async def read(self, arguments: JsonObject) -> ToolOutcome:
        """Raises BadRequest and NotFound in words for a model."""
        try:
            asked = msgspec.convert(arguments, _Arguments)
        except msgspec.ValidationError as error:
            raise BadRequest(str(error)) from error
        if not _HANDLE.fullmatch(asked.handle):
            raise BadRequest(
                f"expected a handle like result_0123..., got {asked.handle[:80]!r}", field="handle"
            )
        if asked.offset < 0 or not 1 <= asked.limit <= READ_BYTES_MAX:
            raise BadRequest(f"expected an offset of 0 or more, and a limit of 1 to {READ_BYTES_MAX}")
        if asked.search is not None and not 1 <= len(asked.search) <= SEARCH_CHARS_MAX:
            raise BadRequest(f"expected 1 to {SEARCH_CHARS_MAX} characters", field="search")
        key, size = await self._find(asked.handle)
        if asked.search is None:
            said = await self._range(key, size, asked.offset, asked.limit)
        else:
            data = await self._objects.get(TENANT, key, size_max=KEPT_BYTES_MAX)
            said = await asyncio.to_thread(_found, data, asked.search, asked.offset)
        return ToolOutcome((Text(said),))

    async def _find(self, handle: str) -> tuple[str, int]:
        for session_id in self._session_ids:
            key = f"{self._tenant}/{session_id}/{handle}"
            try:
                return key, (await self._objects.head(TENANT, key)).size_bytes
            except NotFound:
                continue
        raise NotFound(f"this session has no result {handle}")

    async def _range(self, key: str, size: int, offset: int, limit: int) -> str:
        # Only a range that begins later can be asked for without the rest.
        whole = KEPT_BYTES_MAX if offset == 0 else limit
        data = (await self._objects.get(TENANT, key, start=offset, size_max=whole))[:limit]
        skipped = next((place for place, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data[skipped:], final=offset + len(data) >= size)
        end = offset + len(data) - len(decoder.getstate()[0])
        where = "the end" if end >= size else f"go on with offset={end}"
        return f"{text}\n[bytes {min(offset + skipped, size)} to {end} of {size}; {where}]"


def _beginning(data: bytes, kept: KeptResult) -> str:
    head = data[:SHOWN_BYTES].decode("utf-8", "ignore")
    end = len(head.encode())
    return (
        f"{head}\n[This is the beginning, {end} of {kept.size_bytes} bytes. The whole is kept as {kept.handle}: read on with "
        f'{RESULT_READ}(handle="{kept.handle}", offset={end}), or look for a text in it with search.]'
    )


def _found(data: bytes, search: str, offset: int) -> str:
    pattern = re.compile(re.escape(search.encode("utf-8", "replace")), re.IGNORECASE)
    matches: list[str] = []
    for match in pattern.finditer(data, offset):
        if len(matches) == MATCHES_MAX:
            return "\n".join([*matches, f"[more; go on with offset={match.start()}]"])
        around = data[max(0, match.start() - MATCH_MARGIN_BYTES) : match.end() + MATCH_MARGIN_BYTES]
        matches.append(f"at {match.start()}: {around.decode('utf-8', 'ignore').strip()}")
    return "\n".join([*matches, f"[{len(matches)} found]"])
