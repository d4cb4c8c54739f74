"""Wires, OpenAI responses: parts of messages and of tools' results to the heart's parts."""

from collections.abc import Mapping
from typing import Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct

from freehold.core.errors import BadRequest
from freehold.core.messages import Address, Bytes, Carried, Media, Refusal, Text, VendorFile
from freehold.core.validation import decode
from freehold.wires._fields import NO_FIELDS, OBJECT, UNREADABLE, extra_of, is_null, parted
from freehold.wires._media import from_base64, source_of
from freehold.wires.openai_responses._shapes import (
    FILES,
    NAME,
    PART,
    Field,
    FilePart,
    ImagePart,
    PartHead,
    RefusalPart,
    TextPart,
    fields_of,
)

FILE_NAME: Final = "document.pdf"
"""What a file without a name is called, since OpenAI wants one with `file_data`."""

USUAL_DETAIL: Final = "auto"

_EMPTY: Final = (b"null", b"[]", b"{}")
_encode: Final = msgspec.json.Encoder().encode
_HEAD: Final = msgspec.json.Decoder(PartHead)
_TEXT: Final = msgspec.json.Decoder(TextPart)
_REFUSAL: Final = msgspec.json.Decoder(RefusalPart)
_IMAGE: Final = msgspec.json.Decoder(ImagePart)
_FILE: Final = msgspec.json.Decoder(FilePart)
_TEXT_FIELDS: Final = fields_of(TextPart)
_IMAGE_FIELDS: Final = fields_of(ImagePart)
_FILE_FIELDS: Final = fields_of(FilePart)

Shape = TypeVar("Shape", bound=Struct)
Part = Text | Refusal | Media | Carried


def read(
    json: Raw, decoder: "msgspec.json.Decoder[Shape]", known: frozenset[str], path: str
) -> tuple[Shape, dict[str, Raw]]:
    """What the heart knows of an object, and its other fields, without those that say nothing. Raises BadRequest with the path."""
    try:
        return decoder.decode(json), {}
    except UNREADABLE:
        fields, rest = parted(json, known, path)
    shape = decode(_encode(fields), decoder, root=path)
    return shape, {name: value for name, value in rest.items() if bytes(value) not in _EMPTY}


def others(json: Raw, known: frozenset[str], path: str) -> dict[str, Raw]:
    fields = decode(bytes(json), OBJECT, root=path)
    return {name: value for name, value in fields.items() if name not in known and bytes(value) not in _EMPTY}


def part(json: Raw, path: str, message: Mapping[str, Raw] = NO_FIELDS) -> Part:
    """`message` are fields of the message around it, which ride on its texts."""
    kind = decode(bytes(json), _HEAD, root=path).type
    match kind:
        case "input_text" | "output_text":
            shape, rest = read(json, _TEXT, _TEXT_FIELDS, path)
            for name, value in (("annotations", shape.annotations), ("logprobs", shape.logprobs)):
                if value is not UNSET and bytes(value) not in _EMPTY:
                    rest[name] = value
            cache = _mark(shape.prompt_cache_breakpoint, rest, path)
            return Text(shape.text, cache, extra_of(NAME, {**message, **rest}))
        case "refusal":
            return Refusal(decode(bytes(json), _REFUSAL, root=path).refusal)
        case "input_image":
            return _image(json, path)
        case "input_file":
            return _file(json, path)
        case _:
            return Carried(NAME, PART + kind, json)


class _Breakpoint(Struct):
    ttl: str | None = None


_BREAKPOINT: Final = msgspec.json.Decoder(_Breakpoint)


def _mark(given: Field, rest: dict[str, Raw], path: str) -> Literal["5m", "1h"] | None:
    """A caching mark rides along as it came, too. OpenAI's times to live are longer than any other vendor's: the longest there is
    stands for them.
    """
    if given is UNSET or is_null(given):
        return None
    rest["prompt_cache_breakpoint"] = given
    ttl = decode(bytes(given), _BREAKPOINT, root=f"{path}.prompt_cache_breakpoint").ttl
    return "1h" if ttl else "5m"


def _detail(detail: str | None) -> str | None:
    return None if detail == USUAL_DETAIL else detail


def _image(json: Raw, path: str) -> Media:
    shape, rest = read(json, _IMAGE, _IMAGE_FIELDS, path)
    cache = _mark(shape.prompt_cache_breakpoint, rest, path)
    detail, extra = _detail(shape.detail), extra_of(NAME, rest)
    if shape.file_id is not None:
        return Media("image", "", VendorFile(FILES, shape.file_id), None, detail, cache, extra)
    if shape.image_url is None:
        raise BadRequest("expected image_url or file_id, got neither", field=path)
    media_type, source = source_of(shape.image_url, f"{path}.image_url")
    return Media("image", media_type, source, None, detail, cache, extra)


def _file(json: Raw, path: str) -> Media:
    shape, rest = read(json, _FILE, _FILE_FIELDS, path)
    cache = _mark(shape.prompt_cache_breakpoint, rest, path)
    name = None if shape.filename == FILE_NAME else shape.filename
    detail, extra = _detail(shape.detail), extra_of(NAME, rest)
    if shape.file_id is not None:
        return Media("document", "", VendorFile(FILES, shape.file_id), name, detail, cache, extra)
    if shape.file_url is not None:
        return Media("document", "", Address(shape.file_url), name, detail, cache, extra)
    given = shape.file_data
    if given is None:
        raise BadRequest("expected file_data, file_url or file_id, got none of them", field=path)
    if not given.startswith("data:"):
        data = Bytes(from_base64(given, f"{path}.file_data"))
        return Media("document", "application/pdf", data, name, detail, cache, extra)
    media_type, source = source_of(given, f"{path}.file_data")
    return Media("document", media_type, source, name, detail, cache, extra)
