"""Wires, Google: a client's parts to the heart's."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
from msgspec import UNSET, Raw

from freehold.core.errors import BadRequest
from freehold.core.messages import (
    Address,
    Bytes,
    Carried,
    Media,
    MediaKind,
    MediaSource,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    VendorFile,
)
from freehold.core.messages import Opaque as Seal
from freehold.core.validation import decode
from freehold.wires._arguments import text_of
from freehold.wires._fields import NO_FIELDS, OBJECT, extra_of, text_in
from freehold.wires._media import from_base64
from freehold.wires.google_generate._seals import SEALED, THOUGHT, from_client, plain_base64
from freehold.wires.google_generate._shapes import (
    CALL,
    NAME,
    RESULT,
    BlobShape,
    CallShape,
    FileShape,
    PartShape,
    ResultShape,
)
from freehold.wires.google_generate._tidy import WHOLE, Unknown

Decoded: TypeAlias = Text | Media | ToolCall | ToolResult | Reasoning | Carried

FILES: Final = ("https://generativelanguage.googleapis.com/", "gs://", "files/")
"""Addresses that mean something to the vendor only."""

_KINDS: Final[Mapping[str, MediaKind]] = {"image": "image", "audio": "audio", "video": "video"}


def kind_of(media_type: str) -> MediaKind:
    return _KINDS.get(media_type.partition("/")[0], "document")


def part(shape: PartShape, unknown: Unknown, path: str) -> Sequence[Decoded]:
    """One, or two where words or media are sealed. Calls and results have the id that the client gave, or none."""
    fields = unknown.get(path, NO_FIELDS) if unknown else NO_FIELDS
    if shape.function_call is not None:
        return (_call(shape, shape.function_call, fields, unknown, f"{path}.functionCall"),)
    if shape.function_response is not None:
        return (_result(shape, shape.function_response, fields, unknown, f"{path}.functionResponse"),)
    if shape.text is not None:
        return _text(shape, shape.text, fields)
    if shape.inline_data is not None:
        return _sealed(blob(shape.inline_data, fields, f"{path}.inlineData"), shape)
    if shape.file_data is not None:
        return _sealed(file(shape.file_data, fields), shape)
    if fields:
        kind = next(
            (name for name, value in fields.items() if bytes(value).startswith(b"{")), next(iter(fields))
        )
        return (Carried(NAME, kind, unknown[path + "!"][WHOLE]),)
    raise BadRequest(
        "expected text, inlineData, fileData, functionCall or functionResponse, got none", field=path
    )


def _text(shape: PartShape, text: str, fields: Mapping[str, Raw]) -> Sequence[Decoded]:
    signature = shape.thought_signature
    if shape.thought:
        seal = from_client(signature, SEALED) if signature else Seal(NAME, "", "", "", THOUGHT)
        return (Reasoning(text, seal),)
    if signature and not text:
        return (Reasoning("", from_client(signature)),)
    return _sealed(Text(text, None, extra_of(NAME, fields)), shape)


def _sealed(said: Text | Media, shape: PartShape) -> Sequence[Decoded]:
    if not shape.thought_signature:
        return (said,)
    return (said, Reasoning("", from_client(shape.thought_signature)))


def blob(shape: BlobShape, fields: Mapping[str, Raw], path: str) -> Media:
    data = from_base64(plain_base64(shape.data), f"{path}.data")
    return Media(
        kind_of(shape.mime_type),
        shape.mime_type,
        Bytes(data),
        shape.display_name,
        extra=extra_of(NAME, fields),
    )


def file(shape: FileShape, fields: Mapping[str, Raw]) -> Media:
    uri = shape.file_uri
    known_there = uri.startswith(FILES) or not uri.startswith(("https://", "http://"))
    source: MediaSource = VendorFile(NAME, uri) if known_there else Address(uri)
    media_type = shape.mime_type or ""
    return Media(kind_of(media_type), media_type, source, shape.display_name, extra=extra_of(NAME, fields))


def _call(
    shape: PartShape, call: CallShape, fields: Mapping[str, Raw], unknown: Unknown, path: str
) -> ToolCall:
    seal = from_client(shape.thought_signature) if shape.thought_signature else None
    found = {**fields, **_under(CALL, unknown, path)} if unknown else fields
    arguments = "" if call.args is UNSET else text_of(_object(call.args, f"{path}.args"))
    return ToolCall(call.id or "", call.name, arguments, seal, None, extra_of(NAME, found))


def _object(given: Raw, path: str) -> Raw:
    if not bytes(given).startswith(b"{"):
        raise BadRequest(f"expected an object, got {bytes(given)[:40]!r}", field=path)
    decode(bytes(given), OBJECT, root=path)
    return given


def _under(prefix: str, unknown: Unknown, path: str) -> dict[str, Raw]:
    return {prefix + name: value for name, value in unknown.get(path, NO_FIELDS).items()}


# ---------------------------------------------------------------------------------------------- results


def _result(
    shape: PartShape, result: ResultShape, fields: Mapping[str, Raw], unknown: Unknown, path: str
) -> ToolResult:
    """The name rides in `extra` until it is known whether the call itself says it."""
    failed, told = _told(result.response, f"{path}.response")
    media = []
    for index, inner in enumerate(result.parts or ()):
        at = f"{path}.parts[{index}]"
        own = unknown.get(at, NO_FIELDS)
        if inner.inline_data is not None:
            media.append(blob(inner.inline_data, own, f"{at}.inlineData"))
        elif inner.file_data is not None:
            media.append(file(inner.file_data, own))
        else:
            raise BadRequest("expected inlineData or fileData, got neither", field=at)
    found = {**fields, **_under(RESULT, unknown, path)} if unknown else dict(fields)
    if shape.thought_signature:
        found["thoughtSignature"] = Raw(msgspec.json.encode(shape.thought_signature))
    found["name"] = Raw(msgspec.json.encode(result.name))
    texts = (Text(told),) if told else ()
    return ToolResult(result.id or "", (*texts, *media), failed, None, {NAME: found})


def _told(response: Raw | msgspec.UnsetType, path: str) -> tuple[bool, str]:
    """Whether it failed, and its words. `output` and `error` are the vendor's own names for these; anything else is JSON."""
    if isinstance(response, msgspec.UnsetType):
        return False, ""
    fields = decode(bytes(response), OBJECT, root=path)
    if len(fields) == 1:
        (name, value), *_ = fields.items()
        if name == "output":
            text = text_in(value)
            return False, bytes(response).decode("utf-8", "replace") if text is None else text
        if name == "error" and bytes(value) != b"null":
            text = text_in(value)
            return True, bytes(value).decode("utf-8", "replace") if text is None else text
    return False, bytes(response).decode("utf-8", "replace") if fields else ""
