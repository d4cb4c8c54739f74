"""Wires, Google: the careful way of reading a request. What the shapes do not know is taken out and remembered by its path.

Names in snake_case become the vendor's camelCase, and a single object where a list is meant becomes a list of one: the vendor reads
both. Then the strict decoder names what is wrong.
"""

from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Raw, Struct

from freehold.core.errors import BadRequest
from freehold.core.validation import decode
from freehold.wires._fields import ARRAY, OBJECT, is_null
from freehold.wires._google_names import camel
from freehold.wires.google_generate._shapes import INNER, LISTS, RequestShape, says_something

Unknown: TypeAlias = dict[str, dict[str, Raw]]
"""Path of an object -> its unknown fields, in camelCase. Under `<path>!`, the object itself as `whole`."""

NONE_UNKNOWN: Final[Unknown] = {}
WHOLE: Final = "whole"
_STRICT: Final = msgspec.json.Decoder(RequestShape)
_encode: Final = msgspec.json.Encoder().encode


def tidied(body: bytes) -> tuple[RequestShape, Unknown]:
    unknown: Unknown = {}
    cleaned = _object(decode(body, OBJECT), RequestShape, "", unknown)
    return decode(_encode(cleaned), _STRICT), unknown


def _object(fields: dict[str, Raw], shape: type[Struct], path: str, unknown: Unknown) -> dict[str, Any]:
    known = shape.__struct_encode_fields__
    cleaned: dict[str, Any] = {}
    rest: dict[str, Raw] = {}
    for given, value in fields.items():
        name = camel(given)
        if name in cleaned or name in rest:
            raise BadRequest("expected once, came several times", field=f"{path}.{given}".lstrip("."))
        if is_null(value):
            continue
        if name not in known:
            if says_something(name, value):
                rest[name] = value
            continue
        inner = INNER.get((shape, name))
        at = f"{path}.{name}" if path else name
        cleaned[name] = value if inner is None else _inner(value, name, inner, at, unknown)
    if rest:
        unknown[path] = rest
    return cleaned


def _inner(value: Raw, name: str, shape: type[Struct], path: str, unknown: Unknown) -> Any:
    if name not in LISTS:
        return _one(value, shape, path, unknown)
    if bytes(value).startswith(b"{"):
        return [_one(value, shape, f"{path}[0]", unknown)]
    if not bytes(value).startswith(b"["):
        return value  # The strict decoder says what is wrong with it.
    items = decode(bytes(value), ARRAY, root=path)
    return [_one(item, shape, f"{path}[{index}]", unknown) for index, item in enumerate(items)]


def _one(value: Raw, shape: type[Struct], path: str, unknown: Unknown) -> Any:
    if not bytes(value).startswith(b"{"):
        return value
    cleaned = _object(decode(bytes(value), OBJECT, root=path), shape, path, unknown)
    if path in unknown:
        unknown[path + "!"] = {WHOLE: value}
    return cleaned
