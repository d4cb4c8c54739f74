"""Wires, Anthropic: content blocks to the heart's parts."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from freehold.core.messages import (
    Address,
    Bytes,
    Carried,
    Media,
    MediaSource,
    Opaque,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    VendorFile,
)
from freehold.wires._arguments import text_of
from freehold.wires._fields import NO_EXTRA, NO_FIELDS, extra_of
from freehold.wires._media import from_base64
from freehold.wires._opaque import unpacked
from freehold.wires.anthropic_messages._shapes import (
    NAME,
    Base64Source,
    Cache,
    CacheControl,
    ContentSource,
    DocumentBlock,
    FileSource,
    ImageBlock,
    ImageSource,
    RedactedThinkingBlock,
    ResultBlock,
    TextBlock,
    TextSource,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    says_something,
)

PDF: Final = "application/pdf"
_encode: Final = msgspec.json.Encoder().encode


class Note(Struct):
    """What the careful way has taken out of a block: its unknown fields, or all of it; and the same of the blocks in it."""

    fields: dict[str, Raw] = {}
    carried: Carried | None = None
    inner: "dict[int, Note]" = {}


NO_NOTE: Final = Note()


def cache_of(mark: CacheControl | None) -> Cache:
    return None if mark is None else mark.ttl or "5m"


def _fields(unknown: Mapping[str, Raw], known: Mapping[str, Raw | UnsetType]) -> dict[str, Raw]:
    found = {
        name: value for name, value in known.items() if isinstance(value, Raw) and says_something(name, value)
    }
    return {**unknown, **found} if unknown else found


def text(block: TextBlock, note: Note) -> Text:
    if block.citations is UNSET and note is NO_NOTE:
        cache = None if block.cache_control is None else cache_of(block.cache_control)
        return Text(block.text, cache, NO_EXTRA)
    fields = _fields(note.fields, {"citations": block.citations})
    return Text(block.text, cache_of(block.cache_control), extra_of(NAME, fields))


def image(block: ImageBlock, note: Note, path: str) -> Media:
    media_type, source = _source(block.source, path)
    fields = _fields(note.fields, {"transformations": block.transformations})
    cache = cache_of(block.cache_control)
    return Media("image", media_type, source, cache=cache, extra=extra_of(NAME, fields))


def _source(source: ImageSource, path: str) -> tuple[str, MediaSource]:
    match source:
        case Base64Source():
            return source.media_type, Bytes(from_base64(source.data, f"{path}.source.data"))
        case FileSource():
            return "", VendorFile(NAME, source.file_id)
        case _:
            return "", Address(source.url)


def document(block: DocumentBlock, note: Note, path: str) -> Media | Carried:
    given = block.source
    source: MediaSource
    if isinstance(given, ContentSource):
        return Carried(NAME, "document", Raw(_encode(block)))
    if isinstance(given, TextSource):
        media_type, source = given.media_type, Bytes(given.data.encode())
    else:
        media_type, source = _source(given, path)
        media_type = media_type or ("" if isinstance(given, FileSource) else PDF)
    fields = _fields(note.fields, {"citations": block.citations, "context": block.context})
    cache = cache_of(block.cache_control)
    return Media("document", media_type, source, block.title, cache=cache, extra=extra_of(NAME, fields))


def thinking(block: ThinkingBlock | RedactedThinkingBlock) -> Reasoning:
    """A client cannot say from which provider a signature is: of this wire, then, from anybody."""
    if isinstance(block, RedactedThinkingBlock):
        return Reasoning("", Opaque(NAME, "", "", block.data, "redacted_thinking"))
    if not block.signature:
        return Reasoning(block.thinking)
    return Reasoning(block.thinking, unpacked(block.signature) or Opaque(NAME, "", "", block.signature))


def tool_call(block: ToolUseBlock, note: Note) -> ToolCall:
    if note is NO_NOTE and block.caller is block.toolset_name is UNSET and block.freehold_seal is None:
        return ToolCall(block.id, block.name, text_of(block.input), None, cache_of(block.cache_control))
    fields = _fields(note.fields, {"caller": block.caller, "toolset_name": block.toolset_name})
    opaque = None if block.freehold_seal is None else unpacked(block.freehold_seal)
    cache = cache_of(block.cache_control)
    return ToolCall(block.id, block.name, text_of(block.input), opaque, cache, extra_of(NAME, fields))


def tool_result(block: ToolResultBlock, note: Note, path: str) -> ToolResult:
    content = block.content
    parts: tuple[Text | Media | Carried, ...] = ()
    if isinstance(content, str):
        parts = (Text(content),) if content else ()
    elif content:
        parts = tuple(
            _inner(one, note.inner.get(place, NO_NOTE), f"{path}.content[{place}]")
            for place, one in enumerate(content)
        )
    cache = cache_of(block.cache_control)
    if note is NO_NOTE and block.toolset_name is UNSET:
        return ToolResult(block.tool_use_id, parts, block.is_error or False, cache)
    fields = _fields(note.fields or NO_FIELDS, {"toolset_name": block.toolset_name})
    return ToolResult(block.tool_use_id, parts, block.is_error or False, cache, extra_of(NAME, fields))


def _inner(block: ResultBlock, note: Note, path: str) -> Text | Media | Carried:
    if note.carried is not None:
        return note.carried
    match block:
        case TextBlock():
            return text(block, note)
        case ImageBlock():
            return image(block, note, path)
        case DocumentBlock():
            return document(block, note, path)
