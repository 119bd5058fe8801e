"""The fitted laws over the measured throughput per worker, one panel per curve.

    figure = laws(estimates, results, fit(results))

Throughput per worker is level under ideal scaling, so a law shows by how it bends down. Beyond the
largest measured worker count the ground is grey and says "extrapolated".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import ScaledTranslation

from analysis.figures import style
from analysis.laws.law import REACH, LawFit, Prediction
from analysis.load.results import Results, varied

LOOKS = {"Amdahl": ("#333333", "-"), "Gustafson": ("#333333", "-"), "USL": ("#a0226b", (0, (5, 1.6)))}


def laws(estimates: pl.DataFrame, results: Results, fits: Sequence[LawFit]) -> Figure | None:
    """Rows are scaling modes (and factors), columns strategies. None if no law could be fitted."""
    if not any(fit.fitted for fit in fits):
        return None
    looks = {name: look for name, look in style.looks(estimates).items() if not look.base}
    apart = varied(estimates, results.factors)
    keys = list(dict.fromkeys((fit.scaling, *(fit.factors[name] for name in apart)) for fit in fits if fit.fitted))
    study, notes = style.describe(estimates, results.name)
    names = [name for name in LOOKS if any(fit.law == name and fit.fitted for fit in fits)]
    legend = [[Line2D([], [], color=LOOKS[name][0], ls=LOOKS[name][1], lw=1.5, label=name)] for name in names]
    legend.append([Line2D([], [], color=style.INK, ls=style.DOTS, lw=1.1, label="base case (ideal)")])
    with style.theme():
        made = style.sheet(
            f"Laws · {study}", notes, len(keys), len(looks), legend=legend, panel=(2.6, 2.6), left=0.95,
            above=0.3, sharey="row",
        )  # fmt: skip
        for axes, key in zip(made.axes, keys, strict=True):
            values = dict(zip(("scaling", *apart), key, strict=True))
            rows = estimates.filter(*(pl.col(name).eq_missing(value) for name, value in values.items()))
            ok = results.trials.filter(pl.col("status").eq("ok") & pl.col(values["scaling"]))
            launches = ok.filter(*(pl.col(name).eq_missing(values[name]) for name in apart))
            top = 0.0
            for ax, (name, look) in zip(axes, looks.items(), strict=True):
                mine = [f for f in fits if f.strategy == name and (f.scaling, *(f.factors[v] for v in apart)) == key]
                _dots(ax, launches.filter(strategy=name), look)
                top = max(top, _panel(ax, rows.filter(strategy=name), mine, look))
                if axes is made.axes[0]:
                    ax.set_title(style.plain(name, 28), color=look.colour, weight="bold", fontsize=9, pad=26)
                if axes is not made.axes[-1]:
                    ax.set_xlabel("")
            axes[0].set_ylim(0, 1.3 * top)
            words = [f"{v} scaling" if k == "scaling" else f"{k} {v}" for k, v in values.items()]
            axes[0].set_ylabel(f"{style.plain(', '.join(words), 45)}\nsamples/s per worker")
    return made.figure


def _dots(ax: Axes, launches: pl.DataFrame, look: style.Look) -> None:
    beside = ax.transData + ScaledTranslation(4.5 / 72, 0, ax.figure.dpi_scale_trans)
    y = (launches["throughput"] / launches["workers"]).to_list()
    ax.scatter(launches["workers"].to_list(), y, s=6, color=look.colour, alpha=0.6, lw=0, transform=beside, zorder=3.5)


def _panel(ax: Axes, rows: pl.DataFrame, fits: Sequence[LawFit], look: style.Look) -> float:
    """Draw one curve with its laws; the highest value that must be seen."""
    if not len(rows):
        ax.set_axis_off()
        return 0.0
    counts = sorted(rows["workers"].to_list())
    y, low, high = ((rows[f"throughput{end}"] / rows["workers"]).to_list() for end in ("", "_low", "_high"))
    ax.errorbar(
        rows["workers"].to_list(), y, yerr=style.error_bars(y, low, high), ls="none", color=look.colour,
        marker=look.marker, ms=5, mfc=look.face, mew=1.2, elinewidth=1.2, capsize=2.2, zorder=4,
    )  # fmt: skip
    bases = rows["base_throughput"].drop_nulls().to_list()
    if bases:
        ax.axhline(bases[0], color=style.INK, ls=style.DOTS, lw=1.1, zorder=2)
    fitted = [fit for fit in fits if fit.fitted]
    compared = sum(math.isfinite(fit.delta_aicc) for fit in fits) > 1
    said = [_said(fit, compared) for fit in fits]
    for fit in fitted:
        _law(ax, fit, counts)
    style.worker_axis(ax, [*counts, REACH * counts[-1]] if fitted else counts, 0.3, apart=0.1)
    if fitted:
        ax.axvspan(counts[-1] * 1.06, REACH * counts[-1] * 2, color="#f0f0f0", zorder=0)
        ax.text(
            1.9 * counts[-1], 0.97, "extrapolated", transform=ax.get_xaxis_transform(), fontsize=7, style="italic",
            color=style.QUIET, ha="center", rotation=90, va="top",
        )  # fmt: skip
    ax.text(0.0, 1.02, "\n".join(said), transform=ax.transAxes, fontsize=7.5, color=style.INK, va="bottom")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}"))
    return float(max([*y, *bases]))


def _law(ax: Axes, fit: LawFit, counts: Sequence[int]) -> None:
    begin, end = math.log2(counts[0]), math.log2(REACH * counts[-1])
    x = [2 ** (begin + (end - begin) * i / 60) for i in range(60)] + [float(REACH * counts[-1])]
    predicted = fit.predict(x)
    colour, line = LOOKS[fit.law]
    y = [p.throughput / p.workers for p in predicted]
    ax.plot(x, y, color=colour, ls=line, lw=1.4, zorder=3)
    low, high = ([min(v / n, 100 * max(y)) for v, n in zip(bound, x, strict=True)] for bound in _bounds(predicted))
    if not any(math.isnan(v) for v in low):
        ax.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0, zorder=1)


def _bounds(predicted: Sequence[Prediction]) -> tuple[list[float], list[float]]:
    return [p.low for p in predicted], [p.high for p in predicted]


def _said(fit: LawFit, compared: bool) -> str:
    """Which law is best is said where several were fitted."""
    if not fit.fitted:
        return f"{fit.law}: too few worker counts"
    shares = {"serial share": "s", "contention": "σ", "coherency": "κ"}
    values = [f"{shares[p.name]} {_number(p.value)}" for p in fit.parameters if p.name in shares]
    best = " · best" if fit.delta_aicc == 0 else f" · ΔAICc {fit.delta_aicc:.1f}" if fit.delta_aicc > 0 else ""
    return f"{fit.law}: {', '.join(values)}{best if compared else ''}"


def _number(value: float) -> str:
    return f"{100 * value:.2g}%" if value >= 1e-3 or value == 0 else f"{value:.1e}"
