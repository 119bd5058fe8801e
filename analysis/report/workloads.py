"""Tables of the report on what is not steps of training: calls of the model, ingest, time to accuracy."""

from __future__ import annotations

import math
import sys

import polars as pl

from analysis.load.results import Results, varied
from analysis.report.cells import Cell, Column, Table, number, text, whole
from analysis.report.tables import point_cells, point_columns, three
from analysis.workloads.accuracy import RULE
from analysis.workloads.ingest import SOURCES


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
