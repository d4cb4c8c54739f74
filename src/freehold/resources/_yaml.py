"""Resources: YAML as we take it: text to nodes, nodes to plain values that remember their lines. Not here: what they mean.

The scalars are YAML 1.2's core schema, not 1.1's: `NO`, `on` and `12:30` are text, as dates are. A key may stand only once,
aliases may not multiply a template past NODES_MAX, and there are no tags and no merge keys.
Source: https://yaml.org/spec/1.2.2/#103-core-schema
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from freehold.core.errors import BadRequest, TooLarge

NODES_MAX: Final = 200_000
DEPTH_MAX: Final = 100
INTEGER_MAX: Final = 2**63 - 1
DOCUMENTS_MAX: Final = 1_000

_TAG: Final = "tag:yaml.org,2002:"
_CORE: Final = (
    ("null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
)
_VARIABLE: Final = re.compile(r"\$(\$\{|\{([A-Za-z_][A-Za-z0-9_]*)\}|\{)")
_PAIR: Final = re.compile(r"\\\\|\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_BASES: Final = {"0o": 8, "0x": 16}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # thirty times as fast, where PyYAML has it
    """Composes nodes; what a plain scalar is, _CORE says."""


_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"{_pattern}\Z"), _first)


def documents(text: str) -> Iterator[yaml.Node]:
    """Each document's root; an empty one is left out. Raises BadRequest with `line n: ` before what is wrong."""
    if text.lstrip()[:1] in {"[", "{"}:
        text = _PAIR.sub(_joined, text)
    try:
        _check_depth(text)
        for count, node in enumerate(yaml.compose_all(text, Loader=_Loader)):
            if count >= DOCUMENTS_MAX:
                raise TooLarge(f"a template may have {DOCUMENTS_MAX} documents at most")
            if not isinstance(node, yaml.ScalarNode) or node.value or node.style:
                yield node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Misread(mark.line + 1 if mark else 1, f"not YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if error.position is not None else 1
        raise Misread(line, f"not YAML: {error.reason} ({error.character!r})") from error


def _joined(match: re.Match[str]) -> str:
    """JSON, which YAML 1.2 holds otherwise, writes characters past U+FFFF as two escapes; YAML has one for them."""
    if match[1] is None:
        return match[0]
    return f"\\U{0x10000 + ((int(match[1], 16) & 0x3FF) << 10 | int(match[2], 16) & 0x3FF):08x}"


def _check_depth(text: str) -> None:
    """Composing is recursive, in C: what is nested too deep must not get there."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise Misread(line, f"nested deeper than {DEPTH_MAX}, which is more than is taken")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class Misread(BadRequest):
    """What cannot be read, and in which line (from 1)."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class Reader:
    """Nodes to plain values. One for a whole template: what it counts, it counts over all documents."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._count = 0

    def value(self, node: yaml.Node) -> tuple[Any, dict[str, int]]:
        """The value, and the line of each path in it. Raises Misread."""
        lines: dict[str, int] = {}
        return self._value(node, "", lines, 0), lines

    def _value(self, node: yaml.Node, path: str, lines: dict[str, int], depth: int) -> Any:
        line = node.start_mark.line + 1
        self._count += 1
        if self._count > NODES_MAX:
            raise Misread(line, f"a template may have {NODES_MAX} values at most, aliases counted each time")
        if depth > DEPTH_MAX:
            raise Misread(line, "an alias stands inside of what it names")
        lines.setdefault(path, line)
        match node:
            case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
                return self._mapping(node, path, lines, depth)
            case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
                return [
                    self._value(item, f"{path}[{index}]", lines, depth + 1)
                    for index, item in enumerate(node.value)
                ]
            case yaml.ScalarNode():
                return self._scalar(node, line)
            case _:
                raise Misread(line, f"the tag {node.tag!r} is not taken; leave it out")

    def _mapping(
        self, node: yaml.MappingNode, path: str, lines: dict[str, int], depth: int
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == f"{_TAG}merge":
                raise Misread(line, "keys must be plain strings (no merge keys)")
            key = key_node.value
            if key in found:
                raise Misread(line, f"the key {key!r} stands here a second time")
            below = f"{path}.{key}" if path else key
            lines.setdefault(below, line)
            found[key] = self._value(value_node, below, lines, depth + 1)
        return found

    def _scalar(self, node: yaml.ScalarNode, line: int) -> Any:
        text: str = node.value
        match node.tag.removeprefix(_TAG):
            case "str" | "merge":
                return _VARIABLE.sub(lambda match: self._variable(match, line), text)
            case _ if node.style:
                raise Misread(line, f"the tag {node.tag!r} is not taken; leave it out")
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return _integer(text, line)
            case "float":
                return _float(text, line)
            case _:
                raise Misread(line, f"the tag {node.tag!r} is not taken; leave it out")

    def _variable(self, match: re.Match[str], line: int) -> str:
        if match[1] == "${":
            return "${"
        name = match[2]
        if name is None:
            raise Misread(line, "expected ${NAME}; write $${ for a plain ${")
        if name not in self._variables:
            raise Misread(line, f"the variable {name} is used but not given: add --set {name}=VALUE")
        return self._variables[name]


def _integer(text: str, line: int) -> int:
    base = _BASES.get(text[:2], 10)
    digits = text[2:] if base != 10 else text
    try:
        number = int(digits, base) if len(digits) <= 64 else INTEGER_MAX + 1
    except ValueError as error:
        raise Misread(line, f"expected a whole number, got {text[:40]!r}") from error
    if abs(number) > INTEGER_MAX:
        raise Misread(line, f"{text[:40]} is over 64 bits: write it in quotes, as text")
    return number


def _float(text: str, line: int) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise Misread(line, f"expected a number, got {text[:40]!r}") from error
    if number in {float("inf"), float("-inf")}:
        raise Misread(line, f"{text[:40]} is too large a number: write it in quotes, as text")
    return number
