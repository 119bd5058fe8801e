"""Inference trials: latency and throughput of each way to call the model, and what a faster way costs first.

    frame = calls(load(folder))      one row per strategy × execution × images per call × other factors

All times are of one call. A way that must first be made (compiled, traced, converted) pays that back
after so many calls as its preparation and first call took longer than eager execution's, over what it
saves per call. That is said only where it is shown to save anything.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.cells import Cell, Column, Table, number, text, three, whole
from analysis.load.results import Results, varied
from analysis.measures import caveats
from analysis.stats import bootstrap
from analysis.wording import digits, within
from analysis.workloads.execution import named
from analysis.workloads.interface import Workload

if TYPE_CHECKING:
    from rich.console import RenderableType

CAPTION = (
    "n launches; [95% interval over launches]. ready: making the callable, and its first call. pays after: "
    "calls until that is earned back from eager execution, where any saving is shown."
)
QUANTITIES = ("step_p50", "step_p95", "step_p99", "ready_seconds", "max_difference")
SCHEMA = {
    "framework": pl.String,
    "strategy": pl.String,
    "execution": pl.String,
    "batch": pl.Int64,
    "factors": pl.String,  # what else varies in the study, in words; "" if nothing does
    "n_launches": pl.Int64,
    "throughput": pl.Float64,  # images per second
    "throughput_low": pl.Float64,
    "throughput_high": pl.Float64,
    "p50": pl.Float64,  # seconds, mean over launches of the launch's percentile
    "p95": pl.Float64,
    "p99": pl.Float64,
    "over_eager": pl.Float64,
    "over_eager_low": pl.Float64,
    "over_eager_high": pl.Float64,
    "ready_seconds": pl.Float64,  # preparation and first call
    "break_even_calls": pl.Float64,  # infinite if it never pays, null if it is not shown to save anything
    "max_difference": pl.Float64,
    "warning": pl.String,  # as of the estimates of training
}


def calls(results: Results, *, confidence: float = 0.95, resamples: int = bootstrap.RESAMPLES) -> pl.DataFrame:
    """Columns SCHEMA; intervals are over launches, null for a single one."""
    ok = results.trials.filter(status="ok")
    if "workload" not in ok.columns:
        return pl.DataFrame(schema=SCHEMA)
    warned = caveats.by_point(results)
    ok = named(ok.filter(workload="infer")).with_columns(
        (pl.col("prepare_seconds").fill_null(0.0) + pl.col("first_step_seconds")).alias("ready_seconds"),
        (pl.col("train_seconds") / pl.col("samples")).alias("cost"),
    )
    points: dict[tuple[Any, ...], dict[str, bootstrap.Mean]] = {}
    parts: dict[tuple[Any, ...], pl.DataFrame] = {}
    apart = varied(ok, [name for name in results.factors if name not in ("execution", "steps_per_call")])
    keys = ("strategy", "execution", "global_batch", *apart)
    for part in ok.partition_by(*keys, maintain_order=True) if len(ok) else []:
        values = part.select("cost", *QUANTITIES).cast(pl.Float64).fill_null(math.nan).to_numpy()
        means = bootstrap.resampled(values, resamples, 0, part["point"][0])
        factors = ", ".join(f"{name} {part[name][0]}" for name in apart)
        key = (part["framework"][0], part["strategy"][0], part["execution"][0], part["global_batch"][0], factors)
        points[key] = dict(zip(("cost", *QUANTITIES), means, strict=True))
        parts[key] = part
    warnings = [
        caveats.joined(part, warned, parts.get((*key[:2], "eager", *key[3:])), "eager execution")
        for key, part in parts.items()
    ]
    rows = [[*_row(key, points, confidence), warning] for key, warning in zip(points, warnings, strict=True)]
    order = pl.col("execution").replace_strict({"eager": 0, "graph": 1}, default=2)
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return frame.sort("framework", "strategy", "factors", "batch", order, "execution")


def _row(
    key: tuple[Any, ...], points: dict[tuple[Any, ...], dict[str, bootstrap.Mean]], confidence: float
) -> list[Any]:
    here, eager = points[key], points.get((*key[:2], "eager", *key[3:]))
    cost = here["cost"]
    low, high = cost.log_interval(confidence)
    ratio: tuple[float, float, float] = (math.nan,) * 3
    break_even = math.nan
    if eager is not None and eager is not here:
        ratio = (eager["cost"].value / cost.value, *bootstrap.ratio_interval([eager["cost"]], [cost], confidence))
        saved = key[3] * (eager["cost"].value - cost.value)
        later = here["ready_seconds"].value - eager["ready_seconds"].value
        if saved <= 0:
            break_even = math.inf
        elif not ratio[1] <= 1:  # a single launch has no interval, and is taken at its word
            break_even = max(0.0, later) / saved
    found = [
        *(1 / cost.value, 1 / high, 1 / low),
        *(here[name].value for name in ("step_p50", "step_p95", "step_p99")),
        *ratio,
        here["ready_seconds"].value,
        break_even,
        here["max_difference"].value,
    ]
    return [*key, cost.n, *(None if math.isnan(value) else value for value in found)]


def render(frame: pl.DataFrame) -> RenderableType:
    """For a terminal: one line per way to call and images per call."""
    from rich import box
    from rich.table import Table as Lines
    from rich.text import Text

    lines = Lines(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), caption_justify="left")
    apart = ("factors",) if (frame["factors"] != "").any() else ()
    for name in ("strategy", *apart, "execution"):
        lines.add_column(name, no_wrap=True)
    for name in ("batch", "n", "images/s", "p50 ms", "p99 ms", "over eager", "ready s", "pays after"):
        lines.add_column(name, justify="right", no_wrap=True)
    lines.add_column("")
    marks, said = caveats.lettered(frame["warning"])
    last = None
    for row, mark in zip(frame.iter_rows(named=True), marks, strict=True):
        here = row["strategy"], row["factors"], row["batch"]
        if last is not None and here != last:
            lines.add_section()
        last, cells = here, _cells(row)
        cells[1:1] = [row[name] for name in apart]
        lines.add_row(*map(Text, [*cells, mark]), style="bold" if row["execution"] == "eager" else "")
    lines.caption = Text("\n".join([CAPTION, *said]), style="not italic dim")
    return lines


def _cells(row: dict[str, Any]) -> list[str]:
    ratio, low, high = row["over_eager"], row["over_eager_low"], row["over_eager_high"]
    bounds = "[?]" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"
    calls = row["break_even_calls"]
    return [
        *(row["strategy"], row["execution"], str(row["batch"]), str(row["n_launches"])),
        f"{row['throughput']:,.0f}",
        f"{1e3 * row['p50']:.3g}",
        f"{1e3 * row['p99']:.3g}",
        "" if ratio is None else f"{ratio:.2f} {bounds}",
        f"{row['ready_seconds']:.2f}",
        ("" if ratio is None else "not shown") if calls is None else "never" if math.isinf(calls) else f"{calls:,.0f}",
    ]


def table(frame: pl.DataFrame) -> Table:
    """For the page: each way to call the model."""
    apart, noted = bool((frame["factors"] != "").any()), any(frame["warning"])
    columns = [
        *(Column("strategy"), *([Column("factors")] if apart else []), Column("execution")),
        *(Column("batch", True, "images per call"), Column("launches", True)),
        Column("images/s", True),
        *(Column(f"{name}, ms", True, "of one call") for name in ("p50", "p95", "p99")),
        Column("over eager", True, "throughput over eager execution's"),
        Column("ready, s", True, "making the callable, and its first call"),
        Column("pays after", True, "calls until that is earned back from eager execution, where any saving is shown"),
        Column("difference", True, "largest, of the logits from eager execution's"),
        *([Column("note")] if noted else []),
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
            *([text(row["warning"])] if noted else []),
        ])  # fmt: skip
    return Table("calls", "Inference: calls of the model", columns, rows, "inference")


def finding(frame: pl.DataFrame) -> str:
    """What the figure shows: the fastest and the slowest way against eager execution."""
    faster = frame.drop_nulls("over_eager").sort("over_eager", descending=True)
    if not len(faster):
        return "There is no eager execution to compare with."
    said = []
    for word, at in (("fastest", 0), ("slowest", -1)):
        row = faster.row(at, named=True)
        also = f" ({row['factors']})" if row["factors"] else ""
        way = f"{row['strategy']} {row['execution']}{also} at {row['batch']} images per call"
        ratio = f"{digits(row['over_eager'])} times{within(row, 'over_eager')}"
        said.append(f"{word} against eager execution is {way}, {ratio}")
    return f"The {'; the '.join(said)}."


WORKLOAD = Workload(
    numbers=calls,
    render=render,
    section="Calls and files",
    about="The model is called and its answer waited for, again and again, in one process. Each way to execute is set "
    "against eager execution in the same framework; what it takes to make it is told apart and not part of its speed.",
    table=table,
    figure="analysis.figures.infer:infer",
    picture="Line charts of calls over images per call",
    finding=finding,
    file="inference",
)
