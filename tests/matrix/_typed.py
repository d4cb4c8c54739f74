"""Holds JSON against the types with which a vendor's SDK publishes its requests (TypedDicts) and answers (pydantic's models).

Stricter than a validator that coerces, and than the models themselves, which take anything beyond their fields: what is not said in
the types is a violation, told with its path.
"""

import datetime
import types
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
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
from pydantic import BaseModel

Violation: TypeAlias = tuple[str, str]
"""Path and what is wrong there."""

_PLAIN = {str: (str,), int: (int,), float: (int, float), bool: (bool,), type(None): (type(None),)}
_AS_TEXT = (bytes, datetime.datetime)
"""What JSON has as text only."""


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
    if _is_array(kind):
        return _items(value, get_args(kind)[0], path)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            return [(path, f"expected an object, got {value!r}")]
        inner = get_args(kind)[1]
        return [wrong for name, one in value.items() for wrong in violations(one, inner, f"{path}.{name}")]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _modelled(value, kind, path)
    if kind in (Any, object) or isinstance(kind, TypeVar):
        return []
    return _plain(value, kind, path)


def _plain(value: Any, kind: Any, path: str) -> list[Violation]:
    if kind is dict:
        return [] if isinstance(value, dict) else [(path, f"expected an object, got {value!r}")]
    if isinstance(kind, type) and issubclass(kind, Enum):
        wanted = [one.value for one in kind]
        return [] if value in wanted else [(path, f"expected one of {wanted}, got {value!r}")]
    fits = (str,) if kind in _AS_TEXT else _PLAIN.get(kind)
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


def _modelled(value: Any, kind: type[BaseModel], path: str) -> list[Violation]:
    if not isinstance(value, dict):
        return [(path, f"expected an object, got {value!r:.60}")]
    fields = _published(kind)
    found = [(_at(path, name), "no such field") for name in value if name not in fields]
    for name, (inner, required) in fields.items():
        if name in value:
            found += violations(value[name], inner, _at(path, name))
        elif required:
            found.append((_at(path, name), "required, but missing"))
    return found


@cache
def _published(kind: type[BaseModel]) -> dict[str, tuple[Any, bool]]:
    """By their names in JSON."""
    return {one.alias or name: (one.annotation, one.is_required()) for name, one in kind.model_fields.items()}


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
        shaped = (isinstance(value, dict), isinstance(value, list)) == (
            _is_object(_bare(member)),
            _is_array(_bare(member)),
        )
        told.append((not (meant and shaped), len(found), found))
    return min(told, key=lambda one: one[:2])[2]


def _is_object(kind: Any) -> bool:
    return typing_extensions.is_typeddict(kind) or (isinstance(kind, type) and issubclass(kind, BaseModel))


def _is_array(kind: Any) -> bool:
    origin = get_origin(kind)
    return origin in (list, Iterable, Sequence, tuple) or getattr(origin, "__name__", "") == "Sequence"


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing_extensions.get_type_hints(kind, include_extras=True)
