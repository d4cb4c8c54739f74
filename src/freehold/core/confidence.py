"""Confidence sequences: intervals that hold at every moment at once, so that an experiment may be looked at after each observation.

An ordinary 95 % interval that is looked at daily is left by the truth, sooner or later, almost surely. These are left with
probability `alpha` at most over the whole endless sequence.

- Proportions: exact at every size, from the mixture of all alternatives under a Beta prior (Robbins 1970; the "prior-posterior
  ratio", Waudby-Smith & Ramdas 2020, https://arxiv.org/abs/2006.04347).
- Means of anything with a variance: asymptotic, from the normal mixture with the running variance (Waudby-Smith, Arbour, Sinha,
  Kennedy & Ramdas 2021, https://arxiv.org/abs/2103.06476, theorem 2.2), begun after MEANS_FROM observations.

Each arm's evidence against a value is a martingale where the value is true, and so is the product of two arms', however calls come to
them. A difference is left out once that product is 1/alpha for every pair of values with it, which takes a little over
half the observations of waiting until two intervals do not meet (the idea of https://arxiv.org/abs/2106.02693). Pure; no I/O.
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
        limit, centre = self.mixture() - log(1 / alpha), self.estimate
        low = 0.0 if self.likelihood(0.0) > limit else self._edge(0.0, centre, limit)
        high = 1.0 if self.likelihood(1.0) > limit else self._edge(1.0, centre, limit)
        return Interval(low, high)

    def is_over(self, limit: float, alpha: float) -> bool:
        """Whether the interval lies above `limit`, told without looking for it."""
        return self.estimate > limit and self.mixture() - self.likelihood(limit) >= log(1 / alpha)

    def _edge(self, outside: float, inside: float, limit: float) -> float:
        for _ in range(_BISECTIONS):
            middle = (outside + inside) / 2
            if self.likelihood(middle) > limit:
                inside = middle
            else:
                outside = middle
        return outside

    def likelihood(self, rate: float) -> float:
        """Of the observations under `rate`; its logarithm, as all here."""
        misses = self.count - self.hits
        if (rate <= 0.0 and self.hits) or (rate >= 1.0 and misses):
            return -inf
        return (self.hits * log(rate) if self.hits else 0.0) + (misses * log(1 - rate) if misses else 0.0)

    def mixture(self) -> float:
        """Of the observations under all rates, by the prior. What is far likelier under it than under one rate is evidence against that."""
        misses = self.count - self.hits
        return _log_beta(_PRIOR + self.hits, _PRIOR + misses) - _log_beta(_PRIOR, _PRIOR)

    def together(self, other: "Proportion", difference: float) -> float:
        """The least evidence, as a logarithm, against rates that are so far apart: `other`'s over this one's."""
        if difference == 0.0:
            rate = (self.hits + other.hits) / (self.count + other.count)
        else:
            low, high = max(0.0, -difference), min(1.0, 1.0 - difference)
            for _ in range(_BISECTIONS):  # Concave: a third of what is left holds no maximum.
                third = (high - low) / 3
                first, second = (
                    self.likelihood(rate) + other.likelihood(rate + difference)
                    for rate in (low + third, high - third)
                )
                low, high = (low + third, high) if first < second else (low, high - third)
            rate = (low + high) / 2
        likelihood = self.likelihood(rate) + other.likelihood(rate + difference)
        return self.mixture() + other.mixture() - likelihood

    def apart(self, other: "Proportion", alpha: float) -> Interval:
        """How much `other`'s rate may be over this one's."""
        limit, centre = log(1 / alpha), other.estimate - self.estimate
        ends = []
        for outside in (-1.0, 1.0):
            inside, beyond = centre, outside
            if self.together(other, outside) < limit:
                inside = beyond
            else:
                for _ in range(_BISECTIONS):
                    middle = (inside + beyond) / 2
                    if self.together(other, middle) < limit:
                        inside = middle
                    else:
                        beyond = middle
            ends.append(beyond)
        return Interval(*ends)


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
        width, scale = self.shape(alpha)
        radius = sqrt((log(1 / alpha) + scale) * width)
        return Interval(self.estimate - radius, self.estimate + radius)

    def apart(self, other: "Mean", alpha: float) -> Interval:
        """How much `other`'s mean may be over this one's."""
        if self.count < MEANS_FROM or other.count < MEANS_FROM:
            return Interval(-inf, inf)
        (width, scale), (others_width, others_scale) = self.shape(alpha), other.shape(alpha)
        radius = sqrt((log(1 / alpha) + scale + others_scale) * (width + others_width))
        centre = other.estimate - self.estimate
        return Interval(centre - radius, centre + radius)

    def shape(self, alpha: float) -> tuple[float, float]:
        """The evidence against a mean that is `off` by so much is off**2 / width - scale, as a logarithm."""
        rho_squared = _rho_squared(alpha)
        scaled = self.count * rho_squared + 1
        return 2 * self.variance * scaled / (self.count**2 * rho_squared), log(scaled) / 2


def difference(a: Proportion | Mean, b: Proportion | Mean, alpha: float = ALPHA) -> Difference:
    """What can be said of `b` minus `a`, of one kind, now, and will have been right at all times with probability 1 - alpha."""
    interval = Interval(-inf, inf)
    if a.count and b.count:
        match a, b:
            case (Proportion(), Proportion()) | (Mean(), Mean()):
                interval = a.apart(b, alpha)  # type: ignore[arg-type]  # of one kind, which is lost here
            case _:
                raise TypeError("a rate and a mean cannot be compared")
    return Difference(b.estimate - a.estimate, interval, decided=not interval.low <= 0.0 <= interval.high)


def worse_than(rate: Proportion, limit: float, alpha: float = ALPHA) -> bool:
    """Whether the rate is over `limit`, for certain in the same sense: what steps a canary back."""
    return rate.is_over(limit, alpha)


def _rho_squared(alpha: float) -> float:
    """The mixture's width that makes intervals narrowest at TUNED_FOR (the paper's equation for optimizing rho)."""
    wanted = -2 * log(alpha)
    return (wanted + log(wanted) + 1) / TUNED_FOR


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
