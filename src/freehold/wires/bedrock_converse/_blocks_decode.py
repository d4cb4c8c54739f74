"""Wires, Bedrock Converse: content blocks to the heart's parts, of requests and of answers alike.

A cache point is a block of its own here; in the heart it is a mark on the part before it.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
from msgspec import UNSET, Raw, structs

from freehold.core.errors import BadRequest
from freehold.core.messages import (
    Bytes,
    Carried,
    Media,
    MediaKind,
    MediaSource,
    Opaque,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    VendorFile,
)
from freehold.core.validation import decode
from freehold.wires._arguments import text_of
from freehold.wires._fields import extra_of, is_null
from freehold.wires._opaque import unpacked
from freehold.wires.bedrock_converse._formats import media_type_of
from freehold.wires.bedrock_converse._shapes import (
    CACHE_POINT,
    CITATIONS,
    GUARD,
    MEDIA,
    NAME,
    REASONING,
    TEXT,
    TOOL_RESULT,
    TOOL_USE,
    Block,
    Cache,
    Source,
)

Decoded: TypeAlias = Text | Media | ToolCall | ToolResult | Reasoning | Carried
REDACTED: Final = "redacted_content"
OF_CALL: Final = "tool_call "
"""Before a call's id: the kind of a seal that belongs to a call. Calls have no place for one here, so it comes as a thought of its own."""
_MEDIA_KINDS: Final[Mapping[str, MediaKind]] = {
    "image": "image",
    "document": "document",
    "video": "video",
    "audio": "audio",
}
_MARKABLE: Final = (Text, Media, ToolCall, ToolResult)
_encode: Final = msgspec.json.Encoder().encode


def parts_of(blocks: Sequence[Block], path: str, *, provider: str = "", model: str = "") -> list[Decoded]:
    """`provider` and `model` are whose seals these are; a client cannot say: then from anybody of this wire."""
    parts: list[Decoded] = []
    for place, block in enumerate(blocks):
        if len(block) == 1 and "text" in block:  # The usual one; a path is only made for what may need it.
            parts.append(_text(block["text"], path, place))
            continue
        at = f"{path}[{place}]"
        kind, value = one_of(block, at)
        if kind == "cachePoint":
            mark(parts, value, f"{at}.cachePoint")
            continue
        part = _part(kind, value, f"{at}.{kind}", provider, model)
        if isinstance(part, Reasoning) and part.opaque is not None and part.opaque.kind.startswith(OF_CALL):
            _seal_call(parts, part.opaque)
        else:
            parts.append(part)
    return parts


def _text(json: Raw, path: str, place: int) -> Text:
    try:
        return Text(TEXT.decode(json))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Text(decode(bytes(json), TEXT, root=f"{path}[{place}].text"))


def _seal_call(parts: "list[Decoded]", seal: Opaque) -> None:
    call_id, _, kind = seal.kind.removeprefix(OF_CALL).rpartition(" ")
    for place, part in enumerate(parts):
        if isinstance(part, ToolCall) and part.id == call_id:
            parts[place] = structs.replace(part, opaque=structs.replace(seal, kind=kind))


def one_of(block: Block, path: str) -> tuple[str, Raw]:
    """What a block is. A null beside it says nothing (some SDKs write every member)."""
    if len(block) != 1:
        block = {kind: value for kind, value in block.items() if not is_null(value)}
    if len(block) != 1:
        raise BadRequest(f"expected a block of one kind, got {', '.join(block) or 'none'}", field=path)
    return next(iter(block.items()))


def cache_of(json: Raw, path: str) -> Cache:
    return decode(bytes(json), CACHE_POINT, root=path).ttl or "5m"


def mark(parts: "list[Decoded]", json: Raw, path: str) -> None:
    """Where nothing before it can bear a mark, the cache point stays a block."""
    cache = cache_of(json, path)
    last = parts[-1] if parts else None
    if isinstance(last, _MARKABLE) and last.cache is None:
        parts[-1] = structs.replace(last, cache=cache)
    else:
        parts.append(_carried("cachePoint", json))


def _carried(kind: str, json: Raw) -> Carried:
    return Carried(NAME, kind, Raw(_encode({kind: json})))


def _part(kind: str, json: Raw, path: str, provider: str, model: str) -> Decoded:
    match kind:
        case "text":
            return Text(decode(bytes(json), TEXT, root=path))
        case "toolUse":
            return _tool_call(json, path)
        case "toolResult":
            return _tool_result(json, path)
        case "reasoningContent":
            return _reasoning(json, path, provider, model)
        case "citationsContent":
            return _cited(json) or _carried(kind, json)
        case "guardContent":
            return guarded(json) or _carried(kind, json)
        case _ if kind in _MEDIA_KINDS:
            return _media(_MEDIA_KINDS[kind], json, path) or _carried(kind, json)
        case _:
            return _carried(kind, json)


def _tool_call(json: Raw, path: str) -> ToolCall:
    shape, rest = TOOL_USE.read(json, path)
    fields = dict(rest)
    if shape.type is not None:
        fields["type"] = Raw(_encode(shape.type))
    return ToolCall(shape.tool_use_id, shape.name, text_of(shape.input), extra=extra_of(NAME, fields))


def _tool_result(json: Raw, path: str) -> ToolResult:
    shape, rest = TOOL_RESULT.read(json, path)
    fields = dict(rest)
    if shape.type is not None:
        fields["type"] = Raw(_encode(shape.type))
    content = tuple(_inner(block, f"{path}.content[{place}]") for place, block in enumerate(shape.content))
    failed = shape.status == "error"
    return ToolResult(shape.tool_use_id, content, failed, extra=extra_of(NAME, fields))


def _inner(block: Block, path: str) -> Text | Media | Carried:
    kind, json = one_of(block, path)
    if kind == "text":
        return Text(decode(bytes(json), TEXT, root=f"{path}.text"))
    if kind == "json":
        return Text(bytes(json).decode("utf-8", "replace"), extra={NAME: {"json": json}})
    media_kind = _MEDIA_KINDS.get(kind)
    found = None if media_kind is None else _media(media_kind, json, f"{path}.{kind}")
    return found or _carried(kind, json)


def _reasoning(json: Raw, path: str, provider: str, model: str) -> Reasoning | Carried:
    try:
        shape = REASONING.decode(json)
    except msgspec.DecodeError:
        return _carried("reasoningContent", json)
    if shape.redacted_content is not None:
        return Reasoning("", Opaque(NAME, provider, model, shape.redacted_content, REDACTED))
    if shape.reasoning_text is None:
        raise BadRequest("expected reasoningText or redactedContent", field=path)
    text, signature = shape.reasoning_text.text, shape.reasoning_text.signature
    if not signature:
        return Reasoning(text)
    return Reasoning(text, unpacked(signature) or Opaque(NAME, provider, model, signature))


def _cited(json: Raw) -> Text | None:
    try:
        shape = CITATIONS.decode(json)
    except msgspec.DecodeError:
        return None
    fields = {"citations": Raw(b"[]") if shape.citations is UNSET else shape.citations}
    return Text("".join(one.text for one in shape.content or ()), extra={NAME: fields})


def guarded(json: Raw) -> Text | None:
    """Text that a guardrail is to look at; None for what is no text."""
    try:
        return Text(GUARD.decode(json).text.text, extra={NAME: {"guardContent": json}})
    except msgspec.DecodeError:
        return None


def _media(kind: MediaKind, json: Raw, path: str) -> Media | None:
    """None for a document in pieces, which only this vendor knows."""
    shape, rest = MEDIA.read(json, path)
    fields = dict(rest)
    if shape.source.content is not UNSET:
        return None
    if shape.context is not None:
        fields["context"] = Raw(_encode(shape.context))
    if isinstance(shape.citations, Raw) and not _disabled(shape.citations):
        fields["citations"] = shape.citations
    if shape.source.s3_location is not None and shape.source.s3_location.bucket_owner is not None:
        fields["bucketOwner"] = Raw(_encode(shape.source.s3_location.bucket_owner))
    media_type = media_type_of(kind, shape.format)
    if shape.source.text is not None:
        media_type = media_type or "text/plain"
    return Media(kind, media_type, _source(shape.source, path), shape.name, extra=extra_of(NAME, fields))


def _disabled(citations: Raw) -> bool:
    return is_null(citations) or bytes(citations).replace(b" ", b"") == b'{"enabled":false}'


def _source(source: Source, path: str) -> MediaSource:
    if isinstance(source.data, bytes):
        return Bytes(source.data)
    if source.s3_location is not None:
        return VendorFile(NAME, source.s3_location.uri)
    if source.text is not None:
        return Bytes(source.text.encode("utf-8", "replace"))
    raise BadRequest("expected bytes, s3Location or text", field=f"{path}.source")
