"""How every figure looks: colours, markers, titles, axes. Names are text, never mathematics or markup.

Colour and fill say the framework (PyTorch filled orange, TensorFlow open blue: two colours of the
Okabe-Ito palette that also differ in brightness), marker and line say the communication, so the 2×2
design reads at once, in grey print and with colour-blind eyes too.
"""

from __future__ import annotations

import itertools
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import polars as pl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from analysis.figures import style
from analysis.measures.efficiency import base_words

matplotlib.use("Agg", force=False)

INK, QUIET = "#222222", "#6b6b6b"
FRAMEWORKS = {"PyTorch": "#D55E00", "TensorFlow": "#08519C", "JAX": "#009E73"}
OTHERS = ("#009E73", "#7B3294", "#8C6D31")  # frameworks that are neither
# Per communication, for the first, second … strategy of a framework that has it: marker and dashes.
SHAPES: dict[str, list[tuple[str, Any]]] = {
    "none": [("D", ":"), ("P", ":")],
    "native": [("o", "-"), ("^", (0, (6, 1.5, 1, 1.5))), ("v", (0, (1, 1)))],
    "horovod": [("s", (0, (4, 2))), ("p", (0, (2, 2)))],
}
# Replicas in one process: not the counterpart of another framework's native communication, so these do
# not take its marker.
ONE_PROCESS = ("tf-mirrored", "tf-tpu")
DOTS: Any = (0, (1, 1.6))  # the ideal
INPUT, COMPUTE, EXPOSED, WHOLE = "#b9b9b9", "#3f6f94", "#e0a030", "#d9d9d9"

THEME: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.hashsalt": "scaling",
    "svg.fonttype": "path",
    "axes.edgecolor": "#9a9a9a",
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "hatch.linewidth": 0.6,
}


@dataclass(frozen=True)
class Look:
    """How one strategy is drawn."""

    strategy: str
    framework: str
    base: bool
    colour: str
    marker: str
    line: Any
    filled: bool

    @property
    def face(self) -> str:
        return self.colour if self.filled else "white"

    def legend(self) -> Line2D:
        label = f"{plain(self.strategy)} (base case)" if self.base else plain(self.strategy)
        return Line2D(
            *([], []), color=self.colour, ls="none" if self.base else self.line, lw=1.6, marker=self.marker,
            ms=6, mfc=self.face, mec=self.colour, mew=1.3, label=label,
        )  # fmt: skip


@contextmanager
def theme() -> Iterator[None]:
    """seaborn's white grid with this project's colours, for as long as a figure is made or saved: of a user's own
    matplotlibrc nothing is in it."""
    with (
        plt.style.context("default"),
        sns.axes_style("whitegrid"),
        sns.plotting_context("paper"),
        plt.rc_context(THEME),
    ):
        yield


def looks(estimates: pl.DataFrame) -> dict[str, Look]:
    """The look of each strategy, in the order of the estimates (base case, native, Horovod)."""
    strategies = estimates.unique("strategy", maintain_order=True)
    colours, others, seen = dict(FRAMEWORKS), itertools.cycle(OTHERS), dict[tuple[str, str], int]()
    found = {}
    for row in sorted(strategies.iter_rows(named=True), key=lambda row: row["strategy"] in ONE_PROCESS):
        framework = row["framework"] or "?"
        communication = row["communication"] if row["communication"] in SHAPES else "native"
        colour = colours.setdefault(framework, next(others) if framework not in colours else "")
        index = seen.get((framework, communication), 0)
        seen[framework, communication] = index + 1
        marker, line = SHAPES[communication][index % len(SHAPES[communication])]
        base, filled = communication == "none", framework != "TensorFlow"
        found[row["strategy"]] = Look(row["strategy"], framework, base, colour, marker, line, filled)
    order = strategies["strategy"].to_list()
    return dict(sorted(found.items(), key=lambda item: (item[1].framework, order.index(item[0]))))


def plain(text: object, most: int = 80) -> str:
    """One printable line. A leading underscore would hide a legend's label, so it gets a space."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    line = line if len(line) <= most else line[: most - 1] + "…"
    return f" {line}" if line.startswith("_") else line


@dataclass(frozen=True)
class Sheet:
    """A figure with a grid of axes [rows][columns], titled, with room for a legend below."""

    figure: Figure
    axes: list[list[Axes]]


def sheet(
    title: str,
    notes: Sequence[str],
    rows: int,
    columns: int,
    *,
    panel: tuple[float, float] = (4.6, 3.3),
    legend: Sequence[Sequence[Any]] = (),
    widths: Sequence[float] | None = None,
    least_width: float = 6.4,
    left: float = 0.68,
    above: float = 0.0,
    sharey: Any = False,
) -> Sheet:
    """Lay out panels of `panel` inches under a title and notes; `legend` is a list of its columns.

    `left` is the room for the y axis in inches, `above` that for text above each panel.
    """
    width = max(columns * panel[0], least_width)
    lines = [line for note in notes for line in textwrap.wrap(note, int(width * 15.5))]
    legend_rows = max((len(column) for column in legend), default=0)
    top, bottom = 0.62 + above + 0.17 * len(lines), 0.55 + 0.2 * legend_rows + (0.15 if legend else 0)
    height = top + bottom + rows * panel[1] + (rows - 1) * above
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, height), squeeze=False, sharey=sharey,
        gridspec_kw={"width_ratios": widths} if widths is not None else None,
    )  # fmt: skip
    plt.close(figure)  # it is the caller's now; pyplot need not keep it
    figure.subplots_adjust(
        left=left / width, right=1 - 0.15 / width, top=1 - top / height, bottom=bottom / height,
        hspace=(0.5 + above) / panel[1], wspace=0.17,
    )  # fmt: skip
    edge = 0.12 / width
    figure.text(
        edge,
        1 - 0.12 / height,
        plain(title, int(width * 8.5)),
        fontsize=12,
        weight="bold",
        ha="left",
        va="top",
    )
    figure.text(
        edge,
        1 - 0.36 / height,
        "\n".join(lines),
        fontsize=8,
        color=QUIET,
        ha="left",
        va="top",
        linespacing=1.35,
    )
    if legend:
        nothing = Line2D([], [], ls="none", label=" ")
        handles = [h for column in legend for h in (*column, *[nothing] * (legend_rows - len(column)))]
        figure.legend(
            handles=handles, ncols=len(legend), loc="lower center", bbox_to_anchor=(0.5, 0.03 / height),
            frameon=False, handlelength=3.2, columnspacing=2.5, labelspacing=0.35,
        )  # fmt: skip
    return Sheet(figure, [list(row) for row in axes])


def error_bars(
    values: Sequence[float], lows: Sequence[float | None], highs: Sequence[float | None]
) -> list[list[float]]:
    """How far the interval reaches below and above each value; NaN, i.e. no bar, where there is none."""
    down = [math.nan if low is None else max(0.0, v - low) for v, low in zip(values, lows, strict=True)]
    up = [math.nan if high is None else max(0.0, high - v) for v, high in zip(values, highs, strict=True)]
    return [down, up]


def worker_axis(ax: Axes, counts: Sequence[int], margin: float, apart: float = 0.07) -> None:
    """A log2 axis whose ticks are the worker counts; labels nearer than `apart` of it are left off."""
    ax.set_xscale("log", base=2)
    low, high = math.log2(min(counts)) - margin, math.log2(max(counts)) + margin
    ax.set_xlim(2**low, 2**high)
    kept: list[int] = []
    ends = min(counts), max(counts)
    for n in sorted(counts, key=lambda n: (n not in ends, n & (n - 1) != 0, -n)):
        if all(abs(math.log2(n / other)) >= apart * (high - low) for other in kept):
            kept.append(n)
    ax.xaxis.set_major_locator(FixedLocator(sorted(kept)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    ax.xaxis.set_minor_locator(FixedLocator(sorted(set(counts) - set(kept))))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("workers")


def log2_values(ax: Axes) -> None:
    """A log2 y axis with plain numbers."""
    ax.set_yscale("log", base=2)
    low, high = (math.log2(value) for value in ax.get_ylim())
    every = max(1, math.ceil((high - low) / 9))
    ticks = [2.0**k for k in range(math.ceil(low), math.floor(high) + 1, every)]
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())


def batch(panel: pl.DataFrame, scaling: str) -> str:
    """The batch that is held fixed, for a heading: ", 64 samples per worker"."""
    if scaling == "strong":
        sizes, words = panel["global_batch"].unique(), "in the global batch"
    else:
        sizes, words = (panel["global_batch"] // panel["workers"]).unique(), "per worker"
    return f", {sizes[0]:,} samples {words}" if len(sizes) == 1 else ""


def describe(estimates: pl.DataFrame, study: str) -> tuple[str, list[str]]:
    """What the title and the notes of every figure say: the study, the base cases, where it ran."""
    bases = []
    for (scaling, base), rows in estimates.group_by("scaling", "base_case", maintain_order=True):
        if base is not None:
            rates = rows["base_throughput"].drop_nulls().unique().sort()
            said = " to ".join(f"{rate:,.0f}" for rate in ([rates[0], rates[-1]] if len(rates) > 1 else rates))
            said = said or "beside other launches only"
            bases.append((str(scaling), f"{plain(base)} {said}"))
    by_mode = {mode: [text for m, text in bases if m == mode] for mode, _ in bases}
    said = "; ".join(f"{', '.join(texts)} ({mode})" for mode, texts in by_mode.items())
    base_note = f"Base case ({base_words(estimates)}), samples/s: {said}" if said else "Base case not measured"
    launches = estimates["n_launches"].to_list()
    count = f"{min(launches)}" if min(launches) == max(launches) else f"{min(launches)} to {max(launches)}"
    where = [plain(v) for v in estimates["device"].drop_nulls().unique().sort()]
    how = [f"{plain(v)} launcher" for v in estimates["launcher"].drop_nulls().unique().sort()]
    notes = [
        base_note,
        " · ".join([*where, *how, f"{count} launches per point (dots), 95% intervals (bars)"]),
    ]
    if estimates["efficiency_from"].eq("beside").any():
        notes[0] += "; speedup and efficiency over the one beside each launch"
    if estimates["emulated"].any():
        notes.insert(
            0, "EMULATED: these times were simulated, or other devices stood in: nothing was measured on such hardware"
        )
    return plain(study, 200), notes


def save(figure: Figure, path: Path) -> None:
    """Write `figure` in the format of the ending of `path`, the same bytes for the same figure."""
    with style.theme(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a study may have any name
        metadata: dict[str, Any] = {"Date": None, "Creator": None} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=150, metadata={**metadata})
