"""Time and chance, as the rest of the house gets them: passed down from app.py, so that tests can pass their own."""

import os
import time
from datetime import UTC, datetime


class SystemClock:
    """Implements core.ports.Clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    def entropy(self, size_bytes: int) -> bytes:
        return os.urandom(size_bytes)
