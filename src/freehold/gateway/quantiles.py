"""Gateway: quantiles of what was measured in the last one to two minutes, by this process and by the others, in buckets that add up.

Not here: what is measured (health.py), and how processes tell each other (figures.py).
"""

from collections.abc import Iterable, Mapping
from math import log2
from typing import Final

from freehold.core.figures import MINUTE_S

_BUCKETS_PER_DOUBLING: Final = 4
_SMALLEST_S: Final = 0.001
_BUCKETS_COUNT: Final = 96
"""From a millisecond, by a fifth each, to about four hours."""

_STALE_SHARE: Final = 16
"""A quantile that was read is good until a sixteenth more of samples came."""


class Quantiles:
    """Of durations in seconds (or rates), to about a tenth of their size. Of the running minute and the one before it; adding costs
    half a microsecond.
    """

    __slots__ = ("_at_count", "_before", "_cached", "_count", "_heard", "_minute", "_now")

    def __init__(self) -> None:
        self._minute = 0
        self._now = [0] * _BUCKETS_COUNT
        self._before: list[int] | None = None
        self._heard: dict[int, list[int]] = {}
        """Of other processes, by minute. A clock that is ahead of ours may tell of the next one."""
        self._count = 0
        self._cached: dict[float, float] = {}
        self._at_count = 0

    def add(self, value_s: float, now_s: float) -> None:
        self._roll(now_s)
        place = int(log2(value_s / _SMALLEST_S) * _BUCKETS_PER_DOUBLING) if value_s > _SMALLEST_S else 0
        self._now[min(place, _BUCKETS_COUNT - 1)] += 1
        self._count += 1

    def at(self, share: float, now_s: float) -> float | None:
        """None where nothing was added of late."""
        self._roll(now_s)
        if self._count == 0:
            return None
        if self._count > self._at_count + self._at_count // _STALE_SHARE:
            self._cached.clear()
            self._at_count = self._count
        found = self._cached.get(share)
        if found is None:
            found = self._cached[share] = self._find(share)
        return found

    def told(self, minute: int) -> dict[int, int]:
        """What this process added in that minute, by bucket, if it is the last one in which it did, or the one before."""
        buckets: list[int] | None = None
        if minute == self._minute:
            buckets = self._now
        elif minute == self._minute - 1:
            buckets = self._before
        return {place: count for place, count in enumerate(buckets or ()) if count}

    def hear(self, minute: int, told: Iterable[Mapping[int, int]], now_s: float) -> None:
        """All that other processes added in that minute, in place of what was heard of it before."""
        self._roll(now_s)
        buckets = [0] * _BUCKETS_COUNT
        for one in told:
            for place, count in one.items():
                buckets[min(max(place, 0), _BUCKETS_COUNT - 1)] += count
        self._heard[minute] = buckets
        self._recount()

    def _find(self, share: float) -> float:
        wanted, seen = share * self._count, 0
        for place, counts in enumerate(zip(self._now, *self._further(), strict=True)):
            here = sum(counts)
            if here and seen + here >= wanted:
                inside = max(0.0, wanted - seen) / here
                return float(_SMALLEST_S * 2 ** ((place + inside) / _BUCKETS_PER_DOUBLING))
            seen += here
        return float(_SMALLEST_S * 2 ** (_BUCKETS_COUNT / _BUCKETS_PER_DOUBLING))

    def _further(self) -> list[list[int]]:
        """What counts beside this minute's own."""
        return [*([self._before] if self._before else ()), *self._heard.values()]

    def _roll(self, now_s: float) -> None:
        minute = int(now_s / MINUTE_S)
        if minute == self._minute:
            return
        self._before = self._now if minute == self._minute + 1 else None
        self._now = [0] * _BUCKETS_COUNT
        self._minute = minute
        self._recount()

    def _recount(self) -> None:
        self._heard = {minute: one for minute, one in self._heard.items() if minute >= self._minute - 1}
        self._count = sum(self._now) + sum(map(sum, self._further()))
        self._cached.clear()
        self._at_count = self._count
