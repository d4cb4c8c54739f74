"""Wires, Google: the vendor's older schema (a subset of OpenAPI's) to JSON Schema, which it takes too and everybody else speaks.

It writes types in capitals and `nullable`, and says the order of properties in a list of its own; the order of the properties is the
same. Source: https://ai.google.dev/api/caching#Schema
"""

from typing import Any, Final

import msgspec
from msgspec import Raw

from freehold.core.errors import BadRequest
from freehold.core.validation import decode
from freehold.wires._google_names import camel

DEPTH_MAX: Final = 100
_ANY: Final = msgspec.json.Decoder()
_NUMBERS: Final = frozenset({
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
})
_LEFT_OUT: Final = frozenset({"propertyOrdering", "nullable"})
"""Said in other words below."""

_encode: Final = msgspec.json.Encoder().encode


def json_schema(given: Raw, path: str) -> Raw:
    """Raises BadRequest for what is no schema."""
    return Raw(_encode(_schema(decode(bytes(given), _ANY, root=path), path, 0)))


def _schema(given: Any, path: str, depth: int) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise BadRequest(f"expected a schema, got {type(given).__name__}", field=path)
    if depth > DEPTH_MAX:
        raise BadRequest(f"a schema may be nested DEPTH_MAX = {DEPTH_MAX} deep", field=path)
    fields = {camel(name): value for name, value in given.items() if value is not None}
    schema: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in _LEFT_OUT:
            schema[name] = _field(name, value, fields, f"{path}.{name}", depth + 1)
    if schema.get("type") == "type_unspecified":
        del schema["type"]
    return _nullable(schema) if fields.get("nullable") is True else schema


def _field(name: str, value: Any, fields: dict[str, Any], path: str, depth: int) -> Any:
    match name, value:
        case "type", str():
            return value.lower()
        case "type", list():
            return [one.lower() if isinstance(one, str) else one for one in value]
        case "properties", dict():
            ordered = {one: value[one] for one in _order(fields) if one in value}
            return {
                one: _schema(inner, f"{path}.{one}", depth) for one, inner in {**ordered, **value}.items()
            }
        case "items" | "additionalProperties", dict():
            return _schema(value, path, depth)
        case "anyOf", list():
            return [_schema(one, f"{path}[{index}]", depth) for index, one in enumerate(value)]
        case _, str() if name in _NUMBERS and value.isdecimal():
            return int(value)  # The vendor writes 64 bits as text.
        case _:
            return value


def _order(fields: dict[str, Any]) -> list[str]:
    order = fields.get("propertyOrdering")
    return [one for one in order if isinstance(one, str)] if isinstance(order, list) else []


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type")
    if isinstance(kind, str):
        allowed = {"enum": [*schema["enum"], None]} if isinstance(schema.get("enum"), list) else {}
        return {**schema, "type": [kind, "null"], **allowed}
    if isinstance(schema.get("anyOf"), list):
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return schema
