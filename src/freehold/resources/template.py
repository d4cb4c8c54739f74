"""A template: YAML documents (or one JSON array), each a resource with `kind` and `name`. Text to values; no I/O.

`${NAME}` in a string is replaced by a variable given at apply; `$${` stands for `${`. Unlike plain YAML 1.1, dates stay
strings, a key may stand only once, and aliases may not multiply a document past NODES_MAX.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml
from msgspec import Struct

from freehold.core.errors import BadRequest, TooLarge
from freehold.core.resources import KINDS, Agent, Provider, Resource, Rules, Tool, check_name, kind_of
from freehold.core.validation import convert, near

TEMPLATE_BYTES_MAX: Final = 2_000_000
NODES_MAX: Final = 200_000
DOCUMENTS_MAX: Final = 1_000

_SHAPES: Final[dict[str, type[Agent | Provider | Rules | Tool]]] = {
    "agent": Agent,
    "provider": Provider,
    "rules": Rules,
    "tool": Tool,
}
_VARIABLE: Final = re.compile(r"\$(\$\{|\{([A-Za-z_][A-Za-z0-9_]*)\}|\{)")


class Declared(Struct, frozen=True):
    """`line` is where the resource begins in the template, counted from 1."""

    resource: Resource
    line: int


class _Loader(yaml.SafeLoader):
    """YAML's JSON-like core: no timestamps, no merge surprises."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_template(
    text: str, *, source: str = "template", variables: Mapping[str, str] | None = None
) -> list[Declared]:
    """Raises BadRequest whose message begins with `source:line` and names the resource and the field."""
    if len(text.encode()) > TEMPLATE_BYTES_MAX:
        raise TooLarge(f"{source}: a template may have {TEMPLATE_BYTES_MAX} bytes at most")
    declared = [_declare(node, source, variables or {}) for node in _documents(text, source)]
    if not declared:
        raise BadRequest(f"{source}: there is no resource in it; expected documents with `kind` and `name`")
    seen: dict[tuple[str, str], int] = {}
    for one in declared:
        key = (kind_of(one.resource), one.resource.name)
        if key in seen:
            raise BadRequest(
                f"{source}:{one.line}: {key[0]} {key[1]!r} is declared a second time (first in line {seen[key]})"
            )
        seen[key] = one.line
    return sorted(declared, key=lambda one: KINDS.index(kind_of(one.resource)))


def _documents(text: str, source: str) -> Iterator[yaml.Node]:
    try:
        for count, node in enumerate(yaml.compose_all(text, Loader=_Loader)):
            if count >= DOCUMENTS_MAX:
                raise TooLarge(f"{source}: a template may have {DOCUMENTS_MAX} documents at most")
            if isinstance(node, yaml.ScalarNode) and not node.value:
                continue
            if isinstance(node, yaml.SequenceNode):
                yield from node.value
            else:
                yield node
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadRequest(f"{source}:{line}: not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise BadRequest(f"{source}: not YAML: {error}") from error


def _declare(node: yaml.Node, source: str, variables: Mapping[str, str]) -> Declared:
    line = node.start_mark.line + 1
    reader = _Reader(variables)
    try:
        value = reader.value(node, "")
    except BadRequest as error:
        raise BadRequest(f"{source}:{reader.line or line}: {error.message}", field=error.field) from error
    if not isinstance(value, dict):
        raise BadRequest(
            f"{source}:{line}: expected a resource with `kind` and `name`, got {type(value).__name__}"
        )
    kind = value.get("kind")
    if kind not in _SHAPES:
        came = "nothing" if kind is None else repr(kind)
        known = ", ".join(KINDS)
        raise BadRequest(
            f"{source}:{line}: kind: expected one of {known}; got {came}{near(str(kind), KINDS)}",
            field="kind",
        )
    label = f"{kind} {value.get('name', '(without a name)')}"
    try:
        resource = convert(value, _SHAPES[kind])
        check_name(resource.name)
    except BadRequest as error:
        at = reader.lines.get(error.field or "", line)
        raise BadRequest(f"{source}:{at}: {label}: {error}", field=error.field) from error
    return Declared(resource, line)


class _Reader:
    """Nodes to plain values, remembering which line each path stands in."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.lines: dict[str, int] = {}
        self.line = 0
        self._variables = variables
        self._count = 0

    def value(self, node: yaml.Node, path: str) -> Any:
        self._count += 1
        self.line = node.start_mark.line + 1
        if self._count > NODES_MAX:
            raise BadRequest(f"more than {NODES_MAX} values in one resource")
        self.lines[path] = self.line
        match node:
            case yaml.MappingNode():
                return self._mapping(node, path)
            case yaml.SequenceNode():
                return [self.value(item, f"{path}[{index}]") for index, item in enumerate(node.value)]
            case yaml.ScalarNode():
                return self._scalar(node)
            case _:
                raise BadRequest(f"expected a mapping, a list or a scalar, got {node.tag}")

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            self.line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                raise BadRequest("keys must be plain strings (no merge keys)")
            key = key_node.value
            if key in found:
                raise BadRequest(f"the key {key!r} stands here a second time")
            found[key] = self.value(value_node, f"{path}.{key}" if path else key)
        return found

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag == "tag:yaml.org,2002:str":
            return _VARIABLE.sub(self._variable, node.value)
        try:
            return yaml.safe_load(node.value) if node.style is None else node.value
        except yaml.YAMLError as error:
            raise BadRequest(f"not a YAML value: {node.value[:80]!r}") from error

    def _variable(self, match: re.Match[str]) -> str:
        if match[1] == "${":
            return "${"
        name = match[2]
        if name is None:
            raise BadRequest("expected ${NAME}; write $${ for a plain ${")
        if name not in self._variables:
            raise BadRequest(f"the variable {name} is used but not given: add --set {name}=VALUE")
        return self._variables[name]
