"""Wires: a tool that takes free text (OpenAI's `custom`), said to everybody as a function with one text, and back.

Both of OpenAI's wires have such tools. To another vendor's model it is a function of one parameter, INPUT, whose description holds
the grammar, if there is one; what the model writes there is the tool's text. The request's list of tools tells which functions
are such, so nothing is kept in between.
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from freehold.wires._fields import UNREADABLE

INPUT: Final = "input"
BEGIN: Final = '{"input":"'
END: Final = '"}'
"""Around the `escaped` text, whose pieces may come one by one."""

_encode: Final = msgspec.json.Encoder().encode


class _Grammar(Struct):
    """In chat completions it stands in a field `grammar` of its own, in Responses beside `type`."""

    type: str = "text"
    syntax: str | None = None
    definition: str | None = None
    grammar: "_Grammar | None" = None


class Custom(Struct):
    name: str
    description: str | None = None
    format: _Grammar | None = None


class _Called(Struct, forbid_unknown_fields=True):
    text: str = msgspec.field(name=INPUT)


_CALLED: Final = msgspec.json.Decoder(_Called)


def parameters_of(tool: Custom) -> Raw:
    """JSON Schema of the function's arguments."""
    given: dict[str, Any] = {"type": "string"}
    form = tool.format
    grammar = form if form is None or form.grammar is None else form.grammar
    if grammar is not None and grammar.definition is not None:
        syntax = grammar.syntax or "given"
        given["description"] = (
            f"Text that this {syntax} grammar derives, and nothing else:\n{grammar.definition}"
        )
    schema = {
        "type": "object",
        "properties": {INPUT: given},
        "required": [INPUT],
        "additionalProperties": False,
    }
    return Raw(_encode(schema))


def arguments_of(text: str) -> str:
    return BEGIN + escaped(text) + END


def escaped(text: str) -> str:
    return _encode(text.encode("utf-8", "replace").decode())[1:-1].decode()


def text_in(arguments: str) -> str:
    """What a model wrote for the tool. One that wrote no such object wrote the text itself."""
    try:
        return _CALLED.decode(arguments.encode("utf-8", "replace")).text
    except UNREADABLE:
        return arguments
