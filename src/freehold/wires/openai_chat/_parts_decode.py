"""Wires, OpenAI chat: the parts of a client's messages to the heart's parts."""

from collections.abc import Mapping
from typing import Final, Literal, assert_never

import msgspec
from msgspec import UNSET, Raw, Struct, structs

from freehold.core.errors import BadRequest
from freehold.core.messages import (
    Bytes,
    Media,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    VendorFile,
)
from freehold.core.validation import decode
from freehold.wires._fields import NO_EXTRA, NO_FIELDS, UNREADABLE, extra_of, is_null
from freehold.wires._media import from_base64, source_of
from freehold.wires._opaque import unpacked
from freehold.wires.openai_chat._custom import call_of
from freehold.wires.openai_chat._shapes import (
    NAME,
    AssistantMessage,
    AudioPart,
    CacheControl,
    FilePart,
    ImagePart,
    TextPart,
    ToolCallShape,
    UserPart,
    VideoPart,
)

AUDIO_FORMATS: Final = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "ogg": "audio/ogg",
    "m4a": "audio/mp4",
    "pcm16": "audio/pcm",
}
FILE_NAME: Final = "document.pdf"
"""What a file without a name is called, since OpenAI wants one with `file_data`."""


def text_part(shape: TextPart, unknown: Mapping[str, Raw] | None) -> Text:
    if shape.prompt_cache_breakpoint is UNSET and shape.cache_control is None and not unknown:
        return Text(shape.text)
    cache, fields = marks(shape.cache_control, shape.prompt_cache_breakpoint)
    return Text(shape.text, cache, extra_of(NAME, {**(unknown or NO_FIELDS), **fields}))


class _Breakpoint(Struct):
    ttl: str | None = None


_BREAKPOINT: Final = msgspec.json.Decoder(_Breakpoint)


def marks(
    control: CacheControl | None, given: Raw | msgspec.UnsetType = UNSET
) -> tuple[Literal["5m", "1h"] | None, dict[str, Raw]]:
    """A caching mark in the heart's words, and as it came, for a provider of this wire. OpenAI's times to live are longer than any
    other vendor's: the longest there is stands for them.
    """
    cache: Literal["5m", "1h"] | None = None
    fields: dict[str, Raw] = {}
    if given is not UNSET and not is_null(given):
        fields["prompt_cache_breakpoint"] = given
        cache = "1h" if decode(bytes(given), _BREAKPOINT, root="prompt_cache_breakpoint").ttl else "5m"
    if control is not None:
        fields["cache_control"] = Raw(msgspec.json.encode(control))
        cache = control.ttl or "5m"
    return cache, fields


def part(shape: UserPart, unknown: Mapping[str, Raw] | None, path: str) -> Text | Media:
    match shape:
        case TextPart():
            return text_part(shape, unknown)
        case ImagePart():
            return _image(shape, unknown, path)
        case AudioPart():
            sound = shape.input_audio
            media_type = AUDIO_FORMATS.get(sound.format, f"audio/{sound.format}")
            data = Bytes(from_base64(sound.data, f"{path}.input_audio.data"))
            cache, fields = marks(None, shape.prompt_cache_breakpoint)
            extra = extra_of(NAME, {**(unknown or NO_FIELDS), **fields})
            return Media("audio", media_type, data, cache=cache, extra=extra)
        case FilePart():
            return _file(shape, unknown, path)
        case VideoPart():
            url = shape.video_url if isinstance(shape.video_url, str) else shape.video_url.url
            media_type, source = source_of(url, f"{path}.video_url.url")
            return Media("video", media_type, source, extra=extra_of(NAME, unknown))
        case _ as unreachable:
            assert_never(unreachable)


def _image(shape: ImagePart, unknown: Mapping[str, Raw] | None, path: str) -> Media:
    image = shape.image_url
    url, detail = (image, None) if isinstance(image, str) else (image.url, image.detail)
    media_type, source = source_of(url, f"{path}.image_url.url")
    cache, fields = marks(None, shape.prompt_cache_breakpoint)
    extra = extra_of(NAME, {**(unknown or NO_FIELDS), **fields})
    return Media("image", media_type, source, detail=detail, cache=cache, extra=extra)


def _file(shape: FilePart, unknown: Mapping[str, Raw] | None, path: str) -> Media:
    file = shape.file
    cache, fields = marks(None, shape.prompt_cache_breakpoint)
    extra = extra_of(NAME, {**(unknown or NO_FIELDS), **fields})
    name = None if file.filename == FILE_NAME else file.filename
    if file.file_id is not None:
        return Media("document", "", VendorFile(NAME, file.file_id), name, cache=cache, extra=extra)
    if file.file_data is None:
        raise BadRequest("expected file_data or file_id, got neither", field=f"{path}.file")
    if not file.file_data.startswith(("data:", "http:", "https:")):
        data = from_base64(file.file_data, f"{path}.file.file_data")
        return Media("document", "application/pdf", Bytes(data), name, cache=cache, extra=extra)
    media_type, source = source_of(file.file_data, f"{path}.file.file_data")
    return Media("document", media_type, source, name, cache=cache, extra=extra)


def assistant_parts(
    shape: AssistantMessage,
    parts: Mapping[int, dict[str, Raw]],
    calls: Mapping[int, dict[str, Raw]],
) -> tuple[Part, ...]:
    """Reasoning first, then what was said, then the calls: OpenAI's shape has no order between them."""
    content: list[Part] = []
    if shape.reasoning_details is not UNSET:
        content += reasoning_of(shape.reasoning_details)
    thought = shape.reasoning_content or shape.reasoning
    if thought and not content:
        content.append(Reasoning(thought))
    said = shape.content
    if isinstance(said, str):
        if said:
            content.append(Text(said, None, NO_EXTRA))
    elif isinstance(said, list):
        content += (
            text_part(one, parts.get(place)) if isinstance(one, TextPart) else Refusal(one.refusal)
            for place, one in enumerate(said)
        )
    if shape.refusal:
        content.append(Refusal(shape.refusal))
    if shape.tool_calls:
        content += (_call(one, calls.get(place), place) for place, one in enumerate(shape.tool_calls))
    return tuple(content)


def _call(shape: ToolCallShape, unknown: Mapping[str, Raw] | None, place: int) -> ToolCall:
    function = shape.function
    if function is None:
        if shape.custom is UNSET:
            raise BadRequest("expected function or custom, got neither", field=f"tool_calls[{place}]")
        called = call_of(shape.id or "", shape.custom, f"tool_calls[{place}].custom")
        seal = None if shape.extra_content is UNSET else seal_of(shape.extra_content)
        return called if seal is None else structs.replace(called, opaque=seal)
    if not unknown and shape.extra_content is UNSET:
        return ToolCall(shape.id or "", function.name, function.arguments or "", None, None, NO_EXTRA)
    extra = extra_of(NAME, unknown)
    opaque = None if shape.extra_content is UNSET else seal_of(shape.extra_content)
    return ToolCall(shape.id or "", function.name, function.arguments or "", opaque, None, extra)


class _Sealed(Struct):
    freehold: str = ""


_SEALED: Final = msgspec.json.Decoder(_Sealed)


def seal_of(extra_content: Raw) -> Opaque | None:
    """Our own packing of another vendor's seal, or this vendor's `extra_content` as it is."""
    if is_null(extra_content):
        return None
    try:
        ours = unpacked(_SEALED.decode(extra_content).freehold)
    except UNREADABLE:
        ours = None
    return ours or Opaque(NAME, "", "", bytes(extra_content).decode(), "extra_content")


class _Detail(Struct):
    type: str = ""
    text: str | None = None
    summary: str | None = None
    signature: str | None = None
    data: str | None = None


_DETAILS: Final = msgspec.json.Decoder(list[_Detail] | None)


def reasoning_of(details: Raw) -> list[Reasoning]:
    """A client brings back `reasoning_details`: ours, one a part, or as a whole those of the vendor that it had before."""
    try:
        shapes = _DETAILS.decode(details) or []
    except UNREADABLE as error:
        raise BadRequest(
            "expected an array of objects that have a type", field="reasoning_details"
        ) from error
    seals = [unpacked(shape.signature or shape.data or "") for shape in shapes]
    if shapes and not any(seals):
        text = "".join(shape.text or shape.summary or "" for shape in shapes)
        return [Reasoning(text, Opaque(NAME, "", "", bytes(details).decode(), "reasoning_details"))]
    return [Reasoning(shape.text or "", seal) for shape, seal in zip(shapes, seals, strict=True)]
