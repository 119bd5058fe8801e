"""How busy the machine was over a trial: lines over time, and the launch that stands for its point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from analysis.load.results import Results
from analysis.load.samples import samples
from analysis.measures.efficiency import some


@dataclass(frozen=True)
class Series:
    """What is drawn: `points` are the trials with `mode`, `lines` trial_id, line, seconds, value, phase."""

    mode: str
    points: pl.DataFrame
    lines: pl.DataFrame
    has_power: bool


def series(results: Results) -> Series | None:
    """The telemetry of training trials in the strong mode, or the weak one if there is no other; None if
    there is none."""
    trials = results.trials.filter(pl.col("status") == "ok", pl.col("telemetry_samples").is_not_null())
    mode = next((mode for mode in ("strong", "weak") if trials[mode].any()), None)
    if mode is None:
        return None
    points = trials.filter(pl.col(mode))
    points = points.filter(pl.col("workers").is_in(some(sorted(points["workers"].unique().to_list()))))
    points = _first_setting(points, results.factors)
    lines = _lines(samples(results, points["trial_id"]).drop_nulls("seconds"), points)
    return Series(mode, points, lines, bool((lines["line"] == "watts").any())) if len(lines) else None


def _first_setting(points: pl.DataFrame, factors: Sequence[str]) -> pl.DataFrame:
    """The trials with the first value of each factor that varies: a figure of all would be of no use."""
    setting = points.row(0, named=True)
    return points.filter(*(pl.col(name).eq_missing(setting[name]) for name in factors))


def _lines(samples: pl.DataFrame, points: pl.DataFrame) -> pl.DataFrame:
    """Per trial, moment and line one value: means over ranks and GPUs in percent, sums in watts."""
    cores = pl.col("threads_per_worker").cast(pl.Float64) * pl.col("workers")
    threads = points.select("trial_id", cores.alias("cores"))
    ranks = samples.filter(pl.col("of") == "rank").group_by("trial_id").agg(pl.col("subject").n_unique().alias("ranks"))
    by = ["trial_id", "host", "seconds", "phase"]
    found = []
    wanted = samples.filter(pl.col("quantity").is_in(["cpu_percent", "sm_percent"]), pl.col("of") != "node")
    busy = (
        wanted.join(threads, on="trial_id")
        .join(ranks, on="trial_id", how="left")
        .with_columns(
            pl.when(pl.col("of") == "rank")
            .then(pl.col("value") * pl.col("ranks") / pl.col("cores"))
            .otherwise("value")
            .alias("value"),
            pl.col("quantity").alias("line"),
        )
    )
    found.append(busy.group_by(*by, "line", maintain_order=True).agg(pl.col("value").mean()))
    others = samples.filter(pl.col("quantity").is_in(["others_cores", "stolen_cores"])).join(threads, on="trial_id")
    taken = others.group_by(*by, "cores", maintain_order=True).agg(pl.col("value").sum())
    share = 100.0 * pl.col("value") / pl.col("cores")
    found.append(taken.select(*by, pl.lit("taken_percent").alias("line"), share.alias("value")))
    watts = samples.filter(pl.col("quantity") == "power_watts")
    found.append(watts.group_by(*by, maintain_order=True).agg(pl.col("value").sum()).with_columns(line=pl.lit("watts")))
    joules = samples.filter(pl.col("quantity") == "cpu_energy_joules").sort("trial_id", "host", "seconds")
    slope = pl.col("value").diff().over("trial_id", "host") / pl.col("seconds").diff().over("trial_id", "host")
    if watts.is_empty():
        found.append(joules.select(*by, pl.lit("watts").alias("line"), slope.alias("value")).drop_nulls("value"))
    return pl.concat(frame.select(*by, "line", "value") for frame in found)


def representative(launches: pl.DataFrame) -> str:
    """The launch with the median throughput, the slower of two in the middle."""
    return str(launches.sort("throughput", "trial_id")["trial_id"][(len(launches) - 1) // 2])


def power_name(points: pl.DataFrame) -> str:
    """Whose power it is."""
    sources = points["energy_source"].drop_nulls().unique().sort().to_list()
    return f"power ({', '.join(s.split(' ')[0] for s in sources)})" if sources else "power"
