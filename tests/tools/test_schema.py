"""Schemas as tools offer them, and the check against them: what is offered is what is enforced, and both are bounded."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.core.errors import BadRequest, TooLarge
from freehold.tools._schema import KEPT, NODES_MAX, dereferenced, lookup, simplified
from freehold.tools._schema_check import check

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
TYPES = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict, "null": type(None)}


def schema_of(value: Any) -> dict[str, Any]:
    """A schema that fits exactly this value's shape."""
    match value:
        case bool() | None:
            return {"const": value}
        case dict():
            return {
                "type": "object",
                "properties": {name: schema_of(one) for name, one in value.items()},
                "required": list(value),
                "additionalProperties": False,
            }
        case list():
            return {
                "type": "array",
                "items": {"anyOf": [schema_of(one) for one in value] or [{}]},
                "maxItems": len(value),
            }
        case str():
            return {"type": "string", "minLength": len(value), "maxLength": len(value)}
        case _:
            return {"type": "number", "minimum": value, "maximum": value}


@given(VALUES)
def test_a_value_fits_its_own_schema_also_when_it_was_simplified(value: Any):
    schema = schema_of(value)
    check(value, schema)
    check(value, simplified(schema, {}))


@given(VALUES, st.sampled_from(sorted(TYPES)))
def test_a_type_is_what_json_means_by_it(value: Any, name: str):
    fits = isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
    if name == "integer" and isinstance(value, float):
        fits = value.is_integer()
    if fits:
        check(value, {"type": name})
    else:
        with pytest.raises(BadRequest, match=f"expected {name}"):
            check(value, {"type": name})


WORDS = st.sampled_from([
    *KEPT,
    "properties",
    "items",
    "anyOf",
    "oneOf",
    "allOf",
    "additionalProperties",
    "nullable",
    "readOnly",
])


@given(
    st.recursive(
        VALUES, lambda inner: st.dictionaries(WORDS, inner | st.lists(inner, max_size=2), max_size=4)
    ),
    VALUES,
)
def test_whatever_stands_for_a_schema_nothing_breaks(schema: Any, value: Any):
    with contextlib.suppress(BadRequest):
        check(value, simplified(schema, {}))


@pytest.mark.parametrize(
    ("given_", "offered"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        (
            {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
            {"type": "integer", "exclusiveMinimum": 0},
        ),
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": False}, {"type": "integer", "minimum": 0}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}, {"type": ["integer", "null"]}),
        ({"type": "string", "title": "X", "example": "y", "xml": {}, "pattern": "(?=x)"}, {"type": "string"}),
        (
            {
                "allOf": [
                    {"properties": {"a": {}}, "required": ["a"]},
                    {"properties": {"b": {}}, "required": ["b", "a"]},
                ]
            },
            {"properties": {"a": {}, "b": {}}, "required": ["a", "b"]},
        ),
        (
            {"oneOf": [{"type": "string"}, {"type": "integer"}]},
            {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        ),
        ({"properties": {"a": {"readOnly": True}, "b": {}}, "required": ["a"]}, {"properties": {"b": {}}}),
    ],
)
def test_dialects_become_one(given_, offered):
    assert simplified(given_, {}) == offered


def test_references_are_put_in_place_and_circles_closed():
    document = {
        "defs": {
            "Tree": {
                "type": "object",
                "properties": {"kids": {"type": "array", "items": {"$ref": "#/defs/Tree"}}},
            }
        }
    }
    offered = simplified({"$ref": "#/defs/Tree", "description": "Mine."}, document)
    assert offered == {
        "type": "object",
        "description": "Mine.",
        "properties": {"kids": {"type": "array", "items": {}}},
    }
    assert lookup("#/a~1b/0", {"a/b": [7]}) == 7


@pytest.mark.parametrize("reference", ["#/defs/Gone", "other.json#/x", "http://elsewhere/x", "#/defs/0"])
def test_references_to_nowhere_are_refused(reference: str):
    with pytest.raises(BadRequest, match="leads"):
        simplified({"$ref": reference}, {"defs": {}})


def test_a_schema_that_grows_without_end_is_refused():
    """Ten levels of ten references each: small as a document, ten thousand million parts when put in place."""
    defs: dict[str, Any] = {"L0": {"type": "string"}}
    for level in range(1, 11):
        defs[f"L{level}"] = {"properties": {f"p{n}": {"$ref": f"#/defs/L{level - 1}"} for n in range(10)}}
    with pytest.raises(TooLarge, match=str(NODES_MAX)):
        simplified({"$ref": "#/defs/L10"}, {"defs": defs})
    with pytest.raises(BadRequest, match="lead to each other"):
        dereferenced({"$ref": "#/a"}, {"a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}})


@pytest.mark.parametrize(
    ("value", "schema", "field", "said"),
    [
        (
            {"a": [1, "x"]},
            {"properties": {"a": {"items": {"type": "integer"}}}},
            "a[1]",
            "expected integer, got 'x'",
        ),
        ({}, {"required": ["a"]}, "a", "missing"),
        (
            {"lenght": 1},
            {"properties": {"length": {}}, "additionalProperties": False},
            "lenght",
            "did you mean 'length'",
        ),
        ("z", {"enum": ["a", "b"]}, None, "one of 'a', 'b'"),
        (True, {"enum": [1]}, None, "one of 1"),
        ("abc", {"pattern": "^[0-9]+$"}, None, "matches"),
        (5, {"anyOf": [{"type": "string"}, {"minimum": 6}]}, None, "fits none of 2"),
    ],
)
def test_what_does_not_fit_is_told_with_its_path(value, schema, field, said):
    with pytest.raises(BadRequest, match=said) as caught:
        check(value, schema)
    assert caught.value.field == field
