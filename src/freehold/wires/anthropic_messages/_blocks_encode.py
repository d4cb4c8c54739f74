"""Wires, Anthropic: the heart's parts to content blocks, for a provider and for a client."""

import re
import zlib
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct

from freehold.core.errors import Unsupported
from freehold.core.messages import (
    Address,
    Bytes,
    Carried,
    Extra,
    Media,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    VendorFile,
)
from freehold.wires._arguments import object_of
from freehold.wires._fields import check_foreign, may_return, own, spliced
from freehold.wires._media import base64_of
from freehold.wires._opaque import packed
from freehold.wires.anthropic_messages._blocks_decode import PDF
from freehold.wires.anthropic_messages._shapes import (
    NAME,
    Base64Source,
    Cache,
    CacheControl,
    DocumentBlock,
    FileSource,
    ImageBlock,
    RedactedThinkingBlock,
    TextBlock,
    TextSource,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
)

_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
_ID_FORBIDDEN: Final = re.compile(r"[^a-zA-Z0-9_-]")
_CACHE: Final = {
    "5m": CacheControl("ephemeral"),
    "1h": CacheControl("ephemeral", "1h"),
}
_encode: Final = msgspec.json.Encoder().encode


def cache_control(cache: Cache) -> CacheControl | None:
    return None if cache is None else _CACHE[cache]


def with_extra(shape: Struct, extra: Extra, place: str, path: str) -> Any:
    if not extra:
        return shape
    check_foreign(extra, NAME, place, path)
    fields = own(extra, NAME)
    return spliced(_encode(shape), fields) if fields else shape


def refuse(part: Part, role: str, path: str) -> Unsupported:
    what = f"{part.wire}'s {part.type}" if isinstance(part, Carried) else type(part).__name__.lower()
    return Unsupported(f"{NAME} has no {what} in a message of role {role}", field=path)


def block(part: Part, role: str, path: str, provider: str) -> Any:
    """None for reasoning that came from elsewhere: it is left out, and the conversation still holds."""
    if (
        type(part) is ToolCall
    ):  # Quicker than a match, whose isinstance a Struct's type makes slow when it says no.
        return tool_use(part, path)
    if type(part) is ToolResult:
        return tool_result(part, path)
    match part:
        case Text():
            return text(part, path)
        case ToolCall():
            return tool_use(part, path)
        case ToolResult():
            return tool_result(part, path)
        case Media():
            return media(part, path)
        case Reasoning():
            return _thinking(part, provider)
        case Refusal():
            return TextBlock(part.text)
        case Carried():
            if part.wire != NAME:
                raise refuse(part, role, path)
            return part.block


def text(part: Text, path: str) -> Any:
    shape = TextBlock(part.text, cache_control(part.cache))
    return with_extra(shape, part.extra, "text", path) if part.extra else shape


def tool_use(call: ToolCall, path: str) -> Any:
    shape = ToolUseBlock(_valid_id(call.id), call.name, object_of(call.arguments), cache_control(call.cache))
    return with_extra(shape, call.extra, "tool_call", path)


def _valid_id(call_id: str) -> str:
    """This vendor takes letters, digits, _ and - only; others' ids have more ("functions.weather:0"). The same id maps to the same."""
    if _ID.fullmatch(call_id):
        return call_id
    return f"{_ID_FORBIDDEN.sub('_', call_id)}_{zlib.crc32(call_id.encode('utf-8', 'replace')):08x}"


def tool_result(result: ToolResult, path: str) -> Any:
    parts = result.content
    content: Any = None
    if len(parts) == 1 and isinstance(parts[0], Text) and not parts[0].extra and parts[0].cache is None:
        content = parts[0].text
    elif parts:
        content = [_inner(part, f"{path}.content[{place}]") for place, part in enumerate(parts)]
    mark = cache_control(result.cache)
    shape = ToolResultBlock(_valid_id(result.call_id), content, result.failed or None, mark)
    return with_extra(shape, result.extra, "tool_result", path)


def _inner(part: Text | Media | Carried, path: str) -> Any:
    match part:
        case Text():
            return text(part, path)
        case Media():
            return media(part, path)
        case Carried():
            if part.wire != NAME:
                raise refuse(part, "tool", path)
            return part.block


def media(part: Media, path: str) -> Any:
    source = part.source
    if isinstance(source, VendorFile) and source.wire != NAME:
        raise Unsupported(
            f"the file {source.id!r} was uploaded to {source.wire} and is known there only", field=path
        )
    match part.kind:
        case "image":
            shape: Struct = ImageBlock(_source(part.media_type, source), cache_control(part.cache))
        case "document":
            shape = DocumentBlock(_document(part, path), part.name, cache_control(part.cache))
        case "audio" | "video":
            raise Unsupported(f"{NAME} takes no {part.kind}", field=path)
    return with_extra(shape, part.extra, "media", path)


def _source(media_type: str, source: Bytes | Address | VendorFile) -> Base64Source | UrlSource | FileSource:
    match source:
        case Bytes():
            return Base64Source(media_type, base64_of(source.data))
        case Address():
            return UrlSource(source.url)
        case VendorFile():
            return FileSource(source.id)


def _document(part: Media, path: str) -> Base64Source | UrlSource | FileSource | TextSource:
    """PDF as bytes; anything that is text as text, which is all that this vendor reads besides."""
    source = part.source
    if not isinstance(source, Bytes) or part.media_type == PDF:
        return _source(part.media_type, source)
    if not part.media_type.startswith("text/") and part.media_type != "application/json":
        raise Unsupported(f"{NAME} reads documents that are PDF or text, not {part.media_type!r}", field=path)
    try:
        return TextSource("text/plain", source.data.decode())
    except UnicodeDecodeError as error:
        raise Unsupported(f"{NAME} reads text in UTF-8 only", field=path) from error


def _thinking(part: Reasoning, provider: str) -> Any:
    opaque = part.opaque
    if opaque is None or not may_return(opaque, NAME, provider):
        return None
    if opaque.kind == "redacted_thinking":
        return RedactedThinkingBlock(opaque.data)
    return ThinkingBlock(part.text, opaque.data)


# ------------------------------------------------------------------------------------------ for a client


def client_thinking(part: Reasoning) -> ThinkingBlock | RedactedThinkingBlock:
    opaque = part.opaque
    if opaque is not None and opaque.wire == NAME and opaque.kind == "redacted_thinking":
        return RedactedThinkingBlock(opaque.data)
    return ThinkingBlock(part.text, signature_of(opaque))


def signature_of(opaque: Opaque | None) -> str:
    """This vendor's own as it is, so that the client may take its conversation elsewhere; another vendor's with its origin."""
    if opaque is None:
        return ""
    return opaque.data if opaque.wire == NAME and opaque.kind == "signature" else packed(opaque)


DIRECT: Final = Raw(b'{"type":"direct"}')


def client_tool_use(call: ToolCall, arguments: Raw) -> Any:
    """`caller` is required by the vendor's document; without a word it is the model itself."""
    fields = own(call.extra, NAME)
    shape = ToolUseBlock(call.id, call.name, arguments, caller=UNSET if "caller" in fields else DIRECT)
    if call.opaque is not None:
        shape.freehold_seal = packed(call.opaque)
    return spliced(_encode(shape), fields) if fields else shape
