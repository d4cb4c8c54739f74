"""Confidence sequences: intervals that hold at every moment at once, so that an experiment may be looked at after each observation.

An ordinary 95 % interval that is looked at daily is left by the truth, sooner or later, almost surely. These are left with
probability `alpha` at most over the whole endless sequence.

- Proportions: exact at every size, from the mixture of all alternatives under a Beta prior (Robbins 1970; the "prior-posterior
  ratio", Waudby-Smith & Ramdas 2020, https://arxiv.org/abs/2006.04347).
- Means of anything with a variance: asymptotic, from the normal mixture with the running variance (Waudby-Smith, Arbour, Sinha,
  Kennedy & Ramdas 2021, https://arxiv.org/abs/2103.06476, theorem 2.2), begun after MEANS_FROM observations.

Two arms differ where their intervals, at alpha/2 each, do not meet: a union bound, so a little careful. Pure; no I/O.
"""

from math import inf, isfinite, lgamma, log, sqrt
from typing import Final

from msgspec import Struct

ALPHA: Final = 0.05
MEANS_FROM: Final = 50
"""Before so many observations of an arm, nothing is said of a mean: the sequence is right in the long run only."""

TUNED_FOR: Final = 1000
"""The number of observations at which intervals of means are narrowest; a wrong guess costs width, never correctness."""

_PRIOR: Final = 0.5
"""Jeffreys' prior, Beta(1/2, 1/2): narrow also for rates near zero, as rates of errors are."""
_BISECTIONS: Final = 30


class Interval(Struct, frozen=True):
    low: float
    high: float

    def meets(self, other: "Interval") -> bool:
        return self.low <= other.high and other.low <= self.high


class Difference(Struct, frozen=True):
    """Of `b` over `a`: the estimate, the interval that holds it at all times, and whether that leaves zero out."""

    estimate: float
    interval: Interval
    decided: bool


class Proportion(Struct):
    """So many of so many. Grows in place."""

    count: int = 0
    hits: int = 0

    def add(self, hit: bool) -> None:  # noqa: FBT001 - the observation itself
        self.count += 1
        self.hits += hit

    @property
    def estimate(self) -> float:
        return self.hits / self.count if self.count else 0.0

    def interval(self, alpha: float = ALPHA) -> Interval:
        """All rates whose evidence against them is under 1/alpha."""
        if not self.count:
            return Interval(0.0, 1.0)
        limit, centre = self._mixture() - log(1 / alpha), self.estimate
        low = 0.0 if self._likelihood(0.0) > limit else self._edge(0.0, centre, limit)
        high = 1.0 if self._likelihood(1.0) > limit else self._edge(1.0, centre, limit)
        return Interval(low, high)

    def is_over(self, limit: float, alpha: float) -> bool:
        """Whether the interval lies above `limit`, told without looking for it."""
        return self.estimate > limit and self._mixture() - self._likelihood(limit) >= log(1 / alpha)

    def _edge(self, outside: float, inside: float, limit: float) -> float:
        for _ in range(_BISECTIONS):
            middle = (outside + inside) / 2
            if self._likelihood(middle) > limit:
                inside = middle
            else:
                outside = middle
        return outside

    def _likelihood(self, rate: float) -> float:
        """Of the observations under `rate`; its logarithm, as all here."""
        misses = self.count - self.hits
        if (rate <= 0.0 and self.hits) or (rate >= 1.0 and misses):
            return -inf
        return (self.hits * log(rate) if self.hits else 0.0) + (misses * log(1 - rate) if misses else 0.0)

    def _mixture(self) -> float:
        """Of the observations under all rates, by the prior. What is far likelier under it than under one rate is evidence against that."""
        misses = self.count - self.hits
        return _log_beta(_PRIOR + self.hits, _PRIOR + misses) - _log_beta(_PRIOR, _PRIOR)


class Mean(Struct):
    """Of any numbers, by Welford's recurrence. Grows in place."""

    count: int = 0
    estimate: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Raises ValueError for what is no finite number."""
        if not isfinite(value):
            raise ValueError(f"expected a finite number, got {value}")
        self.count += 1
        off = value - self.estimate
        self.estimate += off / self.count
        self.squares += off * (value - self.estimate)

    @property
    def variance(self) -> float:
        return self.squares / self.count if self.count else 0.0

    def interval(self, alpha: float = ALPHA) -> Interval:
        if self.count < MEANS_FROM:
            return Interval(-inf, inf)
        rho_squared = _rho_squared(alpha)
        scaled = self.count * rho_squared + 1
        radius = sqrt(self.variance * 2 * scaled / (self.count**2 * rho_squared) * log(sqrt(scaled) / alpha))
        return Interval(self.estimate - radius, self.estimate + radius)


def difference(a: Proportion | Mean, b: Proportion | Mean, alpha: float = ALPHA) -> Difference:
    """What can be said of `b` minus `a` now, and will have been right at all times with probability 1 - alpha."""
    of_a, of_b = a.interval(alpha / 2), b.interval(alpha / 2)
    interval = Interval(of_b.low - of_a.high, of_b.high - of_a.low)
    return Difference(b.estimate - a.estimate, interval, decided=not of_a.meets(of_b))


def worse_than(rate: Proportion, limit: float, alpha: float = ALPHA) -> bool:
    """Whether the rate is over `limit`, for certain in the same sense: what steps a canary back."""
    return rate.is_over(limit, alpha)


def _rho_squared(alpha: float) -> float:
    """The mixture's width that makes intervals narrowest at TUNED_FOR (the paper's equation for optimizing rho)."""
    wanted = -2 * log(alpha)
    return (wanted + log(wanted) + 1) / TUNED_FOR


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
