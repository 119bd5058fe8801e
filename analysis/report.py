"""A results folder ─▶ one HTML page with everything it means, and the figures and tables beside it.

    page = write(Path("results/quick"))      RESULTS/report/index.html, figures/ and tables/

The page needs no network and no other file: figures are inside it as SVG images, and its one script
(sorting tables) is the only one that its content security policy lets run. Whatever a study file, a
file name or an error text holds is shown as text.
"""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from analysis import (
    claims,
    inference,
    ingest,
    laws,
    limit_words,
    plot_distribution,
    plot_inference,
    plot_ingest,
    plot_laws,
    plots,
)
from analysis import report_facts as facts
from analysis import report_rules as rules
from analysis import report_tables as tables
from analysis import report_why as why
from analysis import report_words as words
from analysis.distribution import Distributions, distributions
from analysis.efficiency import estimate
from analysis.limits import Limit, limits
from analysis.load import Results, load
from analysis.plot_breakdown import parts


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


def write(results_folder: Path, to: Path | None = None) -> Path:
    """Write the report and return the path of its page.

    `to` is the folder, or the .html file, to be written; default RESULTS/report/index.html. Raises
    NotResults if `results_folder` is none.
    """
    results = load(results_folder)
    page = to or results_folder / "report"
    page = page if page.suffix == ".html" else page / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    study = Study.of(results)
    write_tables(study, page.parent / "tables")
    pictures = draw(study, page.parent / "figures")
    page.write_text(render(study, pictures), encoding="utf-8")
    return page


@dataclass(frozen=True)
class Study:
    """All that the report is made from."""

    results: Results
    estimates: pl.DataFrame
    distributions: Distributions
    fits: list[laws.LawFit]
    verdicts: list[claims.Verdict]
    calls: pl.DataFrame
    files: pl.DataFrame
    limits: list[Limit]

    @classmethod
    def of(cls, results: Results) -> Study:
        estimates, lower = estimate(results), distributions(results)
        return cls(
            results,
            estimates,
            lower,
            laws.fit(results),
            claims.judge(results),
            inference.calls(results),
            ingest.readings(results),
            limits(results, estimates, lower.ranks),
        )


def write_tables(study: Study, folder: Path) -> None:
    """Each table as CSV for people and other tools, and as Parquet with its types."""
    results = study.results
    folder.mkdir(parents=True, exist_ok=True)
    frames = {
        "estimates": study.estimates,
        "launches": results.trials,
        "breakdown": parts(study.estimates),
        "limits": limit_words.frame(study.limits, results),
        "steps": study.distributions.steps,
        "ranks": study.distributions.ranks,
        "laws": laws.frame(study.fits),
        "claims": claims.frame(study.verdicts),
        **({"inference": study.calls} if len(study.calls) else {}),
        **({"ingest": study.files} if len(study.files) else {}),
        "set-aside": pl.DataFrame(
            [(_relative(results, s.path), s.reason) for s in results.set_aside],
            schema={"path": pl.String, "reason": pl.String},
            orient="row",
        ),
    }
    for name, frame in frames.items():
        frame.write_csv(folder / f"{name}.csv")
        frame.write_parquet(folder / f"{name}.parquet")


def draw(study: Study, folder: Path) -> dict[str, Picture]:
    """Draw what there is data for, as SVG and PNG into `folder`, and take the SVGs for the page."""
    estimates, results, lower = study.estimates, study.results, study.distributions
    wanted: list[Wanted] = []
    if len(study.calls):
        wanted.append(("inference", "Line charts of calls over images per call", words.calls(study.calls), "inference",
                       lambda: plot_inference.inference(study.calls, results)))  # fmt: skip
    if len(study.files):
        wanted.append(("ingest", "Line chart of samples per second over readers", words.files(study.files), "ingest",
                       lambda: plot_ingest.ingest(study.files, results)))  # fmt: skip
    if len(estimates):
        wanted += _curves(study, estimates, results, lower)
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


def _curves(study: Study, estimates: pl.DataFrame, results: Results, lower: Distributions) -> list[Wanted]:
    """The figures of training trials: name, kind, what it shows, its data, and how it is made."""
    efficient = " ".join(words.efficiency(estimates))
    wanted: list[Wanted] = [
        ("efficiency", "Line chart of efficiency over workers", efficient, "estimates",
         lambda: plots.efficiency(estimates, results)),
        ("speedup", "Line chart of speedup over workers", words.speedup(estimates), "estimates",
         lambda: plots.speedup(estimates, results)),
        ("throughput", "Line chart of samples per second over workers", words.throughput(estimates), "estimates",
         lambda: plots.throughput(estimates, results)),
        ("breakdown", "Stacked bars of worker time per sample", words.breakdown(estimates), "breakdown",
         lambda: plots.breakdown(estimates, results)),
        ("steps", "Box plots of step times", words.steps(lower.steps), "steps",
         lambda: plot_distribution.steps(lower.steps, estimates, results)),
    ]  # fmt: skip
    if any(f.fitted for f in study.fits):
        wanted.append(("laws", "Line charts of fitted laws over measured throughput per worker", words.laws(study.fits),
                       "laws", lambda: plot_laws.laws(estimates, results, study.fits)))  # fmt: skip
    if lower.ranks["trial_id"].is_duplicated().any():
        wanted.append(("ranks", "Box plots of ranks against the median rank", words.ranks(lower.ranks), "ranks",
                       lambda: plot_distribution.ranks(lower.ranks, estimates, results)))  # fmt: skip
    if len(plot_distribution.order_residuals(results)) > 1:
        wanted.append(("order", "Scatter plot of launches over their order", words.launch_order(results), "launches",
                       lambda: plot_distribution.launch_order(estimates, results)))  # fmt: skip
    return wanted


def _picture(figure: Figure, path: Path, kind: str, finding: str, data: str) -> Picture:
    for ending in (".svg", ".png"):
        plots.save(figure, path.with_suffix(ending))
    svg = path.with_suffix(".svg").read_text(encoding="utf-8")
    # Matplotlib writes coordinates to a millionth of a point; a hundredth halves the page.
    small = re.sub(r' d="[^"]*"', lambda d: re.sub(r"(\.\d\d)\d+", r"\1", d[0]), svg)
    source = "data:image/svg+xml;base64," + base64.b64encode(small.encode()).decode()
    width, height = (round(float(side) * 96) for side in figure.get_size_inches())
    return Picture(path.name, Markup(source), width, height, f"{kind}. {finding}", finding, data)


def render(study: Study, pictures: dict[str, Picture]) -> str:
    """The page as text."""
    results, estimates = study.results, study.estimates
    environment = Environment(
        loader=PackageLoader("analysis"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    loader = environment.loader
    assert loader is not None
    style, script = (loader.get_source(environment, name)[0] for name in ("report.css", "report.js"))
    lost, more_lost = facts.missing(results)
    has = bool(len(estimates))
    return environment.get_template("report.html").render(
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        name=results.name,
        overview=words.overview(results, estimates),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        period=_period(results),
        setting=facts.setting(results),
        emulated=has and bool(estimates["emulated"].any()),
        bases=facts.base_cases(estimates),
        cautions=words.cautions(results, estimates),
        verdicts=study.verdicts,
        claims=[(v, tables.comparisons(v), _records(v)) for v in study.verdicts],
        pictures=pictures,
        has=has,
        any_ok=has or bool(len(study.calls) or len(study.files)),
        calls=tables.calls(study.calls),
        files=tables.files(study.files),
        scaling=tables.scaling(estimates, results),
        limits=why.limits(study.limits),
        breakdown=tables.breakdown(estimates, results),
        costs=tables.step_costs(estimates, results),
        steps=tables.steps(study.distributions.steps, results),
        ranks=tables.worst_ranks(study.distributions.ranks),
        laws=tables.laws(study.fits, estimates, results),
        unfitted=_unfitted(study.fits),
        launches=tables.launches(results),
        lost=lost,
        more_lost=more_lost,
        not_measured=facts.not_measured(results),
        set_aside=[(_relative(results, s.path), s.reason) for s in results.set_aside],
        constant=facts.constant_factors(results),
        varied=facts.varied_factors(results),
        study_file=_study_file(results),
        rules=rules.answers(results, estimates, study.fits),
    )


def _records(verdict: claims.Verdict) -> list[str]:
    """The launches that the comparisons of a verdict stand on."""
    return sorted({record for comparison in verdict.comparisons for record in comparison.records})


def _unfitted(fits: list[laws.LawFit]) -> list[tuple[str, str]]:
    """Each reason why a law was not fitted, with the curves that it holds for."""
    curves: dict[tuple[str, str], list[str]] = {}
    for fit in fits:
        if not fit.fitted:
            curves.setdefault((fit.note, fit.scaling), []).append(fit.strategy)
    return [(note, f"{scaling} scaling of {facts.some(dict.fromkeys(n))}") for (note, scaling), n in curves.items()]


def _period(results: Results) -> str:
    started, ended = results.trials["started"].min(), results.trials["ended"].max()
    if not isinstance(started, datetime):
        return ""
    first = f"{started:%Y-%m-%d %H:%M}"
    return f"{first} to {ended:%Y-%m-%d %H:%M} UTC" if isinstance(ended, datetime) else f"{first} UTC"


def _study_file(results: Results) -> str:
    try:
        return str(yaml.safe_dump(results.study, sort_keys=False, allow_unicode=True)) if results.study else ""
    except yaml.YAMLError:
        return json.dumps(results.study, default=str, indent=1)


def _relative(results: Results, path: Path) -> str:
    inside = path.relative_to(results.folder) if path.is_relative_to(results.folder) else path
    return str(inside).encode("utf-8", errors="replace").decode("utf-8")


__all__ = ["write"]
