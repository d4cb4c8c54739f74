"""Checks a value against a schema that `_schema.simplified` made: every keyword it keeps, and nothing else.

Own code rather than a JSON Schema library: the schemas are already resolved, finite and cut down to these keywords, the
messages must name the path as a model wrote it, and patterns must run in linear time (RE2). `format` and `default` only
inform.
"""

from collections.abc import Mapping
from typing import Any, Final

import re2

from freehold.core.errors import BadRequest
from freehold.core.validation import near

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (dict,),
    "null": (type(None),),
}


def check(value: Any, schema: Mapping[str, Any], path: str = "") -> None:
    """Raises BadRequest with the path of the first thing that does not fit."""
    _check_type(value, schema.get("type"), path)
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        raise _wrong(path, f"one of {', '.join(_shown(one) for one in schema['enum'][:20])}", value)
    if "const" in schema and not _same(value, schema["const"]):
        raise _wrong(path, _shown(schema["const"]), value)
    if "anyOf" in schema:
        _check_choices(value, schema["anyOf"], path)
    if isinstance(value, str):
        _check_text(value, schema, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_number(value, schema, path)
    elif isinstance(value, list):
        _check_list(value, schema, path)
    elif isinstance(value, dict):
        _check_object(value, schema, path)


def _check_type(value: Any, declared: Any, path: str) -> None:
    names = [declared] if isinstance(declared, str) else declared
    if not isinstance(names, list) or not names:
        return
    if not any(_is(value, name) for name in names):
        raise _wrong(path, " or ".join(map(str, names)), value)


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(name, (object,)))


def _same(value: Any, other: Any) -> bool:
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _check_choices(value: Any, choices: list[Mapping[str, Any]], path: str) -> None:
    faults = []
    for choice in choices:
        try:
            return check(value, choice, path)
        except BadRequest as error:
            faults.append(str(error))
    raise BadRequest(f"fits none of {len(choices)} choices: {'; '.join(faults[:4])}", field=path or None)


def _check_text(value: str, schema: Mapping[str, Any], path: str) -> None:
    if len(value) < schema.get("minLength", 0):
        raise _wrong(path, f"at least {schema['minLength']} characters", value)
    if len(value) > schema.get("maxLength", len(value)):
        raise _wrong(path, f"at most {schema['maxLength']} characters", value)
    if "pattern" in schema and re2.search(schema["pattern"], value) is None:
        raise _wrong(path, f"text that matches {schema['pattern']}", value)


def _check_number(value: float, schema: Mapping[str, Any], path: str) -> None:
    if value < schema.get("minimum", value):
        raise _wrong(path, f"at least {schema['minimum']}", value)
    if value > schema.get("maximum", value):
        raise _wrong(path, f"at most {schema['maximum']}", value)
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        raise _wrong(path, f"more than {schema['exclusiveMinimum']}", value)
    if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
        raise _wrong(path, f"less than {schema['exclusiveMaximum']}", value)


def _check_list(value: list[Any], schema: Mapping[str, Any], path: str) -> None:
    if len(value) < schema.get("minItems", 0):
        raise _wrong(path, f"at least {schema['minItems']} items", value)
    if len(value) > schema.get("maxItems", len(value)):
        raise _wrong(path, f"at most {schema['maxItems']} items", value)
    if "items" in schema:
        for index, item in enumerate(value):
            check(item, schema["items"], f"{path}[{index}]")


def _check_object(value: dict[str, Any], schema: Mapping[str, Any], path: str) -> None:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            raise BadRequest("required, but missing", field=_join(path, name))
    extra = schema.get("additionalProperties")
    for name, one in value.items():
        if name in properties:
            check(one, properties[name], _join(path, name))
        elif extra is False:
            known = ", ".join(properties) or "none"
            raise BadRequest(
                f"unknown field {name!r}{near(name, properties)}; known: {known}", field=_join(path, name)
            )
        elif isinstance(extra, dict):
            check(one, extra, _join(path, name))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _wrong(path: str, expected: str, came: Any) -> BadRequest:
    return BadRequest(f"expected {expected}, got {_shown(came)}", field=path or None)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
