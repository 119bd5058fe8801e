"""The numbers behind the laws: relative least squares, intervals of what was fitted, AICc."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.stats import bootstrap
from analysis.stats.bootstrap import Mean

Floats = NDArray[np.float64]


def solve(design: Floats, response: Floats, counts: Floats, *, bounded: bool) -> Floats:
    """Coefficients [..., p] for responses [..., M], weighted so that errors count relative to the fit.

    Fitting weights 1 / fit² solves the estimating equations of noise with a constant relative
    deviation; four rounds from 1 / response² are enough.
    """
    from scipy.optimize import nnls

    weight = np.sqrt(counts) / response
    coefficients: NDArray[Any] = np.zeros(0)
    for _ in range(4):
        scaled, target = design * weight[..., None], response * weight
        if bounded:
            coefficients = nnls(scaled, target)[0]
        else:
            transposed = np.swapaxes(scaled, -1, -2)
            coefficients = np.linalg.solve(transposed @ scaled, transposed @ target[..., None])[..., 0]
        weight = np.sqrt(counts) / np.maximum(coefficients @ design.T, 0.1 * response)
    return np.asarray(coefficients, dtype=np.float64)


def intervals(
    centres: Floats, draws: Floats, points: Sequence[Mean], confidence: float
) -> tuple[list[float], list[float]]:
    """t intervals of statistics [K] with the bootstrap's standard error, from their `draws` [R, K].

    The degrees of freedom are Satterthwaite's, from how much of the variance each point (worker count)
    contributes. NaN if a point has one launch only.
    """
    count = len(centres)
    if any(point.n < 2 for point in points):
        return [math.nan] * count, [math.nan] * count
    drawn = np.log(np.stack([point.draws for point in points], axis=-1))
    drawn -= drawn.mean(axis=0)
    variances = (drawn**2).mean(axis=0)
    covariances = (draws - draws.mean(axis=0)).T @ drawn / len(drawn)  # [K, points]
    parts = np.divide(covariances**2, variances, out=np.zeros_like(covariances), where=variances > 0)
    totals, explained = draws.var(axis=0), parts.sum(axis=1)
    sizes = [point.n for point in points]
    lows, highs = [], []
    for centre, total, known, part in zip(centres.tolist(), totals, explained, parts, strict=True):
        share = part * (total / known) if known > 0 else part
        low, high = bootstrap.student(centre, share.tolist(), sizes, confidence)
        lows.append(low)
        highs.append(high)
    return lows, highs


def aicc(residuals: Floats, k: int) -> float:
    """Akaike's criterion for normal errors with the small-sample term, k parameters in all."""
    n = len(residuals)
    square = float(np.mean(residuals**2))
    if n <= k + 1 or square <= 0:
        return math.nan
    return n * math.log(square) + 2 * k + 2 * k * (k + 1) / (n - k - 1)
