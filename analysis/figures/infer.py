"""Inference: throughput and 99th percentile of the latency against images per call.

One column per framework and setting of the other factors, as each way to execute is set against eager
execution of just these.
"""

from __future__ import annotations

import polars as pl
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.figures import style
from analysis.load.results import Results
from analysis.workloads.execution import CALLED

# Eager is the reference, in ink; the others in colours apart from the frameworks' own.
WAYS = {"eager": ("o", style.INK), "graph": ("s", "#D55E00"), "xla": ("^", "#009E73"), "torchscript": ("D", "#7B3294"),
        "onnxruntime": ("X", "#CC79A7"), "savedmodel": ("v", "#8C6D31"), "tflite": ("P", "#08519C")}  # fmt: skip


def infer(frame: pl.DataFrame, results: Results) -> Figure:
    """`frame` is that of analysis.workloads.infer.calls, with at least one row."""
    panels = frame.select("framework", "factors").unique(maintain_order=True).rows()
    ways = [way for way in WAYS if way in frame["execution"].to_list()]
    study, device = str(results.study.get("name", results.folder.name)), results.trials["device"].drop_nulls()
    counts = sorted(frame["n_launches"].unique().to_list())
    launches = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    notes = [f"{style.plain(device[0]) if len(device) else ''} · {launches} launches per point, 95% intervals (bars)"]
    legend = [[Line2D([], [], color=WAYS[w][1], marker=WAYS[w][0], ms=6, label=w)] for w in ways]
    title = f"Inference · {style.plain(study, 60)}"
    with style.theme():
        made = style.sheet(title, notes, 2, len(panels), panel=(4.2, 2.7), legend=legend, above=0.25, left=0.85)
        for column, (framework, factors) in enumerate(panels):
            rows = frame.filter(framework=framework, factors=factors)
            for line, (name, label) in enumerate((("throughput", "images per second"), ("p99", "99th percentile, ms"))):
                ax = made.axes[line][column]
                for way in ways:
                    part = rows.filter(execution=way).sort("batch")
                    values = part[name] * (1.0 if name == "throughput" else 1e3)
                    marker, colour = WAYS[way]
                    sns.lineplot(x=part["batch"].to_list(), y=values.to_list(), ax=ax, color=colour, marker=marker,
                                 markersize=6, lw=1.4, errorbar=None, legend=False)  # fmt: skip
                    if name == "throughput":
                        bars = style.error_bars(
                            values.to_list(), part["throughput_low"].to_list(), part["throughput_high"].to_list()
                        )
                        ax.errorbar(part["batch"], values, yerr=bars, ls="none", color=colour, capsize=2.5, lw=1.0)
                ax.set_xscale("log", base=2)
                ax.xaxis.set_major_locator(FixedLocator(sorted(rows["batch"].unique().to_list())))
                ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
                ax.xaxis.set_minor_locator(NullLocator())
                values = rows[name] * (1.0 if name == "throughput" else 1e3)
                ax.set_ylim(float(values.min()) / 2, float(values.max()) * 2)  # type: ignore[arg-type]
                style.log2_values(ax)
                ax.set_xlabel("images per call" if line else "")
                ax.set_ylabel(label if column == 0 else "")
                if line == 0:
                    graph = CALLED.get((framework, "graph"), "graph")
                    also = f"\n{style.plain(factors, 48)}" if factors else ""
                    ax.set_title(f"{framework}: graph is {graph}{also}")
    return made.figure
