"""Tables of the report: what is shown, how it sorts, and where the same rows lie as data.

A table of many rows shows the ones that matter and says how many are in the data alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from analysis.cells import Cell, Column, Table, number, text, three, whole
from analysis.figures.breakdown import PARTS
from analysis.load.results import Results, varied
from analysis.measures import caveats
from analysis.measures.breakdown import parts
from analysis.workloads.interface import unknown

MOST_ROWS = 200
WORST_RANKS = 12


def point_columns(factors: Iterable[str]) -> list[Column]:
    return [
        *(Column("scaling"), Column("strategy"), *(Column(name) for name in factors)),
        *(Column("N", True, "workers"), Column("batch", True, "samples per step over all workers")),
    ]


def point_cells(row: dict[str, Any], factors: Iterable[str]) -> list[Cell]:
    return [
        *(text(row["scaling"]), text(row["strategy"]), *(text(row[name]) for name in factors)),
        *(whole(row["workers"]), whole(row["global_batch"])),
    ]


def scaling(estimates: pl.DataFrame, results: Results) -> Table:
    """Throughput, speedup and efficiency of every point."""
    factors = varied(estimates, results.factors)
    noted, paired = any(estimates["warning"]), bool(estimates["efficiency_from"].eq("beside").any())
    apart = [
        Column("over the base case"),
        Column("efficiency, apart", True, "of separate launches, where it ran beside"),
    ]
    columns = [
        *point_columns(factors),
        Column("launches", True),
        Column("samples/s", True, "over the slowest rank's time"),
        Column("speedup", True, "over the base case"),
        Column("efficiency", True, "speedup / N"),
        *(apart if paired else []),
        Column("efficiency, self", True, "against the same strategy at one worker"),
        *([Column("note")] if noted else []),
    ]
    rows = []
    for row in estimates.iter_rows(named=True):
        is_base = row["strategy"] == row["base_case"] and row["workers"] == 1
        ratios = [
            number(*three(row, "speedup")),
            number(*three(row, "efficiency"), "%"),
            number(*three(row, "efficiency_self"), "%"),
        ]
        if is_base:
            ratios[0] = Cell("base case", 1.0)
        if paired:
            ratios[2:2] = [text(row["efficiency_from"]), number(*three(row, "efficiency_apart"), "%")]
        rows.append(
            [
                *point_cells(row, factors),
                whole(row["n_launches"]),
                number(*three(row, "throughput")),
                *ratios,
                *([text(row["warning"])] if noted else []),
            ]
        )
    return Table("scaling", "Throughput, speedup and efficiency, 95% intervals", columns, rows, "estimates")


def beside(against: pl.DataFrame, results: Results) -> Table:
    """The base case beside other launches over its own launches: it should be 1."""
    factors = varied(against, results.factors)
    columns = [Column("base case"), Column("batch", True), *(Column(name) for name in factors)]
    columns += [Column("launches beside", True), Column("launches alone", True)]
    columns += [Column("time beside / alone", True, "seconds per sample")]
    rows = [
        [
            *(text(row["base_case"]), whole(row["batch"]), *(text(row[name]) for name in factors)),
            *(whole(row["n_beside"]), whole(row["n_alone"]), number(*three(row, "ratio"))),
        ]
        for row in against.iter_rows(named=True)
    ]
    return Table(
        "beside", "The base case beside other launches, and alone, 99% intervals", columns, rows, "base-beside"
    )


def step_costs(estimates: pl.DataFrame, results: Results) -> Table:
    """Milliseconds per step and what surrounds the steps."""
    factors = varied(estimates, results.factors)
    names = {
        "step_p50": "median step",
        "step_p95": "p95",
        "step_p99": "p99",
        "compute_only_seconds": "compute only",
        "exposed_seconds": "exposed comm.",
        "data_seconds": "input wait",
        "straggler_seconds": "straggler",
    }
    columns = [*point_columns(factors), *(Column(f"{name}, ms", True) for name in names.values())]
    columns += [Column("start\u2011up, s", True), Column("first step, s", True), Column("test accuracy", True)]
    rows = []
    for row in estimates.iter_rows(named=True):
        rows.append(
            [
                *point_cells(row, factors),
                *(number(*three(row, name), "ms") for name in names),
                number(*three(row, "startup_seconds")),
                number(*three(row, "first_step_seconds")),
                number(*three(row, "test_accuracy"), "%"),
            ]
        )
    return Table("costs", "Costs per step and per launch, 95% intervals", columns, rows, "estimates")


def breakdown(estimates: pl.DataFrame, results: Results) -> Table:
    """Shares of the worker time, and the worker time per sample itself."""
    broken = parts(estimates)
    factors = varied(estimates, results.factors)
    used = [name for name, _, _ in PARTS if broken[name].sum() > 0]
    columns = [*point_columns(factors), Column("µs per sample", True, "of one worker's time")]
    columns += [Column(name, True) for name in used]
    rows = [
        [
            *point_cells(row, factors),
            number(row["total"], row["total_low"], row["total_high"]),
            *(number(row[name] / row["total"], unit="%") for name in used),
        ]
        for row in broken.iter_rows(named=True)
    ]
    return Table("breakdown", "Shares of the worker time", columns, rows, "breakdown")


def steps(distribution: pl.DataFrame, results: Results) -> Table:
    factors = varied(distribution, results.factors)
    shown = ("p5", "p50", "p95", "p99", "longest")
    columns = [*point_columns(factors), Column("steps", True)]
    columns += [Column(f"{name}, ms", True) for name in shown] + [Column("p99 / median", True, "of each launch's own")]
    rows = [
        [
            *point_cells(row, factors),
            whole(row["steps"]),
            *(number(row[name], unit="ms") for name in shown),
            Cell(f"{row['within_p99']:.2f}", row["within_p99"]),
        ]
        for row in distribution.iter_rows(named=True)
    ]
    return Table("steps", "Step times, the slowest rank of each step", columns, rows, "steps")


def worst_ranks(ranks: pl.DataFrame) -> Table:
    """The ranks furthest above the median rank of their launch."""
    several = ranks.filter(pl.len().over("trial_id") > 1)
    worst = several.filter(pl.col("relative") > 1).sort("relative", descending=True).head(WORST_RANKS)
    columns = [
        Column("launch"),
        Column("rank", True),
        Column("N", True, "workers"),
        Column("against median rank", True),
        Column("compute only, ms", True),
        Column("whole step, ms", True),
        Column("slowest in", True, "share of the measured steps"),
    ]
    rows = [
        [
            text(row["trial_id"]),
            whole(row["rank"]),
            whole(row["workers"]),
            Cell(f"{100 * (row['relative'] - 1):+.1f}%", row["relative"]),
            number(row["compute_only_seconds"], unit="ms"),
            number(row["step_seconds"], unit="ms"),
            number(row["slowest_share"], unit="%"),
        ]
        for row in worst.iter_rows(named=True)
    ]
    caption = f"The {len(rows)} ranks furthest above the median rank of their launch"
    return Table("ranks", caption, columns, rows, "ranks", len(several) - len(rows))


def launches(results: Results) -> Table:
    """Every launch in its order; of very many those that did not succeed and then the first."""
    trials = results.trials.sort("order", nulls_last=True)
    shown = trials
    if len(trials) > MOST_ROWS:
        first = trials.with_columns(wrong=pl.col("status") != "ok").sort("wrong", descending=True)
        shown = first.head(MOST_ROWS).sort("order", nulls_last=True)
    columns = [
        *(Column("order", True), Column("started, UTC"), Column("launch"), Column("status")),
        *(Column("samples/s", True), Column("start\u2011up, s", True), Column("steady"), Column("neighbours")),
    ]
    said = bool(unknown(results))
    columns += [Column("workload")] if said else []
    noted = any(map(caveats.of_launch, shown.iter_rows(named=True)))
    columns += [Column("note")] if noted else []
    rows = []
    for row in shown.iter_rows(named=True):
        noise = {True: "noisy", False: "quiet"}.get(row["noisy_neighbour"], "")
        started = "" if row["started"] is None else f"{row['started']:%Y-%m-%d %H:%M:%S}"
        steady = {True: "yes", False: f"no: {row['steady_note']}"}.get(row["steady"], row["steady_note"])
        rows.append(
            [
                *(whole(row["order"]), text(started), text(row["trial_id"]), text(row["status"])),
                *(number(row["throughput"]), number(row["startup_seconds"]), text(steady), text(noise)),
                *([text(row["workload"])] if said else []),
                *([text(caveats.of_launch(row))] if noted else []),
            ]
        )
    return Table("launches", "Launches in their order", columns, rows, "launches", len(trials) - len(shown))
