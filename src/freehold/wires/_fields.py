"""Wires: fields that only one vendor has. They are carried in `extra[wire]`, and leave only through the same wire.

Every wire publishes `ADVISORY`: those of its fields that may be left out towards another vendor, since nothing in the answer's
meaning hangs on them, each with the reason. Every other field of its own is essential: leaving through another wire is refused.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Final, TypeAlias

import msgspec
from msgspec import Raw

from freehold.core.errors import Unsupported
from freehold.core.messages import Extra, Opaque
from freehold.core.validation import decode

Advisory: TypeAlias = Mapping[str, str]
"""`place.field` (place: request, message, text, media, tool, tool_call, tool_result) -> why it may be left out."""

OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
ARRAY: Final = msgspec.json.Decoder(list[Raw])
NO_FIELDS: Final[Mapping[str, Raw]] = {}
NO_EXTRA: Final[Extra] = {}
"""Shared by all that has none, where a dictionary each is too much. As all values of the heart, nobody changes it."""

NULL: Final = b"null"
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that decoding hostile JSON raises. Strings inside Raw are not looked at before they are decoded, so UTF-8 may fail late."""

_encode: Final = msgspec.json.Encoder().encode


@cache
def advisory_of(wire: str) -> Advisory:
    """Found by name, so that no wire knows another."""
    found: Advisory = import_module(f"freehold.wires.{wire}").ADVISORY
    return found


def check_foreign(extra: Extra, wire: str, place: str, path: str) -> None:
    """Raises Unsupported for an essential field of another wire. `path` is of the object that has the field."""
    for other, fields in extra.items():
        if other == wire or not fields:
            continue
        advisory = advisory_of(other)
        for field in fields:
            if f"{place}.{field}" not in advisory:
                at = f"{path}.{field}" if path else field
                raise Unsupported(
                    f"only {other} knows this field: {wire} has nothing that means the same", field=at
                )


def own(extra: Extra, wire: str) -> Mapping[str, Raw]:
    return extra.get(wire, NO_FIELDS) if extra else NO_FIELDS


def extra_of(wire: str, fields: Mapping[str, Raw] | None) -> Extra:
    return {wire: dict(fields)} if fields else NO_EXTRA


def spliced(encoded: bytes, fields: Mapping[str, Raw]) -> Raw:
    """A JSON object with `fields` after its own."""
    if not fields:
        return Raw(encoded)
    tail = b",".join(_encode(name) + b":" + bytes(value) for name, value in fields.items())
    return Raw(encoded[:-1] + (b"," if len(encoded) > 2 else b"") + tail + b"}")


def parted(body: bytes | Raw, known: frozenset[str], path: str) -> tuple[dict[str, Raw], dict[str, Raw]]:
    """A JSON object's fields: those known, and the rest. Raises BadRequest where it is none."""
    fields = decode(bytes(body), OBJECT, root=path)
    rest = {name: fields.pop(name) for name in [*fields] if name not in known}
    return fields, rest


def is_null(value: Raw) -> bool:
    return bytes(value) == NULL


def text_in(value: Raw | None) -> str | None:
    """The string in `value`; None for anything else."""
    if value is None or not bytes(value).startswith(b'"'):
        return None
    try:
        return msgspec.json.decode(value, type=str)
    except UNREADABLE:
        return None


def may_return(opaque: Opaque, wire: str, provider: str) -> bool:
    """Whether `opaque` came from here. An empty provider: from this wire, and its client could not say from whom."""
    return opaque.wire == wire and opaque.provider in ("", provider)
