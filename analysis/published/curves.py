"""Published scaling numbers: the two tables, their sources, and efficiency curves to lay beside one's own.

    curves(["pytorch_ddp_readme:resnet50", "mlperf_v1.0"])

README.md here has every column, source and warning. Published and measured numbers are never pooled.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import polars as pl

from analysis.published.runs import olympic_mean, with_work
from analysis.published.sources import SOURCES, Source

__all__ = ["Source", "curves", "mlperf_runs", "scaling_table", "sources"]

_HERE = Path(__file__).parent
_SERIES = ["source_id", "system", "framework", "communication", "model", "accelerator", "data"]
_PLAIN = "none (no DDP wrapper)"
# The plain one-GPU run belongs to this table of that page; the other table has no plain run of its own.
_HAS_PLAIN_BASE = ("pytorch_ddp_readme", "DDP NCCL, bucket_cap_mb=25")
_CO_LOCATED = ", cross_replica_sync=True, parameter servers co-located on worker instances"
CURVES = {
    "source_id": pl.String,
    "system": pl.String,
    "framework": pl.String,
    "communication": pl.String,
    "model": pl.String,
    "accelerator": pl.String,
    "data": pl.String,
    "per_worker_batch": pl.Float64,
    "workers": pl.Int64,
    "rate": pl.Float64,
    "unit": pl.String,
    "efficiency": pl.Float64,
    "base_workers": pl.Int64,
    "base": pl.String,
    "label": pl.String,
}


def sources() -> list[Source]:
    """All sources with title, citation, licence and warnings."""
    return list(SOURCES.values())


@cache
def scaling_table() -> pl.DataFrame:
    """One row per published number; the columns are in README.md."""
    return pl.read_csv(_HERE / "published_scaling.csv", infer_schema_length=None)


@cache
def mlperf_runs() -> pl.DataFrame:
    """One row per MLPerf run; the columns are in README.md, plus those that `with_work` adds."""
    return with_work(pl.read_csv(_HERE / "mlperf_runs.csv", infer_schema_length=None))


def curves(wanted: Sequence[str] | None = None) -> pl.DataFrame:
    """Efficiency of the published scale-out series, one row per series and worker count.

    `wanted` names sources, each with an optional model after a colon ("tf_benchmarks_2017:resnet50");
    None is all of them. `rate` is in `unit` over all workers. `efficiency` is per worker against the
    series' base: the plain run where the source has one, else the smallest published worker count.
    `base` says which in words and `label` repeats it where it is not one worker. Within an MLPerf
    series the global batch grows; its `per_worker_batch` is therefore that of each row.
    Raises ValueError for an unknown source or model, naming the nearest, and for one without curves.
    """
    table = pl.concat([_table_curves(), _mlperf_curves()])
    if wanted is None:
        return table
    return pl.concat([_pick(table, name) for name in wanted]).unique(maintain_order=True)


def _pick(table: pl.DataFrame, name: str) -> pl.DataFrame:
    source, _, model = name.partition(":")
    if source not in SOURCES:
        raise ValueError(f"no published source {source!r}{_nearest(source, SOURCES)}")
    if not SOURCES[source].has_curves:
        raise ValueError(f"{source} has no scaling curve: {SOURCES[source].why_no_curves}")
    chosen = table.filter(pl.col("source_id") == source)
    models = chosen["model"].unique().sort().to_list()
    if model and model not in models:
        raise ValueError(f"{source} has no model {model!r}{_nearest(model, models)}")
    return chosen.filter(pl.col("model") == model) if model else chosen


def _nearest(name: str, known: Sequence[str] | dict[str, Source]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def _table_curves() -> pl.DataFrame:
    """The series of published_scaling.csv that have at least two worker counts."""
    step_time = pl.col("metric").str.starts_with("step_time_s")
    rows = scaling_table().filter(step_time | (pl.col("metric") == "throughput_samples_per_s"))
    # The median where it is published, else the 75th percentile; "p50" sorts before "p75".
    rows = rows.filter(pl.col("metric") != "step_time_s_p95").with_columns(
        pl.col("metric").min().over([*_SERIES, "per_worker_batch"]).alias("best_metric")
    )
    rows = rows.filter(pl.col("metric") == pl.col("best_metric")).with_columns(
        pl.when(step_time).then(pl.col("global_batch") / pl.col("value")).otherwise("value").alias("rate"),
        pl.lit("samples/s").alias("unit"),
        pl.col("per_worker_batch").cast(pl.Float64),
    )
    series = rows.filter(pl.col("communication") != _PLAIN)
    plain = rows.filter(pl.col("communication") == _PLAIN).select(
        "source_id", "system", "framework", "model", "data", "per_worker_batch",
        pl.lit(_HAS_PLAIN_BASE[1]).alias("communication"),
        pl.col("rate").alias("plain_rate"),
    )  # fmt: skip
    keys = ["source_id", "system", "framework", "model", "data", "per_worker_batch", "communication"]
    return _against_base(series.join(plain, on=keys, how="left"), [*_SERIES, "per_worker_batch"])


def _mlperf_curves() -> pl.DataFrame:
    """The MLPerf series of TensorFlow and PyTorch: work per minute by the olympic mean over runs."""
    runs = mlperf_runs().filter(pl.col("framework_name").is_in(["TensorFlow", "PyTorch"]), pl.col("work").is_not_null())
    points = runs.group_by(
        "round", "submitter", "system", "framework", "framework_name", "benchmark", "accelerator",
        "accelerators", "global_batch", "work_unit", maintain_order=True,
    ).agg(pl.col("minutes_per_work"))  # fmt: skip
    # A series is one submitter's one version of one framework, so that code does not change along it.
    names_several = pl.col("framework").str.contains("[,/]")
    code = pl.when(names_several).then("framework_name").otherwise("framework")
    rows = points.select(
        ("mlperf_" + pl.col("round")).alias("source_id"),
        pl.format("{}, {}", "submitter", code).alias("system"),
        pl.col("system").str.len_chars().alias("name_length"),
        pl.col("framework_name").alias("framework"),
        pl.lit("not stated").alias("communication"),
        pl.col("benchmark").alias("model"),
        "accelerator",
        pl.lit("real").alias("data"),
        (pl.col("global_batch") / pl.col("accelerators")).alias("per_worker_batch"),
        pl.col("accelerators").alias("workers"),
        pl.col("minutes_per_work")
        .map_elements(lambda minutes: 1.0 / olympic_mean(minutes.to_numpy()), return_dtype=pl.Float64)
        .alias("rate"),
        (pl.col("work_unit") + "/min").alias("unit"),
        pl.lit(None, dtype=pl.Float64).alias("plain_rate"),
    )
    # Of two systems of one size, the longer name carries a suffix for extra hardware; take the plain one.
    plain = rows.sort("name_length").unique([*_SERIES, "workers"], keep="first", maintain_order=True)
    return _against_base(plain, _SERIES)


def _against_base(rows: pl.DataFrame, series: list[str]) -> pl.DataFrame:
    """Add efficiency, its base and a label; drop series with a single worker count."""
    smallest = pl.col("workers").min().over(series)
    first_rate = pl.col("rate").sort_by("workers").first().over(series)
    has_plain = pl.col("plain_rate").is_not_null()
    plural = pl.when(smallest > 1).then(pl.lit("s")).otherwise(pl.lit(""))
    rows = rows.filter(pl.col("workers").n_unique().over(series) > 1).with_columns(
        pl.when(has_plain).then(1).otherwise(smallest).cast(pl.Int64).alias("base_workers"),
        pl.when(has_plain).then("plain_rate").otherwise(first_rate).alias("base_rate"),
        pl.when(has_plain)
        .then(pl.lit("plain run on 1 worker"))
        .otherwise(pl.format("same series at {} worker{}", smallest, plural))
        .alias("base"),
    )
    growing = pl.col("per_worker_batch").n_unique().over(series) > 1
    batch = pl.when(growing).then(pl.lit("batch grows")).otherwise(
        pl.format("batch {} each", pl.col("per_worker_batch").cast(pl.Int64))
    )  # fmt: skip
    per_worker = pl.col("rate") / pl.col("workers")
    exchange = pl.col("communication").str.replace(_CO_LOCATED, " with parameter servers", literal=True)
    machine = pl.col("system").str.replace(r"( \(|, ).*", "")
    how = pl.when(pl.col("source_id").str.starts_with("mlperf")).then("system").otherwise(
        pl.format("{} {}, {}", "framework", exchange, machine)
    )  # fmt: skip
    return (
        rows.with_columns(
            (per_worker / (pl.col("base_rate") / pl.col("base_workers"))).alias("efficiency"),
            pl.format(
                "{}, {}, {}, {}, {} input{}", "model", how, "accelerator", batch, "data",
                pl.when(pl.col("base_workers") > 1)
                .then(pl.format(", against {} workers", "base_workers"))
                .otherwise(pl.lit("")),
            ).alias("label"),
        )
        .select([pl.col(name).cast(kind) for name, kind in CURVES.items()])
        .sort("source_id", "model", "system", "communication", "data", "label", "workers")
    )  # fmt: skip
