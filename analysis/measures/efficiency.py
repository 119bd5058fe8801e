"""Throughput, speedup and efficiency with intervals over launches.

    estimates = estimate(load(folder))      one row per strategy, scaling mode and worker count

How several launches become one number (Hoefler & Belli 2015, rules 3 and 4): costs, i.e. seconds, by
their arithmetic mean; throughput as total samples over total time, i.e. the harmonic mean of the
launches' rates; ratios from these summaries, never as a mean of ratios. Intervals: bootstrap.py.

    speedup    S(N) = X(N) / X(1)
    efficiency E(N) = S(N) / N       in weak scaling too: X(N) / N is the rate of one worker

`speedup` and `efficiency` take X(1) from the base case, the framework's plain single process, and
`speedup_self`, `efficiency_self` from the same strategy at one worker: the second flatters a strategy
whose wrapping costs something even where there is nothing to communicate with. Where the framework has no
plain run on the device (TensorFlow on a TPU), the outcome names the strategy itself as its base case.

Where the base case ran beside every launch of a point, its speedup and efficiency are from these pairs (beside.py), so
`speedup_self` is the ratio of two such speedups; `efficiency_apart` is what separate launches say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analysis.load.results import Results, load
from analysis.measures import beside
from analysis.measures.caveats import BASE, Around, failed, launch_warnings, reference_warnings
from analysis.stats import bootstrap
from analysis.stats.bootstrap import Mean

MODES = ("strong", "weak")
# Positive costs, whose intervals are made on a log scale, and what may be zero or negative.
COSTS = ("step_p50", "step_p95", "step_p99", "startup_seconds", "first_step_seconds")
PLAIN = ("compute_only_seconds", "exposed_seconds", "data_seconds", "straggler_seconds", "test_accuracy")
RATIOS = ("speedup", "efficiency", "speedup_self", "efficiency_self", "efficiency_apart")
WITH_INTERVAL = ("throughput", *RATIOS, *COSTS, *PLAIN)
# Base case first, then native, then Horovod.
ORDER = (
    pl.col("scaling"),
    pl.col("framework"),
    pl.col("communication").replace_strict({"none": 0, "native": 1, "horovod": 2}, default=3),
    pl.col("strategy"),
    pl.col("workers"),
)
UNKNOWN = (math.nan, math.nan, math.nan)
KEY = ("scaling", "framework", "communication", "strategy", "workers", "global_batch")


def estimate(
    results: Results, *, confidence: float = 0.95, resamples: int = bootstrap.RESAMPLES, seed: int = 0
) -> pl.DataFrame:
    """One row per factor combination × strategy × scaling mode × workers that has a launch that is ok.

    Columns: KEY, the factors, `n_launches`, `n_failed`; each of WITH_INTERVAL with `_low` and `_high`
    (null for a single launch; `efficiency_apart` is null but where `efficiency` is from pairs); `efficiency_from`:
    "beside" or "apart", null without one and for the base case; `base_case` (its strategy) and `base_throughput`, null
    if it was not measured, the second also if it ran beside only; `launcher`, `device`, `emulated`; `point`, the
    launches' id without their repeat; `warning`, text for people, "" if there is nothing to warn of. Seconds are per
    step unless named otherwise; throughput is in samples per second over all workers.
    """
    around = Around.of(results)
    against = beside.against_alone(results, resamples=resamples, seed=seed)
    points = [
        _Point(mode, rows, ok, results.factors, resamples, seed, launch_warnings(rows, around))
        for mode in MODES
        for rows in _groups(results.trials.filter(pl.col(mode)), results.factors)
        if len(ok := rows.filter(status="ok"))
    ]
    rows = [_row(point, points, against, results.factors, confidence) for point in points]
    frame = pl.DataFrame(rows, schema=_schema(results), orient="row")
    return frame.sort(*(pl.col(name) for name in results.factors), *ORDER, nulls_last=True)


def precision(source: Results | Path, *, confidence: float = 0.95) -> dict[str, float]:
    """Relative half-width of the interval of the throughput of each point with a launch that is ok.

    0.05 says "within ±5%"; infinite for a single launch. `source` may be a results folder.
    """
    results = source if isinstance(source, Results) else load(source, check_steady=False)
    found = {}
    for (point,), rows in results.trials.filter(status="ok").group_by("point"):
        cost = (rows["train_seconds"] / rows["samples"]).to_numpy()[:, None]
        (mean,) = bootstrap.resampled(cost, bootstrap.RESAMPLES, 0, str(point))
        _, high = mean.log_interval(confidence)
        found[str(point)] = high / mean.value - 1.0 if math.isfinite(high) else math.inf
    return found


def base_words(estimates: pl.DataFrame) -> str:
    """What kind of run the base cases are."""
    own = estimates.filter(pl.col("strategy") == pl.col("base_case"), pl.col("communication") != "none")
    names = ", ".join(own["strategy"].unique(maintain_order=True))
    plain = "one plain process"
    return f"{plain}; for {names}, which has none on its device, its own run at one worker" if names else plain


def _groups(trials: pl.DataFrame, factors: Sequence[str]) -> list[pl.DataFrame]:
    by = ["strategy", "workers", "global_batch", "base_beside", *factors]
    return trials.partition_by(by, maintain_order=True) if len(trials) else []


class _Point:
    """The launches of one row of the estimates."""

    def __init__(
        self,
        mode: str,
        trials: pl.DataFrame,
        ok: pl.DataFrame,
        factors: Sequence[str],
        resamples: int,
        seed: int,
        warnings: list[str],
    ) -> None:
        self.mode, self.trials, self.ok, self.warnings = mode, trials, ok, warnings
        first = ok.row(0, named=True)
        self.factors = {name: first[name] for name in factors}
        self.strategy, self.workers = first["strategy"], first["workers"]
        self.framework, self.communication = first["framework"], first["communication"]
        self.global_batch, self.base_case = first["global_batch"], first["base_case"]
        cost = (ok["train_seconds"] / ok["samples"]).to_numpy()
        others = ok.select(*COSTS, *PLAIN).cast(pl.Float64).fill_null(math.nan).to_numpy()
        means = bootstrap.resampled(np.column_stack([cost, others]), resamples, seed, first["point"])
        self.name = first["point"]
        self.means = dict(zip(("cost", *COSTS, *PLAIN), means, strict=True))
        logs = beside.log_speedups(ok, mode)
        self.pairs = None if logs is None else bootstrap.resampled(logs[:, None], resamples, seed, self.name)[0]

    def is_base_of(self, other: _Point) -> bool:
        """Whether this is what `other` is to be compared with: what its outcome names, else the plain process."""
        plain = self.framework == other.framework and self.communication == "none"
        same = self.strategy == other.base_case if other.base_case else plain
        return same and self._at_one_worker_of(other)

    def is_self_of(self, other: _Point) -> bool:
        return self.strategy == other.strategy and self._at_one_worker_of(other)

    def _at_one_worker_of(self, other: _Point) -> bool:
        return self.workers == 1 and self.mode == other.mode and self.factors == other.factors


def _row(
    point: _Point, points: Sequence[_Point], against: pl.DataFrame, factors: Sequence[str], confidence: float
) -> list[Any]:
    cost = point.means["cost"]
    base = next((p for p in points if p.is_base_of(point)), None)
    itself = next((p for p in points if p.is_self_of(point)), None)
    low, high = cost.log_interval(confidence)
    found: dict[str, tuple[float, float, float]] = {"throughput": (1 / cost.value, 1 / high, 1 / low)}
    for name, other in (("", base), ("_self", itself)):
        ratio = UNKNOWN
        if other is not None:
            one = other.means["cost"]
            ratio = (one.value / cost.value, *bootstrap.ratio_interval([one], [cost], confidence))
        found["speedup" + name] = ratio
        found["efficiency" + name] = _per_worker(ratio, point)
    found["efficiency_apart"] = UNKNOWN
    if point.pairs is not None:
        found["efficiency_apart"] = found["efficiency"]
        found["speedup"] = beside.ratio(point.pairs, None, confidence)
        if itself is not None and itself.pairs is not None:
            found["speedup_self"] = beside.ratio(point.pairs, itself.pairs, confidence)
        found |= {f"efficiency{name}": _per_worker(found[f"speedup{name}"], point) for name in ("", "_self")}
    for name in COSTS:
        mean = point.means[name]
        found[name] = (mean.value, *_cost_interval(mean, confidence))
    for name in PLAIN:
        found[name] = (point.means[name].value, *point.means[name].interval(confidence))
    measured = [None if math.isnan(value) else value for name in WITH_INTERVAL for value in found[name]]
    return [
        *(
            point.mode,
            point.framework,
            point.communication,
            point.strategy,
            point.workers,
            point.global_batch,
        ),
        *(point.factors[name] for name in factors),
        len(point.ok),
        failed(point.trials),
        *measured,
        "beside" if point.pairs else "apart" if base not in (None, point) else None,
        base.strategy if base else point.base_case if point.pairs else None,
        1 / base.means["cost"].value if base else None,
        _all_of(point.ok["launcher"]),
        _all_of(point.ok["device"]),
        bool(point.ok["emulated"].any()),
        point.name,
        "; ".join(dict.fromkeys([*_warnings(point, base, itself), *_of_pairs(point, points, found, against)])),
    ]


def _per_worker(speedup: beside.Value, point: _Point) -> beside.Value:
    return speedup[0] / point.workers, speedup[1] / point.workers, speedup[2] / point.workers


def _of_pairs(
    point: _Point, points: Sequence[_Point], found: dict[str, beside.Value], against: pl.DataFrame
) -> list[str]:
    """What to warn of where a base case ran beside, at this point or at others of its curve."""
    curve = [p for p in points if (p.mode, p.strategy, p.factors) == (point.mode, point.strategy, point.factors)]
    warnings = []
    if beside.mixed([p.pairs is not None for p in curve]):
        warnings.append("its curve has points with the base case beside, and points without")
    if point.pairs is None:
        return warnings
    if beside.apart(found["efficiency"], found["efficiency_apart"]):
        warnings.append("efficiency from the base case beside and from separate launches differ beyond their intervals")
    batch = point.global_batch if point.mode == "strong" else point.global_batch // point.workers
    return warnings + beside.unlike_alone(against, point.base_case, batch, point.factors)


def _warnings(point: _Point, base: _Point | None, itself: _Point | None) -> list[str]:
    """Those of the launches, and of what `speedup` and `speedup_self` set them against."""
    found = list(point.warnings) if base or point.pairs else [*point.warnings, "base case not measured"]
    base = None if point.pairs else base  # which ran in these launches, under what they warn of
    for reference, called in ((base, BASE), (None if itself is base else itself, "its run at one worker")):
        if reference is not None and reference is not point:
            found += reference_warnings(point.warnings, point.ok, reference.warnings, reference.ok, called)
    return found


def _cost_interval(mean: Mean, confidence: float) -> bootstrap.Interval:
    return mean.log_interval(confidence) if mean.n and mean.draws.min() > 0 else (math.nan, math.nan)


def _schema(results: Results) -> dict[str, Any]:
    trials = results.trials.schema
    key = {name: trials.get(name, pl.String) for name in KEY}
    floats = {name + end: pl.Float64 for name in WITH_INTERVAL for end in ("", "_low", "_high")}
    return {
        **key,
        **{name: trials[name] for name in results.factors},
        "n_launches": pl.Int64,
        "n_failed": pl.Int64,
        **floats,
        "efficiency_from": pl.String,
        "base_case": pl.String,
        "base_throughput": pl.Float64,
        "launcher": pl.String,
        "device": pl.String,
        "emulated": pl.Boolean,
        "point": pl.String,
        "warning": pl.String,
    }


def _all_of(names: pl.Series) -> str | None:
    return " / ".join(names.drop_nulls().unique().sort()) or None


MOST_COUNTS = 4


def some(counts: list[int]) -> list[int]:
    """Of many worker counts the smallest, the largest, and between them two evenly."""
    if len(counts) <= MOST_COUNTS:
        return counts
    last = len(counts) - 1
    return [counts[round(i * last / (MOST_COUNTS - 1))] for i in range(MOST_COUNTS)]
