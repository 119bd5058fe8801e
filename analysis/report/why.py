"""Tables of the report on why a curve bends and what it costs: claims, laws, limits, energy, roofline."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from analysis.cells import Cell, Column, Table, number, text, three, whole
from analysis.laws.law import LawFit, Parameter
from analysis.limits.costs import THRESHOLD
from analysis.limits.limit import Limit
from analysis.limits.words import says, varied_settings
from analysis.load.results import Results, varied
from analysis.measures.roofline import Roofline
from analysis.report.tables import point_cells, point_columns
from analysis.verdicts.claims import Verdict
from analysis.workloads.accuracy import RULE


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
    noted = any(frame["warning"])
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
        *([Column("note")] if noted else []),
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
            *([text(row["warning"])] if noted else []),
        ]
        for row in frame.iter_rows(named=True)
    ]
    return Table("accuracy", "Time to accuracy, 95% intervals", columns, rows, "accuracy")
