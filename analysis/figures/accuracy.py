"""Held-out accuracy over training seconds: every launch a line, one panel per scaling mode and worker count."""

from __future__ import annotations

import polars as pl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from analysis.figures import style
from analysis.load.results import Results
from analysis.load.trial import accuracy_curve
from analysis.measures.efficiency import some
from analysis.workloads.accuracy import asked
from analysis.workloads.accuracy import settings as apart


def accuracy(frame: pl.DataFrame, estimates: pl.DataFrame, results: Results) -> Figure:
    """`frame` is that of analysis.workloads.accuracy.times, with at least one row."""
    looks = {name: look for name, look in style.looks(estimates).items() if name in frame["strategy"]}
    trials = asked(results)
    settings = ["until_accuracy", *(name for name in apart(frame) if name != "until_accuracy")]
    rows = frame.select("scaling", *settings).unique(maintain_order=True).rows(named=True)
    counts = some(sorted(frame["workers"].unique().to_list()))
    study, notes = style.describe(estimates, results.name)
    said = "Every launch a line; seconds of training only, evaluations left out"
    notes = [*notes[:-2], notes[-1].rpartition(" · ")[0], said]  # its bars and dots are of other figures
    goal = Line2D([], [], color=style.INK, ls=style.DOTS, lw=1.1, label="accuracy asked for")
    gave_up = Line2D([], [], color=style.QUIET, marker="x", ls="none", label="gave up")
    handles = [*(look.legend() for look in looks.values()), goal]
    if (frame["n_reached"] < frame["n_launches"]).any():
        handles.append(gave_up)
    each = -(-len(handles) // 3)
    legend = [handles[i : i + each] for i in range(0, len(handles), each)]
    with style.theme():
        made = style.sheet(
            f"Time to accuracy · {study}", notes, len(rows), len(counts), panel=(3.4, 2.6), legend=legend,
            left=0.95, above=0.1, sharey="row",
        )  # fmt: skip
        for axes, setting in zip(made.axes, rows, strict=True):
            mode = setting["scaling"]
            values = {name: setting[name] for name in settings}
            mine = trials.filter(pl.col(mode), *(pl.col(n).eq_missing(v) for n, v in values.items()))
            longest: float = max(mine.filter(pl.col("workers").is_in(counts))["accuracy_seconds"].to_list())
            for ax, workers in zip(axes, counts, strict=True):
                _curves(ax, mine.filter(workers=workers), looks, results)
                ax.axhline(setting["until_accuracy"], color=style.INK, ls=style.DOTS, lw=1.1)
                ax.set_title(f"{mode} scaling, {workers} worker{'s' if workers > 1 else ''}", fontsize=9)
                ax.set_xlabel("training seconds" if axes is made.axes[-1] else "")
                ax.set_xlim(0, 1.04 * longest)
                ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            words = ", ".join(f"{n.replace('_', ' ')} {v}" for n, v in values.items() if n != "until_accuracy")
            axes[0].set_ylabel("\n".join(filter(None, [style.plain(words, 45), "held-out accuracy"])))
    return made.figure


def _curves(ax: Axes, trials: pl.DataFrame, looks: dict[str, style.Look], results: Results) -> None:
    for row in trials.iter_rows(named=True):
        look = looks[row["strategy"]]
        curve = accuracy_curve(results.outcome(row["trial_id"]))
        seconds, shares = [point[1] for point in curve], [point[2] for point in curve]
        sns.lineplot(x=seconds, y=shares, ax=ax, color=look.colour, lw=1.0, alpha=0.7, errorbar=None, legend=False,
                     dashes=False, linestyle=look.line)  # fmt: skip
        marker, face = (look.marker, look.face) if row["accuracy_reached"] else ("x", look.colour)
        ax.plot(seconds[-1:], shares[-1:], marker=marker, ms=5, mfc=face, mec=look.colour, ls="none")
