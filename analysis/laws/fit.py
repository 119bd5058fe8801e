"""Laws fitted to the curves of a results folder: see law.py for what they are and how.

Of a curve that had the base case beside every launch, times are over what that took in the launch, times its mean over
the curve: noise that both had is no part of a law's shares, and λ is of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from analysis.laws import words
from analysis.laws.law import LAWS, REACH, Floats, Law, LawFit, Parameter
from analysis.load.results import Results
from analysis.measures.beside import without_common_noise
from analysis.stats import bootstrap, least_squares
from analysis.stats.bootstrap import Mean

RESAMPLES = 1999


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
            curve = without_common_noise(curve, scaling)
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
        return replace(about, note=words.too_few(law.name, len(about.workers), wanted))
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
    said = [replace(p, words=words.of(law.name, p, max(about.workers), REACH)) for p in parameters]
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
