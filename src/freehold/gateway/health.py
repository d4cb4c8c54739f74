"""Gateway: how a model's calls have gone of late, in this process: how quick they were, and whether it can be asked now.

Only models that a route names have it. Everything is counted when a call ends and read when the next one is chosen; nothing here
waits or knows the time: it is given, in seconds of a clock that never goes back. Not here: what is done with it (routing.py).
"""

from math import log2
from typing import Final, Literal, TypeAlias

from freehold.gateway.routing_places import Places

WINDOW_S: Final = 60.0
"""Figures are of this window and the one before it; what is older is forgotten."""

_BUCKETS_PER_DOUBLING: Final = 4
_SMALLEST_S: Final = 0.001
_BUCKETS_COUNT: Final = 96
"""From a millisecond, by a fifth each, to about four hours."""

_STALE_SHARE: Final = 16
"""A quantile that was read is good until a sixteenth more of samples came."""

FAILURES_MAX: Final = 5
"""So many in a row open the breaker."""

FAILED_SHARE_MAX: Final = 0.5
FAILED_AMONG_MIN: Final = 10
"""And so does this share of so many calls, in a window."""

OPEN_S_MIN: Final = 5.0
OPEN_S_MAX: Final = 120.0
"""How long it stays open: doubled by every probe that fails."""

REST_S_MAX: Final = 300.0
"""A vendor's `retry-after` is believed up to this."""

TYPICAL_WEIGHT: Final = 0.05
"""Of one answer's length in the typical one."""

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]


class Quantiles:
    """Of durations in seconds (or rates), to about a tenth of their size. Two windows of buckets: adding costs half a microsecond."""

    __slots__ = ("_at_count", "_before", "_began_s", "_cached", "_count", "_now")

    def __init__(self) -> None:
        self._began_s = 0.0
        self._now = [0] * _BUCKETS_COUNT
        self._before: list[int] | None = None
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

    def _find(self, share: float) -> float:
        before = self._before or [0] * _BUCKETS_COUNT
        wanted, seen = share * self._count, 0
        for place, (new, old) in enumerate(zip(self._now, before, strict=True)):
            here = new + old
            if here and seen + here >= wanted:
                inside = max(0.0, wanted - seen) / here
                return float(_SMALLEST_S * 2 ** ((place + inside) / _BUCKETS_PER_DOUBLING))
            seen += here
        return float(_SMALLEST_S * 2 ** (_BUCKETS_COUNT / _BUCKETS_PER_DOUBLING))

    def _roll(self, now_s: float) -> None:
        passed_s = now_s - self._began_s
        if passed_s < WINDOW_S:
            return
        self._before = self._now if passed_s < 2 * WINDOW_S and self._count else None
        self._now = [0] * _BUCKETS_COUNT
        self._count = sum(self._before) if self._before else 0
        self._began_s = now_s
        self._cached.clear()
        self._at_count = self._count


class Breaker:
    """Closed, everybody passes. Open, nobody does, for a while; then half open: one probe at a time, and by it closed or open again.

    https://learn.microsoft.com/en-us/azure/architecture/patterns/circuit-breaker
    """

    __slots__ = (
        "_began_s",
        "_ended",
        "_failed",
        "_in_a_row",
        "_open_s",
        "_probing",
        "_until_s",
        "closed",
        "why",
    )

    def __init__(self) -> None:
        self._in_a_row = 0
        self._began_s = 0.0
        self._ended = 0
        self._failed = 0
        self._open_s = OPEN_S_MIN
        self._until_s: float | None = None
        self._probing = False
        self.closed = True
        self.why = ""
        """What opened it."""

    def state(self, now_s: float) -> BreakerState:
        if self._until_s is None:
            return "closed"
        return "open" if now_s < self._until_s else "half_open"

    def admits(self, now_s: float) -> bool:
        until_s = self._until_s
        return until_s is None or (now_s >= until_s and not self._probing)

    def opens_in_s(self, now_s: float) -> float:
        """Until a probe may be made."""
        return 0.0 if self._until_s is None else max(0.0, self._until_s - now_s)

    def began(self, now_s: float) -> bool:
        """Whether this call is the probe, which must end by `succeeded`, `failed` or `left`."""
        probes = self._until_s is not None and now_s >= self._until_s and not self._probing
        if probes:
            self._probing = True
        return probes

    def left(self) -> None:
        """The probe ended without telling anything: its client went away."""
        self._probing = False

    def succeeded(self, now_s: float) -> None:
        self._count(now_s, failed=0)
        self._in_a_row = 0
        if self._until_s is not None and now_s >= self._until_s:
            self._until_s, self._probing, self._open_s, self.closed = None, False, OPEN_S_MIN, True
            self._ended = self._failed = 0

    def failed(self, now_s: float, why: str) -> None:
        self._count(now_s, failed=1)
        self._in_a_row += 1
        if self._until_s is not None:
            if now_s >= self._until_s:  # Of a probe; what began before it opened tells nothing new.
                self._open_s = min(self._open_s * 2, OPEN_S_MAX)
                self._open(now_s, why)
        elif self._in_a_row >= FAILURES_MAX or self._mostly_fails:
            self._open(now_s, why)

    @property
    def _mostly_fails(self) -> bool:
        return self._ended >= FAILED_AMONG_MIN and self._failed >= FAILED_SHARE_MAX * self._ended

    def _open(self, now_s: float, why: str) -> None:
        self._until_s, self._probing, self.why, self.closed = now_s + self._open_s, False, why, False

    def _count(self, now_s: float, *, failed: int) -> None:
        if now_s - self._began_s >= WINDOW_S:
            self._began_s, self._ended, self._failed = now_s, 0, 0
        self._ended += 1
        self._failed += failed


class Health:
    """One model's, of one tenant, whichever routes name it."""

    __slots__ = (
        "_rests_until_s", "_tokens_per_s", "breaker", "first", "places", "typical_output_tokens", "whole",
    )  # fmt: skip

    def __init__(self) -> None:
        self.breaker = Breaker()
        self.first = Quantiles()
        """Of streams: until the first event."""
        self.whole = Quantiles()
        """Of answers that were asked for whole: until their end."""
        self._tokens_per_s = Quantiles()
        self.places = Places()
        """Calls of routes that are under way; as many as a route says."""
        self.typical_output_tokens: float | None = None
        self._rests_until_s = 0.0

    def barred(self, now_s: float) -> str | None:
        """Why it is not asked now."""
        breaker = self.breaker
        if now_s >= self._rests_until_s and breaker.closed:
            return None
        if now_s < self._rests_until_s:
            return f"asked to be left alone for {self._rests_until_s - now_s:.1f} s more (retry-after)"
        if breaker.admits(now_s):
            return None
        rest_s = breaker.opens_in_s(now_s)
        if rest_s > 0:
            return f"failed too often ({breaker.why}): tried again in {rest_s:.1f} s"
        return f"failed too often ({breaker.why}): a probe is under way"

    def rests_for_s(self, now_s: float) -> float:
        """As it asked by `retry-after`."""
        return max(0.0, self._rests_until_s - now_s)

    def comes_back_in_s(self, now_s: float) -> float:
        return max(self._rests_until_s - now_s, self.breaker.opens_in_s(now_s), 0.0)

    def tokens_per_s(self, now_s: float) -> float | None:
        """The median."""
        return self._tokens_per_s.at(0.5, now_s)

    def answered(
        self, now_s: float, *, first_s: float | None, whole_s: float, output_tokens: int, streamed: bool
    ) -> None:
        """An answer came to its end. Durations count from when this model was asked; `first_s` is until its first event."""
        self.breaker.succeeded(now_s)
        if streamed:
            if first_s is not None:
                self.first.add(first_s, now_s)
            writing_s = whole_s - (first_s or 0.0)
        else:
            self.whole.add(whole_s, now_s)
            writing_s = whole_s
        if output_tokens:
            if writing_s > 0:
                self._tokens_per_s.add(output_tokens / writing_s, now_s)
            known = self.typical_output_tokens
            self.typical_output_tokens = (
                float(output_tokens) if known is None else known + TYPICAL_WEIGHT * (output_tokens - known)
            )

    def failed(self, now_s: float, why: str, *, retry_after_s: float | None = None) -> None:
        """By the model's own fault."""
        self.breaker.failed(now_s, why)
        if retry_after_s is not None:
            self._rests_until_s = max(self._rests_until_s, now_s + min(retry_after_s, REST_S_MAX))
