"""Tables of the report on why a curve bends and what it costs: limits, energy, roofline, time to accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from analysis.limits.costs import THRESHOLD
from analysis.limits.limit import Limit
from analysis.limits.words import says, varied_settings
from analysis.load.results import Results, varied
from analysis.measures.roofline import Roofline
from analysis.report_cells import Cell, Column, Table, number, text, whole
from analysis.report_tables import point_cells, point_columns, three
from analysis.workloads.accuracy import RULE


def limits(found: Sequence[Limit]) -> Table:
    """What limits each curve at its largest worker count, and where the answer changes on the way there."""
    shown = [limit for limit in found if limit.shown]
    factors = varied_settings(shown)
    columns = [*point_columns(factors), Column("lost", True, "1 − efficiency"), Column("what limits it")]
    rows = [
        [
            *point_cells(limit.point, factors),
            Cell("–") if limit.loss is None else number(limit.loss.share, limit.loss.low, limit.loss.high, "%"),
            text(says(limit)),
        ]
        for limit in shown
    ]
    caption = f"What limits each curve: what takes at least {THRESHOLD:.0%} of the worker time, its interval above zero"
    return Table("limits", caption, columns, rows, "limits", len(found) - len(shown))


def energy(frame: pl.DataFrame, results: Results) -> Table:
    """Energy per sample of every point that was counted."""
    factors = varied(frame, results.factors)
    columns = [
        *point_columns(factors),
        Column("launches", True, "with energy, of those that succeeded"),
        Column("counted"),
        Column("mJ per sample", True, "of the measured steps"),
        Column("over base case", True, "energy per sample over the base case's"),
        Column("W", True, "of all that is counted"),
    ]
    millijoules = frame.with_columns(pl.col("^joules_per_sample.*$") * 1e3)
    rows = [
        [
            *point_cells(row, factors),
            Cell(f"{row['n_launches']} of {row['n_ok']}", row["n_launches"]),
            text(row["source"]),
            number(*three(row, "joules_per_sample")),
            Cell("base case", 1.0) if row["strategy"] == row["base_case"] else number(*three(row, "over_base")),
            number(row["watts"]),
        ]
        for row in millijoules.iter_rows(named=True)
    ]
    return Table("energy", "Energy per sample, 95% intervals", columns, rows, "energy")


def roofline(found: Roofline) -> Table:
    """Where each base case stands under the roof."""
    columns = [
        *(Column("strategy"), Column("batch", True, "samples per step"), Column("setting"), Column("launches", True)),
        Column("FLOP/byte", True, "operations per byte of counted memory traffic"),
        Column("GFLOP/s", True, "achieved"),
        Column("roof, GFLOP/s", True, "attainable at that intensity"),
        *(Column("of the roof", True), Column("of peak", True), Column("roof set by")),
    ]
    points = found.points.with_columns(pl.col("^flop_per_second.*$") / 1e9)
    rows = [
        [
            *(text(row["strategy"]), whole(row["global_batch"]), text(row["setting"]), whole(row["n_launches"])),
            number(row["intensity"]),
            number(*three(row, "flop_per_second")),
            number(row["roof"] / 1e9),
            *(number(row["of_roof"], unit="%"), number(row["of_peak"], unit="%"), text(row["bound"])),
        ]
        for row in points.iter_rows(named=True)
    ]
    return Table("roofline", "The base cases under the roof", columns, rows, "roofline")


def times(frame: pl.DataFrame, results: Results) -> Table:
    """Time to accuracy; the goal and the learning rate's rule are shown even where they do not vary."""
    factors = list(
        dict.fromkeys([*(n for n in ("until_accuracy", *RULE[:1]) if n in frame), *varied(frame, results.factors)])
    )
    columns = [
        *point_columns(factors),
        Column("reached", True, "launches that came to the accuracy, of all"),
        Column("seconds", True, "of training until then; launches that gave up count"),
        Column("speedup in time", True, "seconds of the base case over these"),
        *(Column("steps", True), Column("samples", True)),
        Column("J", True, "energy per sample times the samples"),
        Column("best accuracy", True, "of any launch"),
        Column("samples/s", True, "throughput of the measured steps"),
    ]
    rows = [
        [
            *point_cells(row, factors),
            Cell(f"{row['n_reached']} of {row['n_launches']}", row["n_reached"] / row["n_launches"]),
            number(*three(row, "seconds")) if row["n_reached"] else Cell("not reached"),
            Cell("base case", 1.0) if row["strategy"] == row["base_case"] else number(*three(row, "speedup")),
            *(number(*three(row, "steps")), number(row["samples"])),
            number(*three(row, "joules")),
            *(number(row["best"], unit="%"), number(row["throughput"])),
        ]
        for row in frame.iter_rows(named=True)
    ]
    return Table("accuracy", "Time to accuracy, 95% intervals", columns, rows, "accuracy")
