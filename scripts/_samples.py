"""What the pages of fields are made from (wires_table.py, _embeddings.py): samples of requests, and what differs between two bodies."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

LEFT_OUT = "left out"


class Sample(Struct, frozen=True, forbid_unknown_fields=True):
    """`door`: what our door does with it for any model, so that no vendor is sent it."""

    field: str
    sets: str
    over: str = "{}"
    why: str = ""
    door: str = ""


class Samples(Struct, frozen=True, forbid_unknown_fields=True):
    """`types` is where the vendor publishes the fields of its requests: a TypedDict, if its SDK has one.

    `unsent` are those of them that stay with the client. `published` are paths of those that the vendor's documents alone have.
    """

    title: str
    base: str
    fields: tuple[Sample, ...]
    types: str = ""
    unsent: tuple[str, ...] = ()
    published: tuple[str, ...] = ()

    def typed(self) -> frozenset[str]:
        if not self.types:
            return frozenset()
        module, _, kind = self.types.partition(":")
        return frozenset(getattr(import_module(module), kind).__annotations__)


class Lost(Exception):
    """A field makes no difference, and no table says why."""


def samples_in(folder: Path) -> Mapping[str, Samples]:
    """By the wire's name."""
    found = {path.stem: tomllib.loads(path.read_text()) for path in sorted(folder.glob("*.toml"))}
    return {name: msgspec.convert(one, Samples) for name, one in found.items()}


def path_of(field: str) -> str:
    """Without what tells apart several samples of one field."""
    return field.partition(":")[0].partition(" ")[0]


def last_name(field: str) -> str:
    return path_of(field).rstrip("[]").rpartition(".")[2].rstrip("[]")


def differences(before: Any, after: Any, path: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        if before.get("type") != after.get("type"):
            yield f"{path}: {after.get('type')}"
            return
        for name in [*before, *(name for name in after if name not in before)]:
            inner = f"{path}.{name}" if path else name
            if name not in before or name not in after:
                yield inner
            else:
                yield from differences(before[name], after[name], inner)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for one, other in zip(before, after, strict=True):
            yield from differences(one, other, f"{path}[]")
    elif before != after:
        yield path


def shortest(places: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(places))[:3]


class Reasons:
    """Of a table's cells, numbered as they come."""

    def __init__(self) -> None:
        self._said: list[str] = []

    def cell(self, why: str) -> str:
        if why not in self._said:
            self._said.append(why)
        return f"{LEFT_OUT} ({self._said.index(why) + 1})"

    def lines(self) -> list[str]:
        numbered = [f"{number}. {why}" for number, why in enumerate(self._said, 1)]
        return ["", "Left out, because it is:", "", *numbered] if numbered else []
