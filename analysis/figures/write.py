"""Every figure of a results folder, as files.

paths = write_all(load(folder), folder / "figures")     each as SVG and PNG
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from analysis.figures.accuracy import accuracy
from analysis.figures.breakdown import breakdown
from analysis.figures.curves import efficiency, speedup, throughput
from analysis.figures.laws import laws
from analysis.figures.style import save
from analysis.laws.fit import fit
from analysis.load.results import Results
from analysis.measures.efficiency import estimate
from analysis.workloads.accuracy import times
from analysis.workloads.interface import Shown, shown

FIGURES: dict[str, Callable[[pl.DataFrame, Results], Figure]] = {
    "throughput": throughput,
    "speedup": speedup,
    "efficiency": efficiency,
    "breakdown": breakdown,
}


def write_all(results: Results, folder: Path, estimates: pl.DataFrame | None = None) -> list[Path]:
    """Write every figure as SVG and PNG into `folder`; nothing if no launch succeeded."""
    estimates = estimate(results) if estimates is None else estimates
    figures = {name: draw(estimates, results) for name, draw in FIGURES.items()} if len(estimates) else {}
    if len(of_training := times(results)):
        figures["accuracy"] = accuracy(of_training, estimates, results)
    for each in shown(results):
        figures.setdefault(each.workload.file, draw_workload(each, results))
    if not figures:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    if len(estimates) and (figure := laws(estimates, results, fit(results))) is not None:
        figures["laws"] = figure
    for name, figure in figures.items():
        for path in (folder / f"{name}.svg", folder / f"{name}.png"):
            save(figure, path)
            written.append(path)
    return written


def draw_workload(each: Shown, results: Results) -> Figure:
    """The figure that is named by the workload."""
    module, _, function = each.workload.figure.partition(":")
    drawn: Figure = getattr(importlib.import_module(module), function)(each.frame, results)
    return drawn
