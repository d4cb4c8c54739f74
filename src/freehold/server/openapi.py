"""The OpenAPI 3.1 document, made from the declared operations. https://spec.openapis.org/oas/v3.1.0

Model calls are named and not described: their vendors publish what goes in and what comes out, and own it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from freehold import __version__
from freehold.core.ports import Wire
from freehold.server.operations import Operation
from freehold.server.routing import names_of

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
_OPENAI_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_ERRORS = {"Error": _ERROR, "OpenAIError": _OPENAI_ERROR}
_NATIVE = ("Error", "Anthropic's")
_TOLD = {"openai_responses": ("OpenAIError", "OpenAI's")}
"""By the dialect of an operation that has one: the schema of its errors, and whose shape that is."""


def document(operations: Sequence[Operation], model_calls: Mapping[bytes, Wire]) -> dict[str, Any]:
    shapes = [shape for one in operations for shape in (one.body, one.answer) if shape is not None]
    schemas, components = msgspec.json.schema_components(shapes, ref_template="#/components/schemas/{name}")
    found = iter(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        body = next(found) if one.body is not None else None
        answer = next(found) if one.answer is not None else {}
        path = one.path.replace(":path}", "}")
        paths.setdefault(path, {})[one.method.lower()] = _described(one, body, answer)
    for raw_path, wire in model_calls.items():
        paths[raw_path.decode()] = {"post": _model_call(wire)}
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
            "schemas": components | _ERRORS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _model_call(wire: Wire) -> dict[str, Any]:
    anything = {"schema": {"type": "object"}}
    return {
        "operationId": f"call_{wire.name}",
        "summary": f"Call a model in the format {wire.name}, whatever its vendor.",
        "description": "`model` is `provider/name`, `rules/name`, or a bare name. With `stream`, server-sent events.",
        "tags": ["models"],
        "requestBody": {"required": True, "content": {"application/json": anything}},
        "responses": {
            "200": {
                "description": "The answer, in the same format.",
                "content": {"application/json": anything, wire.stream_content_type.partition(";")[0]: {}},
            },
            "default": {
                "description": "An error, in the same format.",
                "content": {"application/json": anything},
            },
        },
    }


def _described(one: Operation, body: Any, answer: Any) -> dict[str, Any]:
    schema, whose = _NATIVE if one.dialect is None else _TOLD[one.dialect.name]
    described: dict[str, Any] = {
        "operationId": one.id,
        "summary": one.summary,
        "tags": [one.tag],
        "parameters": [*_path_parameters(one.path), *_query_parameters(one)],
        "responses": {
            str(one.status): {"description": "Done.", "content": {one.media_type: {"schema": answer}}},
            "default": {
                "description": f"An error, in {whose} shape.",
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
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
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names_of(path)
    ]


def _query_parameters(one: Operation) -> list[dict[str, Any]]:
    (schema,), components = msgspec.json.schema_components([one.query])
    shape = components[one.query.__name__] if "$ref" in schema else schema
    required = shape.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": value}
        for name, value in shape.get("properties", {}).items()
    ]
