"""The base cases under the measured roof of the machine, both axes logarithmic."""

from __future__ import annotations

import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.figures import style
from analysis.load.results import Results
from analysis.measures.roofline import Roofline


def roofline(found: Roofline, estimates: pl.DataFrame, results: Results) -> Figure:
    """`found` has at least one point."""
    there, points = found.machine, found.points
    assert there is not None
    looks = style.looks(estimates)
    study, notes = style.describe(estimates, results.name)
    threads = "one core" if there.threads == 1 else f"{there.threads} cores"
    peaks = f"{there.flop_per_second / 1e9:,.0f} GFLOP/s, {there.bytes_per_second / 1e9:,.1f} GB/s"
    notes.append(f"Roof: measured on {threads} of {style.plain(there.cpu)}: {peaks}; bytes counted, not measured")
    names = points["strategy"].unique(maintain_order=True).to_list()
    intensities = points["intensity"].to_list()
    left, right = min(*intensities, there.ridge) / 4, max(*intensities, there.ridge) * 4
    with style.theme():
        legend = [[looks[name].legend()] for name in names]
        made = style.sheet(f"Roofline · {study}", notes, 1, 1, panel=(6.4, 3.6), legend=legend, left=0.75)
        ax = made.axes[0][0]
        x = [left, there.ridge, right]
        ax.plot(x, [min(there.flop_per_second, i * there.bytes_per_second) / 1e9 for i in x], color=style.INK, lw=1.6)
        ax.axvline(there.ridge, color=style.QUIET, ls=style.DOTS, lw=1.0)
        for row in points.iter_rows(named=True):
            look = looks[row["strategy"]]
            value, *ends = (row[f"flop_per_second{end}"] for end in ("", "_low", "_high"))
            low, high = (None if end is None else end / 1e9 for end in ends)
            bars = style.error_bars([value / 1e9], [low], [high])
            ax.errorbar(
                row["intensity"], value / 1e9, yerr=bars, color=look.colour,
                marker=look.marker, ms=6, mfc=look.face, mec=look.colour, mew=1.3, capsize=2.5, ls="none",
            )  # fmt: skip
        ax.set(xscale="log", yscale="log", xlim=(left, right))
        lowest: float = min(points["flop_per_second"].to_list()) / 1e9
        ax.set_ylim(min(lowest / 3, left * there.bytes_per_second / 1e9), 2 * there.flop_per_second / 1e9)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        ax.text(
            there.ridge, ax.get_ylim()[0] * 1.15, f" ridge {there.ridge:.3g} FLOP/byte", fontsize=8, color=style.QUIET
        )
        ax.set(xlabel="operations per byte of memory traffic, FLOP/byte", ylabel="GFLOP/s")
    return made.figure
