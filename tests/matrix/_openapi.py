"""OpenAI's and Anthropic's published OpenAPI documents as judges, where they are on this machine: they are too large to keep here.

They are looked for in `$FREEHOLD_VENDOR_DOCUMENTS`, or beside the repository. Sources: https://github.com/openai/openai-openapi
(openapi.json), https://github.com/tryAGI/Anthropic (src/libs/Anthropic/openapi.yaml).
"""

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.matrix._typed import Violation

BESIDE: Final = Path(__file__).parents[3] / "shared" / "oracles" / "data"
FOLDER: Final = Path(os.environ.get("FREEHOLD_VENDOR_DOCUMENTS", BESIDE))
NAMES: Final = {"openai": "openai-openapi.json", "anthropic": "anthropic-openapi.yaml"}
DEPTH_MAX: Final = 8

_MEANT: Final = ("const", "enum", "required")
"""By these one sees which member of a union was not meant."""


@cache
def is_there(document: str) -> bool:
    return (FOLDER / NAMES[document]).exists()


def wrong(document: str, schema: str, value: Any) -> list[Violation]:
    found = {one for error in _validator(document, schema).iter_errors(value) for one in _leaves(error, 0)}
    return sorted(found)


@cache
def _registry(document: str) -> Registry[Any]:
    text = (FOLDER / NAMES[document]).read_text()
    tree = json.loads(text) if text.lstrip().startswith("{") else yaml.load(text, yaml.CSafeLoader)
    _modernised(tree["components"])
    return Registry().with_resource("urn:vendor", Resource(contents=tree, specification=DRAFT202012))


@cache
def _validator(document: str, schema: str) -> Draft202012Validator:
    at = {"$ref": f"urn:vendor#/components/schemas/{schema}"}
    return Draft202012Validator(at, registry=_registry(document))


def _modernised(node: Any) -> None:
    """What OpenAPI 3.0 said in words of its own."""
    if isinstance(node, list):
        for inner in node:
            _modernised(inner)
    elif isinstance(node, dict):
        if node.pop("nullable", False) is True and isinstance(node.get("type"), str):
            node["type"] = [node["type"], "null"]
        node.pop("discriminator", None)
        if "oneOf" in node:  # Their members overlap.
            node["anyOf"] = node.pop("oneOf")
        for inner in node.values():
            _modernised(inner)


def _leaves(error: ValidationError, depth: int) -> Iterator[Violation]:
    """Of a union's members, that of the one that was meant: whose constants fit best."""
    if not error.context or depth == DEPTH_MAX:
        yield ".".join(map(str, error.absolute_path)), error.message[:200]
        return
    members: dict[Any, list[ValidationError]] = {}
    for inner in error.context:
        members.setdefault(inner.schema_path[0], []).append(inner)
    nearest = min(members.values(), key=_distance)
    for inner in nearest:
        yield from _leaves(inner, depth + 1)


def _distance(errors: list[ValidationError]) -> tuple[bool, int, int]:
    """Another `type`, or another kind of JSON, is another thing; then come constants and what is missing."""
    another = any(
        (error.validator in ("const", "enum") and [*error.path][-1:] == ["type"])
        or (error.validator == "type" and not error.path)
        for error in errors
    )
    return another, sum(error.validator in _MEANT for error in errors), len(errors)
