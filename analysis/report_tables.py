"""Tables of the report: what is shown, how it sorts, and where the same rows lie as data.

A cell keeps the number it sorts by beside the text that is read, so "70% [68, 73]" sorts as 0.7. A
table of many rows shows the ones that matter and says how many are in the data alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.laws import LawFit, Parameter
from analysis.load import Results
from analysis.plot_breakdown import PARTS, parts

MOST_ROWS = 200
WORST_RANKS = 12


@dataclass(frozen=True)
class Cell:
    """`sort` is what the column sorts by, None to sort last; `interval` is shown smaller."""

    text: str
    sort: float | str | None = None
    interval: str = ""


@dataclass(frozen=True)
class Column:
    name: str
    numeric: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """`data` is the name of the CSV beside the report; `left_out` counts rows that are only there."""

    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    data: str = ""
    left_out: int = 0


def text(value: Any) -> Cell:
    return Cell("–") if value is None or value == "" else Cell(str(value), str(value))


def whole(value: int | None) -> Cell:
    return Cell("–") if value is None else Cell(f"{value:,}", value)


def number(value: float | None, low: float | None = None, high: float | None = None, unit: str = "") -> Cell:
    """Three digits that carry meaning, and the interval in the same unit; `unit` may be % or ms."""
    if value is None or not math.isfinite(value):
        return Cell("–")
    scale = {"%": 100.0, "ms": 1e3}.get(unit, 1.0)

    def write(v: float) -> str:
        return percent(v) if unit == "%" else digits(v * scale)

    sign = "%" if unit == "%" else ""
    # What is compared with itself has no interval to show.
    interval = f"{write(low)} – {write(high)}" if low is not None and high is not None and low < high else ""
    return Cell(write(value) + sign, value, interval)


def percent(share: float) -> str:
    return (f"{100 * share:.1f}" if abs(share) < 0.0995 else f"{100 * share:.0f}").replace("-", "−")


def digits(value: float) -> str:
    """Three significant digits without an exponent: 1,234 · 56.7 · 0.891."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "∞"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(places, 6)}f}".replace("-", "−")


def varied(frame: pl.DataFrame, results: Results) -> list[str]:
    """The factors that take several values."""
    return [name for name in results.factors if frame[name].n_unique() > 1]


def _point_columns(factors: Iterable[str]) -> list[Column]:
    return [
        *(Column("scaling"), Column("strategy"), *(Column(name) for name in factors)),
        *(Column("N", True, "workers"), Column("batch", True, "samples per step over all workers")),
    ]


def _point_cells(row: dict[str, Any], factors: Iterable[str]) -> list[Cell]:
    return [
        *(text(row["scaling"]), text(row["strategy"]), *(text(row[name]) for name in factors)),
        *(whole(row["workers"]), whole(row["global_batch"])),
    ]


def scaling(estimates: pl.DataFrame, results: Results) -> Table:
    """Throughput, speedup and efficiency of every point."""
    factors = varied(estimates, results)
    noted = any(estimates["warning"])
    columns = [
        *_point_columns(factors),
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
            number(*_three(row, "speedup")),
            number(*_three(row, "efficiency"), "%"),
            number(*_three(row, "efficiency_self"), "%"),
        ]
        if is_base:
            ratios[0] = Cell("base case", 1.0)
        rows.append(
            [
                *_point_cells(row, factors),
                whole(row["n_launches"]),
                number(*_three(row, "throughput")),
                *ratios,
                *([text(row["warning"])] if noted else []),
            ]
        )
    return Table("scaling", "Throughput, speedup and efficiency, 95% intervals", columns, rows, "estimates")


def step_costs(estimates: pl.DataFrame, results: Results) -> Table:
    """Milliseconds per step and what surrounds the steps."""
    factors = varied(estimates, results)
    names = {
        "step_p50": "median step",
        "step_p95": "p95",
        "step_p99": "p99",
        "compute_only_seconds": "compute only",
        "exposed_seconds": "exposed comm.",
        "data_seconds": "input wait",
        "straggler_seconds": "straggler",
    }
    columns = [*_point_columns(factors), *(Column(f"{name}, ms", True) for name in names.values())]
    columns += [Column("start-up, s", True), Column("first step, s", True), Column("test accuracy", True)]
    rows = []
    for row in estimates.iter_rows(named=True):
        rows.append(
            [
                *_point_cells(row, factors),
                *(number(*_three(row, name), "ms") for name in names),
                number(*_three(row, "startup_seconds")),
                number(*_three(row, "first_step_seconds")),
                number(*_three(row, "test_accuracy"), "%"),
            ]
        )
    return Table("costs", "Costs per step and per launch, 95% intervals", columns, rows, "estimates")


def breakdown(estimates: pl.DataFrame, results: Results) -> Table:
    """Shares of the worker time, and the worker time per sample itself."""
    broken = parts(estimates)
    factors = varied(estimates, results)
    used = [name for name, _, _ in PARTS if broken[name].sum() > 0]
    columns = [*_point_columns(factors), Column("µs per sample", True, "of one worker's time")]
    columns += [Column(name, True) for name in used]
    rows = [
        [
            *_point_cells(row, factors),
            number(row["total"], row["total_low"], row["total_high"]),
            *(number(row[name] / row["total"], unit="%") for name in used),
        ]
        for row in broken.iter_rows(named=True)
    ]
    return Table("breakdown", "Shares of the worker time", columns, rows, "breakdown")


def steps(distribution: pl.DataFrame, results: Results) -> Table:
    factors = varied(distribution, results)
    shown = ("p5", "p50", "p95", "p99", "longest")
    columns = [*_point_columns(factors), Column("steps", True)]
    columns += [Column(f"{name}, ms", True) for name in shown] + [Column("p99 / median", True)]
    rows = [
        [
            *_point_cells(row, factors),
            whole(row["steps"]),
            *(number(row[name], unit="ms") for name in shown),
            Cell(f"{row['p99'] / row['p50']:.2f}", row["p99"] / row["p50"]),
        ]
        for row in distribution.iter_rows(named=True)
    ]
    return Table("steps", "Step times, the slowest rank of each step", columns, rows, "steps")


def worst_ranks(ranks: pl.DataFrame) -> Table:
    """The ranks furthest above the median rank of their launch."""
    several = ranks.filter(pl.len().over("trial_id") > 1)
    worst = several.sort("relative", descending=True).head(WORST_RANKS)
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
        *(Column("samples/s", True), Column("start-up, s", True), Column("steady")),
    ]
    rows = []
    for row in shown.iter_rows(named=True):
        started = "" if row["started"] is None else f"{row['started']:%Y-%m-%d %H:%M:%S}"
        steady = {True: "yes", False: f"no: {row['steady_note']}"}.get(row["steady"], row["steady_note"])
        rows.append(
            [
                *(whole(row["order"]), text(started), text(row["trial_id"]), text(row["status"])),
                *(number(row["throughput"]), number(row["startup_seconds"]), text(steady)),
            ]
        )
    return Table("launches", "Launches in their order", columns, rows, "launches", len(trials) - len(shown))


def _three(row: dict[str, Any], name: str) -> tuple[Any, Any, Any]:
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


def _parameter(parameter: Parameter) -> Cell:
    if not math.isfinite(parameter.value):
        return Cell("none")
    low, high = parameter.low, parameter.high
    if parameter.name == "peak":
        return Cell(f"N = {parameter.value:.0f}", parameter.value)
    interval = "" if math.isnan(low) or math.isnan(high) else f"{100 * low:.2g} – {100 * high:.2g}"
    return Cell(f"{100 * parameter.value:.3g}%", parameter.value, interval)
