"""The figures of the report: which there is data for, drawn, saved, and taken for the page."""

from __future__ import annotations

import base64
import gc
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from markupsafe import Markup
from matplotlib.figure import Figure

from analysis.figures import (
    accuracy,
    breakdown,
    curves,
    distribution,
    laws,
    roofline,
    style,
    utilization,
)
from analysis.figures.write import draw_workload
from analysis.load.results import Results
from analysis.measures.distribution import Distributions, order_residuals
from analysis.report import captions
from analysis.report.study import Study
from analysis.workloads.interface import Shown


@dataclass(frozen=True)
class Picture:
    """A figure on the page: `finding` says what it shows, `alt` also what kind of picture it is."""

    name: str
    source: Markup
    width: int
    height: int
    alt: str
    finding: str
    data: str


def draw(study: Study, folder: Path) -> dict[str, Picture]:
    """Draw what there is data for, as SVG and PNG into `folder`, and take the SVGs for the page."""
    estimates, results, lower = study.estimates, study.results, study.distributions
    wanted = [_of_workload(each, results) for each in study.workloads]
    if len(estimates):
        wanted += _curves(study, estimates, results, lower)
    if len(study.times):
        wanted.append(("accuracy", "Line charts of accuracy over seconds", captions.times(study.times), "accuracy",
                       lambda: accuracy.accuracy(study.times, estimates, results)))  # fmt: skip
    if not wanted:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    collecting = gc.isenabled()
    gc.disable()  # figures are a great many small objects: looking for garbage among them takes a tenth of the time
    try:
        for name, kind, finding, data, make in wanted:
            if (figure := make()) is not None:
                pictures[name] = _picture(figure, folder / name, kind, finding, data)
    finally:
        if collecting:
            gc.enable()
    return pictures


Wanted = tuple[str, str, str, str, Callable[[], Figure | None]]


def _of_workload(each: Shown, results: Results) -> Wanted:
    workload = each.workload
    found = workload.finding(each.frame)
    return workload.file, workload.picture, found, workload.file, lambda: draw_workload(each, results)


def _curves(study: Study, estimates: pl.DataFrame, results: Results, lower: Distributions) -> list[Wanted]:
    """The figures of training trials: name, kind, what it shows, its data, and how it is made."""
    efficient = " ".join(captions.efficiency(estimates))
    wanted: list[Wanted] = [
        ("efficiency", "Line chart of efficiency over workers", efficient, "estimates",
         lambda: curves.efficiency(estimates, results)),
        ("speedup", "Line chart of speedup over workers", captions.speedup(estimates), "estimates",
         lambda: curves.speedup(estimates, results)),
        ("throughput", "Line chart of samples per second over workers", captions.throughput(estimates), "estimates",
         lambda: curves.throughput(estimates, results)),
        ("breakdown", "Stacked bars of worker time per sample", captions.breakdown(estimates), "breakdown",
         lambda: breakdown.breakdown(estimates, results)),
        ("steps", "Box plots of step times", captions.steps(lower.steps), "steps",
         lambda: distribution.steps(lower.steps, estimates, results)),
    ]  # fmt: skip
    if any(f.fitted for f in study.fits):
        wanted.append(("laws", "Line charts of fitted laws over measured throughput per worker",
                       captions.laws(study.fits), "laws",
                       lambda: laws.laws(estimates, results, study.fits)))  # fmt: skip
    if study.utilization:
        drawn = study.utilization
        wanted.append(("utilization", "Line charts of utilization over time", captions.utilization(drawn),
                       "utilization", lambda: utilization.utilization(drawn, estimates, results)))  # fmt: skip
    if len(study.roofline.points):
        wanted.append(("roofline", "Roofline chart of the base cases", captions.roofline(study.roofline), "roofline",
                       lambda: roofline.roofline(study.roofline, estimates, results)))  # fmt: skip
    if lower.ranks["trial_id"].is_duplicated().any():
        wanted.append(("ranks", "Box plots of ranks against the median rank", captions.ranks(lower.ranks), "ranks",
                       lambda: distribution.ranks(lower.ranks, estimates, results)))  # fmt: skip
    if len(order_residuals(results)) > 1:
        wanted.append(("order", "Scatter plot of launches over their order", captions.launch_order(results), "launches",
                       lambda: distribution.launch_order(estimates, results)))  # fmt: skip
    return wanted


def _picture(figure: Figure, path: Path, kind: str, finding: str, data: str) -> Picture:
    for ending in (".svg", ".png"):
        style.save(figure, path.with_suffix(ending))
    svg = path.with_suffix(".svg").read_text(encoding="utf-8")
    # Matplotlib writes coordinates to a millionth of a point; a hundredth halves the page.
    small = re.sub(r' d="[^"]*"', lambda d: re.sub(r"(\.\d\d)\d+", r"\1", d[0]), svg)
    source = "data:image/svg+xml;base64," + base64.b64encode(small.encode()).decode()
    width, height = (round(float(side) * 96) for side in figure.get_size_inches())
    return Picture(path.name, Markup(source), width, height, f"{kind}. {finding}", finding, data)
