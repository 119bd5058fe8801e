"""Launches of a point ─▶ what a worker's time per sample goes to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from analysis.stats import bootstrap

THRESHOLD = 0.05  # of the worker time
Values = dict[str, Any]  # per name a float (the mean over launches) or float64 [resamples]
Share = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """A part of the worker time as a share of it, with its interval (NaN without one)."""

    share: float
    low: float
    high: float

    @property
    def named(self) -> bool:
        return self.share >= THRESHOLD and self.low > 0.0


@dataclass(frozen=True)
class Costs:
    """Worker seconds per sample of the launches of a point: w whole, e exposed, d input wait, s straggler
    (slowest - median), v compute, r the slow rank's excess; b those of the base case beside with a worker's batch,
    NaN without one. In pairs, all of a launch are over what the base case took that its point is held against."""

    n: int
    values: Values
    draws: Values
    seen: dict[str, Part]
    slow_rank: int | None


Points = dict[tuple[Any, ...], Costs]  # by strategy, workers, global batch and the factors


def costs_by_rank(ranks: pl.DataFrame) -> dict[str, pl.DataFrame]:
    several = ranks.filter(pl.len().over("trial_id") > 1).drop_nulls("compute_only_seconds")
    return {str(key[0]): rows.sort("rank") for key, rows in several.partition_by("trial_id", as_dict=True).items()}


# What the base case beside took, where no launch of its own tells how long it waited for input: all of it is computing.
BESIDE = Costs(2, {"w": 1.0, "d": 0.0}, {"w": 1.0, "d": 0.0}, {}, None)


def pairs_of(rows: pl.DataFrame, cost: str) -> pl.DataFrame:
    """The launches with a column `unit`: the base case's seconds per sample in each, beside it or, of a plain process,
    its own. Without those that have none."""
    plain, own = pl.col("communication").eq_missing("none"), pl.col("train_seconds") / pl.col("samples")
    return rows.with_columns(unit=pl.when(plain).then(own).otherwise(cost)).drop_nulls("unit")


def costs_of(rows: pl.DataFrame, by_rank: dict[str, pl.DataFrame], confidence: float, resamples: int) -> Costs:
    """Of launches of one point; in pairs if they have a column `unit`."""
    paired = "unit" in rows.columns
    per_sample = pl.col("workers") / pl.col("global_batch")
    table = rows.select(
        w=pl.col("workers") * pl.col("train_seconds") / pl.col("samples"),
        e=pl.col("exposed_seconds") * per_sample,
        d=pl.col("data_seconds") * per_sample,
        s=pl.col("straggler_seconds") * per_sample,
        b="base_each_cost" if paired else pl.lit(None, dtype=pl.Float64),
    ).with_columns(v=pl.col("w") - pl.col("e") - pl.col("d"))
    values = table.cast(pl.Float64).to_numpy()
    rank, excess = _slow_rank(rows["trial_id"].to_list(), by_rank, confidence)
    scale = rows["workers"][0] / rows["global_batch"][0]
    if paired:
        unit = rows["unit"].to_numpy()
        values, excess = values / unit[:, None], excess / unit
    # Not known in one launch is not known of the point: its columns are to share their resamples.
    known = {name for name in table.columns if table[name].null_count() == 0}
    columns = np.column_stack([np.nan_to_num(values), excess * scale])
    means = dict(zip((*table.columns, "r"), bootstrap.resampled(columns, resamples, 0, rows["point"][0]), strict=True))
    return Costs(
        len(rows),
        {name: mean.value if name == "r" or name in known else math.nan for name, mean in means.items()},
        {name: mean.draws for name, mean in means.items()},
        _seen(rows, confidence, resamples),
        rank,
    )


def _seen(rows: pl.DataFrame, confidence: float, resamples: int) -> dict[str, Part]:
    """What telemetry tells beside the steps, over the launches that have it."""
    table = rows.select(
        neighbour=pl.col("others_cores").fill_null(0.0) + pl.col("stolen_cores").fill_null(0.0),
        throttled="throttled_share",
        idle=1.0 - pl.col("gpu_sm_percent") / 100.0,
    ).with_columns(
        pl.when(rows["noisy_neighbour"].is_null()).then(None).otherwise(pl.col("neighbour")).alias("neighbour")
    )
    found = {}
    for name in table.columns:
        if len(values := table[name].drop_nulls()):
            (mean,) = bootstrap.resampled(values.to_numpy()[:, None], resamples, 0, rows["point"][0])
            found[name] = Part(mean.value, *mean.interval(confidence))
    return found


def _slow_rank(trials: Sequence[str], by_rank: dict[str, pl.DataFrame], confidence: float) -> tuple[int | None, Any]:
    """The rank that computes slowest over all launches, and by launch how many seconds per step it computes
    longer than the mean rank: [launches]. None and zeros if no rank does so beyond chance.

    It is the largest of as many as there are ranks, so its interval is at Bonferroni's level.
    """
    nobody = None, np.zeros(len(trials))
    frames = [by_rank[trial]["compute_only_seconds"].to_numpy() for trial in trials if trial in by_rank]
    if len(frames) != len(trials) or len(trials) < 2 or len({len(frame) for frame in frames}) != 1:
        return nobody
    seconds = np.stack(frames)  # [launches, ranks]
    excess = seconds - seconds.mean(axis=1, keepdims=True)
    slowest = int(excess.mean(axis=0).argmax())
    mine = excess[:, slowest]
    level = 1.0 - (1.0 - confidence) / seconds.shape[1]
    low, _ = bootstrap.student(mine.mean(), [mine.var(ddof=1) / len(mine)], [len(mine)], level)
    return (slowest, mine) if low > 0 else nobody
