"""Wires: what OpenAI and its followers say of usage that the heart has no count for (predictions, queue times, costs).

It rides in an answer's `extra` under its path in the answer: `usage.cost`, `usage.completion_tokens_details.text_tokens`. The same
wire tells it again; towards another it is left out.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from msgspec import Raw

from freehold.wires._fields import OBJECT, is_null

USAGE: Final = "usage."

Counted: TypeAlias = Mapping[str, frozenset[str]]
"""Fields that the heart's counts tell: by the name of the object inside that holds them, "" for the usage itself."""


def uncounted(usage: Raw, counted: Counted) -> dict[str, Raw]:
    """Raises what reading hostile JSON raises (UNREADABLE)."""
    if not bytes(usage).startswith(b"{"):
        return {}
    found = {}
    for name, value in OBJECT.decode(usage).items():
        if name in counted and bytes(value).startswith(b"{"):
            inner = OBJECT.decode(value).items()
            found.update(_said(f"{USAGE}{name}.", inner, counted[name]))
        else:
            found.update(_said(USAGE, [(name, value)], counted[""]))
    return found


def _said(path: str, fields: Any, counted: frozenset[str]) -> dict[str, Raw]:
    return {path + name: value for name, value in fields if name not in counted and not is_null(value)}


def apart(fields: Mapping[str, Raw]) -> tuple[dict[str, Raw], dict[str, Raw]]:
    """Those of usage, and all others."""
    of_usage = {path: value for path, value in fields.items() if path.startswith(USAGE)}
    return of_usage, {name: value for name, value in fields.items() if name not in of_usage}


def told_again(usage: dict[str, Any], fields: Mapping[str, Raw]) -> dict[str, Any]:
    """`usage`, as it is told from the heart's counts, with those of `fields` that are of usage."""
    for path, value in fields.items():
        if path.startswith(USAGE):
            name = path.removeprefix(USAGE)
            place, _, inner = name.partition(".")
            if inner and isinstance(usage.get(place), dict):
                usage[place][inner] = value
            else:
                usage[name] = value
    return usage
