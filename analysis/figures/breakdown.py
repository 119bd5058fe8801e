"""Where the time goes as workers are added: compute, exposed communication, input.

The bars are worker time per sample, N · step / global batch: one worker's share of the step over its
samples. With ideal scaling, strong or weak, they stay as high as the base case's at any N, so what is
lost shows as height, and bars compare across worker counts; a bar's height is 1 / (efficiency × the
base case's rate).
"""

from __future__ import annotations

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from analysis.figures import style
from analysis.figures.curves import launches_of
from analysis.load.results import Results, varied
from analysis.measures.breakdown import parts

PARTS = (
    ("compute", style.COMPUTE, ""),
    ("exposed communication", style.EXPOSED, "////"),
    ("input wait", style.INPUT, "...."),
    ("not broken down", style.WHOLE, ""),
)


def breakdown(estimates: pl.DataFrame, results: Results) -> Figure:
    """One panel per strategy (columns) and scaling mode (rows), a stacked bar per worker count."""
    launches = launches_of(estimates, results)
    broken = parts(estimates)
    looks = style.looks(estimates)
    used = [part for part in PARTS if broken[part[0]].sum() > 0]
    legend = [[Patch(facecolor=c, hatch=h, edgecolor="white", label=name)] for name, c, h in used]
    ideal = Line2D([], [], color=style.INK, ls=style.DOTS, lw=1.1, label="base case (ideal at any N)")
    study, notes = style.describe(estimates, results.name)
    apart = varied(estimates, results.factors)
    groups = broken.unique(["scaling", *apart], maintain_order=True).select("scaling", *apart).rows(named=True)
    counts = {name: max(1, broken.filter(strategy=name)["workers"].n_unique()) for name in looks}
    most = max(counts.values())
    widths = [0.35 + 0.65 * counts[name] / most if most > 1 else 1.0 for name in looks]
    with style.theme():
        made = style.sheet(
            f"Where the time goes · {study}", notes, len(groups), len(looks), legend=[*legend, [ideal]],
            panel=(max(1.25, 0.5 + 0.2 * most), 2.5), widths=widths, least_width=7.4, sharey="row", left=0.9,
        )  # fmt: skip
        for axes, values in zip(made.axes, groups, strict=True):
            first, last = axes is made.axes[0], axes is made.axes[-1]
            row = broken.filter(*(pl.col(k).eq_missing(v) for k, v in values.items()))
            dots = launches.filter(*(pl.col(k).eq_missing(v) for k, v in values.items()))
            for ax, (name, look) in zip(axes, looks.items(), strict=True):
                mine = row.filter(strategy=name).sort("workers")
                if first:
                    ax.set_title(style.plain(name, 24), color=look.colour, weight="bold", fontsize=9)
                if not len(mine):
                    ax.xaxis.set_visible(False)
                    continue
                _bars(ax, mine, dots.filter(strategy=name), used)
                if last:
                    ax.set_xlabel("workers")
            words = [f"{v} scaling" if k == "scaling" else f"{k} {v}" for k, v in values.items()]
            highest: float = max(row["total"].to_list())
            axes[0].set_ylim(0, min(axes[0].get_ylim()[1], 1.4 * highest))
            axes[0].set_ylabel(f"{style.plain(', '.join(words))}\nworker time per sample, µs")
    return made.figure


def _bars(ax: Axes, rows: pl.DataFrame, launches: pl.DataFrame, used: list[tuple[str, str, str]]) -> None:
    counts = rows["workers"].to_list()
    positions = list(range(len(counts)))
    bottom = [0.0] * len(counts)
    for name, colour, hatch in used:
        heights = rows[name].to_list()
        ax.bar(
            positions,
            heights,
            0.72,
            bottom,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.4,
            zorder=2,
        )
        bottom = [b + h for b, h in zip(bottom, heights, strict=True)]
    total = rows["total"].to_list()
    bars = style.error_bars(total, rows["total_low"].to_list(), rows["total_high"].to_list())
    ax.errorbar(positions, total, yerr=bars, ls="none", color=style.INK, elinewidth=1.1, capsize=2.2, zorder=4)
    place = {n: i for i, n in enumerate(counts)}
    costs = (1e6 * launches["workers"] / launches["throughput"]).to_list()
    ax.scatter(
        [place[n] + 0.14 for n in launches["workers"]], costs,
        s=7, color=style.INK, alpha=0.4, linewidth=0, zorder=3,
    )  # fmt: skip
    bases = rows["base_throughput"].drop_nulls()
    if len(bases):
        ax.axhline(1e6 / bases[0], color=style.INK, ls=style.DOTS, lw=1.1, zorder=3)
    ax.set_xlim(-0.6, max(len(counts), 1) - 0.4)
    ax.set_xticks(positions, [f"{n}" for n in counts])
    ax.grid(axis="x", visible=False)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}"))
