"""Time to accuracy: how long training takes until the held-out images are classified well enough.

    frame = times(load(folder))      one row per strategy, scaling mode and worker count that was asked for it

Throughput alone flatters large batches, which need more samples to learn as much. So this stands beside
throughput and its efficiency and is never mixed with them: other seconds, other speedup.

Seconds are training time, the slowest rank's, without evaluations. A launch that gives up counts with
all the time it took: the time to success is the time of all launches over how many succeeded, which is
what it costs on average to launch again until one does (the expected running time of Auger & Hansen 2005,
"Performance Evaluation of an Advanced Local Search Evolutionary Algorithm", IEEE CEC). Where all succeed
it is the mean; where one does not there is no interval, as a few launches cannot tell how often that happens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from analysis.load.results import Results, varied
from analysis.measures import caveats
from analysis.measures.efficiency import KEY, MODES, ORDER
from analysis.stats import bootstrap
from analysis.stats.bootstrap import Mean

if TYPE_CHECKING:
    from rich.table import Table

HEADS = {"until_accuracy": "goal", "learning_rate_rule": "rule", "learning_rate_warmup": "warm-up",
         "reference_batch": "reference", "learning_rate": "rate"}  # fmt: skip
RULE = ("learning_rate_rule", "learning_rate_warmup", "reference_batch", "learning_rate")  # said beside the goal
QUANTITIES = ("seconds", "steps", "joules")
MEASURED: dict[str, Any] = {
    "n_launches": pl.Int64,
    "n_reached": pl.Int64,
    # Each expected until the accuracy is reached, with `_low` and `_high`; null if no launch reached it.
    **{name + end: pl.Float64 for name in QUANTITIES for end in ("", "_low", "_high")},
    "samples": pl.Float64,  # steps × global batch
    "speedup": pl.Float64,  # in time to accuracy, over the base case
    "speedup_low": pl.Float64,
    "speedup_high": pl.Float64,
    "base_case": pl.String,
    "best": pl.Float64,  # accuracy that any launch came to
    "throughput": pl.Float64,  # of the measured steps, samples per second, to stand beside
    "warning": pl.String,  # of the measured steps, as of the estimates
}
Expected = tuple[float, float, float]
NONE: Expected = (math.nan, math.nan, math.nan)


def asked(results: Results) -> pl.DataFrame:
    """The trials that are ok and were to train until an accuracy."""
    return results.trials.filter(pl.col("status") == "ok", pl.col("accuracy_reached").is_not_null())


def times(results: Results, *, confidence: float = 0.95, resamples: int = bootstrap.RESAMPLES) -> pl.DataFrame:
    """KEY, the factors (`until_accuracy` is one) and MEASURED.

    `joules` are those per sample of the measured steps times the samples until then, null without energy in
    the telemetry of every launch; energy of the evaluations is not in it.
    """
    trials, factors, warned = asked(results), list(results.factors), caveats.by_point(results)
    by = ["strategy", "workers", "global_batch", *factors]
    points = {
        (mode, *rows.select(by).row(0)): _Point(rows, resamples)
        for mode in MODES
        for rows in (trials.filter(pl.col(mode)).partition_by(by, maintain_order=True) if len(trials) else [])
    }
    out = []
    for key, point in points.items():
        mode, setting = key[0], key[4:]
        base = next(
            (
                other
                for k, other in points.items()
                if k[0] == mode and k[4:] == setting and other.is_base and other.framework == point.framework
            ),
            None,
        )
        identity = [mode, point.framework, point.communication, *key[1:4], *setting]
        warning = caveats.joined(point.rows, warned, base.rows if base else None)
        out.append([*identity, *_row(point, base, confidence), warning])
    schema: dict[str, Any] = {name: results.trials.schema.get(name, pl.String) for name in KEY}
    schema |= {name: results.trials.schema[name] for name in factors}
    frame = pl.DataFrame(out, schema=schema | MEASURED, orient="row")
    return frame.sort(*(pl.col(name) for name in factors), *ORDER, nulls_last=True)


class _Point:
    """The launches of one row."""

    def __init__(self, rows: pl.DataFrame, resamples: int) -> None:
        self.rows = rows
        first = rows.row(0, named=True)
        self.strategy, self.framework, self.communication = (
            first[n] for n in ("strategy", "framework", "communication")
        )
        self.is_base = first["communication"] == "none" and first["workers"] == 1
        self.batch: int = first["global_batch"]
        self.n, self.reached = len(rows), int(rows["accuracy_reached"].sum())
        self.best = rows["accuracy_best"].max()
        self.throughput = float(rows["samples"].sum()) / float(rows["train_seconds"].sum())
        joules = pl.col("joules_per_sample") * pl.col("accuracy_steps") * self.batch
        columns = rows.select("accuracy_seconds", "accuracy_steps", joules.alias("joules"))
        values = columns.cast(pl.Float64).fill_null(math.nan).to_numpy()
        values[:, np.isnan(values).any(axis=0)] = math.nan  # of some launches only: of no use
        means = bootstrap.resampled(values, resamples, 0, first["point"])
        self.spent: dict[str, Mean] = dict(zip(QUANTITIES, means, strict=True))

    def expected(self, name: str, confidence: float) -> Expected:
        """Until the accuracy is reached, if launches that fail are launched again."""
        spent = self.spent[name]
        if not self.reached or math.isnan(spent.value):
            return NONE
        if self.reached < self.n:
            return spent.value * self.n / self.reached, math.nan, math.nan
        return spent.value, *spent.log_interval(confidence)


def _row(point: _Point, base: _Point | None, confidence: float) -> list[Any]:
    found = [point.expected(name, confidence) for name in QUANTITIES]
    speedup: Expected = NONE
    if base is not None and base.reached and point.reached:
        one, here = base.spent["seconds"], point.spent["seconds"]
        interval = (math.nan, math.nan)
        if base.reached == base.n and point.reached == point.n:
            interval = bootstrap.ratio_interval([one], [here], confidence)
        speedup = base.expected("seconds", confidence)[0] / found[0][0], *interval
    numbers = [value for three in found for value in three]
    numbers += [found[1][0] * point.batch, *speedup]
    return [
        *(point.n, point.reached),
        *(None if math.isnan(value) else value for value in numbers),
        *(base.strategy if base else None, point.best, point.throughput),
    ]


def settings(frame: pl.DataFrame) -> list[str]:
    """What of the goal and of the learning rate's rule takes several values."""
    return varied(frame, [name for name in ("until_accuracy", *RULE) if name in frame.columns])


def render(frame: pl.DataFrame) -> Table:
    """For a terminal of 100 columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rules = settings(frame)
    modes = ["scaling"] if frame["scaling"].n_unique() > 1 else []
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), caption_justify="left")
    for name in (*modes, "strategy", *rules):
        table.add_column(HEADS.get(name, name), no_wrap=True)
    for name in ("N", "batch", "reached", "seconds", "steps", "speedup in time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    marks, said = caveats.lettered(frame["warning"])
    for row, mark in zip(frame.iter_rows(named=True), marks, strict=True):
        cells = [
            *(str(row[name]) for name in (*modes, "strategy", *rules)),
            *(str(row["workers"]), str(row["global_batch"]), f"{row['n_reached']} of {row['n_launches']}"),
            *(_cell(row, name) for name in ("seconds", "steps")),
            "base case" if row["strategy"] == row["base_case"] else _cell(row, "speedup"),
            mark,
        ]
        table.add_row(*map(Text, cells))
    goals = " or ".join(f"{goal:.1%}" for goal in sorted(frame["until_accuracy"].unique().to_list()))
    mode = "" if modes else f", {frame['scaling'][0]} scaling"
    caption = (
        f"Time to accuracy, not throughput: training seconds until {goals} of the held-out images are right{mode}, "
        "launches that gave up counted; [95% interval over launches], none where a launch did not reach it."
    )
    table.caption = Text("\n".join([caption, *said]), style="not italic dim")
    return table


def _cell(row: dict[str, Any], name: str) -> str:
    value, low, high = (row[name + end] for end in ("", "_low", "_high"))
    if value is None:
        return "–"
    return f"{value:.3g} [?]" if low is None else f"{value:.3g} [{low:.3g}, {high:.3g}]"
