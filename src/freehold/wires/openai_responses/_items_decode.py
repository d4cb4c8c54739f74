"""Wires, OpenAI responses: input items to the heart's conversation.

Here a turn of the assistant is a row of items side by side (reasoning, messages, calls); in the heart it is one message. What its
items have besides rides on their parts: a message's own fields on its texts, as `message.<field>`. Items that only this wire
knows are Carried, in their place. An item's `status` is the vendor's to say, and not kept.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from freehold.core.errors import BadRequest
from freehold.core.messages import (
    Carried,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)
from freehold.core.validation import decode
from freehold.wires._fields import NO_FIELDS, extra_of, text_in
from freehold.wires._freeform import arguments_of
from freehold.wires._opaque import unpacked
from freehold.wires.openai_responses._parts_decode import part, read
from freehold.wires.openai_responses._shapes import (
    ITEM,
    MESSAGE,
    NAME,
    CallItem,
    CustomCallItem,
    ItemHead,
    MessageItem,
    ReasoningItem,
    ResultItem,
    fields_of,
)
from freehold.wires.openai_responses._tools import CUSTOM_CALL, flat

ROLES: Final = ("user", "assistant", "system", "developer")
THOUGHT_BREAK: Final = "\n\n"
"""Between the pieces of a summary."""

_ANSWERS: Final = frozenset({
    "item_reference",
    "mcp_approval_response",
    "compaction_trigger",
    "additional_tools",
    "configuration_update",
})
"""Carried items of the client's. All others that end with `_output` are, too; the rest are the model's."""

_HEAD: Final = msgspec.json.Decoder(ItemHead)
_MESSAGE: Final = msgspec.json.Decoder(MessageItem)
_CALL: Final = msgspec.json.Decoder(CallItem)
_CUSTOM: Final = msgspec.json.Decoder(CustomCallItem)
_RESULT: Final = msgspec.json.Decoder(ResultItem)
_REASONING: Final = msgspec.json.Decoder(ReasoningItem)
_MESSAGE_FIELDS: Final = fields_of(MessageItem)
_CALL_FIELDS: Final = fields_of(CallItem)
_CUSTOM_FIELDS: Final = fields_of(CustomCallItem)
_RESULT_FIELDS: Final = fields_of(ResultItem)

_encode: Final = msgspec.json.Encoder().encode


class Conversation:
    """Gathers items to messages. Instructions are those before anything else; a later one is a message of role `system`."""

    __slots__ = ("_assistant", "_instructed", "_results", "instructions", "messages")

    def __init__(self, instructions: str | None) -> None:
        self._instructed = instructions is not None
        self.instructions: list[Text] = [] if instructions is None else [Text(instructions)]
        self.messages: list[Message] = []
        self._assistant: list[Part] = []
        self._results: list[ToolResult] = []

    def add(self, item: Raw, path: str) -> None:
        kind = decode(bytes(item), _HEAD, root=path).type
        match kind:
            case "message":
                self._message(item, path)
            case "function_call" | "custom_tool_call":
                self._said(call(item, path))
            case "reasoning":
                self._said(_reasoning(item, path))
            case "function_call_output" | "custom_tool_call_output":
                self._close_assistant()
                self._results.append(_result(item, path, kind))
            case _:
                carried = Carried(NAME, kind, item)
                if kind in _ANSWERS or kind.endswith("_output"):
                    self._append(Message("user", (carried,)))
                else:
                    self._said(carried)

    def close(self) -> None:
        self._close_assistant()
        self._close_results()

    def _message(self, item: Raw, path: str) -> None:
        shape, rest = read(item, _MESSAGE, _MESSAGE_FIELDS, path)
        match shape.role:
            case "assistant":
                self._said(*_parts(shape.content, f"{path}.content", _riding(rest)))
            case "user":
                self._append(
                    Message("user", _parts(shape.content, f"{path}.content"), None, extra_of(NAME, rest))
                )
            case "system" | "developer":
                self._instruction(shape, rest, path)
            case _:
                raise BadRequest(
                    f"expected one of {', '.join(ROLES)}; got {shape.role!r}", field=f"{path}.role"
                )

    def _instruction(self, shape: MessageItem, rest: dict[str, Raw], path: str) -> None:
        leading = not (self.messages or self._assistant or self._results)
        if shape.role == "developer" or (leading and not self._instructed):
            rest["role"] = Raw(_encode(shape.role))
        riding = _riding(rest) if leading else NO_FIELDS
        texts = _parts(shape.content, f"{path}.content", riding, empty=leading)
        for place, text in enumerate(texts):
            if not isinstance(text, Text):
                raise BadRequest("expected input_text", field=f"{path}.content[{place}].type")
            if leading:
                self.instructions.append(text)
        if not leading:
            self._append(Message("system", texts, None, extra_of(NAME, rest)))

    def _said(self, *parts: Part) -> None:
        self._close_results()
        self._assistant += parts

    def _append(self, message: Message) -> None:
        self.close()
        self.messages.append(message)

    def _close_assistant(self) -> None:
        if self._assistant:
            self.messages.append(Message("assistant", tuple(self._assistant)))
            self._assistant = []

    def _close_results(self) -> None:
        if self._results:
            self.messages.append(Message("tool", tuple(self._results)))
            self._results = []


def _riding(rest: Mapping[str, Raw]) -> dict[str, Raw]:
    return {MESSAGE + name: value for name, value in rest.items()}


def _parts(
    content: str | Sequence[Raw], path: str, message: Mapping[str, Raw] = NO_FIELDS, *, empty: bool = False
) -> tuple[Part, ...]:
    """An empty text says nothing, unless it is wanted `empty`."""
    if isinstance(content, str):
        return (Text(content, None, extra_of(NAME, message)),) if content or empty else ()
    return tuple(part(one, f"{path}[{place}]", message) for place, one in enumerate(content))


def call(item: Raw, path: str) -> ToolCall:
    """A custom tool's text is the only argument of a function, and a namespace a part of its name."""
    if decode(bytes(item), _HEAD, root=path).type == "custom_tool_call":
        custom, rest = read(item, _CUSTOM, _CUSTOM_FIELDS, path)
        rest["type"] = CUSTOM_CALL
        return _called(custom, arguments_of(custom.input), rest)
    function, rest = read(item, _CALL, _CALL_FIELDS, path)
    return _called(function, function.arguments, rest)


def _called(shape: CallItem | CustomCallItem, arguments: str, rest: dict[str, Raw]) -> ToolCall:
    name, namespace = shape.name, text_in(rest.get("namespace"))
    if namespace is not None:
        rest["name"] = Raw(_encode(name))
        name = flat(namespace, name)
    opaque = None if shape.freehold_seal is None else unpacked(shape.freehold_seal)
    return ToolCall(shape.call_id, name, arguments, opaque, None, extra_of(NAME, rest))


def _result(item: Raw, path: str, kind: str) -> ToolResult:
    shape, rest = read(item, _RESULT, _RESULT_FIELDS, path)
    if kind != "function_call_output":
        rest["type"] = Raw(_encode(kind))
    content: list[Text | Media | Carried] = []
    for place, one in enumerate(_parts(shape.output, f"{path}.output")):
        if not isinstance(one, Text | Media | Carried):
            raise BadRequest(
                "expected input_text, input_image or input_file", field=f"{path}.output[{place}].type"
            )
        content.append(one)
    return ToolResult(shape.call_id, tuple(content), extra=extra_of(NAME, rest))


def _reasoning(item: Raw, path: str) -> Reasoning:
    """A client cannot say from which provider a seal is, unless we packed it: of this wire, then, from anybody."""
    shape = decode(bytes(item), _REASONING, root=path)
    foreign = unpacked(shape.encrypted_content or "")
    return Reasoning(thought_of(shape), foreign or Opaque(NAME, "", "", _text(item, path), ITEM))


def _text(item: Raw, path: str) -> str:
    try:
        return bytes(item).decode()
    except UnicodeDecodeError as error:
        raise BadRequest("expected JSON in UTF-8, got other bytes in a string", field=path) from error


def thought_of(shape: ReasoningItem) -> str:
    pieces = [*(shape.summary or ()), *(shape.content or ())]
    return THOUGHT_BREAK.join(piece.text for piece in pieces)
