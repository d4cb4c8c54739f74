"""Wires: looking for a mark in bodies that are large and hardly ever have it."""

from typing import Final

RARE_MAX: Final = 32
"""So often a byte is looked at before it counts as none of the rare ones: in base64, in code and in tables of numbers."""

SHORT_BYTES_MAX: Final = 4096
"""Shorter bodies are searched as they are, which takes a microsecond."""


def holds(body: bytes, mark: bytes, rare: bytes) -> bool:
    """As `mark in body`, which takes 20 to 100 us for 30 KB; looking for the byte of it that text hardly has takes one."""
    if len(body) <= SHORT_BYTES_MAX:
        return mark in body
    offset = mark.index(rare)
    rest = len(mark) - offset
    at = body.find(rare)
    for _ in range(RARE_MAX):
        if at < 0:
            return False
        if body[at - offset : at + rest] == mark:  # Where it begins before the body does, this is too short.
            return True
        at = body.find(rare, at + 1)
    return at >= 0 and body.find(mark, max(0, at - offset)) >= 0


def holds_two(body: bytes, byte: bytes) -> bool:
    """As `body.count(byte) > 1`, which takes 12 to 20 us for 30 KB, where finding takes one."""
    return body.find(byte, body.find(byte) + 1) >= 0
