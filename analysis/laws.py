"""Scaling laws fitted to throughput: what share is serial, what contends, where adding workers ends.

    fits = fit(load(folder))        per strategy and scaling mode, each law or why it was not fitted
    frame(fits)                     the same as a table
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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis import bootstrap, law_words, least_squares
from analysis.bootstrap import Mean
from analysis.load import Results

Floats = NDArray[np.float64]
REACH = 4  # times the largest measured worker count: nothing is predicted beyond
RESAMPLES = 1999


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


def fit(results: Results, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> list[LawFit]:
    """Every law on every curve: a strategy (base cases are no curve) in one scaling mode and one
    combination of the factors."""
    fits = []
    ok = results.trials.filter(status="ok")
    for scaling in ("strong", "weak"):
        curves = ok.filter(pl.col(scaling) & pl.col("communication").ne_missing("none"))
        by = ["strategy", *results.factors]
        for curve in curves.partition_by(by, maintain_order=True) if len(curves) else []:
            first = curve.row(0, named=True)
            about = LawFit(
                law="",
                scaling=scaling,
                strategy=first["strategy"],
                framework=first["framework"],
                factors={name: first[name] for name in results.factors},
                workers=tuple(sorted(curve["workers"].unique())),
                n_launches=len(curve),
                confidence=confidence,
            )
            points = _points(curve, about.workers, resamples, seed)
            tried = [_fit(replace(about, law=law.name), law, curve, points) for law in _laws(scaling)]
            best = min((f.aicc for f in tried if not math.isnan(f.aicc)), default=math.nan)
            fits += [replace(f, delta_aicc=f.aicc - best) for f in tried]
    return fits


def _laws(scaling: str) -> list[Law]:
    return [law for law in LAWS if scaling in law.scaling]


def _points(curve: pl.DataFrame, workers: Sequence[int], resamples: int, seed: int) -> list[Mean]:
    """Seconds per sample at each worker count."""
    points = []
    for n in workers:
        launches = curve.filter(workers=n)
        cost = (launches["train_seconds"] / launches["samples"]).to_numpy()[:, None]
        points += bootstrap.resampled(cost, resamples, seed, launches["point"][0])
    return points


def _fit(about: LawFit, law: Law, curve: pl.DataFrame, points: Sequence[Mean]) -> LawFit:
    wanted = len(law.parameters) + 1 + 2  # the rate of one worker is a parameter too
    if len(about.workers) < wanted:
        return replace(about, note=law_words.too_few(law.name, len(about.workers), wanted))
    workers = np.array(about.workers, dtype=np.float64)
    counts = np.array([point.n for point in points], dtype=np.float64)
    design = law.design(workers)
    measured = _response(law, workers, np.array([point.value for point in points]))
    coefficients = least_squares.solve(design, measured, counts, bounded=True)
    free = least_squares.solve(design, measured, counts, bounded=False)
    most = max(len(point.draws) for point in points)
    drawn = np.stack([np.broadcast_to(point.draws, (most,)) for point in points], axis=-1)
    draws = least_squares.solve(design, _response(law, workers, drawn), counts, bounded=False)
    launches_at = curve["workers"].to_numpy().astype(np.float64)
    residuals = np.log(curve["throughput"].to_numpy() / law.throughput(coefficients, launches_at))
    values, centres, spreads = law.shares(coefficients), law.shares(free), law.shares(draws)
    parameters = []
    lows, highs = least_squares.intervals(centres, spreads, points, about.confidence)
    for i, (name, low, high) in enumerate(zip(law.parameters, lows, highs, strict=True)):
        top = 1.0 if name != "coherency" else math.inf
        # Where the law's range binds, the fit lies beside the free fit that the interval is around.
        low, high = min(low, float(values[i])), max(high, float(values[i]))
        parameters.append(Parameter(name, float(values[i]), _cut(low, top), _cut(high, top)))
    if law.name == "USL":
        parameters.append(_peak(values, centres, spreads, points, about.confidence))
    found = replace(
        about,
        rate=float(law.throughput(coefficients, np.ones(1))[0]),
        aicc=least_squares.aicc(residuals, len(law.parameters) + 2),  # and the rate, and the variance
        spread=float(np.sqrt(np.mean(residuals**2))),
        _shape=law,
        _coefficients=coefficients,
        _free=free,
        _draws=draws,
        _points=tuple(points),
    )
    said = [replace(p, words=law_words.of(law.name, p, max(about.workers), REACH)) for p in parameters]
    return replace(found, parameters=tuple(said))


def _response(law: Law, workers: Floats, cost: Floats) -> Floats:
    """What the law is linear in, from the worker counts [M] and seconds per sample [..., M]."""
    return np.asarray(workers * cost if law.on_time else 1.0 / cost, dtype=np.float64)


def _peak(values: Floats, centres: Floats, spreads: Floats, points: Sequence[Mean], confidence: float) -> Parameter:
    """The N of peak throughput, sqrt((1 - σ) / κ) (Gunther 2007, chapter 4); infinite without a peak.

    Its interval is that of κ / (1 - σ), which is near to normal where the N itself is not.
    """

    def bend(shares: Floats) -> Floats:
        return np.asarray(shares[..., 1] / np.maximum(1.0 - shares[..., 0], 1e-9), dtype=np.float64)

    (low,), (high,) = least_squares.intervals(bend(centres[None]), bend(spreads)[:, None], points, confidence)
    value, first, last = (1 / math.sqrt(b) if b > 0 else math.inf for b in (float(bend(values)), high, low))
    if math.isnan(low):
        return Parameter("peak", value, math.nan, math.nan)
    return Parameter("peak", value, min(first, value), max(last, value))


def _cut(value: float, top: float) -> float:
    return value if math.isnan(value) else min(max(value, 0.0), top)


def frame(fits: Iterable[LawFit]) -> pl.DataFrame:
    """One row per fit and parameter; a law that was not fitted has one row with its note."""
    rows = []
    for f in fits:
        for p in f.parameters or (Parameter("", math.nan, math.nan, math.nan),):
            rows.append(
                {
                    "scaling": f.scaling,
                    "strategy": f.strategy,
                    "framework": f.framework,
                    **f.factors,
                    "law": f.law,
                    "parameter": p.name or None,
                    **{
                        k: None if math.isnan(v) else v
                        for k, v in (("value", p.value), ("low", p.low), ("high", p.high))
                    },
                    "rate": None if math.isnan(f.rate) else f.rate,
                    "aicc": None if math.isnan(f.aicc) else f.aicc,
                    "delta_aicc": None if math.isnan(f.delta_aicc) else f.delta_aicc,
                    "n_points": len(f.workers),
                    "n_launches": f.n_launches,
                    "words": p.words or f.note,
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None)
