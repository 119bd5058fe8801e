"""Tables of the report: what is shown, how it sorts, and where the same rows lie as data.

A table of many rows shows the ones that matter and says how many are in the data alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from analysis.figures.breakdown import PARTS
from analysis.laws.law import LawFit, Parameter
from analysis.load.results import Results, varied
from analysis.measures.breakdown import parts
from analysis.report_cells import Cell, Column, Table, number, text, whole
from analysis.verdicts.claims import Verdict
from analysis.workloads.ingest import SOURCES

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
    noted = any(estimates["warning"])
    columns = [
        *point_columns(factors),
        Column("launches", True),
        Column("samples/s", True, "over the slowest rank's time"),
        Column("speedup", True, "over the base case"),
        Column("efficiency", True, "speedup / N"),
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
    rows = []
    for row in shown.iter_rows(named=True):
        noise = {True: "noisy", False: "quiet"}.get(row["noisy_neighbour"], "")
        started = "" if row["started"] is None else f"{row['started']:%Y-%m-%d %H:%M:%S}"
        steady = {True: "yes", False: f"no: {row['steady_note']}"}.get(row["steady"], row["steady_note"])
        rows.append(
            [
                *(whole(row["order"]), text(started), text(row["trial_id"]), text(row["status"])),
                *(number(row["throughput"]), number(row["startup_seconds"]), text(steady), text(noise)),
            ]
        )
    return Table("launches", "Launches in their order", columns, rows, "launches", len(trials) - len(shown))


def three(row: dict[str, Any], name: str) -> tuple[Any, Any, Any]:
    return row[name], row[name + "_low"], row[name + "_high"]


def laws(fits: Sequence[LawFit], estimates: pl.DataFrame, results: Results) -> Table:
    """Each parameter of each law that was fitted; why a law was not fitted is said beside the table."""
    order = estimates["strategy"].unique(maintain_order=True).to_list()
    factors = [name for name in results.factors if len({f.factors[name] for f in fits}) > 1]
    columns = [Column("scaling"), Column("strategy"), *(Column(name) for name in factors), Column("law")]
    columns += [Column("parameter"), Column("value", True), Column("ΔAICc", True, "0 is the better law")]
    columns += [Column("what it says")]
    rows = [
        [
            *(text(f.scaling), text(f.strategy), *(text(f.factors[name]) for name in factors)),
            *(text(f.law), text(p.name), _parameter(p)),
            Cell("–") if math.isnan(f.delta_aicc) else Cell(f"{f.delta_aicc:.1f}", f.delta_aicc),
            text(p.words),
        ]
        for f in sorted(fits, key=lambda f: (f.scaling, order.index(f.strategy)))
        for p in f.parameters
    ]
    return Table("laws", "Parameters of the fitted laws, 95% intervals", columns, rows, "laws")


def comparisons(verdict: Verdict) -> Table:
    """Every comparison behind a verdict; those that decide it are marked."""
    columns = [
        Column("comparison"),
        Column("decides"),
        Column("scaling"),
        Column("N", True, "workers"),
        Column("factors"),
    ]
    columns += [Column("of"), Column("over"), Column("ratio", True), Column("p", True, "two-sided, after Holm")]
    columns += [Column("launches", True, "the fewest on either side"), Column("verdict")]
    rows = []
    for row in (comparison.row() for comparison in verdict.comparisons):
        launches = min(row["launches_above"], row["launches_below"])
        rows.append(
            [
                *(text(row["comparison"]), text("yes" if row["primary"] else ""), text(row["scaling"])),
                *(whole(row["workers"]), text(row["factors"]), text(row["above"]), text(row["below"])),
                number(row["ratio"], row["low"], row["high"]),
                Cell("< 0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.2g}", row["p_holm"]),
                *(whole(launches), text(row["verdict"])),
            ]
        )
    empty = [i for i, column in enumerate(columns) if column.name == "factors" and all(not r[i].sort for r in rows)]
    columns = [column for i, column in enumerate(columns) if i not in empty]
    shown = [[cell for i, cell in enumerate(row) if i not in empty] for row in rows]
    return Table(f"of-{verdict.claim.id}", "Comparisons", columns, shown, "claims")


def _parameter(parameter: Parameter) -> Cell:
    if not math.isfinite(parameter.value):
        return Cell("none")
    low, high = parameter.low, parameter.high
    if parameter.name == "peak":
        return Cell(f"N = {parameter.value:.0f}", parameter.value)
    interval = "" if math.isnan(low) or math.isnan(high) else f"{100 * low:.2g} – {100 * high:.2g}"
    return Cell(f"{100 * parameter.value:.3g}%", parameter.value, interval)


def calls(frame: pl.DataFrame) -> Table:
    """Inference: each way to call the model."""
    apart = bool((frame["factors"] != "").any())
    columns = [
        *(Column("strategy"), *([Column("factors")] if apart else []), Column("execution")),
        *(Column("batch", True, "images per call"), Column("launches", True)),
        Column("images/s", True),
        *(Column(f"{name}, ms", True, "of one call") for name in ("p50", "p95", "p99")),
        Column("over eager", True, "throughput over eager execution's"),
        Column("ready, s", True, "making the callable, and its first call"),
        Column("pays after", True, "calls until that is earned back from eager execution, where any saving is shown"),
        Column("difference", True, "largest, of the logits from eager execution's"),
    ]
    rows = []
    for row in frame.iter_rows(named=True):
        pays = row["break_even_calls"]
        unshown = Cell("not shown" if row["over_eager"] is not None else "–")
        rows.append([
            *(text(row["strategy"]), *([text(row["factors"])] if apart else []), text(row["execution"])),
            *(whole(row["batch"]), whole(row["n_launches"])),
            number(*three(row, "throughput")),
            *(number(row[name], unit="ms") for name in ("p50", "p95", "p99")),
            number(*three(row, "over_eager")),
            number(row["ready_seconds"]),
            Cell("never", sys.float_info.max) if pays == math.inf else number(pays) if pays is not None else unshown,
            Cell("–") if row["max_difference"] is None else Cell(f"{row['max_difference']:.0e}", row["max_difference"]),
        ])  # fmt: skip
    return Table("calls", "Inference: calls of the model", columns, rows, "inference")


def files(frame: pl.DataFrame) -> Table:
    """Ingest: each pipeline at each number of readers."""
    columns = [
        *(Column("framework"), Column("source", hint="where the samples come from"), Column("batch", True)),
        *(Column("readers", True), Column("launches", True)),
        *(Column("samples/s", True), Column("over one reader", True)),
        Column("CPU ms/sample", True, "of all readers together"),
        Column("memory, MB", True, "of all processes; what they share counts once"),
    ]
    rows = [
        [
            *(text(row["framework"]), text(SOURCES[row["source"]]), whole(row["batch"])),
            *(whole(row["readers"]), whole(row["n_launches"])),
            *(number(*three(row, "throughput")), number(*three(row, "over_one"))),
            number(row["cpu_seconds"], unit="ms"),
            number(None if row["memory_bytes"] is None else row["memory_bytes"] / 1e6),
        ]
        for row in frame.iter_rows(named=True)
    ]
    return Table("files", "Ingest: files to batches", columns, rows, "ingest")
