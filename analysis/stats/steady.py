"""Is a trial's step time steady after the warm-up? Checked, not assumed (Hoefler & Belli 2015).

Step times are autocorrelated and have outliers, so both tests work on ranks of block medians, with
blocks longer than the correlation lasts:

- a trend: Mann-Kendall's test, i.e. Kendall's tau against time (scipy, exact for few blocks), with
  the slope of Theil and Sen as its size;
- a change point: the largest standardized difference of mean rank between before and after, over all
  splits (Pettitt 1979, standardized so that splits near the ends count), against its permutation
  distribution.

Where both find something, the better fit is reported. Together they run at `ALPHA`, and what they find
must also exceed `SMALLEST` of the step time. The false alarm rate (tests/analysis/stats/test_steady.py holds
it): at most 2% for white noise with or without outliers from 20 steps on, at most 6% from 50 steps on if
the noise has a lag-1 autocorrelation of 0.6.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ALPHA = 0.01  # of both tests together
SMALLEST = 0.02  # share of the median step time below which a change is of no interest
BLOCKS = 40  # at most
FEWEST_BLOCKS = 6  # 2 / 6! = 0.003: with fewer, no order of the blocks is remarkable


def check(seconds: Floats, unit: str = "measured step", first: int = 0) -> tuple[bool | None, str]:
    """Whether the step times `seconds` [steps] show neither trend nor change point, and a note.

    None with a note if there are too few steps to tell. Each may be the mean of a `unit` of steps; they are counted
    from `first`.
    """
    length = _block_length(seconds)
    count = len(seconds) // length
    if count < FEWEST_BLOCKS:
        return None, f"too few {unit.split()[-1]}s to check ({len(seconds)}, in blocks of {length})"
    # Blocks are laid from the end, so that what is left over is next to the warm-up.
    blocks = np.median(seconds[len(seconds) - count * length :].reshape(count, length), axis=1)
    level = float(np.median(blocks))
    found = []
    p, drift, misfit = _trend(blocks)
    if p < ALPHA / 2 and abs(drift) >= SMALLEST * level:
        found.append((misfit, f"step time drifts by {drift / level:+.1%} over the {unit}s"))
    p, shift, misfit, split = _change_point(blocks)
    if p < ALPHA / 2 and abs(shift) >= SMALLEST * level:
        step = first + len(seconds) - (count - split) * length
        found.append((misfit, f"step time shifts by {shift / level:+.1%} at {unit} {step}"))
    return (False, min(found)[1]) if found else (True, "")


def _block_length(seconds: Floats) -> int:
    """Steps per block: longer than noise is correlated, and at most BLOCKS blocks.

    The lag-1 autocorrelation comes from differences of ranks, which a trend, a shift or an outlier
    hardly touches: Var(x[t+2] - x[t]) / Var(x[t+1] - x[t]) = 1 + phi for an AR(1) process. It is
    taken for zero as long as it is within two of its standard errors.
    """
    from scipy import stats

    shortest = math.ceil(len(seconds) / BLOCKS)
    if len(seconds) < 8 or np.ptp(seconds) == 0:
        return shortest
    ranks = stats.rankdata(seconds)
    one, two = (float(np.mean((ranks[lag:] - ranks[:-lag]) ** 2)) for lag in (1, 2))
    phi = min(two / one - 1.0, 0.9)
    if phi < 2.0 / math.sqrt(len(seconds)):
        return shortest
    return max(shortest, math.ceil(1.5 * (1 + phi) / (1 - phi)))


def _trend(blocks: Floats) -> tuple[float, float, float]:
    """Mann-Kendall p-value, Theil-Sen's change in seconds from the first block to the last, and the
    sum of absolute residuals of that line."""
    from scipy import stats

    if np.ptp(blocks) == 0:
        return 1.0, 0.0, 0.0
    time = np.arange(len(blocks), dtype=np.float64)
    p = float(stats.kendalltau(time, blocks).pvalue)
    line = stats.theilslopes(blocks, time)
    misfit = float(np.abs(blocks - line.intercept - line.slope * time).sum())
    return p, float(line.slope) * (len(blocks) - 1), misfit


def _change_point(blocks: Floats) -> tuple[float, float, float, int]:
    """Permutation p-value, change of the median in seconds, the sum of absolute residuals of the two
    levels, and the first block after the change."""
    from scipy import stats

    if np.ptp(blocks) == 0:
        return 1.0, 0.0, 0.0, 1
    statistic = _contrasts(stats.rankdata(blocks)[None, :])[0]
    split = int(np.argmax(statistic)) + 1
    null = _null_distribution(len(blocks))
    # A hair below, so that equal sums of ranks that differ in the last bit count as equal.
    above = len(null) - int(np.searchsorted(null, statistic.max() - 1e-9))
    before, after = blocks[:split], blocks[split:]
    levels = np.median(before), np.median(after)
    misfit = float(np.abs(before - levels[0]).sum() + np.abs(after - levels[1]).sum())
    return (above + 1) / (len(null) + 1), float(levels[1] - levels[0]), misfit, split


def _contrasts(ranks: Floats) -> Floats:
    """|mean rank after - mean rank before|, standardized: [series, blocks] -> [series, blocks - 1]."""
    count = ranks.shape[1]
    split = np.arange(1, count)
    sums = np.cumsum(ranks - (count + 1) / 2, axis=1)[:, :-1]
    return np.asarray(np.abs(sums) / np.sqrt(split * (count - split)), dtype=np.float64)


@cache
def _null_distribution(count: int) -> Floats:
    """Sorted largest contrasts of random orders of `count` blocks; the same for every series."""
    rng = np.random.default_rng(0)
    orders = rng.permuted(np.tile(np.arange(1.0, count + 1), (9999, 1)), axis=1)
    return np.sort(_contrasts(orders).max(axis=1))
