"""Gateway: how a model's calls have gone of late: how quick they were, and whether it can be asked now.

Only models that a route names have it. Everything is counted when a call ends and read when the next one is chosen; nothing here
waits or knows the time: it is given, in seconds of a clock that never goes back. How quick models are is told by all processes together;
that one of them failed too often is a hint for the others. Not here: what is done with it (routing.py).
"""

from collections.abc import Iterator, Sequence
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from freehold.core.figures import MINUTE_S
from freehold.gateway.quantiles import Quantiles
from freehold.gateway.routing_places import Places

WINDOW_S: Final = 60.0
"""In which the share of failures is counted."""

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

ELSEWHERE: Final = "in another process"
KEPT_S: Final = 4 * MINUTE_S
"""How long what is told of a minute can be of use."""

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]


class Turned(Struct, frozen=True):
    """A breaker opened, or closed again, by what its own process saw."""

    at_s: float
    closed: bool
    why: str = ""


class Lately(Struct, frozen=True, omit_defaults=True):
    """One process's figures of a model, of one minute: counts by bucket. The rest is as it was when it was told."""

    first: dict[int, int] = {}
    whole: dict[int, int] = {}
    tokens_per_s: dict[int, int] = {}
    typical_output_tokens: float | None = None
    turned: Turned | None = None
    rests_until_s: float = 0.0


class Breaker:
    """Closed, everybody passes. Open, nobody does, for a while; then half open: one probe at a time, and by it closed or open again.

    https://learn.microsoft.com/en-us/azure/architecture/patterns/circuit-breaker
    """

    __slots__ = (
        "_began_s",
        "_ended",
        "_failed",
        "_heard_s",
        "_in_a_row",
        "_open_s",
        "_probing",
        "_until_s",
        "closed",
        "turned",
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
        self.turned: Turned | None = None
        """What is to be told to other processes."""
        self._heard_s = 0.0

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
            self.turned = Turned(now_s, closed=True)

    def failed(self, now_s: float, why: str) -> None:
        self._count(now_s, failed=1)
        self._in_a_row += 1
        if self._until_s is not None:
            if now_s >= self._until_s:  # Of a probe; what began before it opened tells nothing new.
                self._open_s = min(self._open_s * 2, OPEN_S_MAX)
                self._open(now_s, why)
        elif self._in_a_row >= FAILURES_MAX or self._mostly_fails:
            self._open(now_s, why)

    def hear(self, turned: Turned, now_s: float) -> None:
        """Another process's opened, or closed: only a hint, so one call of ours is to find out, at once."""
        known_s = self._heard_s if self.turned is None else max(self._heard_s, self.turned.at_s)
        if turned.at_s <= known_s or now_s - turned.at_s > OPEN_S_MAX:
            return
        self._heard_s = turned.at_s
        if turned.closed:
            if self._until_s is not None:
                self._until_s = min(self._until_s, now_s)
        elif self._until_s is None:
            self._until_s, self._probing, self.closed = now_s, False, False
            self.why = f"{turned.why}, {ELSEWHERE}"

    @property
    def _mostly_fails(self) -> bool:
        return self._ended >= FAILED_AMONG_MIN and self._failed >= FAILED_SHARE_MAX * self._ended

    def _open(self, now_s: float, why: str) -> None:
        self._until_s, self._probing, self.why, self.closed = now_s + self._open_s, False, why, False
        self.turned = Turned(now_s, closed=False, why=why)

    def _count(self, now_s: float, *, failed: int) -> None:
        if now_s - self._began_s >= WINDOW_S:
            self._began_s, self._ended, self._failed = now_s, 0, 0
        self._ended += 1
        self._failed += failed


class Health:
    """One model's, of one tenant, whichever routes name it."""

    __slots__ = (
        "_changed", "_rests_until_s", "_tokens_per_s", "_told_minute", "breaker", "first", "places",
        "typical_output_tokens", "whole",
    )  # fmt: skip
    keep_s: Final = KEPT_S

    def __init__(self) -> None:
        self.breaker = Breaker()
        self.first = Quantiles()
        """Of streams: until the first event."""
        self.whole = Quantiles()
        """Of answers that were asked for whole: until their end."""
        self._tokens_per_s = Quantiles()
        self.places = Places()
        """Calls of routes that are under way here; as many as a route says."""
        self.typical_output_tokens: float | None = None
        self._rests_until_s = 0.0
        self._changed = False
        self._told_minute = 0

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

    def tokens_per_s(self, now_s: float, share: float = 0.5) -> float | None:
        """So many at least, of this share of answers."""
        return self._tokens_per_s.at(1 - share, now_s)

    def answered(
        self, now_s: float, *, first_s: float | None, whole_s: float, output_tokens: int, streamed: bool
    ) -> None:
        """An answer came to its end. Durations count from when this model was asked; `first_s` is until its first event."""
        self._changed = True
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
        self._changed = True
        self.breaker.failed(now_s, why)
        if retry_after_s is not None:
            self._rests_until_s = max(self._rests_until_s, now_s + min(retry_after_s, REST_S_MAX))

    # Between processes.

    def told(self, now_s: float) -> Iterator[tuple[int, bytes]]:
        """What is new since it was told last, by minute."""
        if not self._changed:
            return
        self._changed = False
        minute = int(now_s / MINUTE_S)
        for one in range(minute if self._told_minute == minute else minute - 1, minute + 1):
            lately = Lately(
                first=self.first.told(one),
                whole=self.whole.told(one),
                tokens_per_s=self._tokens_per_s.told(one),
                typical_output_tokens=self.typical_output_tokens,
                turned=self.breaker.turned,
                rests_until_s=self._rests_until_s,
            )
            if one == minute or lately.first or lately.whole or lately.tokens_per_s:
                yield one, msgspec.json.encode(lately)
        self._told_minute = minute

    def hear(self, minute: int, bodies: Sequence[bytes], now_s: float) -> None:
        if minute < int(now_s / MINUTE_S) - 1:
            return
        told = [_LATELY.decode(body) for body in bodies]
        self.first.hear(minute, [one.first for one in told], now_s)
        self.whole.hear(minute, [one.whole for one in told], now_s)
        self._tokens_per_s.hear(minute, [one.tokens_per_s for one in told], now_s)
        typical = [one.typical_output_tokens for one in told if one.typical_output_tokens is not None]
        if self.typical_output_tokens is None and typical:
            self.typical_output_tokens = sum(typical) / len(typical)
        turns = [one.turned for one in told if one.turned is not None]
        for turned in sorted(turns, key=lambda one: one.at_s):
            self.breaker.hear(turned, now_s)
        rests_until_s = max((one.rests_until_s for one in told), default=0.0)
        self._rests_until_s = max(self._rests_until_s, min(rests_until_s, now_s + REST_S_MAX))


_LATELY: Final = msgspec.json.Decoder(Lately)
