"""Wires: looking for a mark in bodies that are large and hardly ever have it."""

from typing import Final

RARE_MAX: Final = 32
"""So often a byte is looked at before it counts as none of the rare ones: in base64, in code and in tables of numbers."""


def holds(body: bytes, mark: bytes, rare: bytes) -> bool:
    """As `mark in body`, which takes 20 to 100 us for 30 KB; looking for the byte of it that text hardly has takes one."""
    offset = mark.index(rare)
    at = body.find(rare)
    for _ in range(RARE_MAX):
        if at < 0:
            return False
        if body.startswith(mark, max(0, at - offset)):
            return True
        at = body.find(rare, at + 1)
    return at >= 0 and body.find(mark, max(0, at - offset)) >= 0
