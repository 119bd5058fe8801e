"""Per-step and per-rank distributions: what the one number of a launch leaves out.

    steps = per_step(results)       one row per point and scaling mode: percentiles of the step time
    ranks = per_rank(results)       one row per launch and rank

A launch is read, summarized and forgotten before the next, so a thousand ranks need no more memory
than one launch of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.load import beside
from analysis.load.lines import read_steps
from analysis.load.results import Results
from analysis.load.steps import Steps, phases
from analysis.measures.efficiency import KEY, MODES, ORDER

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
STEP_COLUMNS = {
    "launches": pl.Int64,
    "steps": pl.Int64,
    **{f"p{p}": pl.Float64 for p in PERCENTILES},
    "longest": pl.Float64,
    # Over the median of the step's own launch: what differs between launches is no part of these.
    **{f"within_p{p}": pl.Float64 for p in PERCENTILES},
    "within_longest": pl.Float64,
}
RANK_COLUMNS = {
    "trial_id": pl.String,
    "rank": pl.Int64,
    "step_seconds": pl.Float64,  # mean over the measured steps, as this rank saw them
    "compute_only_seconds": pl.Float64,
    "data_seconds": pl.Float64,
    "slowest_share": pl.Float64,  # of the measured steps in which this rank was the slowest
    "relative": pl.Float64,  # compute-only time (whole step without one) over that of the median rank
}


@dataclass(frozen=True)
class Distributions:
    """`steps` has KEY, the factors and STEP_COLUMNS; `ranks` has RANK_COLUMNS and the launch's key."""

    steps: pl.DataFrame
    ranks: pl.DataFrame


def distributions(results: Results) -> Distributions:
    """Read every launch that is ok once more, for what `estimate` has no room for."""
    key = [name for name in KEY if name != "scaling"]
    ok = results.trials.filter(status="ok")
    slowest: dict[str, list[NDArray[np.float64]]] = {}
    rank_frames = []
    for trial_id, point, unused in ok.select("trial_id", "point", "rounds_unused").iter_rows():
        home = results.folder / "trials" / trial_id
        found = phases(read_steps(home), None)
        if unused:
            found = beside.used(home, found)
        if "train" not in found:
            continue  # calls and files have their own section
        slowest.setdefault(point, []).append(found["train"].seconds.max(axis=0))
        rank_frames.append(_ranks(trial_id, found))
    step_rows: list[dict[str, Any]] = []
    points = ok.unique("point", keep="first", maintain_order=True)
    for mode in MODES:
        for row in points.filter(pl.col(mode)).iter_rows(named=True):
            identity = {"scaling": mode, **{name: row[name] for name in (*key, *results.factors)}}
            step_rows.append(identity | _percentiles(slowest[row["point"]]))
    schema: dict[str, Any] = {"scaling": pl.String, **{name: ok.schema[name] for name in (*key, *results.factors)}}
    steps = pl.DataFrame(step_rows, schema={**schema, **STEP_COLUMNS}, orient="row")
    ranks = pl.concat(rank_frames) if rank_frames else pl.DataFrame(schema=RANK_COLUMNS)
    launches = ok.select("trial_id", "strong", "weak", *key, *results.factors)
    steps = steps.sort(*(pl.col(name) for name in results.factors), *ORDER, nulls_last=True)
    return Distributions(steps, ranks.join(launches, on="trial_id", how="left", maintain_order="left"))


def _percentiles(launches: list[NDArray[np.float64]]) -> dict[str, Any]:
    seconds = np.concatenate(launches)
    values = np.percentile(seconds, PERCENTILES).tolist()
    within = np.concatenate([launch / np.median(launch) for launch in launches])
    ratios = np.percentile(within, PERCENTILES).tolist()
    return {
        "launches": len(launches),
        "steps": len(seconds),
        **{f"p{p}": value for p, value in zip(PERCENTILES, values, strict=True)},
        "longest": float(seconds.max()),
        **{f"within_p{p}": value for p, value in zip(PERCENTILES, ratios, strict=True)},
        "within_longest": float(within.max()),
    }


def _ranks(trial_id: str, found: dict[str, Steps]) -> pl.DataFrame:
    train, alone = found["train"], found.get("compute_only")
    count = len(train.seconds)
    mean = train.seconds.mean(axis=1)
    compute = alone.seconds.mean(axis=1) if alone is not None and alone.seconds.size else None
    compared = mean if compute is None else compute
    slowest = np.bincount(train.seconds.argmax(axis=0), minlength=count) / train.seconds.shape[1]
    columns = {
        "trial_id": [trial_id] * count,
        "rank": range(count),
        "step_seconds": mean,
        "compute_only_seconds": [None] * count if compute is None else compute,
        "data_seconds": train.data_seconds.mean(axis=1),
        "slowest_share": slowest,
        "relative": compared / np.median(compared),
    }
    return pl.DataFrame(columns, schema=RANK_COLUMNS)


def order_residuals(results: Results) -> pl.DataFrame:
    """Launches of points with several, that know their order: `residual` = X / mean X of its point - 1.

    The mean over launches is the harmonic one, as in the estimates.
    """
    ok = results.trials.filter(pl.col("status") == "ok", pl.col("order").is_not_null())
    mean = 1.0 / (1.0 / pl.col("throughput")).mean().over("point")
    found = ok.with_columns(residual=pl.col("throughput") / mean - 1.0)
    return found.filter(pl.len().over("point") > 1).sort("order")
