"""Time and chance, as the rest of the house gets them: passed down from app.py, so that tests can pass their own."""

import os
import struct
import time
from datetime import UTC, datetime
from functools import partial
from typing import Final

from freehold.core.ids import CHANCE_BYTES

READY_MAX: Final = 256
"""Ids' worth of chance that one call of the operating system brings, which costs as much as making the id."""


class SystemClock:
    """Implements core.ports.Clock."""

    now = staticmethod(partial(datetime.now, UTC))

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return _BEGAN_S + time.monotonic()

    def entropy(self, size_bytes: int) -> bytes:
        """An id's worth is kept ready; secrets, which are longer, never are."""
        if size_bytes != CHANCE_BYTES:
            return os.urandom(size_bytes)
        try:
            return _ready.pop()
        except IndexError:
            _ready.extend(_apart(os.urandom(READY_MAX * CHANCE_BYTES)))
            return _ready.pop()


_BEGAN_S: Final = time.time() - time.monotonic()
_apart: Final = struct.Struct(f"{CHANCE_BYTES}s" * READY_MAX).unpack
_ready: Final[list[bytes]] = []
os.register_at_fork(after_in_child=_ready.clear)
