"""Ratios of rates from a few launches: estimate, interval at any level, p value, Holm's correction.

A rate of several launches is the harmonic mean of theirs (all launches do the same work, so it is total
work over total time). A ratio of products of rates is a sum of logarithms, each from its own launches.
Its standard error is the delta method's, which is what a bootstrap over launches converges to, times
sqrt(n / (n - 1)), and it is referred to Student's t with Satterthwaite's degrees of freedom. With 3 to 10
launches percentiles of a bootstrap cannot reach the small levels that a correction for many comparisons
asks for: 3 launches have only 10 distinct resamples. docs/claims.md gives the measured error rates. Where the base case
ran beside every launch, a rate over the base case's is the mean of the launches' own logarithms, which is one term.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from analysis.stats.bootstrap import exp


@dataclass(frozen=True)
class LogRate:
    """Logarithm of a rate, the variance of that logarithm, and the degrees of freedom behind it."""

    log: float
    variance: float
    freedom: int

    @classmethod
    def of(cls, rates: ArrayLike) -> LogRate:
        """From the rates of n launches, shape (n,), all positive. One launch has no variance (NaN)."""
        cost = 1.0 / np.asarray(rates, dtype=float)
        mean = float(cost.mean())
        if cost.size < 2:
            return cls(-math.log(mean), math.nan, 0)
        relative = float(cost.std(ddof=1)) / mean
        return cls(-math.log(mean), relative * relative / cost.size, cost.size - 1)

    @classmethod
    def of_logs(cls, logs: ArrayLike) -> LogRate:
        """From the logarithms of n launches' rates over what ran beside each of them, shape (n,)."""
        each = np.asarray(logs, dtype=float)
        mean = float(each.mean())
        if each.size < 2:
            return cls(mean, math.nan, 0)
        return cls(mean, float(each.var(ddof=1)) / each.size, each.size - 1)


@dataclass(frozen=True)
class LogRatio:
    """Logarithm of a ratio of rates with its standard error and degrees of freedom."""

    log: float
    error: float
    freedom: float

    @property
    def ratio(self) -> float:
        return math.exp(self.log)

    def p_not_above(self) -> float:
        """One-sided p value of the hypothesis that the true ratio is at most 1."""
        return self._tail(self.log)

    def p_not_below(self) -> float:
        """One-sided p value of the hypothesis that the true ratio is at least 1."""
        return self._tail(-self.log)

    def low(self, alpha: float) -> float:
        """Lower bound of the ratio which the truth undercuts with probability at most `alpha`."""
        return exp(self.log - self._reach(alpha))

    def high(self, alpha: float) -> float:
        """Upper bound of the ratio which the truth exceeds with probability at most `alpha`."""
        return exp(self.log + self._reach(alpha))

    def _tail(self, log: float) -> float:
        if math.isnan(self.error):
            return 1.0
        if self.error == 0.0:  # launches without any spread, which only made-up data have
            return 0.0 if log > 1e-12 else 1.0
        return float(stdtr(self.freedom, -log / self.error))

    def _reach(self, alpha: float) -> float:
        if math.isnan(self.error):
            return math.inf
        if self.error == 0.0:
            return 0.0
        return -float(stdtrit(self.freedom, alpha)) * self.error


def log_ratio(above: Sequence[LogRate], below: Sequence[LogRate]) -> LogRatio:
    """The product of the rates `above` over the product of the rates `below`.

    The terms come from different launches, so variances add. Degrees of freedom: Satterthwaite 1946,
    Biometrics Bulletin 2(6), eq. 17, as in Welch's test.
    """
    terms = [*above, *below]
    log = sum(term.log for term in above) - sum(term.log for term in below)
    variance = sum(term.variance for term in terms)
    if not variance > 0.0:
        return LogRatio(log, math.sqrt(variance), math.inf)
    spread = sum(term.variance**2 / term.freedom for term in terms if term.freedom)
    return LogRatio(log, math.sqrt(variance), variance**2 / spread)


@dataclass(frozen=True)
class Corrected:
    """One comparison after Holm's correction: its adjusted p value, and the level it was tested at."""

    p: float
    level: float

    def significant(self, alpha: float) -> bool:
        return self.p <= alpha


def holm(p_values: Sequence[float], alpha: float = 0.05) -> list[Corrected]:
    """Holm's step-down correction: the chance of any false rejection is at most `alpha`.

    Holds for any dependence between the comparisons (Holm 1979, Scand. J. Statist. 6, 65-70). The
    level is what the raw p value was held against; comparisons after the first that is not rejected
    share its level, so an interval at 1 - level excludes 1 exactly where the comparison is rejected.
    """
    count = len(p_values)
    order = sorted(range(count), key=lambda i: p_values[i])
    corrected = [Corrected(1.0, alpha)] * count
    adjusted, rejecting, level = 0.0, True, alpha
    for rank, i in enumerate(order):
        adjusted = max(adjusted, min(1.0, (count - rank) * p_values[i]))
        if rejecting:
            level = alpha / (count - rank)
            rejecting = adjusted <= alpha
        corrected[i] = Corrected(adjusted, level)
    return corrected
