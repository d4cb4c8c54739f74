"""Wires: vectors, as the heart holds them (little-endian 32-bit floats) and as numbers in JSON."""

import sys
from array import array
from collections.abc import Sequence
from typing import Final

FLOAT_BYTES: Final = 4


def packed(numbers: Sequence[float]) -> bytes:
    return _little(array("f", numbers)).tobytes()


def numbers(vector: bytes) -> list[float]:
    floats = array("f")
    floats.frombytes(vector)
    return _little(floats).tolist()


def _little(floats: "array[float]") -> "array[float]":
    if sys.byteorder == "big":
        floats.byteswap()
    return floats
