"""Ingest trials: samples per second that an input pipeline makes of files, and what they cost.

frame = readings(load(folder))      one row per source × strategy × readers × batch
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.cells import Column, Table, number, text, three, whole
from analysis.load.results import Results
from analysis.measures import caveats
from analysis.stats import bootstrap
from analysis.wording import digits, within
from analysis.workloads.interface import Workload

if TYPE_CHECKING:
    from rich.console import RenderableType

PIPELINE = {"PyTorch": "DataLoader", "TensorFlow": "tf.data"}
CAPTION = (
    "n launches; [95% interval over launches]. Readers are processes of DataLoader and threads of tf.data; "
    "the files are in the page cache."
)
SOURCES = {"png": "PNG files", "tfrecord": "TFRecord files", "cached": "cached"}
SCHEMA = {
    "framework": pl.String,
    "strategy": pl.String,
    "source": pl.String,
    "batch": pl.Int64,
    "readers": pl.Int64,
    "n_launches": pl.Int64,
    "throughput": pl.Float64,  # samples per second
    "throughput_low": pl.Float64,
    "throughput_high": pl.Float64,
    "over_one": pl.Float64,  # reader
    "over_one_low": pl.Float64,
    "over_one_high": pl.Float64,
    "cpu_seconds": pl.Float64,  # per sample, of all readers
    "memory_bytes": pl.Float64,
    "warning": pl.String,  # as of the estimates of training
}


def of(results: Results) -> pl.DataFrame:
    """The ingest trials that are ok."""
    ok = results.trials.filter(status="ok")
    found = ok.filter(workload="ingest") if "workload" in ok.columns else ok.clear()
    written = pl.col("source") if "source" in found.columns else pl.lit(None, pl.String)
    return found.with_columns(source=written.fill_null("png"))


def readings(results: Results, *, confidence: float = 0.95, resamples: int = bootstrap.RESAMPLES) -> pl.DataFrame:
    """Columns SCHEMA; intervals are over launches, null for a single one."""
    trials, warned = of(results), caveats.by_point(results)
    parts: dict[tuple[Any, ...], pl.DataFrame] = {}
    points: dict[tuple[Any, ...], list[bootstrap.Mean]] = {}
    keys = ("framework", "strategy", "source", "global_batch", "readers")
    for part in trials.partition_by(*keys, maintain_order=True) if len(trials) else []:
        each = (part["train_seconds"] / part["samples"]).alias("cost")
        values = part.select(each, "cpu_seconds_per_sample", "memory_bytes").cast(pl.Float64).fill_null(math.nan)
        key = part.select(keys).row(0)
        points[key] = bootstrap.resampled(values.to_numpy(), resamples, 0, part["point"][0])
        parts[key] = part
    rows = []
    for key, (cost, cpu, memory) in points.items():
        low, high = cost.log_interval(confidence)
        found = [1 / cost.value, 1 / high, 1 / low]
        one = points.get((*key[:4], 1))
        if one is None or key[4] == 1:
            found += [math.nan] * 3
        else:
            found += [one[0].value / cost.value, *bootstrap.ratio_interval([one[0]], [cost], confidence)]
        numbers = [*found, cpu.value, memory.value]
        warning = caveats.joined(parts[key], warned, parts.get((*key[:4], 1)), "one reader")
        rows.append([*key, cost.n, *(None if math.isnan(value) else value for value in numbers), warning])
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return frame.sort(by_source(), "batch", "framework", "strategy", "readers")


def by_source() -> pl.Expr:
    """Sorts as SOURCES has them."""
    return pl.col("source").cast(pl.Enum(list(SOURCES)))


def render(frame: pl.DataFrame) -> RenderableType:
    """For a terminal."""
    from rich import box
    from rich.table import Table as Lines
    from rich.text import Text

    lines = Lines(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), caption_justify="left")
    lines.add_column("pipeline", no_wrap=True)
    lines.add_column("source", no_wrap=True)
    for name in ("batch", "readers", "n", "samples/s", "over one reader", "CPU ms/sample", "memory MB"):
        lines.add_column(name, justify="right", no_wrap=True)
    lines.add_column("")
    marks, said = caveats.lettered(frame["warning"])
    for row, mark in zip(frame.iter_rows(named=True), marks, strict=True):
        low, high = row["throughput_low"], row["throughput_high"]
        spread = "[?]" if low is None or high is None else f"[{low:,.0f}, {high:,.0f}]"
        ratio, below, above = (row["over_one" + end] for end in ("", "_low", "_high"))
        bounds = "[?]" if below is None or above is None else f"[{below:.2f}, {above:.2f}]"
        cells = [
            *(PIPELINE.get(row["framework"], row["strategy"]), SOURCES[row["source"]]),
            *(str(row["batch"]), str(row["readers"])),
            *(str(row["n_launches"]), f"{row['throughput']:,.0f} {spread}"),
            "" if ratio is None else f"{ratio:.2f} {bounds}",
            "–" if row["cpu_seconds"] is None else f"{1e3 * row['cpu_seconds']:.2f}",
            "–" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 1e6:,.0f}",
            mark,
        ]
        lines.add_row(*map(Text, cells))
    lines.caption = Text("\n".join([CAPTION, *said]), style="not italic dim")
    return lines


def table(frame: pl.DataFrame) -> Table:
    """For the page: each pipeline at each number of readers."""
    noted = any(frame["warning"])
    columns = [
        *(Column("framework"), Column("source", hint="where the samples come from"), Column("batch", True)),
        *(Column("readers", True), Column("launches", True)),
        *(Column("samples/s", True), Column("over one reader", True)),
        Column("CPU ms/sample", True, "of all readers together"),
        Column("memory, MB", True, "of all processes; what they share counts once"),
        *([Column("note")] if noted else []),
    ]
    rows = [
        [
            *(text(row["framework"]), text(SOURCES[row["source"]]), whole(row["batch"])),
            *(whole(row["readers"]), whole(row["n_launches"])),
            *(number(*three(row, "throughput")), number(*three(row, "over_one"))),
            number(row["cpu_seconds"], unit="ms"),
            number(None if row["memory_bytes"] is None else row["memory_bytes"] / 1e6),
            *([text(row["warning"])] if noted else []),
        ]
        for row in frame.iter_rows(named=True)
    ]
    return Table("files", "Ingest: files to batches", columns, rows, "ingest")


def finding(frame: pl.DataFrame) -> str:
    """What the figure shows: the highest rate."""
    best = frame.sort("throughput", descending=True).row(0, named=True)
    readers = f"{best['readers']} reader{'s' if best['readers'] > 1 else ''}"
    rate = f"{digits(best['throughput'])} samples/s{within(best, 'throughput')}"
    where = f"{readers}, {SOURCES[best['source']]}, batch {best['batch']}"
    return f"The highest rate is {rate}: {best['framework']} with {where}."


WORKLOAD = Workload(
    numbers=readings,
    render=render,
    section="Calls and files",
    about="Both pipelines read the same files in the same order, decode, resize and flip alike. Readers are processes "
    "of DataLoader and threads of tf.data; the files are in the page cache.",
    table=table,
    figure="analysis.figures.ingest:ingest",
    picture="Line chart of samples per second over readers",
    finding=finding,
    file="ingest",
)
