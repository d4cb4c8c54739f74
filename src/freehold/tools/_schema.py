"""JSON Schemas as tools offer them: `$ref`s put in place, only keywords that models use and `_schema_check` enforces.

Reads JSON Schema 2020-12 and what OpenAPI 3.0 made of it (`nullable`, boolean `exclusiveMinimum`). Keywords outside
KEPT are left out, so a schema that we offer never promises a check that nobody makes.
Sources: https://json-schema.org/draft/2020-12/json-schema-validation, https://spec.openapis.org/oas/v3.0.3#schema-object.
"""

from collections.abc import Mapping
from typing import Any, Final

import re2

from freehold.core.errors import BadRequest, TooLarge

NODES_MAX: Final = 2_000
"""Schemas within one function's parameters, after `$ref`s were put in place."""

DEPTH_MAX: Final = 24
DESCRIPTION_CHARS_MAX: Final = 600
REFERENCES_MAX: Final = 32
"""`$ref`s that lead to each other before one leads to a schema."""

_NUMBER: Final = (int, float)
KEPT: Final[dict[str, tuple[type, ...]]] = {
    "type": (str, list),
    "description": (str,),
    "enum": (list,),
    "const": (object,),
    "default": (object,),
    "format": (str,),
    "minimum": _NUMBER,
    "maximum": _NUMBER,
    "exclusiveMinimum": (bool, *_NUMBER),
    "exclusiveMaximum": (bool, *_NUMBER),
    "minLength": (int,),
    "maxLength": (int,),
    "pattern": (str,),
    "minItems": (int,),
    "maxItems": (int,),
    "required": (list,),
}
"""Keywords, and what their value must be: one of another type goes, as documents in the wild have them."""


def simplified(schema: object, document: Mapping[str, Any], *, writing: bool = True) -> dict[str, Any]:
    """`$ref`s are looked up in `document`; one that leads back into itself becomes "anything" where the circle closes.

    With `writing`, properties marked `readOnly` are left out. Raises BadRequest for a `$ref` that leads nowhere or out of
    the document, and TooLarge past NODES_MAX.
    """
    return _Simplifier(document, writing=writing).schema(schema, (), 0)


def lookup(reference: str, document: Mapping[str, Any]) -> Any:
    """A JSON pointer within the document (`#/components/schemas/X`)."""
    if not reference.startswith("#"):
        raise BadRequest(f"$ref {reference[:200]!r} leads out of the document; put it into one document")
    found: Any = document
    for part in reference.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdigit() and int(key) < len(found):
            found = found[int(key)]
        else:
            raise BadRequest(f"$ref {reference[:200]!r} leads nowhere: there is no {key[:80]!r}")
    return found


def dereferenced(value: Any, document: Mapping[str, Any]) -> Any:
    """`value`, or what its `$ref` stands for (for parameters, bodies and path items, which don't nest)."""
    for _ in range(REFERENCES_MAX):
        if not (isinstance(value, dict) and isinstance(value.get("$ref"), str)):
            return value
        value = lookup(value["$ref"], document)
    raise BadRequest(f"more than {REFERENCES_MAX} $refs lead to each other")


class _Simplifier:
    def __init__(self, document: Mapping[str, Any], *, writing: bool) -> None:
        self._document = document
        self._writing = writing
        self._count = 0

    def schema(self, schema: object, trail: tuple[str, ...], depth: int) -> dict[str, Any]:
        self._count += 1
        if self._count > NODES_MAX:
            raise TooLarge(f"the schema has more than {NODES_MAX} parts once its $refs are put in place")
        if not isinstance(schema, dict) or depth > DEPTH_MAX:
            return {}
        if isinstance(schema.get("$ref"), str):
            return self._reference(schema, trail, depth)
        found = {
            key: schema[key]
            for key, types in KEPT.items()
            if key in schema and isinstance(schema[key], types)
        }
        _settle_dialect(schema, found)
        self._add_nested(schema, found, trail, depth)
        return found

    def _reference(self, schema: dict[str, Any], trail: tuple[str, ...], depth: int) -> dict[str, Any]:
        reference = schema["$ref"]
        if reference in trail:
            return {}
        if len(trail) > REFERENCES_MAX:
            raise TooLarge(f"more than {REFERENCES_MAX} $refs within each other")
        found = self.schema(lookup(reference, self._document), (*trail, reference), depth)
        if isinstance(schema.get("description"), str):
            found["description"] = schema["description"][:DESCRIPTION_CHARS_MAX]
        return found

    def _add_nested(
        self, schema: dict[str, Any], found: dict[str, Any], trail: tuple[str, ...], depth: int
    ) -> None:
        properties = schema.get("properties")
        if isinstance(properties, dict):
            found["properties"] = {
                name: self.schema(one, trail, depth + 1)
                for name, one in properties.items()
                if not (self._writing and isinstance(one, dict) and one.get("readOnly") is True)
            }
        if isinstance(schema.get("items"), dict):
            found["items"] = self.schema(schema["items"], trail, depth + 1)
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            found["additionalProperties"] = self.schema(extra, trail, depth + 1)
        elif extra is False:
            found["additionalProperties"] = False
        choices = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(choices, list):
            found["anyOf"] = [self.schema(one, trail, depth + 1) for one in choices]
        every = schema.get("allOf")
        for one in every if isinstance(every, list) else ():
            _merge(found, self.schema(one, trail, depth + 1))
        _drop_lost_requirements(found)
        _flatten_optional(found)


def _settle_dialect(schema: dict[str, Any], found: dict[str, Any]) -> None:
    """OpenAPI 3.0's ways of saying it become JSON Schema's; what is unusable goes."""
    if schema.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
        if isinstance(found.get("enum"), list) and None not in found["enum"]:
            found["enum"] = [*found["enum"], None]
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(found.get(exclusive), bool) and found.pop(exclusive) and bound in found:
            found[exclusive] = found.pop(bound)
    if "description" in found:
        found["description"] = found["description"].strip()[:DESCRIPTION_CHARS_MAX]
    if found.get("default", "") is None:
        del found["default"]
    if isinstance(found.get("type"), list) and not all(isinstance(one, str) for one in found["type"]):
        del found["type"]
    if "pattern" in found and not _usable(found["pattern"]):
        del found["pattern"]


def _usable(pattern: object) -> bool:
    try:
        re2.compile(pattern)
    except (re2.error, TypeError):
        return False
    return True


def _merge(found: dict[str, Any], other: dict[str, Any]) -> None:
    """`allOf`: both hold. Where two say different things of one keyword, the first stands; properties come together."""
    found.setdefault("properties", {}).update(other.pop("properties", {}))
    if not found["properties"]:
        del found["properties"]
    found["required"] = [*dict.fromkeys([*found.get("required", ()), *other.pop("required", ())])]
    for key, value in other.items():
        found.setdefault(key, value)


def _drop_lost_requirements(found: dict[str, Any]) -> None:
    """`required` names what `properties` no longer has only where those are open; an empty list goes (draft 4 forbids it)."""
    required = found.get("required", [])
    known = found.get("properties", {})
    kept = [name for name in required if isinstance(name, str) and (name in known or not known)]
    if kept:
        found["required"] = kept
    else:
        found.pop("required", None)


def _flatten_optional(found: dict[str, Any]) -> None:
    """`anyOf: [X, null]` as X with "null" among its types: shorter, and every vendor takes it."""
    choices = found.get("anyOf")
    if not isinstance(choices, list) or len(choices) != 2 or {"type": "null"} not in choices:
        return
    other: dict[str, Any] = next((one for one in choices if one != {"type": "null"}), {})
    if isinstance(other.get("type"), str) and "enum" not in other and "const" not in other:
        del found["anyOf"]
        for key, value in other.items():
            found.setdefault(key, value)
        found["type"] = [other["type"], "null"]
