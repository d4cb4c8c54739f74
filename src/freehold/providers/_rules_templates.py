"""The `rules` provider's templates: Jinja2 in a sandbox, with what answers over data need, and bounds on what they may do.

Rules are applied by people who may declare agents, so the sandbox holds mistakes, and the authors of values: what tools
return is data here and never a template. Source of the sandbox's promises: https://jinja.palletsprojects.com/en/stable/sandbox/.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import msgspec
from jinja2 import (
    StrictUndefined,
    Template,
    TemplateError,
    TemplateSyntaxError,
    Undefined,
    UndefinedError,
    nodes,
    pass_context,
)
from jinja2.environment import TemplateExpression
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from msgspec import Struct

from freehold.core.errors import BadRequest, TooLarge
from freehold.providers._rules_filters import date_text, days_since, listed, number, plus_days, records, table

ANSWER_CHARS_MAX: Final = 50_000
ITEMS_WALKED_MAX: Final = 100_000
"""By all loops of one rendering together."""

REPEATED_CHARS_MAX: Final = 10_000
POWER_MAX: Final = 64

_BUDGET: Final = "_budget"
_SINGLE: Final = re.compile(r"\A\s*\{\{((?:[^{}]|\{[^{}]*\})*)\}\}\s*\Z")
_MARK: Final = re.compile(r"\{[{%#]")
_WIDTHS: Final = frozenset({
    "center",
    "ljust",
    "rjust",
    "zfill",
    "expandtabs",
    "format",
    "format_map",
    "translate",
})
_LEFT_OUT: Final = ("attr", "center", "format", "random", "pprint", "xmlattr", "urlize", "wordwrap", "indent")
"""Filters that pad to any width, that are not deterministic, or that are for web pages."""


class _Budget:
    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = ITEMS_WALKED_MAX


class _Environment(ImmutableSandboxedEnvironment):
    """`a.b` reads JSON first, so that a field named `items` or `count` is the field. Loops and repetition are bounded."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return super().is_safe_attribute(obj, attr, value) and not (isinstance(obj, str) and attr in _WIDTHS)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Jinja would let `format` through its own guard, which does not look at widths."""
        return None

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        size = max((len(one) for one in (left, right) if isinstance(one, (str, list, tuple))), default=0)
        count = max((one for one in (left, right) if isinstance(one, int)), default=0)
        if operator == "*" and size * count > REPEATED_CHARS_MAX:
            raise SecurityError(f"would repeat to more than {REPEATED_CHARS_MAX}")
        if operator == "**" and (not isinstance(right, (int, float)) or abs(right) > POWER_MAX):
            raise SecurityError(f"an exponent may be {POWER_MAX} at most")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("% does not format here; use the filters number and date")
        return super().call_binop(context, operator, left, right)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = nodes.Filter(loop.iter, "_walked", [], [], None, None)
        return tree


class Templates:
    """Compiles the templates of one Rules. All raise BadRequest with `field` where the text is no template."""

    def __init__(self, vocabulary: Mapping[str, Mapping[str, str]]) -> None:
        self._environment = _environment(vocabulary)
        self._texts: dict[str, tuple[Template, frozenset[str]]] = {}
        """By source: rules say the same in many places (a YAML anchor)."""

    def text(self, source: str, field: str) -> "TextTemplate":
        found = self._texts.get(source)
        if found is None:
            try:
                tree = self._environment.parse(source)
                names = _results_named(tree)
                found = self._texts[source] = self._environment.from_string(tree), names
            except TemplateSyntaxError as error:
                raise BadRequest(
                    f"not a template: line {error.lineno}: {error.message}", field=field
                ) from error
        return TextTemplate(*found, field)

    def expression(self, source: str, field: str) -> "Expression":
        try:
            compiled = self._environment.compile_expression(source, undefined_to_none=False)
            names = _results_named(self._environment.parse("{{" + source + "}}"))
            return Expression(compiled, names, field)
        except TemplateSyntaxError as error:
            raise BadRequest(f"not an expression: {error.message}", field=field) from error

    def value(self, source: Any, field: str) -> "Value":
        """Of an argument: strings within it are templates, whole `{{ ... }}` ones expressions."""
        match source:
            case str():
                if single := _SINGLE.match(source):
                    return self.expression(single[1].strip(), field)
                return self.text(source, field) if _MARK.search(source) else Plain(source)
            case {"$json": str(inner)} if len(source) == 1:
                return JsonTemplate(self.text(inner, field))
            case dict():
                return Nested({name: self.value(one, f"{field}.{name}") for name, one in source.items()})
            case list():
                return Nested([self.value(one, f"{field}[{index}]") for index, one in enumerate(source)])
            case _:
                return Plain(source)


def _results_named(tree: nodes.Template) -> frozenset[str]:
    """Which `results.<name>` it speaks of."""
    found: set[str] = set()
    for node in tree.find_all(nodes.Getattr):
        if isinstance(node.node, nodes.Name) and node.node.name == "results":
            found.add(node.attr)
    for item in tree.find_all(nodes.Getitem):
        inner, key = item.node, item.arg
        if isinstance(inner, nodes.Name) and inner.name == "results" and isinstance(key, nodes.Const):
            found.add(str(key.value))
    return frozenset(found)


class TextTemplate:
    def __init__(self, template: Template, results: frozenset[str], field: str) -> None:
        self.field = field
        self.results = results
        self._template = template

    def render(self, variables: Mapping[str, Any]) -> str:
        """Raises TooLarge past ANSWER_CHARS_MAX, Missing for what is not there, BadRequest for what goes wrong."""
        pieces: list[str] = []
        size = 0
        with _told(self.field):
            for piece in self._template.generate({**variables, _BUDGET: _Budget()}):
                size += len(piece)
                if size > ANSWER_CHARS_MAX:
                    raise TooLarge(
                        f"the answer has more than {ANSWER_CHARS_MAX} characters", field=self.field
                    )
                pieces.append(piece)
        return "".join(pieces)


class Expression:
    def __init__(self, compiled: TemplateExpression, results: frozenset[str], field: str) -> None:
        self.field = field
        self.results = results
        self._compiled = compiled

    def render(self, variables: Mapping[str, Any]) -> Any:
        """The value with its type. Raises as TextTemplate does."""
        with _told(self.field):
            value = self._compiled({**variables, _BUDGET: _Budget()})
            if isinstance(value, Undefined):
                str(value)  # StrictUndefined says here what is missing
            return list(value) if isinstance(value, Iterator) else value


class JsonTemplate:
    """A template that writes JSON: for lists that no expression can build."""

    def __init__(self, inner: TextTemplate) -> None:
        self.results = inner.results
        self._inner = inner

    def render(self, variables: Mapping[str, Any]) -> Any:
        text = self._inner.render(variables)
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadRequest(f"the template wrote no JSON: {text[:80]!r}", field=self._inner.field) from error


class Plain(Struct, frozen=True):
    value: Any
    results: frozenset[str] = frozenset()

    def render(self, variables: Mapping[str, Any]) -> Any:
        return self.value


class Nested:
    def __init__(self, inner: "dict[str, Value] | list[Value]") -> None:
        self._inner = inner
        values = inner.values() if isinstance(inner, dict) else inner
        self.results: frozenset[str] = frozenset().union(*(one.results for one in values))

    def render(self, variables: Mapping[str, Any]) -> Any:
        if isinstance(self._inner, dict):
            return {name: one.render(variables) for name, one in self._inner.items()}
        return [one.render(variables) for one in self._inner]


Value: TypeAlias = TextTemplate | Expression | JsonTemplate | Plain | Nested


class Missing(BadRequest):
    """A template speaks of what is not there: of a result that failed, most of the time."""


@contextmanager
def _told(field: str) -> Iterator[None]:
    """Whatever a template raises is told with the place where it stands."""
    try:
        yield
    except UndefinedError as error:
        raise Missing(f"the template speaks of what is not there: {error.message}", field=field) from error
    except (
        TemplateError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise BadRequest(
            f"the template cannot be filled: {type(error).__name__}: {error}", field=field
        ) from error


def _environment(vocabulary: Mapping[str, Mapping[str, str]]) -> _Environment:
    environment = _Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    for name in _LEFT_OUT:
        del environment.filters[name]
    for name in ("lipsum", "cycler", "joiner"):
        del environment.globals[name]
    spoken = {
        variable: {value: phrase for phrase, value in reversed(list(words.items()))}
        for variable, words in vocabulary.items()
    }

    def spoken_as(value: Any, variable: str) -> str:
        """How the vocabulary says a value: its first phrase, else the value."""
        return str(spoken.get(variable, {}).get(value, value))

    environment.filters |= {
        "_walked": _walked,
        "date": date_text,
        "days_since": days_since,
        "listed": listed,
        "number": number,
        "plus_days": plus_days,
        "records": records,
        "spoken": spoken_as,
        "table": table,
    }
    return environment


@pass_context
def _walked(context: Context, items: Any) -> Any:
    found = items if isinstance(items, (list, tuple, dict, str, range)) else list(items)
    budget = context[_BUDGET]
    budget.left -= len(found)
    if budget.left < 0:
        raise SecurityError(f"the loops walk over more than {ITEMS_WALKED_MAX} items")
    return found
