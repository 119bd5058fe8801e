"""The parts of worker time per sample: compute, exposed communication, input."""

from __future__ import annotations

import polars as pl


def parts(estimates: pl.DataFrame) -> pl.DataFrame:
    """Microseconds of worker time per sample: columns named as PARTS, and `total`, `_low`, `_high`.

    The parts add up to the mean step of the slowest rank. Exposed communication is never below zero:
    where the compute-only step was not faster, all of the step but its input is compute.
    """
    scale = 1e6 * pl.col("workers") / pl.col("global_batch")
    exposed = pl.max_horizontal(pl.col("exposed_seconds"), 0.0) * scale
    known = pl.col("exposed_seconds").is_not_null()
    total = 1e6 * pl.col("workers") / pl.col("throughput")
    wait = pl.min_horizontal(pl.col("data_seconds") * scale, total)
    return estimates.with_columns(
        total=total,
        total_low=1e6 * pl.col("workers") / pl.col("throughput_high"),
        total_high=1e6 * pl.col("workers") / pl.col("throughput_low"),
    ).with_columns(
        pl.when(known).then(pl.max_horizontal(total - exposed - wait, 0.0)).otherwise(0.0).alias("compute"),
        pl.when(known).then(exposed).otherwise(0.0).alias("exposed communication"),
        wait.alias("input wait"),
        pl.when(known).then(0.0).otherwise(total - wait).alias("not broken down"),
    )
