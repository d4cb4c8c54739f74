"""Cells that are refused aloud, as data: refused.toml. It appears in docs/wires.md."""

import tomllib
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct

FILE = Path(__file__).parent / "refused.toml"


class Refused(Struct, frozen=True, forbid_unknown_fields=True):
    """`says` is part of what the client is told; `why`, for people."""

    client: str
    vendor: str
    feature: str
    says: str
    why: str


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    refused: tuple[Refused, ...] = ()


@cache
def refused() -> tuple[Refused, ...]:
    return msgspec.convert(tomllib.loads(FILE.read_text()), _File).refused


def refusal_of(client: str, vendor: str, feature: str) -> Refused | None:
    return next(
        (one for one in refused() if (one.client, one.vendor, one.feature) == (client, vendor, feature)), None
    )
