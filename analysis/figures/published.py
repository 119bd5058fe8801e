"""How does my cluster compare with what is known: published efficiency behind one's own curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.curves import Curve, efficiency
from analysis.load.results import Results
from analysis.measures.efficiency import estimate
from analysis.published.curves import curves

MOST_TICKS = 9


def write(results: Results, folder: Path, wanted: Sequence[str]) -> list[Path]:
    """Write `efficiency-published` (SVG and PNG) into `folder`: the study's efficiency with the series of
    the sources `wanted` behind it. Returns the paths; none if no launch succeeded.

    Published series keep the batch per worker, or let the global batch grow: they stand in the panel of
    weak scaling, and where a study has none, in its other panel with that said at the head of the label, whose
    end may be cut. Raises ValueError for a source that is not known or has no curves (see
    `analysis.published.curves.curves`).
    """
    series = curves(wanted)
    estimates = estimate(results)
    if not len(estimates):
        return []
    weak = "weak" in estimates["scaling"]
    panel, remark = ("weak", "") if weak else (str(estimates["scaling"][0]), "weak scaling: ")
    behind = [
        Curve(f"{remark}{label}", panel, rows["workers"].to_list(), rows["efficiency"].to_list())
        for (label,), rows in series.sort("workers").group_by("label", maintain_order=True)
    ]
    figure = efficiency(estimates, results, behind=behind)
    _widen(figure, panel, [n for curve in behind for n in curve.workers])
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"efficiency-published.{ending}" for ending in ("svg", "png")]
    for path in paths:
        style.save(figure, path)
    return paths


def _widen(figure: Figure, panel: str, counts: Sequence[float]) -> None:
    """Let the panel of scaling mode `panel` reach to the largest published worker count."""
    for ax in figure.axes:
        if ax.get_title().startswith(panel):
            left, right = ax.get_xlim()
            ax.set_xlim(left, max(right, max(counts) * 1.25))
            ticks = sorted({*ax.get_xticks(), *(2**i for i in range(24) if 2**i <= max(counts))})
            shown = ticks if len(ticks) <= MOST_TICKS else ticks[:: -(-len(ticks) // MOST_TICKS)]
            ax.set_xticks(shown, [f"{n:,.0f}" for n in shown])
