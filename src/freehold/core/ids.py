"""Prefixed ids that sort by time of creation: `sess_` + 26 characters of Crockford base32 (48 bits ms, 80 bits random).

The layout is ULID's (https://github.com/ulid/spec), in lower case. Within one millisecond the order is random.
"""

import re
from functools import lru_cache
from typing import Final, Literal, Protocol

from freehold.core.errors import BadRequest

Prefix = Literal[
    "sess",
    "evt",
    "key",
    "call",
    "req",
    "msg",
    "resp",
    "tool",
    "fx",
    "worker",
    "blob",
    "msgbatch",
    "depl",
    "drun",
]

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_DIGIT_OF: Final = bytes(ord(_ALPHABET[byte & 31]) for byte in range(256))
"""Ids are made twice a call: ten bits of time at once, and chance by one translation, five bits of each byte."""

CHANCE_BYTES: Final = 16
_SHAPE: Final = re.compile(r"([a-z]{1,8})_([0-9a-hjkmnp-tv-z]{26})")


class IdSource(Protocol):
    """Where time and chance come from; `core.ports.Clock` is one."""

    def now_ms(self) -> int: ...
    def entropy(self, size_bytes: int) -> bytes: ...


def compose(prefix: str, at_ms: int, entropy: bytes) -> str:
    """Pure. `at_ms` is Unix time in milliseconds, 0 to 2^48-1; `entropy` is CHANCE_BYTES bytes, a digit each."""
    pairs = _PAIRS
    return (
        f"{prefix}_{_long_time(at_ms >> 20)}{pairs[at_ms >> 10 & 1023]}{pairs[at_ms & 1023]}"
        f"{entropy.translate(_DIGIT_OF).decode()}"
    )


@lru_cache(maxsize=8)
def _long_time(steps: int) -> str:
    """The digits that stay the same for a quarter of an hour."""
    return f"{_PAIRS[steps >> 20]}{_PAIRS[steps >> 10 & 1023]}{_PAIRS[steps & 1023]}"


def new(prefix: Prefix, source: IdSource) -> str:
    return compose(prefix, source.now_ms(), source.entropy(CHANCE_BYTES))


def alike(prefix: Prefix, other: str) -> str:
    """As `other`, with another prefix: for two things that are each other's only one."""
    return prefix + other[other.index("_") :]


def check(prefix: Prefix, text: str, *, field: str = "id") -> str:
    """Returns `text`; raises BadRequest when it isn't an id of that prefix."""
    match = _SHAPE.fullmatch(text)
    if match is None or match[1] != prefix:
        raise BadRequest(f"expected an id like {prefix}_01j…, got {text[:64]!r}", field=field)
    return text
