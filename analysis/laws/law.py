"""Scaling laws fitted to throughput: what share is serial, what contends, where adding workers ends.

    fits = fit(load(folder))        per strategy and scaling mode, each law or why it was not fitted
    frame(fits)                     the same as a table (both are in fit.py)
    fits[0].predict([16, 32])       within 4 times the largest measured worker count, and said so

With λ the rate of one worker of the strategy itself:

    Amdahl     X(N) = λ N / (1 + s (N - 1))                       strong; Amdahl 1967
    Gustafson  X(N) = λ (N - s (N - 1))                           weak; Gustafson 1988
    USL        X(N) = λ N / (1 + σ (N - 1) + κ N (N - 1))         both; Gunther 2007, eq. 4.31

Each is linear in its coefficients, for worker time per sample N / X (Amdahl, USL) or for X (Gustafson),
so it is fitted by iteratively reweighted least squares of relative errors (the noise of a launch is a
share of its time). Point estimates respect the law's range (non-negative coefficients, scipy's NNLS);
intervals come from refitting resamples of launches, t with the bootstrap's standard error, and are cut
to that range. Laws are compared by AICc over launches (Hurvich & Tsai 1989).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.stats import least_squares
from analysis.stats.bootstrap import Mean

Floats = NDArray[np.float64]
REACH = 4  # times the largest measured worker count: nothing is predicted beyond


class TooFar(ValueError):
    """A prediction was asked for beyond REACH times the largest measured worker count."""


@dataclass(frozen=True)
class Law:
    """`columns` of the linear form for worker counts [M]; `on_time`: of N / X rather than X.

    `shares` turns coefficients [..., p] into the law's parameters, in the order of `parameters`.
    """

    name: str
    scaling: tuple[str, ...]
    parameters: tuple[str, ...]
    columns: Callable[[Floats], list[Floats]]
    on_time: bool

    def design(self, workers: Floats) -> Floats:
        """[M, p]."""
        return np.stack(self.columns(np.asarray(workers, dtype=np.float64)), axis=-1)

    def shares(self, coefficients: Floats) -> Floats:
        """The parameters [..., p - 1]: each further coefficient over the sum of the first two, which
        is 1 / λ (Amdahl, USL) or λ (Gustafson)."""
        one = coefficients[..., :1] + coefficients[..., 1:2]
        return np.asarray(coefficients[..., 1:] / one, dtype=np.float64)

    def throughput(self, coefficients: Floats, workers: Floats) -> Floats:
        """Samples per second, [..., M] for coefficients [..., p]."""
        value = coefficients @ self.design(workers).T
        return np.asarray(workers / value if self.on_time else value, dtype=np.float64)


LAWS = (
    Law("Amdahl", ("strong",), ("serial share",), lambda n: [np.ones_like(n), n], on_time=True),
    Law("Gustafson", ("weak",), ("serial share",), lambda n: [n, np.ones_like(n)], on_time=False),
    Law(
        "USL",
        ("strong", "weak"),
        ("contention", "coherency"),
        lambda n: [np.ones_like(n), n, n * (n - 1)],
        on_time=True,
    ),
)


@dataclass(frozen=True)
class Parameter:
    """`value` with its interval (NaN where a point has one launch only), and what it says."""

    name: str
    value: float
    low: float
    high: float
    words: str = ""


@dataclass(frozen=True)
class Prediction:
    """Throughput in samples/s; `extrapolated` beyond the largest measured worker count."""

    workers: float
    throughput: float
    low: float
    high: float
    extrapolated: bool


@dataclass(frozen=True)
class LawFit:
    """One law on one curve. `note` says why it was not fitted ("" if it was).

    `rate` is λ in samples/s of one worker. `delta_aicc` is the distance to the best law of the curve
    (0 for the best; NaN if there are too few launches for AICc). `spread` is the residual's relative
    deviation between launches and law.
    """

    law: str
    scaling: str
    strategy: str
    framework: str | None
    factors: dict[str, Any]
    workers: tuple[int, ...]
    n_launches: int
    note: str = ""
    rate: float = math.nan
    parameters: tuple[Parameter, ...] = ()
    aicc: float = math.nan
    delta_aicc: float = math.nan
    spread: float = math.nan
    confidence: float = 0.95
    _shape: Law | None = field(default=None, repr=False, compare=False)
    _coefficients: Floats | None = field(default=None, repr=False, compare=False)
    _free: Floats | None = field(default=None, repr=False, compare=False)
    _draws: Floats | None = field(default=None, repr=False, compare=False)
    _points: tuple[Mean, ...] = field(default=(), repr=False, compare=False)

    @property
    def fitted(self) -> bool:
        return not self.note

    def predict(self, workers: Iterable[float]) -> list[Prediction]:
        """Throughput at each of `workers`. Raises TooFar beyond REACH times the largest measured."""
        counts = np.array([float(n) for n in workers])
        largest = max(self.workers)
        if self._shape is None or self._coefficients is None or self._free is None or self._draws is None:
            raise ValueError(f"{self.law} was not fitted: {self.note}")
        if (counts > REACH * largest).any() or (counts <= 0).any():
            raise TooFar(f"{self.law} predicts from 1 to {REACH * largest} workers, not {counts.max():g}")
        # Normal is what the law is linear in, so the interval is made there, around the free fit.
        design = self._shape.design(counts)
        centres, draws = self._free @ design.T, self._draws @ design.T
        lows, highs = least_squares.intervals(centres, draws, self._points, self.confidence)
        values = self._shape.throughput(self._coefficients, counts)
        found = []
        for n, value, low, high in zip(counts.tolist(), values.tolist(), lows, highs, strict=True):
            if self._shape.on_time:
                low, high = (v if math.isnan(v) else n / v if v > 0 else math.inf for v in (high, low))
            if not math.isnan(low):
                low, high = min(max(low, 0.0), value), max(high, value)
            found.append(Prediction(n, value, low, high, n > largest))
        return found
