"""Holds JSON against the TypedDicts with which a vendor's SDK publishes what its requests may be. Unknown fields are wrong, too.

Stricter than a validator that coerces: what is not said in the types is a violation, told with its path.
"""

import types
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

import typing_extensions

Violation: TypeAlias = tuple[str, str]
"""Path and what is wrong there."""

_PLAIN = {str: (str,), int: (int,), float: (int, float), bool: (bool,), type(None): (type(None),)}


def violations(value: Any, kind: Any, path: str = "") -> list[Violation]:
    origin = get_origin(kind)
    if origin in (
        Annotated,
        Required,
        NotRequired,
        typing_extensions.Required,
        typing_extensions.NotRequired,
    ):
        return violations(value, get_args(kind)[0], path)
    if origin in (Union, types.UnionType):
        return _nearest(value, get_args(kind), path)
    if origin is Literal:
        wanted = get_args(kind)
        return [] if value in wanted else [(path, f"expected one of {wanted}, got {value!r}")]
    if typing_extensions.is_typeddict(kind):
        return _fields(value, kind, path)
    if origin in (list, Iterable, Sequence, tuple) or getattr(origin, "__name__", "") == "Sequence":
        return _items(value, get_args(kind)[0], path)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            return [(path, f"expected an object, got {value!r}")]
        inner = get_args(kind)[1]
        return [wrong for name, one in value.items() for wrong in violations(one, inner, f"{path}.{name}")]
    if kind in (Any, object) or isinstance(kind, TypeVar):
        return []
    return _plain(value, kind, path)


def _plain(value: Any, kind: Any, path: str) -> list[Violation]:
    if kind is dict:
        return [] if isinstance(value, dict) else [(path, f"expected an object, got {value!r}")]
    fits = _PLAIN.get(kind)
    if fits is None:
        return [(path, f"expected {getattr(kind, '__name__', kind)}, got {value!r:.60}")]
    right = isinstance(value, fits) and (kind is bool or not isinstance(value, bool))
    return [] if right else [(path, f"expected {kind.__name__}, got {value!r:.60}")]


def _items(value: Any, kind: Any, path: str) -> list[Violation]:
    if not isinstance(value, list):
        return [(path, f"expected an array, got {value!r:.60}")]
    return [wrong for place, one in enumerate(value) for wrong in violations(one, kind, f"{path}[{place}]")]


def _fields(value: Any, kind: Any, path: str) -> list[Violation]:
    if not isinstance(value, dict):
        return [(path, f"expected an object, got {value!r:.60}")]
    hints = _hints(kind)
    found = [(_at(path, name), "no such field") for name in value if name not in hints]
    found += [
        (_at(path, name), "required, but missing") for name in kind.__required_keys__ if name not in value
    ]
    for name, one in value.items():
        if name in hints:
            found += violations(one, hints[name], _at(path, name))
    return found


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _nearest(value: Any, members: Sequence[Any], path: str) -> list[Violation]:
    """No violation where one member fits; else those of the member that was meant: whose `type` or `role` it has."""
    told = []
    for member in members:
        found = violations(value, member, path)
        if not found:
            return []
        meant = not any(at in (_at(path, "type"), _at(path, "role")) for at, _ in found)
        shaped = isinstance(value, dict) == bool(typing_extensions.is_typeddict(_bare(member)))
        told.append((not (meant and shaped), len(found), found))
    return min(told, key=lambda one: one[:2])[2]


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing_extensions.get_type_hints(kind, include_extras=True)
