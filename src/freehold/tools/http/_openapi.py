"""An OpenAPI 3.0 or 3.1 document as operations that a model can be offered. Pure: no network here.

Sources: https://spec.openapis.org/oas/v3.0.3, https://spec.openapis.org/oas/v3.1.0. Understood: parameters in path, query
and header, JSON bodies, `$ref` within the document. An operation that needs anything else (cookies, forms, uploads) is
left out and said so, or refused where the tool's config names it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, Literal, TypeAlias

import msgspec
import yaml
from msgspec import Struct

from freehold.core.errors import BadRequest, TooLarge, Unsupported
from freehold.core.resources import Effect
from freehold.core.validation import near
from freehold.tools._schema import dereferenced, simplified

OPERATIONS_MAX: Final = 200
FUNCTION_NAME_MAX: Final = 64
DESCRIPTION_CHARS_MAX: Final = 1_000
IDEMPOTENCY_HEADER: Final = "idempotency-key"

Location: TypeAlias = Literal["path", "query", "header"]

_METHODS: Final[dict[str, Effect]] = {
    "get": "pure",
    "head": "pure",
    "put": "idempotent",
    "delete": "idempotent",
    "post": "irreversible",
    "patch": "irreversible",
}
_ODD: Final = re.compile(r"[^A-Za-z0-9_-]+")
_PLACEHOLDER: Final = re.compile(r"\{([^{}]+)\}")
_IGNORED_HEADERS: Final = frozenset({"accept", "content-type", "authorization"})
"""By the specification these are not parameters, whatever the document says."""


class Parameter(Struct, frozen=True):
    """`argument` is the model's name for it, `name` the service's. `style` and `explode` as in OpenAPI."""

    argument: str
    name: str
    location: Location
    style: str
    explode: bool


class Operation(Struct, frozen=True, kw_only=True):
    """`schema` is the JSON Schema of the arguments; `body` the media type of the argument `body`, where there is one."""

    name: str
    method: str
    path: str
    description: str
    parameters: tuple[Parameter, ...]
    schema: dict[str, Any]
    body: str | None
    effect: Effect


class Read(Struct, frozen=True):
    """`left_out` says which operations were, and why."""

    operations: tuple[Operation, ...]
    left_out: tuple[str, ...]
    server: str | None


def parse(data: bytes) -> dict[str, Any]:
    """JSON or YAML. Raises BadRequest."""
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        try:
            document = yaml.safe_load(data)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise BadRequest("expected an OpenAPI document, got neither JSON nor YAML") from error
    if not isinstance(document, dict):
        raise BadRequest(f"expected an OpenAPI document, got {type(document).__name__}")
    return document


def read_document(
    document: Mapping[str, Any],
    *,
    prefix_chars: int,
    only: Sequence[str] | None,
    effects: Mapping[str, Effect],
) -> Read:
    """`prefix_chars` is what the tool's own name takes of FUNCTION_NAME_MAX. `only` and `effects` go by function name."""
    version = str(document.get("openapi", ""))
    if not version.startswith(("3.0", "3.1")):
        raise BadRequest(
            f"expected an OpenAPI 3.0 or 3.1 document, got openapi: {version[:20] or 'nothing'!r}"
        )
    found: dict[str, Operation] = {}
    names: set[str] = set()
    left_out: list[str] = []
    for path, method, item, operation in _operations(document):
        name = _name(operation, method, path, FUNCTION_NAME_MAX - prefix_chars, names)
        names.add(name)
        if only is not None and name not in only:
            continue
        if len(found) >= OPERATIONS_MAX:
            raise TooLarge(f"more than {OPERATIONS_MAX} operations; choose some with `operations`")
        try:
            found[name] = _operation(name, path, method, item, operation, document, effects.get(name))
        except (Unsupported, BadRequest, TooLarge) as error:
            if only is not None:
                raise BadRequest(f"operation {name} ({method.upper()} {path}): {error}") from error
            left_out.append(f"{name}: {error}")
    _refuse_unknown(names, only or (), "operations")
    _refuse_unknown(names if only is None else set(only), effects, "effects")
    return Read(tuple(found.values()), tuple(left_out), _server(document))


def _refuse_unknown(known: AbstractSet[str], names: Iterable[str], field: str) -> None:
    for name in names:
        if name not in known:
            listed = ", ".join(sorted(known)[:50])
            raise BadRequest(
                f"there is no operation {name!r}{near(name, known)}; there are: {listed}", field=field
            )


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    paths = document.get("paths")
    if not isinstance(paths, dict):
        raise BadRequest("expected `paths` in the OpenAPI document")
    for path, item in paths.items():
        item = dereferenced(item, document)
        for method in _METHODS:
            if isinstance(item, dict) and isinstance(item.get(method), dict):
                yield str(path), method, item, item[method]


def _name(
    operation: Mapping[str, Any], method: str, path: str, chars_max: int, taken: AbstractSet[str]
) -> str:
    said = operation.get("operationId") or f"{method}_" + _PLACEHOLDER.sub(r"by_\1", path)
    name = _ODD.sub("_", str(said)).strip("_")[:chars_max] or method
    for count in range(2, OPERATIONS_MAX + 2):
        if name not in taken:
            break
        name = f"{name[: chars_max - 4]}_{count}"
    return name


def _server(document: Mapping[str, Any]) -> str | None:
    servers = document.get("servers")
    if not isinstance(servers, list) or not servers or not isinstance(servers[0], dict):
        return None
    url = str(servers[0].get("url", ""))
    for name, variable in (servers[0].get("variables") or {}).items():
        url = url.replace(f"{{{name}}}", str(variable.get("default", "")))
    return url or None


def _operation(
    name: str,
    path: str,
    method: str,
    item: Mapping[str, Any],
    operation: Mapping[str, Any],
    document: Mapping[str, Any],
    effect: Effect | None,
) -> Operation:
    declared = _declared_parameters(item, operation, document)
    repeatable = any(one["in"] == "header" and one["name"].lower() == IDEMPOTENCY_HEADER for one in declared)
    properties: dict[str, Any] = {}
    required: list[str] = []
    parameters = []
    for one in declared:
        if one["in"] == "header" and one["name"].lower() in {IDEMPOTENCY_HEADER, *_IGNORED_HEADERS}:
            continue
        parameter = _parameter(one, properties)
        schema = simplified(_schema_of(one), document)
        if isinstance(one.get("description"), str):
            schema["description"] = one["description"].strip()[:DESCRIPTION_CHARS_MAX]
        properties[parameter.argument] = schema
        parameters.append(parameter)
        if one.get("required") is True or one["in"] == "path":
            required.append(parameter.argument)
    body = _add_body(operation, document, properties, required)
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    return Operation(
        name=name,
        method=method.upper(),
        path=path,
        description=_description(operation, method, path),
        parameters=tuple(parameters),
        schema=schema,
        body=body,
        effect=effect or ("idempotent" if repeatable and method == "post" else _METHODS[method]),
    )


def _declared_parameters(
    item: Mapping[str, Any], operation: Mapping[str, Any], document: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The operation's own stand over the path's."""
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for one in [*(item.get("parameters") or ()), *(operation.get("parameters") or ())]:
        one = dereferenced(one, document)
        if not isinstance(one, dict) or not isinstance(one.get("name"), str) or "in" not in one:
            raise BadRequest("a parameter without `name` or `in`")
        merged[one["name"], str(one["in"])] = one
    kept = []
    for one in merged.values():
        if one["in"] in {"path", "query", "header"}:
            kept.append(one)
        elif one.get("required") is True:
            raise Unsupported(f"the parameter {one['name']!r} goes into a {one['in']}")
    return kept


def _parameter(one: Mapping[str, Any], taken: Mapping[str, Any]) -> Parameter:
    location: Location = one["in"]
    style = str(one.get("style") or ("form" if location == "query" else "simple"))
    if style not in {"form", "simple", "spaceDelimited", "pipeDelimited", "deepObject"}:
        raise Unsupported(f"the parameter {one['name']!r} has the style {style!r}")
    argument = _ODD.sub("_", one["name"]).strip("_")[:FUNCTION_NAME_MAX] or location
    if argument in taken or argument == "body":
        argument = f"{argument}_{location}"
    explode = one.get("explode")
    return Parameter(
        argument, one["name"], location, style, style == "form" if explode is None else bool(explode)
    )


def _schema_of(one: Mapping[str, Any]) -> Any:
    if "schema" in one:
        return one["schema"]
    if "content" in one:
        raise Unsupported(f"the parameter {one['name']!r} is a document of its own (`content`)")
    return {}


def _add_body(
    operation: Mapping[str, Any], document: Mapping[str, Any], properties: dict[str, Any], required: list[str]
) -> str | None:
    body = dereferenced(operation.get("requestBody"), document)
    if not isinstance(body, dict):
        return None
    content = body.get("content") or {}
    media = next((one for one in content if _is_json(one)), None)
    if media is None:
        if body.get("required") is True:
            raise Unsupported(
                f"its body is {', '.join(map(str, content)) or 'of no declared type'}, not JSON"
            )
        return None
    properties["body"] = simplified((content[media] or {}).get("schema") or {}, document)
    if body.get("required") is True:
        required.append("body")
    return str(media)


def _is_json(media: str) -> bool:
    base = media.partition(";")[0].strip().lower()
    return base == "application/json" or base.endswith("+json")


def _description(operation: Mapping[str, Any], method: str, path: str) -> str:
    said = [str(operation[key]).strip() for key in ("summary", "description") if operation.get(key)]
    text = " ".join(dict.fromkeys(said)) or f"{method.upper()} {path}"
    return text[:DESCRIPTION_CHARS_MAX]
