"""Wires, Bedrock Converse: the heart's parts to content blocks, for a provider and for a client."""

import re
import zlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, structs

from freehold.core.errors import Unsupported
from freehold.core.messages import (
    Address,
    AnswerPart,
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
from freehold.wires._opaque import packed
from freehold.wires.bedrock_converse._blocks_decode import OF_CALL, REDACTED
from freehold.wires.bedrock_converse._formats import format_of
from freehold.wires.bedrock_converse._shapes import (
    NAME,
    Cache,
    MediaBlock,
    ReasoningBlock,
    ReasoningText,
    S3Location,
    Source,
    ToolResultBlock,
    ToolUseBlock,
)

ID_CHARACTERS_MAX: Final = 64
DOCUMENT_NAME: Final = "document"
DOCUMENT_NAME_CHARACTERS_MAX: Final = 200
_ID_FORBIDDEN: Final = re.compile(r"[^a-zA-Z0-9_.:-]")
_NAME_FORBIDDEN: Final = re.compile(r"[^a-zA-Z0-9 ()\[\]-]+")
_SPACES: Final = re.compile(r"\s+")
_encode: Final = msgspec.json.Encoder().encode


def cache_point(cache: Cache) -> dict[str, Any]:
    return {"cachePoint": {"type": "default"} if cache != "1h" else {"type": "default", "ttl": "1h"}}


def refuse(part: Part, role: str, path: str) -> Unsupported:
    what = f"{part.wire}'s {part.type}" if isinstance(part, Carried) else type(part).__name__.lower()
    return Unsupported(f"{NAME} has no {what} in a message of role {role}", field=path)


def _with_extra(shape: Struct, extra: Extra, place: str, path: str, without: Sequence[str] = ()) -> Any:
    if not extra:
        return shape
    check_foreign(extra, NAME, place, path)
    fields = {name: value for name, value in own(extra, NAME).items() if name not in without}
    return spliced(_encode(shape), fields)


def blocks_of(parts: Sequence[Part], role: str, path: str, provider: str) -> list[Any]:
    """Empty texts are refused by the vendor, and say nothing. Reasoning from elsewhere is left out, and the conversation holds."""
    blocks: list[Any] = []
    for place, part in enumerate(parts):
        if type(part) is Text and part.cache is None and not part.extra:
            if part.text:
                blocks.append({"text": part.text})
            continue
        at = f"{path}[{place}]"
        block = None if isinstance(part, Text) and not part.text else _block(part, role, at, provider)
        if block is not None:
            blocks.append(block)
        if isinstance(part, Text | Media | ToolCall | ToolResult) and _marked(part) and blocks:
            blocks.append(cache_point(_marked(part)))
    return blocks


def _marked(part: Text | Media | ToolCall | ToolResult) -> Cache:
    """A mark within a tool's result moves behind it: nothing can stand inside here."""
    if isinstance(part, ToolResult) and part.cache is None:
        inner = [one.cache for one in part.content if isinstance(one, Text | Media) and one.cache]
        return inner[-1] if inner else None
    return part.cache


def _block(part: Part, role: str, path: str, provider: str) -> Any:
    match part:
        case Text():
            return text(part, path)
        case ToolCall():
            return {"toolUse": _tool_use(part, valid_id(part.id), path)}
        case ToolResult():
            return {"toolResult": _tool_result(part, path)}
        case Media():
            return media(part, path)
        case Reasoning():
            return _reasoning(part, provider)
        case Refusal():
            return {"text": part.text} if part.text else None
        case Carried():
            if part.wire != NAME:
                raise refuse(part, role, path)
            return part.block


def text(part: Text, path: str) -> dict[str, Any]:
    if not part.extra:
        return {"text": part.text}
    check_foreign(part.extra, NAME, "text", path)
    fields = own(part.extra, NAME)
    if "citations" in fields:
        return {"citationsContent": {"content": [{"text": part.text}], "citations": fields["citations"]}}
    return dict(fields) if fields else {"text": part.text}


def _tool_use(call: ToolCall, call_id: str, path: str) -> Any:
    return _with_extra(
        ToolUseBlock(call_id, call.name, object_of(call.arguments)), call.extra, "tool_call", path
    )


def valid_id(call_id: str) -> str:
    """Others' ids may be longer, or have more characters. The same id maps to the same."""
    if len(call_id) <= ID_CHARACTERS_MAX and call_id and _ID_FORBIDDEN.search(call_id) is None:
        return call_id
    crc = f"{zlib.crc32(call_id.encode('utf-8', 'replace')):08x}"
    return f"{_ID_FORBIDDEN.sub('_', call_id)[: ID_CHARACTERS_MAX - 9]}_{crc}"


def _tool_result(result: ToolResult, path: str) -> Any:
    content = [
        _inner(part, f"{path}.content[{place}]")
        for place, part in enumerate(result.content)
        if not isinstance(part, Text) or part.text
    ]
    status: Any = "error" if result.failed else None
    shape = ToolResultBlock(valid_id(result.call_id), content, status)
    return _with_extra(shape, result.extra, "tool_result", path)


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


# ------------------------------------------------------------------------------------------------- media


def media(part: Media, path: str) -> dict[str, Any]:
    source = _source(part, own(part.extra, NAME).get("bucketOwner"), path)
    name = format_of(part.kind, part.media_type)
    if name is None and (part.kind != "document" or part.media_type):
        said = f"{NAME} has no format for {part.kind} of type {part.media_type!r}: say its media type"
        raise Unsupported(said, field=path)
    shape = MediaBlock(source, name, _document_name(part.name) if part.kind == "document" else None)
    return {part.kind: _with_extra(shape, part.extra, "media", path, ("bucketOwner",))}


def _source(part: Media, bucket_owner: Raw | None, path: str) -> Source:
    source = part.source
    match source:
        case Bytes():
            return Source(source.data)
        case VendorFile():
            if source.wire != NAME:
                said = f"the file {source.id!r} was uploaded to {source.wire} and is known there only"
                raise Unsupported(said, field=path)
            owner = None if bucket_owner is None else msgspec.json.decode(bucket_owner, type=str)
            return Source(UNSET, S3Location(source.id, owner))
        case Address():
            if source.url.startswith("s3://"):
                return Source(UNSET, S3Location(source.url))
            raise Unsupported(f"{NAME} takes {part.kind}s as bytes or from S3, not by address", field=path)


def _document_name(name: str | None) -> str:
    """The vendor takes letters, digits, single spaces, hyphens, parentheses and square brackets, and wants a name."""
    plain = _SPACES.sub(" ", _NAME_FORBIDDEN.sub("-", name or "")).strip(" -")
    return plain[:DOCUMENT_NAME_CHARACTERS_MAX] or DOCUMENT_NAME


# --------------------------------------------------------------------------------------------- reasoning


def _reasoning(part: Reasoning, provider: str) -> Any:
    opaque = part.opaque
    if opaque is None or not may_return(opaque, NAME, provider):
        return None
    return {"reasoningContent": _reasoning_block(part.text, opaque, opaque.data)}


def _reasoning_block(text: str, opaque: Opaque | None, signature: str) -> ReasoningBlock:
    if opaque is not None and opaque.wire == NAME and opaque.kind == REDACTED:
        return ReasoningBlock(None, opaque.data)
    return ReasoningBlock(ReasoningText(text, signature or None))


def signature_of(opaque: Opaque | None) -> str:
    """This vendor's own as it is, so that the client may take its conversation elsewhere; another vendor's with its origin."""
    if opaque is None:
        return ""
    return opaque.data if opaque.wire == NAME else packed(opaque)


# ------------------------------------------------------------------------------------------ for a client


def call_seal(call_id: str, opaque: Opaque) -> str:
    """What `_blocks_decode` makes a call's seal again, as the signature of an empty thought behind the call."""
    return packed(structs.replace(opaque, kind=f"{OF_CALL}{call_id} {opaque.kind}"))


def client_blocks(part: AnswerPart, path: str) -> list[dict[str, Any] | Raw]:
    blocks = [client_block(part, path)]
    if isinstance(part, ToolCall) and part.opaque is not None:
        thought = ReasoningBlock(ReasoningText("", call_seal(part.id, part.opaque)))
        blocks.append({"reasoningContent": thought})
    return blocks


def client_block(part: AnswerPart, path: str) -> dict[str, Any] | Raw:
    """Raises Unsupported for what this vendor's client would not know."""
    match part:
        case Text():
            citations = own(part.extra, NAME).get("citations")
            if citations is None:
                return {"text": part.text}
            return {"citationsContent": {"content": [{"text": part.text}], "citations": citations}}
        case Refusal():
            return {"text": part.text}
        case ToolCall():
            shape = ToolUseBlock(part.id, part.name, object_of(part.arguments))
            return {"toolUse": spliced(_encode(shape), own(part.extra, NAME))}
        case Reasoning():
            return {"reasoningContent": _reasoning_block(part.text, part.opaque, signature_of(part.opaque))}
        case Media():
            return media(part, path)
        case Carried():
            if part.wire == NAME:
                return part.block
            raise Unsupported(f"{NAME} cannot tell its client of {part.wire}'s {part.type}", field=path)
