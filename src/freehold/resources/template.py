"""A template: YAML documents (or one JSON array), each a resource with `kind` and `name`. Text to values; no I/O.

`${NAME}` in a string is replaced by a variable given at apply; `$${` stands for `${`. What YAML is taken, and what not:
_yaml.py. Every problem is told as `source:line: ...`, and all of them at once.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import yaml
from msgspec import Struct

from freehold.core.allowances import Budget, Limit
from freehold.core.contracts import Capacity, PriceBook
from freehold.core.environments import Environment
from freehold.core.errors import BadRequest, TooLarge
from freehold.core.resources import KINDS, Agent, Provider, Resource, Rules, Tool, check_name, kind_of
from freehold.core.retention import Retention
from freehold.core.routes import Drain, Route
from freehold.core.schedules import Deployment
from freehold.core.validation import convert, near
from freehold.core.webhooks import Webhook
from freehold.resources._yaml import Misread, Reader, documents

TEMPLATE_BYTES_MAX: Final = 2_000_000
PROBLEMS_SHOWN_MAX: Final = 20

_SHAPES: Final[dict[str, type[Resource]]] = {
    "agent": Agent,
    "budget": Budget,
    "capacity": Capacity,
    "deployment": Deployment,
    "drain": Drain,
    "environment": Environment,
    "retention": Retention,
    "limit": Limit,
    "price_book": PriceBook,
    "provider": Provider,
    "route": Route,
    "rules": Rules,
    "tool": Tool,
    "webhook": Webhook,
}
_LAST_STEP: Final = re.compile(r"(\.[^.\[\]]*|\[[^\]]*\])\Z")


class Declared(Struct, frozen=True):
    """`line` is where the resource begins in the template, counted from 1; `lines` where each path in it does."""

    resource: Resource
    line: int
    lines: Mapping[str, int]

    def line_of(self, path: str | None) -> int:
        """Of the path, or of the nearest thing around it that stands in the template."""
        return _line_of(self.lines, path) or self.line


def read_template(
    text: str, *, source: str = "template", variables: Mapping[str, str] | None = None
) -> list[Declared]:
    """In the order in which they may refer to each other. Raises BadRequest: a line `source:line: ...` for each problem."""
    if len(text) > TEMPLATE_BYTES_MAX or len(text.encode()) > TEMPLATE_BYTES_MAX:
        raise TooLarge(f"{source}: a template may have {TEMPLATE_BYTES_MAX} bytes at most")
    problems: list[str] = []
    declared: list[Declared] = []
    reader = Reader(variables or {})
    try:
        for node in _resources(documents(text)):
            try:
                declared.append(_declare(node, reader))
            except Misread as error:
                problems.append(f"{source}:{error.line}: {error.message}")
    except Misread as error:
        problems.append(f"{source}:{error.line}: {error.message}")
    except TooLarge as error:
        raise TooLarge(f"{source}: {error.message}") from error
    problems += _twice(declared, source)
    refuse(problems)
    if not declared:
        raise BadRequest(f"{source}: there is no resource in it; expected documents with `kind` and `name`")
    return sorted(declared, key=lambda one: KINDS.index(kind_of(one.resource)))


def refuse(problems: Sequence[str]) -> None:
    """Raises BadRequest where there are any: one line each, PROBLEMS_SHOWN_MAX at most."""
    if problems:
        more = [f"... and {len(problems) - PROBLEMS_SHOWN_MAX} more"]
        raise BadRequest(
            "\n".join([*problems[:PROBLEMS_SHOWN_MAX], *more[: len(problems) > PROBLEMS_SHOWN_MAX]])
        )


def _resources(roots: Iterable[yaml.Node]) -> Iterator[yaml.Node]:
    for root in roots:
        if isinstance(root, yaml.SequenceNode):
            yield from root.value
        else:
            yield root


def _twice(declared: Sequence[Declared], source: str) -> Iterator[str]:
    seen: dict[tuple[str, str], int] = {}
    for one in declared:
        key = (kind_of(one.resource), one.resource.name)
        if key in seen:
            yield (
                f"{source}:{one.line}: {key[0]} {key[1]!r} is declared a second time (first in line {seen[key]})"
            )
        seen.setdefault(key, one.line)


def _declare(node: yaml.Node, reader: Reader) -> Declared:
    value, lines = reader.value(node)
    line = node.start_mark.line + 1
    if not isinstance(value, dict):
        raise Misread(line, f"expected a resource with `kind` and `name`, got {_named(value)}")
    kind = value.get("kind")
    shape = _SHAPES.get(kind) if isinstance(kind, str) else None
    if shape is None:
        came = "nothing" if kind is None else repr(kind)[:80]
        hint = near(kind, KINDS) if isinstance(kind, str) else ""
        raise Misread(
            lines.get("kind", line),
            f"kind: expected one of {', '.join(KINDS)}; got {came}{hint}",
        )
    try:
        resource = convert(value, shape)
        check_name(resource.name)
    except BadRequest as error:
        label = f"{kind} {value['name']}: " if isinstance(value.get("name"), str) else f"{kind}: "
        raise Misread(_line_of(lines, error.field) or line, f"{label}{error}") from error
    return Declared(resource, line, lines)


def _line_of(lines: Mapping[str, int], path: str | None) -> int | None:
    while path:
        if path in lines:
            return lines[path]
        shorter = _LAST_STEP.sub("", path)
        path = shorter if shorter != path else None
    return None


def _named(value: object) -> str:
    """In a template's words."""
    match value:
        case None:
            return "nothing"
        case list():
            return "a list"
        case _:
            return repr(value)[:80]
