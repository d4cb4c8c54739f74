"""Wires, OpenAI responses: the heart's conversation to a provider's input items.

A failed result begins with "Error: ", since this vendor has no other word for it. Reasoning that cannot return to where it came
from is left out, and so is reasoning that the vendor would have to remember: nothing is kept there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from freehold.core.errors import Unsupported
from freehold.core.messages import (
    Bytes,
    Carried,
    Media,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    VendorFile,
    text_of,
)
from freehold.wires._fields import NO_FIELDS, UNREADABLE, check_foreign, may_return, own, spliced
from freehold.wires._freeform import text_in
from freehold.wires._media import data_url
from freehold.wires.openai_responses._parts_decode import FILE_NAME, USUAL_DETAIL
from freehold.wires.openai_responses._shapes import FILES, ITEM, MESSAGE, NAME, PART, ReasoningItem
from freehold.wires.openai_responses._tools import is_custom_call

_REASONING: Final = msgspec.json.Decoder(ReasoningItem)
_PLAIN: Final = {"type", "text"}
_DONE: Final = Raw(b'"completed"')
_encode: Final = msgspec.json.Encoder().encode


def items(messages: Sequence[Message], provider: str) -> list[Any]:
    told: list[Any] = []
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        if message.extra:
            check_foreign(message.extra, NAME, "message", path)
        match message.role:
            case "user":
                told += _user(message, path)
            case "assistant":
                told += _assistant(message, path, provider)
            case "tool":
                told += (
                    _result(one, f"{path}.content[{place}]") for place, one in enumerate(message.content)
                )
            case "system":
                told.append(_late_instruction(message, path))
    return told


def _refuse(part: Part, role: str, path: str) -> Unsupported:
    what = f"{part.wire}'s {part.type}" if isinstance(part, Carried) else type(part).__name__.lower()
    return Unsupported(f"{NAME} has no {what} in a message of role {role}", field=path)


# ------------------------------------------------------------------------------------------ instructions


def instruction_items(texts: Sequence[Text]) -> list[Any]:
    return [_instruction(text, f"instructions[{place}]") for place, text in enumerate(texts)]


def is_plain(text: Text) -> bool:
    return not own(text.extra, NAME)


def _instruction(text: Text, path: str) -> Any:
    fields = dict(_message_fields(text))
    role = fields.pop("role", Raw(b'"system"'))
    return _message(role, [_text("input_text", text, path)], fields)


def _late_instruction(message: Message, path: str) -> Any:
    texts: list[Any] = []
    for place, part in enumerate(message.content):
        if not isinstance(part, Text):
            raise _refuse(part, "system", f"{path}.content[{place}]")
        texts.append(_text("input_text", part, f"{path}.content[{place}]"))
    fields = dict(own(message.extra, NAME))
    role = fields.pop("role", Raw(b'"system"'))
    return _message(role, texts, fields)


def _message_fields(text: Text) -> Mapping[str, Raw]:
    if not text.extra:
        return NO_FIELDS
    return {
        name.removeprefix(MESSAGE): value
        for name, value in own(text.extra, NAME).items()
        if name.startswith(MESSAGE)
    }


def _message(role: str | Raw, content: list[Any] | str, fields: Mapping[str, Raw]) -> Any:
    shape = {"type": "message", "role": role, "content": content}
    return {**shape, **fields} if fields else shape


# ----------------------------------------------------------------------------------------- user, assistant


def _user(message: Message, path: str) -> Iterable[Any]:
    """A message, and by themselves the items among it that are carried."""
    fields = own(message.extra, NAME)
    content: list[Any] = [] if message.name is None else [{"type": "input_text", "text": f"{message.name}:"}]
    told = False
    for place, part in enumerate(message.content):
        if isinstance(part, Carried) and part.wire == NAME and not part.type.startswith(PART):
            if content:
                yield _message("user", content, fields)
                content = []
            yield part.block
            told = True
        else:
            content.append(_user_part(part, f"{path}.content[{place}]"))
    if content or not told:
        yield _message("user", content, fields)


def _user_part(part: Part, path: str) -> Any:
    match part:
        case Text():
            return _text("input_text", part, path)
        case Media():
            return _media(part, path)
        case Carried(wire="openai_responses") if part.type.startswith(PART):
            return part.block
        case _:
            raise _refuse(part, "user", path)


def _assistant(message: Message, path: str, provider: str) -> Iterable[Any]:
    """Texts side by side that came in one message of the vendor's own leave in one."""
    content: list[Any] = []
    fields: Mapping[str, Raw] = NO_FIELDS
    for place, part in enumerate(message.content):
        at = f"{path}.content[{place}]"
        said = _said(part, at)
        if said is not None:
            its = _message_fields(part) if isinstance(part, Text) else fields
            if content and its != fields:
                yield from _said_in(content, fields)
                content = []
            content.append(said)
            fields = its
            continue
        if content:
            yield from _said_in(content, fields)
            content, fields = [], NO_FIELDS
        item = _item(part, at, provider)
        if item is not None:
            yield item
    if content:
        yield from _said_in(content, fields)


def _said_in(content: list[Any], fields: Mapping[str, Raw]) -> Iterable[Any]:
    """A list of what was said belongs to an answer of the vendor's, by its id. Of anybody else it takes plain texts, one a message."""
    plain = [said["text"] if isinstance(said, dict) and said.keys() == _PLAIN else "" for said in content]
    if "id" in fields:
        whole = [
            {"annotations": [], "logprobs": [], **said} if plain[place] else said
            for place, said in enumerate(content)
        ]
        yield _message("assistant", whole, {"status": _DONE, **fields})
        return
    if not all(plain):
        yield _message("assistant", content, fields)
        return
    for text in plain:
        yield _message("assistant", text, fields)


def _said(part: Part, path: str) -> Any:
    """None for what is an item by itself."""
    match part:
        case Text():
            return _text("output_text", part, path)
        case Refusal():
            return {"type": "refusal", "refusal": part.text}
        case Carried(wire="openai_responses") if part.type.startswith(PART):
            return part.block
        case _:
            return None


def _item(part: Part, path: str, provider: str) -> Any:
    """None for reasoning that is left out."""
    match part:
        case ToolCall():
            return _call(part, path)
        case Reasoning():
            return _reasoning(part, provider)
        case Carried(wire="openai_responses"):
            return part.block
        case _:
            raise _refuse(part, "assistant", path)


def _reasoning(part: Reasoning, provider: str) -> Raw | None:
    opaque = part.opaque
    if opaque is None or opaque.kind != ITEM or not may_return(opaque, NAME, provider):
        return None
    item = Raw(opaque.data.encode("utf-8", "replace"))
    try:
        shape = _REASONING.decode(item)
    except UNREADABLE:
        return None
    return item if shape.encrypted_content or shape.content else None


def _call(call: ToolCall, path: str) -> Any:
    shape: dict[str, Any] = {
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }
    if not call.extra:
        return shape
    check_foreign(call.extra, NAME, "tool_call", path)
    fields = own(call.extra, NAME)
    if is_custom_call(fields):
        shape["input"] = text_in(shape.pop("arguments"))
    return shape | dict(fields)


# ------------------------------------------------------------------------------------------------ results


def _result(part: Part, path: str) -> Any:
    if not isinstance(part, ToolResult):
        raise _refuse(part, "tool", path)
    shape: dict[str, Any] = {
        "type": "function_call_output",
        "call_id": part.call_id,
        "output": _output(part, path),
    }
    if not part.extra:
        return shape
    check_foreign(part.extra, NAME, "tool_result", path)
    return shape | dict(own(part.extra, NAME))


def _output(result: ToolResult, path: str) -> Any:
    content: list[Text | Media | Carried] = [*result.content]
    if result.failed and not text_of(result.content).lower().startswith("error"):
        content.insert(0, Text("Error: "))
    if not content:
        return ""
    first = content[0]
    if len(content) == 1 and isinstance(first, Text) and not first.extra:
        return first.text
    return [_user_part(part, f"{path}.content[{place}]") for place, part in enumerate(content)]


# -------------------------------------------------------------------------------------------------- parts


def _text(kind: str, text: Text, path: str) -> Any:
    shape = {"type": kind, "text": text.text}
    if not text.extra:
        return shape
    check_foreign(text.extra, NAME, "text", path)
    fields = {name: value for name, value in own(text.extra, NAME).items() if not name.startswith(MESSAGE)}
    return {**shape, **fields} if fields else shape


def _media(media: Media, path: str) -> Any:
    shape: dict[str, Any]
    match media.kind:
        case "image":
            shape = {
                "type": "input_image",
                "detail": media.detail or USUAL_DETAIL,
                **_image_source(media, path),
            }
        case "document":
            shape = {"type": "input_file", **_file_source(media, path)}
            if media.detail is not None:
                shape["detail"] = media.detail
        case "audio" | "video":
            raise Unsupported(f"{NAME} takes no {media.kind}", field=path)
    if not media.extra:
        return shape
    check_foreign(media.extra, NAME, "media", path)
    return spliced(_encode(shape), own(media.extra, NAME))


def _image_source(media: Media, path: str) -> dict[str, str]:
    source = media.source
    if isinstance(source, VendorFile):
        return {"file_id": _file_id(source, path)}
    return {"image_url": data_url(media.media_type, source.data) if isinstance(source, Bytes) else source.url}


def _file_source(media: Media, path: str) -> dict[str, str]:
    source = media.source
    named = {} if media.name is None else {"filename": media.name}
    if isinstance(source, VendorFile):
        return {**named, "file_id": _file_id(source, path)}
    if isinstance(source, Bytes):
        data = data_url(media.media_type, source.data)
        return {"filename": media.name or FILE_NAME, "file_data": data}
    return {**named, "file_url": source.url}


def _file_id(source: VendorFile, path: str) -> str:
    if source.wire != FILES:
        said = f"the file {source.id!r} was uploaded to {source.wire} and is known there only"
        raise Unsupported(said, field=path)
    return source.id
