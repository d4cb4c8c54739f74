"""Content blocks of the sessions API, both directions.

Shapes: https://platform.claude.com/docs/en/managed-agents/events-and-streaming (text, image and document blocks).
"""

import base64
from typing import Any

import msgspec
from msgspec import Struct

from freehold.core.errors import BadRequest
from freehold.core.messages import Address, Bytes, Media, Text, VendorFile

_WIRE = "anthropic_messages"


class Base64Source(Struct, frozen=True, tag="base64"):
    media_type: str
    data: str


class UrlSource(Struct, frozen=True, tag="url"):
    url: str


class TextSource(Struct, frozen=True, tag="text"):
    data: str
    media_type: str = "text/plain"


class TextBlock(Struct, frozen=True, tag="text"):
    text: str


class ImageBlock(Struct, frozen=True, tag="image"):
    source: Base64Source | UrlSource


class DocumentBlock(Struct, frozen=True, tag="document"):
    source: Base64Source | UrlSource | TextSource
    title: str | None = None


Block = TextBlock | ImageBlock | DocumentBlock


def part_of(block: Block, field: str) -> Text | Media:
    match block:
        case TextBlock():
            return Text(block.text)
        case ImageBlock():
            return _media("image", block.source, None, field)
        case DocumentBlock():
            return _media("document", block.source, block.title, field)


def _media(kind: Any, source: Base64Source | UrlSource | TextSource, name: str | None, field: str) -> Media:
    match source:
        case UrlSource():
            return Media(kind, "", Address(source.url), name=name)
        case TextSource():
            return Media(kind, source.media_type, Bytes(source.data.encode()), name=name)
        case Base64Source():
            try:
                data = base64.b64decode(source.data, validate=True)
            except ValueError as error:
                raise BadRequest(
                    f"expected base64, got {source.data[:20]!r}…", field=f"{field}.source.data"
                ) from error
            return Media(kind, source.media_type, Bytes(data), name=name)


def block_of(part: Text | Media) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    block: dict[str, Any] = {"type": "image" if part.kind == "image" else "document", "source": _source(part)}
    if part.name and part.kind != "image":
        block["title"] = part.name
    return block


def _source(part: Media) -> dict[str, Any]:
    match part.source:
        case Bytes(data):
            return {"type": "base64", "media_type": part.media_type, "data": base64.b64encode(data).decode()}
        case Address(url):
            return {"type": "url", "url": url}
        case VendorFile(_, file_id):
            return {"type": "file", "file_id": file_id}


def arguments_of(text: str) -> dict[str, Any]:
    """A tool call's arguments as an object; what isn't one stands under `_raw`, so that nothing is lost."""
    try:
        value = msgspec.json.decode(text or "{}")
    except msgspec.DecodeError:
        return {"_raw": text}
    return value if isinstance(value, dict) else {"_raw": text}
