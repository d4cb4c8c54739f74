"""The OpenAPI document: valid, complete, and true: whatever is sent to what it names, the answer is never a fault of ours."""

import re
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freehold.server.app import OPENAPI_PATH
from tests._waiting import PATIENCE_S
from tests.server._world import World

METHODS = {"get", "put", "post", "delete", "patch", "head", "options"}
SCHEMA_WORDS = {
    "$ref", "type", "properties", "required", "items", "prefixItems", "minItems", "maxItems", "anyOf", "enum", "const",
    "default", "description", "title", "additionalProperties", "propertyNames", "format", "discriminator", "minimum",
    "maximum", "contentEncoding",
}  # fmt: skip


@pytest.fixture(scope="module")
async def document(shared: World) -> dict[str, Any]:
    async with httpx2.AsyncClient(base_url=shared.url, timeout=PATIENCE_S, trust_env=False) as anyone:
        answer = await anyone.get(OPENAPI_PATH)
    assert answer.status_code == 200
    return dict(answer.json())


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, one) for path, methods in document["paths"].items() for method, one in methods.items()
    ]


async def test_it_has_what_every_document_must_have(document: dict[str, Any]) -> None:
    """https://spec.openapis.org/oas/v3.1.0#openapi-object"""
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert document["info"].keys() >= {"title", "version"}
    assert document.keys() <= {"openapi", "info", "servers", "paths", "components", "security", "tags"}
    for scheme in (name for one in document["security"] for name in one):
        assert scheme in document["components"]["securitySchemes"]


async def test_errors_are_told_in_the_dialect_of_each_operation(document: dict[str, Any]) -> None:
    told = {
        path: one["responses"]["default"]["content"]["application/json"]["schema"].get("$ref", "")
        for _, path, one in operations(document)
    }
    assert (
        told["/v1/conversations"] == told["/v1/responses/{response_id}"] == "#/components/schemas/OpenAIError"
    )
    assert told["/v1/agents"] == "#/components/schemas/Error"


async def test_each_operation_is_whole(document: dict[str, Any]) -> None:
    seen: set[str] = set()
    for method, path, one in operations(document):
        assert method in METHODS
        assert re.fullmatch(r"(/([A-Za-z0-9._-]+|\{[a-z_]+\}))+", path), path
        assert one["operationId"] not in seen
        seen.add(one["operationId"])
        assert one["summary"].endswith(".")
        assert one["responses"].keys() >= {"default"}
        for status, response in one["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d|default", status)
            assert response["description"]
        named = [each["name"] for each in one.get("parameters", []) if each["in"] == "path"]
        assert named == re.findall(r"\{(\w+)\}", path)
        names = [(each["in"], each["name"]) for each in one.get("parameters", [])]
        assert len(set(names)) == len(names)
        if method in {"get", "delete"}:
            assert "requestBody" not in one


async def test_every_schema_is_one_and_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    check_references(document, schemas)
    for name, schema in schemas.items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
        check_schema(schema, name)


def check_references(value: Any, schemas: dict[str, Any]) -> None:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str):
            assert reference.startswith("#/components/schemas/")
            assert reference.rpartition("/")[2] in schemas
        for inner in value.values():
            check_references(inner, schemas)
    elif isinstance(value, list):
        for inner in value:
            check_references(inner, schemas)


def check_schema(schema: Any, where: str) -> None:
    if isinstance(schema, bool):
        return
    assert schema.keys() <= SCHEMA_WORDS, f"{where}: {schema.keys() - SCHEMA_WORDS}"
    assert set(schema.get("required", ())) <= set(schema.get("properties", ())), where
    for name, inner in schema.get("properties", {}).items():
        check_schema(inner, f"{where}.{name}")
    for word in ("items", "additionalProperties", "propertyNames"):
        if word in schema:
            check_schema(schema[word], f"{where}.{word}")
    for inner in [*schema.get("anyOf", ()), *schema.get("prefixItems", ())]:
        check_schema(inner, f"{where}.anyOf")


async def test_what_is_served_is_described_and_what_is_described_is_served(
    shared: World, document: dict[str, Any]
) -> None:
    described = {(method.upper(), path) for method, path, _ in operations(document)}
    assert {("POST", "/v1/chat/completions"), ("POST", "/v1/messages"), ("GET", "/healthz")} <= described
    for path in document["paths"]:
        answer = await shared.http.request("PATCH", re.sub(r"\{\w+\}", "x", path))
        assert answer.status_code == 405, path
        allowed = {(method, path) for method in answer.headers["allow"].split(", ") if method != "HEAD"}
        assert allowed == {one for one in described if one[1] == path}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
words = st.text(max_size=30) | st.sampled_from([
    "0",
    "-1",
    "1e9",
    "default",
    "agent",
    "..",
    "\x00",
    "%00",
    "a/b",
    "💥",
    "NaN",
])


class Drawing:
    """Requests that look as the document says, with anything in the places."""

    def __init__(self, document: dict[str, Any], draw: Any) -> None:
        self._schemas = document["components"]["schemas"]
        self._draw = draw

    def value(self, schema: dict[str, Any], depth: int = 0) -> Any:
        if depth > 6 or self._draw(st.integers(0, 9)) == 0:
            return self._draw(json_values)
        if "$ref" in schema:
            return self.value(self._schemas[schema["$ref"].rpartition("/")[2]], depth + 1)
        if "anyOf" in schema:
            return self.value(self._draw(st.sampled_from(schema["anyOf"])), depth + 1)
        if "const" in schema or "enum" in schema:
            return self._draw(st.sampled_from(schema.get("enum") or [schema["const"]]))
        match schema.get("type"):
            case "object":
                return self._object(schema, depth)
            case "array":
                inner = schema.get("items") or {}
                return [
                    self.value(inner if isinstance(inner, dict) else {}, depth + 1)
                    for _ in range(self._draw(st.integers(0, 2)))
                ]
            case "string":
                return self._draw(words)
            case "integer":
                return self._draw(st.integers())
            case "number":
                return self._draw(st.floats(allow_nan=False, allow_infinity=False))
            case "boolean":
                return self._draw(st.booleans())
            case _:
                return self._draw(json_values)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        required = set(schema.get("required", ()))
        return {
            name: self.value(inner, depth + 1)
            for name, inner in schema.get("properties", {}).items()
            if name in required or self._draw(st.booleans())
        }


STREAMING = {"streamEvents"}
DESTRUCTIVE = {"revokeKey"}


@settings(
    derandomize=True, suppress_health_check=[*settings().suppress_health_check, HealthCheck.data_too_large]
)
@given(data=st.data())
async def test_nothing_that_is_sent_is_a_fault_of_ours(
    shared: World, document: dict[str, Any], data: Any
) -> None:
    chosen = [one for one in operations(document) if one[2]["operationId"] not in STREAMING | DESTRUCTIVE]
    method, template, one = data.draw(st.sampled_from(chosen))
    drawing = Drawing(document, data.draw)
    path = template
    for name in re.findall(r"\{(\w+)\}", template):
        path = path.replace(f"{{{name}}}", quote(data.draw(words.filter(bool)), safe="/"))
    query = "&".join(
        f"{quote(each['name'])}={quote(str(drawing.value(each['schema'])))}"
        for each in one.get("parameters", [])
        if each["in"] == "query" and data.draw(st.booleans())
    )
    content = None
    if "requestBody" in one:
        schema = one["requestBody"]["content"].get("application/json", {}).get("schema")
        content = (
            data.draw(st.binary(max_size=200))
            if schema is None
            else msgspec.json.encode(drawing.value(schema))
        )
    answer = await shared.http.request(
        method.upper(), f"{path}{'?' if query else ''}{query}", content=content
    )
    assert answer.status_code < 500, f"{method} {path}?{query} {content!r}: {answer.text}"
    if answer.status_code >= 400:
        assert answer.json()["error"]["message"]
