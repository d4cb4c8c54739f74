"""Gateway: how fast a route, and each of its models, uses up what may go wrong; and which models are therefore asked last. Pure but for
what it remembers: times are given, in seconds of a clock that never goes back. Figures are of the last six hours, of this process and of
what the others told (figures.py), those before it included.

A burn rate of 1 uses up exactly what the objective allows. A model burns where a long window and a short one both do, far over that: the
long one says that it matters, the short one that it goes on. Windows and rates are those by which the workbook calls people:
https://sre.google/workbook/alerting-on-slos/#6-multiwindow-multi-burn-rate-alerts. Not here: failures in a row (health.py), nor what is
declared (core/serving.py).
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal, Protocol, TypeAlias

import msgspec
from msgspec import Struct, structs

from freehold.core.figures import MINUTE_S
from freehold.core.serving import Slo
from freehold.gateway.routing import Decision

MINUTES_MAX: Final = 360
WINDOWS_M: Final = (5, 30, 60, 360)
ENDED_MIN: Final = 10
"""Calls in the short window, under which nothing is concluded."""

FIRST_TOKEN_SHARE_MAX: Final = 0.05
"""By the meaning of a 95th percentile."""

JUDGED_FOR_S: Final = 2.0
"""How long a judgement stands before the figures are looked at again."""

ACTS_MAX: Final = 50
Objective: TypeAlias = Literal["first_token", "errors"]
FAILED: Final = frozenset({
    "rate_limited",
    "overloaded",
    "timed_out",
    "unavailable",
    "broken_off",
    "internal",
})
"""Outcomes that are ours or the vendor's. What a client asked wrongly, or left, tells nothing of how it is served."""


class Alert(Struct, frozen=True):
    """`rate` is a burn rate that both windows must reach."""

    name: str
    long_m: int
    short_m: int
    rate: float


ALERTS: Final = (Alert("fast", 60, 5, 14.4), Alert("slow", 360, 30, 6.0))


class Counted(Struct, frozen=True):
    ended: int
    bad: int

    @property
    def share(self) -> float:
        return self.bad / self.ended if self.ended else 0.0


_NONE: Final = Counted(0, 0)


class Counts:
    """How many ended, and how many of them badly, minute by minute."""

    __slots__ = ("_bad", "_ended", "_heard", "_minute")

    def __init__(self) -> None:
        self._ended = [0] * MINUTES_MAX
        self._bad = [0] * MINUTES_MAX
        self._heard: dict[int, Counted] = {}
        """Of other processes, by minute. A clock that is ahead of ours may tell of the next one."""
        self._minute = 0

    def add(self, now_s: float, *, bad: bool) -> None:
        place = self._roll(now_s) % MINUTES_MAX
        self._ended[place] += 1
        self._bad[place] += bad

    def over(self, minutes: int, now_s: float) -> Counted:
        """The minute that runs, and those before it."""
        last = self._roll(now_s)
        places = [minute % MINUTES_MAX for minute in range(last - minutes + 1, last + 1)]
        ended, bad = sum(self._ended[one] for one in places), sum(self._bad[one] for one in places)
        for minute, heard in self._heard.items():
            if minute > last - minutes:
                ended, bad = ended + heard.ended, bad + heard.bad
        return Counted(ended, bad)

    def told(self, minute: int) -> Counted:
        """Of this process, in one of the last MINUTES_MAX minutes."""
        place = minute % MINUTES_MAX
        there = self._minute - MINUTES_MAX < minute <= self._minute
        return Counted(self._ended[place], self._bad[place]) if there else _NONE

    def hear(self, minute: int, told: Sequence[Counted]) -> None:
        """All that other processes counted in that minute, in place of what was heard of it before."""
        self._heard[minute] = Counted(sum(one.ended for one in told), sum(one.bad for one in told))
        if len(self._heard) > MINUTES_MAX:
            oldest = max(self._heard) - MINUTES_MAX
            self._heard = {one: counted for one, counted in self._heard.items() if one > oldest}

    def _roll(self, now_s: float) -> int:
        minute = int(now_s / MINUTE_S)
        for gone in range(max(self._minute + 1, minute - MINUTES_MAX + 1), minute + 1):
            self._ended[gone % MINUTES_MAX] = self._bad[gone % MINUTES_MAX] = 0
        self._minute = max(self._minute, minute)
        return self._minute


class Burning(Struct, frozen=True):
    """`rates`: by minutes of the window, as multiples of what is allowed."""

    objective: Objective
    share_max: float
    rates: Mapping[int, float]
    counted: Counted
    alert: str | None


def share_at(alert: Alert, share_max: float) -> float:
    """Of bad calls, from which it burns. Where much is allowed, never more than half way from that to everything."""
    return min(alert.rate * share_max, (1 + share_max) / 2)


def burning(counts: Counts, objective: Objective, share_max: float, now_s: float) -> Burning:
    over = {minutes: counts.over(minutes, now_s) for minutes in WINDOWS_M}
    alert = next((one.name for one in ALERTS if _reached(one, over, share_max)), None)
    rates = {minutes: counted.share / share_max for minutes, counted in over.items()}
    return Burning(objective, share_max, rates, over[WINDOWS_M[-1]], alert)


def _reached(alert: Alert, over: Mapping[int, Counted], share_max: float) -> bool:
    least = share_at(alert, share_max)
    long, short = over[alert.long_m], over[alert.short_m]
    return short.ended >= ENDED_MIN and long.share >= least and short.share >= least


class Ends(Struct, frozen=True, omit_defaults=True):
    """One process's counts, of one minute."""

    first_token: Counted = _NONE
    errors: Counted = _NONE


_ENDS: Final = msgspec.json.Decoder(Ends)


class Served:
    """How calls of one route, or of one of its models, went."""

    __slots__ = ("_changed", "_counts", "_judged_s", "_told_minute", "_why")
    keep_s: Final = (MINUTES_MAX + 2) * MINUTE_S

    def __init__(self) -> None:
        self._counts: dict[Objective, Counts] = {"first_token": Counts(), "errors": Counts()}
        self._judged_s = float("-inf")
        self._why: str | None = None
        self._changed = False
        self._told_minute = 0

    def ended(self, slo: Slo, outcome: str, first_s: float | None, now_s: float) -> None:
        """`first_s`: until its first event, of a stream that began."""
        self._changed = True
        failed = outcome in FAILED
        if failed or outcome == "ok":
            self._counts["errors"].add(now_s, bad=failed)
        if first_s is not None and slo.first_token_p95_s is not None:
            self._counts["first_token"].add(now_s, bad=first_s > slo.first_token_p95_s)

    def looks(self, slo: Slo, now_s: float) -> Sequence[Burning]:
        found: list[Burning] = []
        if slo.first_token_p95_s is not None:
            counts = self._counts["first_token"]
            found.append(burning(counts, "first_token", FIRST_TOKEN_SHARE_MAX, now_s))
        if slo.error_share_max is not None:
            found.append(burning(self._counts["errors"], "errors", slo.error_share_max, now_s))
        return found

    def burns(self, slo: Slo, now_s: float) -> str | None:
        """Why it is asked last; None where it isn't. Looked at anew every JUDGED_FOR_S."""
        if now_s - self._judged_s >= JUDGED_FOR_S:
            self._judged_s = now_s
            self._why = next((_why(one) for one in self.looks(slo, now_s) if one.alert is not None), None)
        return self._why

    def told(self, now_s: float) -> Iterator[tuple[int, bytes]]:
        """What is new since it was told last, by minute."""
        if not self._changed:
            return
        self._changed = False
        minute = int(now_s / MINUTE_S)
        begin = max(self._told_minute, minute - MINUTES_MAX + 1)
        self._told_minute = minute
        for one in range(begin, minute + 1):
            ends = Ends(self._counts["first_token"].told(one), self._counts["errors"].told(one))
            if ends.first_token.ended or ends.errors.ended:
                yield one, msgspec.json.encode(ends)

    def hear(self, minute: int, bodies: Sequence[bytes], now_s: float) -> None:
        if minute <= int(now_s / MINUTE_S) - MINUTES_MAX:
            return
        told = [_ENDS.decode(body) for body in bodies]
        self._counts["first_token"].hear(minute, [one.first_token for one in told])
        self._counts["errors"].hear(minute, [one.errors for one in told])


def _why(one: Burning) -> str:
    window = WINDOWS_M[0] if one.alert == "fast" else WINDOWS_M[1]
    what = "late first tokens" if one.objective == "first_token" else "errors"
    return f"{what} at {one.rates[window]:.1f} times what the objective allows ({one.alert} burn)"


class Act(Struct, frozen=True):
    """What a route did about a model that burns."""

    at: datetime
    model: str
    what: Literal["demoted", "restored"]
    why: str


class Objectives:
    """Of one route. Outlives its declarations, as its models' health does."""

    __slots__ = ("acts", "demoted", "models", "route", "slo")

    def __init__(self, slo: Slo, before: "Objectives | None" = None) -> None:
        self.slo = slo
        self.route: Served = before.route if before else Served()
        self.models: dict[str, Served] = before.models if before else {}
        self.demoted: dict[str, str] = before.demoted if before else {}
        self.acts: deque[Act] = before.acts if before else deque(maxlen=ACTS_MAX)

    def of(self, model: str) -> Served:
        served = self.models.get(model)
        if served is None:
            served = self.models[model] = Served()
        return served

    def judged_all(self, now_s: float, at: datetime) -> None:
        """Notes what changed, though no call comes."""
        self.judged(list(self.models), now_s, at)

    def settled(
        self,
        model: str | None,
        outcome: str,
        *,
        first_s: float | None,
        own_first_s: float | None,
        now_s: float,
    ) -> None:
        """A call is over. `model` answered it, or began to; `first_s` counts from when the call came, `own_first_s` from when it was asked."""
        self.route.ended(self.slo, outcome, first_s, now_s)
        if model is not None:
            self.of(model).ended(self.slo, outcome, own_first_s, now_s)

    def judged(self, models: Sequence[str], now_s: float, at: datetime) -> Mapping[str, str]:
        """Models that are to be asked after the others, with why. What changed is noted."""
        found: dict[str, str] = {}
        for model in models:
            why = self.of(model).burns(self.slo, now_s) if self.slo.demotes else None
            if why is not None:
                found[model] = why
                if model not in self.demoted:
                    self.acts.append(Act(at, model, "demoted", why))
            elif model in self.demoted:
                self.acts.append(Act(at, model, "restored", "no window burns any more"))
        if found or self.demoted:
            self.demoted = found
        return found


class Measured(Protocol):
    """What is told of a call that is over: `Objectives`, or those of two routes."""

    def settled(
        self,
        model: str | None,
        outcome: str,
        *,
        first_s: float | None,
        own_first_s: float | None,
        now_s: float,
    ) -> None: ...


class Jointly:
    """Of a route that is another one's arm, and of that one: its clients got the answer too, but its models were not asked."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, inner: Objectives | None, outer: Objectives) -> None:
        self._inner = inner
        self._outer = outer

    def settled(
        self,
        model: str | None,
        outcome: str,
        *,
        first_s: float | None,
        own_first_s: float | None,
        now_s: float,
    ) -> None:
        if self._inner is not None:
            self._inner.settled(model, outcome, first_s=first_s, own_first_s=own_first_s, now_s=now_s)
        self._outer.settled(None, outcome, first_s=first_s, own_first_s=own_first_s, now_s=now_s)


def demoted(decision: Decision, models: Sequence[str], burns: Mapping[str, str]) -> Decision:
    """Those that burn go last, else in the same order; where all do, nothing changes."""
    order = decision.order
    last = {place: burns[models[place]] for place in order if models[place] in burns}
    if not last or len(last) == len(order):
        return decision
    first = [place for place in order if place not in last]
    return structs.replace(decision, order=(*first, *last), demoted=last)
