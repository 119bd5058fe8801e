"""Ingest: samples per second against readers, one line per pipeline; a panel for each source and batch."""

from __future__ import annotations

import polars as pl
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.load.results import Results
from analysis.workloads.ingest import PIPELINE, SOURCES, by_source

MARKERS = {"PyTorch": "o", "TensorFlow": "s"}


def ingest(frame: pl.DataFrame, results: Results) -> Figure:
    """`frame` is that of analysis.workloads.ingest.readings, with at least one row."""
    panels = frame.select("source", "batch").unique(maintain_order=True).sort(by_source(), "batch").rows()
    frameworks = frame["framework"].unique(maintain_order=True).to_list()
    study, device = str(results.study.get("name", results.folder.name)), results.trials["device"].drop_nulls()
    notes = [f"{style.plain(device[0]) if len(device) else ''} · readers are processes of DataLoader and threads of "
             "tf.data · 95% intervals (bars)"]  # fmt: skip
    legend = [
        [Line2D([], [], color=style.FRAMEWORKS.get(f, style.INK), marker=MARKERS.get(f, "D"), label=PIPELINE.get(f, f))]
        for f in frameworks
    ]
    title = f"Ingest · {style.plain(study, 60)}"
    with style.theme():
        made = style.sheet(title, notes, 1, len(panels), panel=(3.6, 3.0), legend=legend, left=0.85)
        for ax, (source, size) in zip(made.axes[0], panels, strict=True):
            here = frame.filter(source=source, batch=size)
            for framework in frameworks:
                rows = here.filter(framework=framework).sort("readers")
                colour = style.FRAMEWORKS.get(framework, style.INK)
                values = rows["throughput"].to_list()
                sns.lineplot(x=rows["readers"].to_list(), y=values, ax=ax, color=colour, lw=1.5, errorbar=None,
                             marker=MARKERS.get(framework, "D"), markersize=6, legend=False)  # fmt: skip
                bars = style.error_bars(values, rows["throughput_low"].to_list(), rows["throughput_high"].to_list())
                ax.errorbar(rows["readers"], values, yerr=bars, ls="none", color=colour, capsize=2.5, lw=1.0)
            style.worker_axis(ax, sorted(frame["readers"].unique().to_list()), 0.3)
            # Each its own: from memory is another order of magnitude than from files.
            ax.set_ylim(0, 1.3 * float(here["throughput"].max()))  # type: ignore[arg-type]
            first = (source, size) == panels[0]
            ax.set(xlabel="readers", ylabel="samples per second" if first else "",
                   title=f"{SOURCES[source]}, batch {size}")  # fmt: skip
    return made.figure
