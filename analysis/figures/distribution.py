"""Figures of what lies under a point: its steps, its ranks, and the order of its launches.

figure = steps(distributions.steps, estimates, results)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, PercentFormatter
from numpy.typing import NDArray

from analysis.figures import style
from analysis.load.results import Results, varied
from analysis.measures.distribution import order_residuals

Floats = NDArray[np.float64]
BOX = "#9db6c9"
DOTS_PER_BOX = 64  # with more ranks than this only the furthest are drawn as dots, over the box of all


def steps(distribution: pl.DataFrame, estimates: pl.DataFrame, results: Results) -> Figure:
    """Per point a box (quartiles) with whiskers (5th and 95th percentile), 99th percentile and longest
    step, in multiples of the median of the step's own launch; all launches of the point together."""
    legend: list[list[Any]] = [
        [Patch(facecolor=BOX, edgecolor=style.INK, lw=0.8, label="25th to 75th percentile, median")],
        [Line2D([], [], color=style.INK, lw=1.1, label="5th to 95th percentile")],
        [_dot("99th percentile", "_", 8), _dot("longest step", "o", 3)],
    ]

    def draw(ax: Axes, rows: pl.DataFrame, x: Floats) -> list[tuple[float, ...]]:
        ax.scatter(x, rows["within_p99"].to_numpy(), s=42, marker="_", color=style.INK, lw=1.2)
        ax.scatter(x, rows["within_longest"].to_numpy(), s=8, color=style.INK, lw=0, alpha=0.7)
        return rows.select(f"within_p{p}" for p in (5, 25, 50, 75, 95)).rows()

    title, label = "Step times within launches", "step time / median"
    note = "slowest rank of each measured step over the median of its own launch, all launches of a point together"
    return _grid(title, note, label, distribution, estimates, results, legend, draw, "×")


def ranks(per_rank: pl.DataFrame, estimates: pl.DataFrame, results: Results) -> Figure:
    """Each rank of each launch beside the median rank of that launch, points with several ranks."""
    legend: list[list[Any]] = [
        [Patch(facecolor=BOX, edgecolor=style.INK, lw=0.8, label="25th to 75th percentile of ranks")],
        [_dot("one rank of one launch; of many, the furthest", "o", 3)],
    ]
    rng = np.random.default_rng(0)

    def draw(ax: Axes, rows: pl.DataFrame, x: Floats) -> list[tuple[float, ...]]:
        fives = []
        for place, (_, one) in zip(x, rows.group_by("workers", maintain_order=True), strict=True):
            values = np.sort(one["relative"].to_numpy() - 1.0)
            fives.append(tuple(np.percentile(values, (5, 25, 50, 75, 95)).tolist()))
            if len(values) > DOTS_PER_BOX:
                values = np.concatenate([values[: DOTS_PER_BOX // 2], values[-DOTS_PER_BOX // 2 :]])
            beside = place + rng.uniform(-0.06, 0.06, len(values))
            ax.scatter(beside, values, s=6, color=style.INK, alpha=0.45, lw=0, zorder=4)
        return fives

    modes = [
        per_rank.filter(pl.col(mode)).with_columns(scaling=pl.lit(mode))
        for mode in ("strong", "weak")
        if mode in estimates["scaling"]
    ]
    several = pl.concat(modes).filter(pl.len().over("scaling", "trial_id") > 1)
    title, label = "Ranks within launches", "against the median rank"
    note = "mean compute-only step of each rank (whole step where it was not measured), all launches"
    return _grid(title, note, label, several, estimates, results, legend, draw, "%")


def launch_order(estimates: pl.DataFrame, results: Results) -> Figure:
    """Throughput of each launch against the mean of its point, over the order of the launches."""
    looks = style.looks(estimates)
    rows = order_residuals(results)
    handles = [look.legend() for look in looks.values()]
    for handle in handles:
        handle.set_linestyle("none")
    third = -(-len(handles) // 3)
    legend = [handles[i : i + third] for i in range(0, len(handles), third)]
    title = f"Launches in their order · {style.plain(results.name)}"
    notes = _notes(estimates, "a drift of the machine would show as a slope")
    with style.theme():
        made = style.sheet(title, notes, 1, 1, panel=(9.2, 2.6), legend=legend, left=1.05)
        ax = made.axes[0][0]
        ax.axhline(0.0, color=style.INK, ls=style.DOTS, lw=1.1)
        for name, look in looks.items():
            mine = rows.filter(strategy=name)
            ax.scatter(
                mine["order"].to_numpy(), mine["residual"].to_numpy(), s=22, marker=look.marker,
                facecolor=look.face, edgecolor=look.colour, lw=1.1, alpha=0.85, zorder=3,
            )  # fmt: skip
        ax.set_xlabel("order of the launch over the study")
        ax.set_ylabel("throughput against\nthe mean of its point")
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    return made.figure


def _notes(estimates: pl.DataFrame, said: str) -> list[str]:
    """Where it ran, as the other figures say it, and `said` in place of their words on dots and bars."""
    *rest, where = style.describe(estimates, "")[1]
    emulated = [note for note in rest if note.startswith("EMULATED")]
    return [*emulated, " · ".join([*where.split(" · ")[:-1], said])]


def _grid(
    title: str,
    note: str,
    label: str,
    rows: pl.DataFrame,
    estimates: pl.DataFrame,
    results: Results,
    legend: Sequence[Sequence[object]],
    draw: Callable[[Axes, pl.DataFrame, Floats], list[tuple[float, ...]]],
    unit: str,
) -> Figure:
    """A row per scaling mode and factor, in it a strip per strategy with a box per worker count.

    All strips of a row are one pair of axes, in inches, since dozens of axes take seconds to draw. `draw`
    gets the rows of a strip and the places of its worker counts, and returns the five values of each box.
    """
    looks = {k: v for k, v in style.looks(estimates).items() if k in rows["strategy"]}
    groups = rows.select("scaling", *varied(rows, results.factors)).unique(maintain_order=True).rows(named=True)
    strip = max(1.35, 0.5 + 0.2 * max(rows.filter(strategy=name)["workers"].n_unique() for name in looks))
    width = strip * len(looks)
    with style.theme():
        made = style.sheet(
            f"{title} · {style.plain(results.name)}", _notes(estimates, note), len(groups), 1, legend=legend,
            panel=(width + 1.2, 2.2), left=1.05,
        )  # fmt: skip
        for (ax,), values in zip(made.axes, groups, strict=True):
            group = rows.filter(*(pl.col(k).eq_missing(v) for k, v in values.items()))
            fives: list[tuple[float, ...]] = []
            places: list[float] = []
            counts: list[int] = []
            for index, (name, look) in enumerate(looks.items()):
                mine = group.filter(strategy=name).sort("workers")
                # Of points a row is a box: two of a worker count are those with and without the base case beside.
                workers = mine["workers"] if "launches" in mine.columns else mine["workers"].unique().sort()
                here = workers.to_list()
                apart = min(0.34, (strip - 0.2) / max(1, len(here)))
                x: Floats = strip * (index + 0.5) + apart * (
                    np.arange(len(here), dtype=np.float64) - (len(here) - 1) / 2
                )
                fives += draw(ax, mine, x)
                places += x.tolist()
                counts += here
                if index:
                    ax.axvline(strip * index, color="#9a9a9a", lw=0.8, zorder=1)
                if ax is made.axes[0][0]:
                    ax.text(
                        strip * (index + 0.5), 1.03, style.plain(name, int(13 * strip)), color=look.colour,
                        weight="bold", fontsize=9, ha="center", transform=ax.get_xaxis_transform(),
                    )  # fmt: skip
            _boxes(ax, np.array(places), fives)
            ax.set_xticks(places, [f"{n}" for n in counts])
            ax.set_xlim(0, width)
            ax.grid(axis="x", visible=False)
            if unit == "%":
                ax.axhline(0.0, color=style.INK, ls=style.DOTS, lw=1.1)
            words = [f"{v} scaling" if k == "scaling" else f"{k} {v}" for k, v in values.items()]
            ax.set_ylabel(f"{style.plain(', '.join(words))}\n{label}")
            ax.yaxis.set_major_formatter(
                PercentFormatter(1.0) if unit == "%" else FuncFormatter(lambda value, _: f"{value:g}{unit}")
            )
        made.axes[-1][0].set_xlabel("workers")
    return made.figure


def _boxes(ax: Axes, x: Floats, fives: Sequence[Sequence[float]]) -> None:
    """Boxes at `x`, each from five values: low whisker, quartile, median, quartile, high whisker."""
    low, first, median, third, high = np.asarray(fives, dtype=float).T
    ax.vlines([x, x], [low, third], [first, high], color=style.INK, lw=0.9, zorder=2)
    ax.hlines([low, high], [x - 0.04] * 2, [x + 0.04] * 2, color=style.INK, lw=0.9, zorder=2)
    ax.bar(x, third - first, 0.18, bottom=first, color=BOX, edgecolor=style.INK, linewidth=0.8, zorder=2.5)
    ax.hlines(median, x - 0.09, x + 0.09, color=style.INK, lw=1.2, zorder=3)


def _dot(label: str, marker: str, size: float) -> Line2D:
    return Line2D([], [], ls="none", marker=marker, ms=size, color=style.INK, label=label)
