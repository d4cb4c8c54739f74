"""Wires: a tool call's arguments between the heart's text and the object that some vendors want.

Empty text is an empty object. What is no JSON object is wrapped as Anthropic's own page on fine-grained
tool streaming advises, `{"INVALID_JSON": "<the text>"}`, so that the conversation goes on and the model can see what it wrote
(https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming); coming back it is unwrapped.
"""

from typing import Final

import msgspec
from msgspec import Raw

from freehold.wires._fields import OBJECT, UNREADABLE

EMPTY: Final = Raw(b"{}")
_WRAPPED: Final = b'{"INVALID_JSON":'


class _Invalid(msgspec.Struct, forbid_unknown_fields=True):
    text: str = msgspec.field(name="INVALID_JSON")


_INVALID: Final = msgspec.json.Decoder(_Invalid)


def object_of(arguments: str) -> Raw:
    """Byte for byte where it is an object: key order matters for caches."""
    json = arguments.strip()
    if not json or json == "null":
        return EMPTY
    encoded = json.encode("utf-8", "replace")
    try:
        OBJECT.decode(encoded)
    except UNREADABLE:
        return Raw(msgspec.json.encode({"INVALID_JSON": arguments.encode("utf-8", "replace").decode()}))
    return Raw(encoded)


def text_of(given: Raw) -> str:
    json = bytes(given)
    if json.startswith(_WRAPPED):
        try:
            return _INVALID.decode(json).text
        except UNREADABLE:
            pass
    return json.decode("utf-8", "replace")
