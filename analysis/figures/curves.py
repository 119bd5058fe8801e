"""Throughput, speedup and efficiency over the number of workers.

    figure = efficiency(estimate(results), results)

Columns are strong and weak scaling, rows the values of further factors where a study has them. Every
launch is a dot, every interval a bar. Strategies stand side by side at each worker count, so the ideal
value has a level mark over each count beside its line. No display is needed, and the same results give
the same SVG.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter
from matplotlib.transforms import ScaledTranslation

from analysis.figures import style
from analysis.load.results import Results, varied
from analysis.measures.beside import COSTS

IDEAL = Line2D([], [], color=style.INK, ls=style.DOTS, lw=1.1, label="ideal")
SPREAD = 0.3  # of the distance between two worker counts, taken by strategies side by side
WIDE = 8  # from this ratio of worker counts on, rates have a logarithmic axis


@dataclass(frozen=True)
class Curve:
    """A line to lay behind the measured ones: a fitted law, or published numbers.

    `values` are in the unit of the figure (samples/s, speedup, or efficiency as a share).
    """

    label: str
    scaling: str
    workers: Sequence[float]
    values: Sequence[float]


def throughput(estimates: pl.DataFrame, results: Results, behind: Sequence[Curve] = ()) -> Figure:
    """Samples per second over all workers against workers; per framework, the base case times N."""

    def ideal(ax: Axes, panel: pl.DataFrame, counts: Sequence[int], spread: float) -> None:
        bases = panel.drop_nulls("base_throughput").unique("base_case", maintain_order=True)
        for row in bases.iter_rows(named=True):
            rate: float = row["base_throughput"]
            _ideal(ax, counts, spread, rate.__mul__, looks[row["strategy"]].colour)

    looks = style.looks(estimates)
    points = launches_of(estimates, results).with_columns(value="throughput")
    return _curves("Throughput", "samples per second", "throughput", estimates, results, points, ideal, behind)


def speedup(estimates: pl.DataFrame, results: Results, behind: Sequence[Curve] = ()) -> Figure:
    """S(N) = X(N) / X(1) over the named base case, with the ideal line S(N) = N."""

    def ideal(ax: Axes, _panel: pl.DataFrame, counts: Sequence[int], spread: float) -> None:
        _ideal(ax, counts, spread, float, style.INK)

    points = launches_of(estimates, results).with_columns(value=pl.col("throughput") / pl.col("base_throughput"))
    label = "speedup over the base case"
    return _curves("Speedup", label, "speedup", estimates, results, points, ideal, behind)


def efficiency(estimates: pl.DataFrame, results: Results, behind: Sequence[Curve] = ()) -> Figure:
    """E(N) = S(N) / N against the named base case."""

    def ideal(ax: Axes, _panel: pl.DataFrame, counts: Sequence[int], spread: float) -> None:
        _ideal(ax, counts, spread, lambda _: 1.0, style.INK)

    value = pl.col("throughput") / pl.col("base_throughput") / pl.col("workers")
    points = launches_of(estimates, results).with_columns(value=value)
    label = "parallel efficiency"
    return _curves("Efficiency", label, "efficiency", estimates, results, points, ideal, behind)


def launches_of(estimates: pl.DataFrame, results: Results) -> pl.DataFrame:
    """One row per launch that is ok and scaling mode, with the base case's throughput: of its row, or of the base case
    that ran beside it."""
    key = ["scaling", "strategy", "workers", "global_batch", *results.factors]
    ok = results.trials.filter(status="ok")
    modes = [ok.filter(pl.col(m)).with_columns(scaling=pl.lit(m), cost=pl.col(c)) for m, c in COSTS.items()]
    launches = pl.concat(modes).with_columns(paired=pl.col("cost").is_not_null())
    paired = pl.col("efficiency_from").eq_missing("beside").alias("paired")
    found = launches.join(
        estimates.select(*key, paired, "base_throughput"),
        on=[*key, "paired"],
        how="inner",
        nulls_equal=True,
        maintain_order="left",
    )
    return found.with_columns(base_throughput=pl.coalesce(1 / pl.col("cost"), "base_throughput"))


def _rows(estimates: pl.DataFrame, factors: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """The rows of panels: each combination of the factors that vary, with its heading."""
    apart = varied(estimates, factors)
    if not apart:
        return [("", {})]
    combinations = estimates.select(apart).unique(maintain_order=True).rows(named=True)
    return [(", ".join(f"{k} {v}" for k, v in c.items()), c) for c in combinations]


def _select(frame: pl.DataFrame, **values: Any) -> pl.DataFrame:
    return frame.filter(*(pl.col(name).eq_missing(value) for name, value in values.items()))


def _curves(
    title: str,
    label: str,
    quantity: str,
    estimates: pl.DataFrame,
    results: Results,
    points: pl.DataFrame,
    ideal: Callable[[Axes, pl.DataFrame, Sequence[int], float], None],
    behind: Sequence[Curve],
) -> Figure:
    modes = estimates["scaling"].unique().sort().to_list()
    rows = _rows(estimates, results.factors)
    looks = style.looks(estimates)
    frameworks = dict.fromkeys(look.framework for look in looks.values())
    legend: list[list[Line2D]] = [
        [look.legend() for look in looks.values() if look.framework == framework] for framework in frameworks
    ]
    backs = {curve.label: _behind_style(i, curve.label) for i, curve in enumerate(_unique(behind))}
    legend.append([IDEAL, *backs.values()])
    study, notes = style.describe(estimates, results.name)
    with style.theme():
        made = style.sheet(
            f"{title} · {study}",
            notes,
            len(rows),
            len(modes),
            legend=legend,
            left=0.9 if len(rows) > 1 else 0.68,
        )
        for axes, (heading, values) in zip(made.axes, rows, strict=True):
            for ax, mode in zip(axes, modes, strict=True):
                panel = _select(estimates, scaling=mode, **values)
                if axes is made.axes[0]:
                    ax.set_title(f"{mode} scaling{style.batch(_select(estimates, scaling=mode), mode)}")
                if not len(panel):
                    ax.set_axis_off()
                    continue
                counts = sorted(panel["workers"].unique().to_list())
                gap = min((math.log2(b / a) for a, b in itertools.pairwise(counts)), default=1.0)
                wide = quantity != "efficiency" and counts[-1] >= WIDE * counts[0]
                spread = 0.0 if wide else SPREAD * min(gap, 1.0) / 2
                ideal(ax, panel, counts, spread)
                for curve in behind:
                    if curve.scaling == mode:
                        back = backs[curve.label]
                        ax.plot(
                            curve.workers,
                            curve.values,
                            color=back.get_color(),
                            ls=back.get_linestyle(),
                            lw=1.2,
                        )
                _strategies(ax, quantity, panel, _select(points, scaling=mode, **values), looks, spread)
                style.worker_axis(ax, counts, spread + 0.1 * max(1.0, math.log2(counts[-1] / counts[0])))
                if axes is not made.axes[-1]:
                    ax.set_xlabel("")
                _value_axis(ax, quantity, panel, wide)
            axes[0].set_ylabel("\n".join(filter(None, [style.plain(heading, 45), label])))
    return made.figure


def _strategies(
    ax: Axes,
    quantity: str,
    panel: pl.DataFrame,
    points: pl.DataFrame,
    looks: dict[str, style.Look],
    spread: float,
) -> None:
    """Per strategy a line through its estimates, a bar per interval and a dot per launch."""
    shown = [name for name in looks if name in panel["strategy"]]
    for index, name in enumerate(shown):
        look = looks[name]
        shift = 2 ** (spread * (2 * index / (len(shown) - 1) - 1)) if len(shown) > 1 else 1.0
        rows = panel.filter(strategy=name).drop_nulls(quantity).sort("workers")
        x = [n * shift for n in rows["workers"]]
        y = rows[quantity].to_list()
        bars = style.error_bars(y, rows[quantity + "_low"].to_list(), rows[quantity + "_high"].to_list())
        dots = points.filter(strategy=name)
        beside = ax.transData + ScaledTranslation(4.5 / 72, 0, ax.figure.dpi_scale_trans)
        sns.scatterplot(
            x=(dots["workers"] * shift).to_numpy(), y=dots["value"].to_numpy(), ax=ax, color=look.colour,
            s=8, alpha=0.6, linewidth=0, zorder=3.5, transform=beside, label="_launches", legend=False,
        )  # fmt: skip
        ax.errorbar(
            x, y, yerr=bars, color=look.colour, ls="none" if look.base else look.line, lw=1.5,
            marker=look.marker, ms=5.5, mfc=look.face, mec=look.colour, mew=1.2, elinewidth=1.3, capsize=2.5,
            zorder=3, label=f"_{name}",
        )  # fmt: skip


def _ideal(ax: Axes, counts: Sequence[int], spread: float, law: Callable[[float], float], colour: str) -> None:
    """The ideal line, and a mark level over the strategies that stand side by side at each count."""
    ends = math.log2(counts[0]), math.log2(counts[-1])
    x = [2 ** (ends[0] + (ends[1] - ends[0]) * i / 40) for i in range(41)]
    ax.plot(x, [law(n) for n in x], color=colour, ls=style.DOTS, lw=1.1, zorder=2, label="_ideal")
    if spread:
        reach = 2 ** (1.35 * spread)
        for n in counts:
            ax.plot(
                [n / reach, n * reach],
                [law(n)] * 2,
                color=colour,
                lw=1.3,
                alpha=0.75,
                zorder=2,
                label="_mark",
            )


def _value_axis(ax: Axes, quantity: str, panel: pl.DataFrame, wide: bool) -> None:
    """Limits and labels. A very wide interval runs out of the frame rather than flatten the rest."""
    if wide:
        style.log2_values(ax)
        return
    most: float = max([1.4 * value for value in panel[quantity].drop_nulls()], default=1.0)
    ax.set_ylim(top=min(ax.get_ylim()[1], most))
    if quantity == "efficiency":
        least = panel.select(pl.min_horizontal("efficiency", "efficiency_low").min()).item() or 0.0
        ax.set_ylim(bottom=0.0 if least < 0.5 else math.floor(least * 10 - 0.5) / 10)
        ax.set_ylim(top=max(1.08, ax.get_ylim()[1]))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    else:
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}"))


def _unique(curves: Sequence[Curve]) -> list[Curve]:
    return list({curve.label: curve for curve in curves}.values())


def _behind_style(index: int, label: str) -> Line2D:
    greys = ("#8a8a8a", "#5a5a5a", "#b0a080", "#80a0a0")
    dashes: tuple[Any, ...] = ("-", (0, (5, 1)), (0, (3, 1, 1, 1)))
    colour, line = greys[index % len(greys)], dashes[index % len(dashes)]
    return Line2D([], [], color=colour, ls=line, lw=1.2, label=style.plain(label))
