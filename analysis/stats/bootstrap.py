"""Intervals from a few independent launches: a bootstrap's standard error, Student's t, log scale.

A study has 3 to 15 launches of a point. With so few, percentile and BCa intervals are far too narrow:
no resample's mean leaves the range of the data, so 3 launches cannot give more than 75% coverage,
whatever is done to the percentiles. What holds (docs/methodology.md has the measured coverage; a test
holds it) is the t interval with a bootstrap standard error on a log scale:

    exp(log x ± t(df) · se),   se = the standard deviation of log x over resamples of launches

Each resample draws n - 1 of the n launches, with replacement, which removes the bootstrap's
narrowness bias (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", The American
Statistician 69(4), 371-386). A ratio resamples numerator and denominator
jointly; its degrees of freedom are Satterthwaite's (1946, Biometrics Bulletin 2(6), 110-114).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]
Interval = tuple[float, float]

RESAMPLES = 9999


@dataclass(frozen=True)
class Mean:
    """The mean of a quantity over n launches, and the means of resamples, [resamples]."""

    n: int
    value: float
    draws: Floats

    def interval(self, confidence: float) -> Interval:
        """Interval of the mean itself, for what may be zero or negative. NaN for one launch."""
        return student(self.value, [float(self.draws.var())], [self.n], confidence)

    def log_interval(self, confidence: float) -> Interval:
        """Interval of a positive mean. NaN for one launch."""
        return ratio_interval([self], [], confidence)


def resampled(values: Floats, resamples: int, seed: int, key: str) -> list[Mean]:
    """Means of the columns of `values` [launches, quantities]; all columns share their resamples.

    `key` names the point: its resamples do not depend on what else a study holds. A quantity that is
    missing (NaN) in a launch takes its mean over the others.
    """
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    n = len(values)
    shared = _weights(n, resamples, rng)
    means = []
    for column in np.asarray(values, dtype=np.float64).T:
        there = column[np.isfinite(column)]
        weights = shared if len(there) == n else _weights(len(there), resamples, rng)
        means.append(Mean(len(there), float(there.mean()) if len(there) else math.nan, weights @ there))
    return means


def _weights(n: int, resamples: int, rng: np.random.Generator) -> Floats:
    """[resamples, n]: the share of each launch in each resample of n - 1 of them."""
    if n < 2:
        return np.ones((1, n))
    return rng.multinomial(n - 1, np.full(n, 1.0 / n), size=resamples) / (n - 1)


def ratio_interval(above: Sequence[Mean], below: Sequence[Mean], confidence: float) -> Interval:
    """Interval of the product of the positive means `above` over that of `below`.

    All means come from different launches, and one that is on both sides cancels. NaN if any of the
    rest has one launch only.
    """
    common = [mean for mean in above if any(mean is other for other in below)]
    terms = [(m, 1.0) for m in above if not any(m is c for c in common)]
    terms += [(m, -1.0) for m in below if not any(m is c for c in common)]
    log = sum(sign * math.log(m.value) for m, sign in terms)
    variances = [float(np.log(m.draws).var()) for m, _ in terms]
    low, high = student(log, variances, [m.n for m, _ in terms], confidence)
    return exp(low), exp(high)


def student(centre: float, variances: Sequence[float], sizes: Sequence[int], confidence: float) -> Interval:
    """t interval of a statistic whose variance is the sum of `variances`, each from so many launches."""
    if any(n < 2 for n in sizes):
        return math.nan, math.nan
    variance = sum(variances)
    if not variance > 0.0:
        return centre, centre
    freedom = variance**2 / sum(v**2 / (n - 1) for v, n in zip(variances, sizes, strict=True))
    reach = float(stdtrit(freedom, 0.5 + confidence / 2)) * math.sqrt(variance)
    return centre - reach, centre + reach


def exp(log: float) -> float:
    """e to the power of `log`, infinite where a float cannot hold it."""
    return math.exp(log) if not log > 700 else math.inf
