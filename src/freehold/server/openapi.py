"""The OpenAPI 3.1 document of the native API, made from the declared operations. https://spec.openapis.org/oas/v3.1.0"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from freehold import __version__
from freehold.server.operations import Operation

_ERROR = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
        "request_id": {"type": "string"},
    },
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    shapes = [shape for one in operations for shape in (one.body, one.answer) if shape is not None]
    schemas, components = msgspec.json.schema_components(shapes, ref_template="#/components/schemas/{name}")
    found = iter(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        body = next(found) if one.body is not None else None
        answer = next(found) if one.answer is not None else {}
        paths.setdefault(re.sub(r":path\}", "}", one.path), {})[one.method.lower()] = _described(
            one, body, answer
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Freehold",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": paths,
        "components": {
            "schemas": components | {"Error": _ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _described(one: Operation, body: Any, answer: Any) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": one.id,
        "summary": one.summary,
        "tags": [one.tag],
        "parameters": [*_path_parameters(one.path), *_query_parameters(one)],
        "responses": {
            str(one.status): {"description": "Done.", "content": {"application/json": {"schema": answer}}},
            "default": {
                "description": "An error, in Anthropic's shape.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if one.open_to_all:
        described["security"] = []
    if body is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    elif one.raw_body:
        described["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    return described


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)(?::path)?\}", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(one: Operation) -> list[dict[str, Any]]:
    (schema,), components = msgspec.json.schema_components([one.query])
    shape = components[one.query.__name__] if "$ref" in schema else schema
    required = shape.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": value}
        for name, value in shape.get("properties", {}).items()
    ]
