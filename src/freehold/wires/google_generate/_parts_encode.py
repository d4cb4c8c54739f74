"""Wires, Google: the heart's parts to the vendor's, for a provider and for a client."""

import mimetypes
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from freehold.core.errors import BadRequest, Unsupported
from freehold.core.messages import (
    Address,
    Bytes,
    Carried,
    Extra,
    Media,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    VendorFile,
)
from freehold.wires._arguments import EMPTY, object_of
from freehold.wires._fields import NO_FIELDS, OBJECT, UNREADABLE, check_foreign, may_return, own, spliced
from freehold.wires._media import base64_of
from freehold.wires.google_generate._calls import name_in
from freehold.wires.google_generate._seals import SEALED, THOUGHT, UNCHECKED, for_client, for_provider
from freehold.wires.google_generate._shapes import (
    CALL,
    NAME,
    RESULT,
    BlobShape,
    CallShape,
    FileShape,
    PartShape,
    ResultPartShape,
    ResultShape,
)

_encode: Final = msgspec.json.Encoder().encode
_RESERVED: Final = frozenset({"output", "error"})


def refuse(part: Part, role: str, path: str) -> Unsupported:
    what = f"{part.wire}'s {part.type}" if isinstance(part, Carried) else type(part).__name__.lower()
    return Unsupported(f"{NAME} has no {what} in a message of role {role}", field=path)


class Parts:
    """One content's parts, as they gather. A seal without words joins the words or media before it."""

    __slots__ = ("_checks", "_names", "_provider", "_role", "_sealable", "told")

    def __init__(self, role: str, provider: str, names: Mapping[str, str], *, checks: bool) -> None:
        """`checks`: the model wants a signature on the first call of each turn."""
        self.told: list[Any] = []
        self._role = role
        self._provider = provider
        self._names = names
        self._checks = checks
        self._sealable: PartShape | None = None

    def add(self, part: Part, path: str) -> None:
        before, self._sealable = self._sealable, None
        match part:
            case Text():
                self._put(PartShape(text=part.text), part.extra, "text", path)
            case Media():
                self._put(media(part, path), part.extra, "media", path)
            case ToolCall():
                self._call(part, path)
            case ToolResult():
                self.told.append(_result(part, self._names, path))
            case Reasoning():
                self._thought(part, before)
            case Refusal():
                self.told.append(PartShape(text=part.text))
            case Carried():
                if part.wire != NAME:
                    raise refuse(part, self._role, path)
                self.told.append(part.block)

    def _put(self, shape: PartShape, extra: Extra, place: str, path: str) -> None:
        check_foreign(extra, NAME, place, path)
        fields = own(extra, NAME)
        self.told.append(spliced(_encode(shape), fields) if fields else shape)
        self._sealable = None if fields else shape

    def _call(self, call: ToolCall, path: str) -> None:
        check_foreign(call.extra, NAME, "tool_call", path)
        signature = for_provider(call.opaque, self._provider)
        if self._checks:
            signature = signature or UNCHECKED
            self._checks = False
        self.told.append(
            call_part(call, signature, UNSET if not call.arguments else object_of(call.arguments))
        )

    def _thought(self, part: Reasoning, before: PartShape | None) -> None:
        """One that came from elsewhere is left out, and the conversation still holds."""
        if part.opaque is None or not may_return(part.opaque, NAME, self._provider):
            return
        put_thought(self.told, part, part.opaque.data or None, before)


def put_thought(told: list[Any], part: Reasoning, signature: str | None, before: PartShape | None) -> None:
    plain = part.opaque is not None and part.opaque.kind in (THOUGHT, SEALED)
    if part.text or plain or signature is None:
        told.append(PartShape(text=part.text, thought=True, thought_signature=signature))
    elif before is not None:
        before.thought_signature = signature
    else:
        told.append(PartShape(text="", thought_signature=signature))


def call_part(call: ToolCall, signature: str | None, arguments: Raw | msgspec.UnsetType) -> Any:
    fields = own(call.extra, NAME)
    inner: Any = CallShape(call.name, arguments, call.id or None)
    under = {name.removeprefix(CALL): value for name, value in fields.items() if name.startswith(CALL)}
    if not fields:
        return PartShape(function_call=inner, thought_signature=signature)
    body = {
        "functionCall": spliced(_encode(inner), under),
        **({"thoughtSignature": signature} if signature else {}),
    }
    return spliced(
        _encode(body), {name: value for name, value in fields.items() if not name.startswith(CALL)}
    )


def media(part: Media, path: str) -> PartShape:
    source = part.source
    match source:
        case Bytes():
            if not part.media_type:
                raise Unsupported(f"{NAME} takes bytes only with their media type", field=path)
            return PartShape(inline_data=BlobShape(part.media_type, base64_of(source.data), part.name))
        case Address():
            media_type = part.media_type or mimetypes.guess_type(source.url)[0]
            return PartShape(file_data=FileShape(source.url, media_type, part.name))
        case VendorFile():
            if source.wire != NAME:
                said = f"the file {source.id!r} was uploaded to {source.wire} and is known there only"
                raise Unsupported(said, field=path)
            return PartShape(file_data=FileShape(source.id, part.media_type or None, part.name))


# ---------------------------------------------------------------------------------------------- results


def _result(result: ToolResult, names: Mapping[str, str], path: str) -> Any:
    check_foreign(result.extra, NAME, "tool_result", path)
    name = names.get(result.call_id) or name_in(result)
    if name is None:
        said = f"answers the call {result.call_id!r}, which is not in the conversation: {NAME} wants its function's name"
        raise BadRequest(said, field=path)
    texts: list[str] = []
    parts: list[ResultPartShape] = []
    for place, one in enumerate(result.content):
        at = f"{path}.content[{place}]"
        match one:
            case Text():
                check_foreign(one.extra, NAME, "text", at)
                texts.append(one.text)
            case Media():
                check_foreign(one.extra, NAME, "media", at)
                told = media(one, at)
                parts.append(ResultPartShape(told.inline_data, told.file_data))
            case Carried():
                raise refuse(one, "tool", at)
    response = _response("\n".join(texts), failed=result.failed)
    shape = ResultShape(name, response, result.call_id or None, parts or None)
    return _with_fields(shape, own(result.extra, NAME))


def _with_fields(shape: ResultShape, fields: Mapping[str, Raw]) -> Any:
    beside = {name: value for name, value in fields.items() if name != "name"}
    if not beside:
        return PartShape(function_response=shape)
    inner = {name.removeprefix(RESULT): value for name, value in beside.items() if name.startswith(RESULT)}
    outer = {name: value for name, value in beside.items() if not name.startswith(RESULT)}
    return spliced(_encode({"functionResponse": spliced(_encode(shape), inner)}), outer)


def _response(text: str, *, failed: bool) -> Raw:
    """An object of the tool's own goes as it is; all else under the vendor's own names."""
    if failed:
        return Raw(_encode({"error": text}))
    json = text.strip().encode("utf-8", "replace")
    if json.startswith(b"{"):
        try:
            fields = OBJECT.decode(json)
        except UNREADABLE:
            fields = {}
        if fields and not _RESERVED & fields.keys():
            return Raw(json)
    return Raw(_encode({"output": text}))


# ------------------------------------------------------------------------------------------ for a client


def client_parts(content: Sequence[Part]) -> list[Any]:
    """Raises Unsupported for what this vendor's client would not know."""
    told: list[Any] = []
    before: PartShape | None = None
    for index, part in enumerate(content):
        sealable, before = before, None
        match part:
            case Text() | Media():
                shape = (
                    PartShape(text=part.text) if isinstance(part, Text) else media(part, f"content[{index}]")
                )
                fields = own(part.extra, NAME)
                told.append(spliced(_encode(shape), fields) if fields else shape)
                before = None if fields else shape
            case Reasoning():
                put_thought(told, part, for_client(part.opaque), sealable)
            case _:
                told.append(client_part(part, index))
    return told


def client_part(part: Part, index: int) -> Any:
    """One that is told whole."""
    match part:
        case ToolCall():
            return call_part(
                part, for_client(part.opaque), object_of(part.arguments) if part.arguments else EMPTY
            )
        case Refusal() | Text():
            return PartShape(text=part.text)
        case Media():
            shape = media(part, f"content[{index}]")
            return spliced(_encode(shape), own(part.extra, NAME) or NO_FIELDS)
        case Carried() if part.wire == NAME:
            return part.block
        case _:
            what = f"{part.wire}'s {part.type}" if isinstance(part, Carried) else type(part).__name__.lower()
            raise Unsupported(f"{NAME} cannot tell its client of {what}", field=f"content[{index}]")
