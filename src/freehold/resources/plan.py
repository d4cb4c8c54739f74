"""What applying a template would change: compares declared resources with those that are there. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from freehold.core.ports import Versioned
from freehold.core.resources import Kind, Resource, kind_of

Action: TypeAlias = Literal["create", "update", "unchanged"]


class FieldChange(Struct, frozen=True):
    """`before` or `after` is None where the field was not set. `path` like `limits.steps_max`."""

    path: str
    before: Any
    after: Any


class Change(Struct, frozen=True):
    """`version` is the one that is there (0: none)."""

    action: Action
    kind: Kind
    name: str
    version: int
    fields: tuple[FieldChange, ...] = ()


class Plan(Struct, frozen=True):
    changes: tuple[Change, ...]
    warnings: tuple[str, ...] = ()

    @property
    def changes_anything(self) -> bool:
        return any(change.action != "unchanged" for change in self.changes)


def plan(
    declared: Sequence[Resource], current: Mapping[tuple[Kind, str], Versioned], warnings: Sequence[str] = ()
) -> Plan:
    return Plan(
        tuple(_change(one, current.get((kind_of(one), one.name))) for one in declared), tuple(warnings)
    )


def _change(resource: Resource, there: Versioned | None) -> Change:
    kind = kind_of(resource)
    if there is None or there.archived:
        return Change("create", kind, resource.name, there.version if there else 0)
    before, after = _plain(there.resource), _plain(resource)
    if before == after:
        return Change("unchanged", kind, resource.name, there.version)
    return Change("update", kind, resource.name, there.version, tuple(_differences(before, after, "")))


def _plain(resource: Resource) -> dict[str, Any]:
    """As JSON has it: lists, not tuples, so that what was kept and what is declared compare."""
    value: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(resource))
    return value


def _differences(before: Any, after: Any, path: str) -> list[FieldChange]:
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        return [
            change
            for key in keys
            for change in _differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [change for index, (a, b) in pairs for change in _differences(a, b, f"{path}[{index}]")]
    return [FieldChange(path, before, after)]
