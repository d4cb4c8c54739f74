"""Wires, OpenAI responses: the parts of an answer as output items, for a client.

A part is an item by itself, apart from texts that came in one message: those leave in one. Items of other vendors have no ids:
theirs are made from the answer's id and the part's place, the same for a whole answer and a stream.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Raw

from freehold.core.errors import Unsupported
from freehold.core.messages import (
    AnswerPart,
    Carried,
    ModelResponse,
    Opaque,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
)
from freehold.wires._fields import own
from freehold.wires._freeform import text_in
from freehold.wires._opaque import packed
from freehold.wires.openai_responses._shapes import ITEM, MESSAGE, NAME, PART
from freehold.wires.openai_responses._tools import CalledAs, is_custom_call

_PREFIXES: Final = {"message": "msg", "function_call": "fc", "custom_tool_call": "ctc", "reasoning": "rs"}
DONE: Final = "completed"
BEGUN: Final = "in_progress"


def item_id(kind: str, answer_id: str, place: int) -> str:
    return f"{_PREFIXES[kind]}_{answer_id}_{place}"


def answer_items(response: ModelResponse, status: str, called_as: CalledAs) -> list[Any]:
    """`status` is the last item's: an answer that was cut, was cut there."""
    items: list[dict[str, Any] | Raw] = []
    open_fields: Mapping[str, Raw] = {}
    for place, part in enumerate(response.content):
        if isinstance(part, Text | Refusal) or is_content(part):
            fields = message_fields(part)
            last = items[-1] if items else None
            if isinstance(last, dict) and "id" in fields and fields == open_fields:
                last["content"].append(content_of(part))
            else:
                items.append(message_item(fields, response.id, place, [content_of(part)]))
            open_fields = fields
            continue
        open_fields = {}
        items.append(item_of(part, response.id, place, called_as))
    if items and isinstance(items[-1], dict) and "status" in items[-1]:
        items[-1]["status"] = status
    return items


def is_content(part: AnswerPart) -> bool:
    """A carried piece of a message, not an item by itself."""
    return isinstance(part, Carried) and part.wire == NAME and part.type.startswith(PART)


def message_fields(part: AnswerPart) -> Mapping[str, Raw]:
    """The fields of the message that a text came in."""
    if not isinstance(part, Text) or not part.extra:
        return {}
    fields = own(part.extra, NAME)
    return {name.removeprefix(MESSAGE): value for name, value in fields.items() if name.startswith(MESSAGE)}


def message_item(
    fields: Mapping[str, Raw], answer_id: str, place: int, content: Sequence[Any], status: str = DONE
) -> dict[str, Any]:
    return {
        "id": item_id("message", answer_id, place),
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
        **fields,
    }


def content_of(part: AnswerPart) -> Any:
    match part:
        case Text():
            return output_text(part.text, own(part.extra, NAME))
        case Refusal():
            return {"type": "refusal", "refusal": part.text}
        case _:
            return part.block if isinstance(part, Carried) else None


def output_text(text: str, fields: Mapping[str, Raw]) -> dict[str, Any]:
    shape: dict[str, Any] = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return shape | {name: value for name, value in fields.items() if not name.startswith(MESSAGE)}


def item_of(part: AnswerPart, answer_id: str, place: int, called_as: CalledAs) -> dict[str, Any] | Raw:
    match part:
        case ToolCall():
            return call_item(part, called_as.fields(part), answer_id, place)
        case Reasoning():
            return reasoning_item(item_id("reasoning", answer_id, place), part.text, part.opaque)
        case Carried(wire="openai_responses"):
            return part.block
        case _:
            raise refused_in_answer(part, place)


def call_item(
    call: ToolCall, fields: Mapping[str, Raw], answer_id: str, place: int, *, status: str = DONE
) -> dict[str, Any]:
    """`fields` are what CalledAs says of the call."""
    item: dict[str, Any]
    if is_custom_call(fields):
        text = text_in(call.arguments) if call.arguments else ""
        item = {
            "id": item_id("custom_tool_call", answer_id, place),
            "type": "custom_tool_call",
            "input": text,
        }
    else:
        item = {"id": item_id("function_call", answer_id, place), "type": "function_call", "status": status}
        item["arguments"] = call.arguments
    item |= {"call_id": call.id, "name": call.name}
    if call.opaque is not None:
        item["freehold_seal"] = packed(call.opaque)
    return item | dict(fields)


def reasoning_item(made_id: str, text: str, opaque: Opaque | None) -> dict[str, Any] | Raw:
    """This vendor's own as it is; another vendor's seal with its origin, where clients keep what they don't read."""
    if opaque is not None and opaque.wire == NAME and opaque.kind == ITEM:
        return Raw(opaque.data.encode("utf-8", "replace"))
    return packed_reasoning(made_id, text, opaque)


def packed_reasoning(made_id: str, text: str, opaque: Opaque | None) -> dict[str, Any]:
    return {
        "id": made_id,
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text}] if text else [],
        "encrypted_content": None if opaque is None else packed(opaque),
    }


def refused_in_answer(part: AnswerPart, place: int) -> Unsupported:
    what = f"{part.wire}'s {part.type}" if isinstance(part, Carried) else type(part).__name__.lower()
    return Unsupported(f"{NAME} cannot tell its client of {what}", field=f"content[{place}]")
