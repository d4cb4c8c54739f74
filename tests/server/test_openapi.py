"""The OpenAPI document: valid, complete, and true: whatever is sent to what it names, the answer is never a fault of ours."""

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.server.app import OPENAPI_PATH
from tests._waiting import PATIENCE_S
from tests.server._world import World

T = TypeVar("T")
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


WORDS = ("", "0", "-1", "1e9", "default", "agent", "..", "\x00", "%00", "a/b", "💥", "NaN")
LETTERS = (range(0x20, 0x7F), range(0xD800), range(0xE000, 0x110000))
"""As often ASCII as anything; no halves of surrogate pairs, which are no text."""
CHARS_MAX = 30
INTEGERS = (0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 2**64, 10**40)
NUMBERS = (0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, 2.0**53)
DEPTH_MAX = 6


class Drawing:
    """Requests that look as the document says, with anything in the places: all of it follows from `seed`.

    Hypothesis chooses the seed and no more. Drawn by it, one such request is hundreds of choices, and what it remembers of
    them once disagreed with itself.
    """

    def __init__(self, document: dict[str, Any], seed: int) -> None:
        self.operations = operations(document)
        self._schemas = document["components"]["schemas"]
        self._random = Random(seed)

    def one_of(self, options: Sequence[T]) -> T:
        return self._random.choice(options)

    def coin(self) -> bool:
        return self._random.random() < 0.5

    def bytes(self) -> bytes:
        return self._random.randbytes(self._random.randint(0, 200))

    def word(self) -> str:
        if self.coin():
            return self.one_of(WORDS)
        return "".join(
            chr(self.one_of(self.one_of(LETTERS))) for _ in range(self._random.randint(0, CHARS_MAX))
        )

    def segment(self) -> str:
        return self.word() or "x"

    def value(self, schema: dict[str, Any], depth: int = 0) -> Any:
        if depth > DEPTH_MAX or self._random.randrange(10) == 0:
            return self._anything(depth)
        if "$ref" in schema:
            return self.value(self._schemas[schema["$ref"].rpartition("/")[2]], depth + 1)
        if "anyOf" in schema:
            return self.value(self.one_of(schema["anyOf"]), depth + 1)
        if "const" in schema or "enum" in schema:
            return self.one_of(schema.get("enum") or [schema["const"]])
        match schema.get("type"):
            case "object":
                return self._object(schema, depth)
            case "array":
                inner = schema.get("items") or {}
                return self._array(inner if isinstance(inner, dict) else {}, depth)
            case "string":
                return self.word()
            case "integer":
                return self._integer()
            case "number":
                return self._number()
            case "boolean":
                return self.coin()
            case _:
                return self._anything(depth)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        required = schema.get("required", ())
        return {
            name: self.value(inner, depth + 1)
            for name, inner in schema.get("properties", {}).items()
            if name in required or self.coin()
        }

    def _array(self, inner: dict[str, Any], depth: int) -> list[Any]:
        return [self.value(inner, depth + 1) for _ in range(self._random.randint(0, 2))]

    def _integer(self) -> int:
        return self.one_of(INTEGERS) if self.coin() else self._random.randint(-1000, 1000)

    def _number(self) -> float:
        return self.one_of(NUMBERS) if self.coin() else self._random.gauss(0, 1000)

    def _anything(self, depth: int) -> Any:
        kinds = ["null", "boolean", "integer", "number", "string"]
        match self.one_of(kinds if depth > DEPTH_MAX else [*kinds, "array", "object"]):
            case "array":
                return [self._anything(depth + 2) for _ in range(self._random.randint(0, 4))]
            case "object":
                return {self.word(): self._anything(depth + 2) for _ in range(self._random.randint(0, 4))}
            case "null":
                return None
            case kind:
                return self.value({"type": kind}, depth)


STREAMING = {"streamEvents"}
DESTRUCTIVE = {"revokeKey"}


@pytest.fixture(scope="module")
def draw(document: dict[str, Any]) -> Callable[[int], Drawing]:
    """What a failing test is given is shown: not the document."""
    return lambda seed: Drawing(document, seed)


@given(seed=st.integers(0, 2**64 - 1))
async def test_nothing_that_is_sent_is_a_fault_of_ours(
    shared: World, draw: Callable[[int], Drawing], seed: int
) -> None:
    drawing = draw(seed)
    method, template, one = drawing.one_of([
        one for one in drawing.operations if one[2]["operationId"] not in STREAMING | DESTRUCTIVE
    ])
    path = re.sub(r"\{\w+\}", lambda _: quote(drawing.segment(), safe="/"), template)
    query = "&".join(
        f"{quote(each['name'])}={quote(str(drawing.value(each['schema'])))}"
        for each in one.get("parameters", [])
        if each["in"] == "query" and drawing.coin()
    )
    content = None
    if "requestBody" in one:
        schema = one["requestBody"]["content"].get("application/json", {}).get("schema")
        content = drawing.bytes() if schema is None else msgspec.json.encode(drawing.value(schema))
    answer = await shared.http.request(
        method.upper(), f"{path}{'?' if query else ''}{query}", content=content
    )
    assert answer.status_code < 500, f"{method} {path}?{query} {content!r}: {answer.text}"
    if answer.status_code >= 400:
        assert answer.json()["error"]["message"]
