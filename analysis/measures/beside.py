"""Efficiency from pairs: the base case that ran beside a launch against the launch itself.

What slows a machine for a while slows both alike, so within a launch their ratio is known better than either time
(Kalibera and Jones 2013, "Rigorous benchmarking in reasonable time", ISMM). The datum of a launch is the logarithm of
its speedup,

    log (seconds per sample of the base case beside / seconds per sample of the launch)

each the total over all counted steps of the same rounds. Launches are what is resampled: each resample draws n - 1 of a
point's n launches, each with its pair, and takes the mean of their logarithms; the interval is Student's with n - 1
degrees of freedom, as everywhere (stats/bootstrap.py), and the value the geometric mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.load.results import Results
from analysis.stats import bootstrap
from analysis.stats.bootstrap import Mean

# Scaling mode ─▶ the companion that its points are held against: with the whole batch, or with one worker's.
COSTS = {"strong": "base_whole_cost", "weak": "base_each_cost"}
CONFIDENCE_ALONE = 0.99

Floats = NDArray[np.float64]
Value = tuple[float, float, float]


def log_speedups(launches: pl.DataFrame, mode: str) -> Floats | None:
    """The datum of each of these launches, [launches]; None if one of them has no companion for this mode."""
    base = launches.get_column(COSTS[mode], default=None)
    if base is None or not len(base) or base.null_count():
        return None
    speedups: Floats = (base * launches["samples"] / launches["train_seconds"]).to_numpy()
    return np.asarray(np.log(speedups), dtype=np.float64)


def without_common_noise(launches: pl.DataFrame, mode: str) -> pl.DataFrame:
    """The launches with `train_seconds` and `throughput` as if the base case beside each had taken its mean over all of
    them; as they are, if one has none."""
    if log_speedups(launches, mode) is None:
        return launches
    slow = pl.col(COSTS[mode]) / pl.col(COSTS[mode]).mean()
    return launches.with_columns(train_seconds=pl.col("train_seconds") / slow, throughput=pl.col("throughput") * slow)


def ratio(above: Mean, below: Mean | None, confidence: float) -> Value:
    """The ratio whose logarithm is the mean `above`, less that of `below`, from other launches, if there is one."""
    if above is below:
        return 1.0, 1.0, 1.0
    terms = [above] if below is None else [above, below]
    log = above.value - (0.0 if below is None else below.value)
    low, high = bootstrap.student(log, [float(t.draws.var()) for t in terms], [t.n for t in terms], confidence)
    return math.exp(log), bootstrap.exp(low), bootstrap.exp(high)


def apart(one: Value, other: Value) -> bool:
    """Whether the intervals of two estimates of the same have nothing in common."""
    return one[2] < other[1] or other[2] < one[1]


def against_alone(
    results: Results, *, confidence: float = CONFIDENCE_ALONE, resamples: int = bootstrap.RESAMPLES, seed: int = 0
) -> pl.DataFrame:
    """Is the base case beside a launch what it is alone? A row per base case, batch and combination of the factors.

    `ratio`, `_low` and `_high`: seconds per sample of the companions with that batch, the mean over all launches that
    had one, over those of the base case's own launches; both sides' launches are resampled. 1 is what it should be.
    `n_beside` and `n_alone` are the launches of the two sides. Rows without launches of both are left out.
    """
    ok = results.trials.filter(status="ok")
    each = (pl.col("global_batch") // pl.col("workers")).alias("batch")
    beside = pl.concat(
        ok.select("trial_id", "base_case", *results.factors, batch, cost=cost).drop_nulls(["base_case", "cost"])
        for batch, cost in ((pl.col("global_batch").alias("batch"), COSTS["strong"]), (each, COSTS["weak"]))
    ).unique(["trial_id", "batch"], maintain_order=True)
    rows: list[dict[str, Any]] = []
    by = ["base_case", "batch", *results.factors]
    for with_it in beside.partition_by(by, maintain_order=True) if len(beside) else []:
        setting = with_it.row(0, named=True)
        same = [pl.col(name).eq_missing(setting[name]) for name in results.factors]
        alone = ok.filter(*same, strategy=setting["base_case"], workers=1, global_batch=setting["batch"])
        if not len(alone):
            continue
        costs = with_it["cost"], alone["train_seconds"] / alone["samples"]
        keys = f"{alone['point'][0]} beside", alone["point"][0]
        above, below = (
            bootstrap.resampled(cost.to_numpy()[:, None], resamples, seed, key)[0]
            for cost, key in zip(costs, keys, strict=True)
        )
        low, high = bootstrap.ratio_interval([above], [below], confidence)
        found = {"ratio": above.value / below.value, "ratio_low": low, "ratio_high": high}
        rows.append(
            {name: setting[name] for name in by}
            | {"n_beside": above.n, "n_alone": below.n}
            | {name: None if math.isnan(value) else value for name, value in found.items()}
        )
    trials = results.trials.schema
    schema: dict[str, Any] = {"base_case": pl.String, "batch": pl.Int64, **{n: trials[n] for n in results.factors}}
    schema |= {"n_beside": pl.Int64, "n_alone": pl.Int64}
    return pl.DataFrame(rows, schema=schema | dict.fromkeys(("ratio", "ratio_low", "ratio_high"), pl.Float64))


def unlike_alone(against: pl.DataFrame, base_case: str | None, batch: int, factors: dict[str, Any]) -> list[str]:
    """What to warn of in a row whose companion has this batch; `against` is that of `against_alone`."""
    wanted = {"base_case": base_case, "batch": batch, **factors}
    same = [pl.col(name).eq_missing(value) for name, value in wanted.items()]
    rows = against.filter(*same).drop_nulls("ratio_low").rows(named=True)
    return [
        f"the base case beside takes {told(row)} of its time alone, which is not 1"
        for row in rows
        if not row["ratio_low"] <= 1.0 <= row["ratio_high"]
    ]


def told(row: dict[str, Any]) -> str:
    """A ratio of `against_alone` in words."""
    low, high = row["ratio_low"], row["ratio_high"]
    ends = "?" if low is None else f"{low:.3f}, {high:.3f}" if high < 10 else f"{low:.3f}, > 10"
    return f"{row['ratio']:.3f} [{ends}]"


def mixed(pairs: Sequence[bool]) -> bool:
    """Whether some points of a curve have pairs and others none."""
    return any(pairs) and not all(pairs)
