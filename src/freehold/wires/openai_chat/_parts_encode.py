"""Wires, OpenAI chat: the heart's parts to a provider's message parts."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, structs

from freehold.core.errors import Unsupported
from freehold.core.messages import (
    Address,
    Bytes,
    Carried,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    VendorFile,
)
from freehold.wires._fields import check_foreign, may_return, own, spliced
from freehold.wires._media import base64_of, data_url
from freehold.wires._opaque import packed
from freehold.wires.openai_chat._custom import is_custom_call
from freehold.wires.openai_chat._custom import told as custom_shape
from freehold.wires.openai_chat._parts_decode import AUDIO_FORMATS, FILE_NAME
from freehold.wires.openai_chat._shapes import (
    NAME,
    AssistantMessage,
    AudioPart,
    File,
    FilePart,
    FunctionCall,
    ImagePart,
    ImageUrl,
    InputAudio,
    TextPart,
    ToolCallShape,
    VideoPart,
    VideoUrl,
)

_AUDIO_NAMES: Final = {media_type: name for name, media_type in AUDIO_FORMATS.items()}
_FUNCTION: Final = "function."
_encode: Final = msgspec.json.Encoder().encode


class WholeMessage(Struct):
    """A carried block that is a message by itself (role `function`)."""

    json: Raw


def refuse_part(part: Part, role: str, path: str) -> Unsupported:
    what = f"{part.wire}'s {part.type}" if isinstance(part, Carried) else type(part).__name__.lower()
    return Unsupported(f"{NAME} has no {what} in a message of role {role}", field=path)


def text_shape(text: Text, path: str = "") -> TextPart | Raw:
    if not text.extra:
        return TextPart(text.text)
    check_foreign(text.extra, NAME, "text", path)
    return spliced(_encode(TextPart(text.text)), own(text.extra, NAME))


def is_plain(text: Text) -> bool:
    """Whether nothing of this wire's own is beside the text: then it stands as a string, which is all that some vendors take."""
    return not own(text.extra, NAME)


def user_part(part: Part, path: str) -> Any:
    match part:
        case Text():
            return text_shape(part, path)
        case Media():
            if not part.extra:
                return _media(part, path)
            check_foreign(part.extra, NAME, "media", path)
            return spliced(_encode(_media(part, path)), own(part.extra, NAME))
        case Carried(wire="openai_chat", type="function_message"):
            return WholeMessage(part.block)
        case _:
            raise refuse_part(part, "user", path)


def _media(media: Media, path: str) -> ImagePart | AudioPart | FilePart | VideoPart:
    source = media.source
    if isinstance(source, VendorFile):
        if source.wire != NAME:
            raise Unsupported(
                f"the file {source.id!r} was uploaded to {source.wire} and is known there only", field=path
            )
        return FilePart(File(media.name, None, source.id))
    match media.kind:
        case "image":
            return ImagePart(ImageUrl(_url(media.media_type, source), media.detail))
        case "video":
            return VideoPart(VideoUrl(_url(media.media_type, source)))
        case "audio":
            if isinstance(source, Address):
                raise Unsupported(f"{NAME} takes audio as bytes only, not by address", field=path)
            name = _AUDIO_NAMES.get(media.media_type) or media.media_type.rpartition("/")[2]
            return AudioPart(InputAudio(base64_of(source.data), name))
        case "document":
            if isinstance(source, Address):
                raise Unsupported(f"{NAME} takes documents as bytes only, not by address", field=path)
            return FilePart(File(media.name or FILE_NAME, data_url(media.media_type, source.data)))


def _url(media_type: str, source: Bytes | Address) -> str:
    return source.url if isinstance(source, Address) else data_url(media_type, source.data)


# -------------------------------------------------------------------------------------------- assistant


def assistant_message(message: Message, path: str, provider: str) -> Any:
    texts: list[Text] = []
    refusals: list[str] = []
    thoughts: list[Reasoning] = []
    calls: list[Any] = []
    for place, part in enumerate(message.content):
        if (
            type(part) is Text
        ):  # Quicker than a match, whose isinstance a Struct's type makes slow when it says no.
            texts.append(part)
            continue
        if type(part) is ToolCall:
            calls.append(_call(part, f"{path}.content[{place}]", provider))
            continue
        match part:
            case Reasoning():
                if part.opaque is None or may_return(part.opaque, NAME, provider):
                    thoughts.append(part)
            case Refusal():
                refusals.append(part.text)
            case _:
                raise refuse_part(part, "assistant", f"{path}.content[{place}]")
    shape = AssistantMessage(
        content=_said(texts, path, calls=bool(calls), refused=bool(refusals)),
        refusal="".join(refusals) or None,
        name=message.name,
        tool_calls=calls or None,
    )
    if thoughts:
        shape = _with_thoughts(shape, thoughts)
    fields = own(message.extra, NAME)
    return spliced(_encode(shape), fields) if fields else shape


def _said(texts: list[Text], path: str, *, calls: bool, refused: bool) -> Any:
    if not texts:
        return None if calls or refused else ""
    told = [text_shape(text, path) for text in texts]
    return texts[0].text if len(texts) == 1 and is_plain(texts[0]) else told


def _with_thoughts(shape: AssistantMessage, thoughts: list[Reasoning]) -> AssistantMessage:
    """In the field that this provider used itself."""
    text = "".join(thought.text for thought in thoughts)
    kinds = {thought.opaque.kind: thought.opaque for thought in thoughts if thought.opaque is not None}
    if "reasoning_details" in kinds:
        return structs.replace(shape, reasoning_details=Raw(kinds["reasoning_details"].data.encode()))
    if "reasoning" in kinds:
        return structs.replace(shape, reasoning=text)
    return structs.replace(shape, reasoning_content=text)


def _call(call: ToolCall, path: str, provider: str) -> Any:
    function = FunctionCall(call.name, call.arguments)
    opaque = call.opaque
    returns = opaque is not None and may_return(opaque, NAME, provider)
    seal = Raw(opaque.data.encode()) if opaque is not None and returns else UNSET
    if not call.extra:
        return ToolCallShape(call.id, "function", function, extra_content=seal)
    check_foreign(call.extra, NAME, "tool_call", path)
    if is_custom_call(call):
        return custom_shape(call)
    inner, outer = of_function(own(call.extra, NAME))
    told = {"id": call.id, "type": "function", "function": spliced(_encode(function), inner)}
    if seal is not UNSET:
        told["extra_content"] = seal
    return spliced(_encode(told), outer)


def of_function(fields: Mapping[str, Raw]) -> tuple[dict[str, Raw], dict[str, Raw]]:
    """Fields of the `function` in a tool or a call, and those beside it."""
    inner = {
        name.removeprefix(_FUNCTION): value for name, value in fields.items() if name.startswith(_FUNCTION)
    }
    return inner, {name: value for name, value in fields.items() if not name.startswith(_FUNCTION)}


# ----------------------------------------------------------------------------- for clients: seals on the way


def details_of(thoughts: list[Reasoning]) -> list[dict[str, str | int]]:
    """`reasoning_details`, as clients of OpenRouter know them (https://openrouter.ai/docs/use-cases/reasoning-tokens): they send
    the array back unread, and so every vendor's seal survives a client of this dialect.
    """
    return [detail_of(thought.text, thought.opaque, index) for index, thought in enumerate(thoughts)]


def detail_of(text: str, opaque: Opaque | None, index: int) -> dict[str, str | int]:
    """OpenAI's SDK wants an `index` in objects of a list that it gathers from a stream."""
    if opaque is not None and not text:
        return {"type": "reasoning.encrypted", "data": packed(opaque), "index": index}
    detail: dict[str, str | int] = {"type": "reasoning.text", "text": text, "index": index}
    if opaque is not None:
        detail["signature"] = packed(opaque)
    return detail


def call_fields(call: ToolCall) -> Mapping[str, Raw]:
    """What rides beside a call on its way to a client: the vendor's own fields, and a seal."""
    fields = dict(own(call.extra, NAME))
    if call.opaque is not None:
        fields["extra_content"] = Raw(_encode({"freehold": packed(call.opaque)}))
    return fields
