"""How busy the machine was over a trial: workers' cores, GPUs, power, and what others took.

One row per strategy and one column per worker count; where power is known, a second row below each. A
panel shows one launch of its point in full and the others thin behind it: the launch whose throughput is
the median of its point's (the slower of two in the middle). Seconds are from the first training step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.figures import style
from analysis.load.results import Results
from analysis.load.values import number
from analysis.measures.utilization import Series, power_name, representative

Line = tuple[str, str, str, str]  # its name, of what, which quantity, its colour
PERCENT: tuple[Line, ...] = (
    ("workers' cores busy", "rank", "cpu_percent", "#3f6f94"),
    ("GPUs busy (SM)", "gpu", "sm_percent", "#009E73"),
    ("taken by others", "node", "taken_percent", "#a3262f"),
)
SHADES = {"warmup": "#f3e6c8", "measured": "#dcebdc", "after": "#e4e4ee"}
SHADE_NAMES = {"warmup": "warm-up", "measured": "measured", "after": "evaluation, compute-only and end"}


def utilization(drawn: Series, estimates: pl.DataFrame, results: Results) -> Figure:
    """The figure of what `series` has found."""
    points, looks = drawn.points, style.looks(estimates)
    names = [name for name in looks if name in points["strategy"]]
    counts = sorted(points["workers"].unique().to_list())
    used = [line for line in PERCENT if line[2] in drawn.lines["line"]]
    study, notes = style.describe(estimates, results.name)
    words = f"{drawn.mode.capitalize()} scaling; in full the launch with its point's median throughput, thin the others"
    notes = [*notes[:-2], notes[-1].rpartition(" · ")[0], words]  # its bars and dots are of other figures
    entries: list[Any] = [Line2D([], [], color=colour, lw=1.6, label=label) for label, _, _, colour in used]
    if drawn.has_power:
        entries.append(Line2D([], [], color=style.INK, lw=1.6, label=power_name(points)))
    entries += [Patch(facecolor=SHADES[p], edgecolor=style.QUIET, lw=0.4, label=SHADE_NAMES[p]) for p in SHADE_NAMES]
    legend = [entries[at : at + 2] for at in range(0, len(entries), 2)]
    each = 2 if drawn.has_power else 1
    with style.theme():
        made = style.sheet(
            f"Utilization over time · {study}", notes, each * len(names), len(counts), panel=(3.0, 1.3),
            legend=legend, left=0.95, sharey="row",
        )  # fmt: skip
        made.figure.subplots_adjust(hspace=0.34)
        for index, name in enumerate(names):
            for column, workers in enumerate(counts):
                launches = points.filter(strategy=name, workers=workers)
                here = [made.axes[each * index + row][column] for row in range(each)]
                _panel(here, launches, drawn, used, results)
                if index == 0:
                    here[0].set_title(f"{workers} worker{'s' if workers > 1 else ''}", fontsize=9)
                if index == len(names) - 1:
                    here[-1].set_xlabel("seconds since the first step")
            made.axes[each * index][0].set_ylabel(
                f"{style.plain(name, 24)}\n%", color=looks[name].colour, weight="bold"
            )
            if drawn.has_power:
                made.axes[each * index + 1][0].set_ylabel("W")
    return made.figure


def _panel(axes: list[Axes], launches: pl.DataFrame, drawn: Series, used: Sequence[Line], results: Results) -> None:
    if not len(launches):
        for ax in axes:
            ax.set_axis_off()
        return
    chosen = representative(launches)
    rows = drawn.lines.filter(pl.col("trial_id").is_in(launches["trial_id"].to_list())).sort("seconds")
    seconds = rows.filter(trial_id=chosen)["seconds"].to_numpy()
    last = float(seconds.max())
    for ax in axes:
        if ax is not axes[-1]:
            ax.tick_params(labelbottom=False)
        _shade(ax, results, launches.row(by_predicate=pl.col("trial_id") == chosen, named=True), last)
        ax.grid(axis="x", visible=False)
    shown = [(axes[0], quantity, colour) for _, _, quantity, colour in used]
    shown += [(axes[1], "watts", style.INK)] if len(axes) > 1 else []
    for ax, quantity, colour in shown:
        of = rows.filter(line=quantity)
        for (trial_id, host), part in of.group_by("trial_id", "host", maintain_order=True):
            full = trial_id == chosen
            ax.plot(part["seconds"].to_list(), part["value"].to_list(), color=colour, lw=1.5 if full else 0.6,
                    alpha=1.0 if full else 0.35, zorder=3 if full else 2, label=f"_{host}")  # fmt: skip
        ax.set_ylim(bottom=0)
    axes[0].set_ylim(0, max(105.0, axes[0].get_ylim()[1]))
    for ax in axes:
        ax.set_xlim(seconds.min(), last)  # the other launches may have taken longer


def _shade(ax: Axes, results: Results, launch: dict[str, Any], last: float) -> None:
    """The phases of a launch, as its ranks' reports tell them; `last` is the second of its last sample."""
    reports = [r for r in results.outcome(launch["trial_id"]).get("ranks") or [] if isinstance(r, dict)]
    starts, ends = ([number(r.get(f"train_{what}_unix")) for r in reports] for what in ("started", "ended"))
    if not reports or None in (*starts, *ends):
        return
    ended = max(filter(None, ends)) - max(filter(None, starts))
    measured = max(0.0, ended - launch["train_seconds"])
    edges = {"warmup": (0.0, measured), "measured": (measured, ended), "after": (ended, max(last, ended))}
    for phase, (begin, end) in edges.items():
        ax.axvspan(begin, end, color=SHADES[phase], lw=0, zorder=0)
