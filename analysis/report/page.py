"""A results folder ─▶ one HTML page with everything it means, and the figures and tables beside it.

    page = write(Path("results/quick"))      RESULTS/report/index.html, figures/ and tables/

The page needs no network and no other file: figures are inside it as SVG images, and its one script
(sorting tables) is the only one that its content security policy lets run. Whatever a study file, a
file name or an error text holds is shown as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis import wording
from analysis.cells import noted
from analysis.laws import law
from analysis.limits import words
from analysis.load.results import Results, load
from analysis.measures import energy
from analysis.measures.efficiency import base_words
from analysis.report import captions, facts, rules, tables, why, workloads
from analysis.report.figures import Picture, draw
from analysis.report.study import Study, relative, write_tables
from analysis.verdicts import claims
from analysis.workloads.interface import beside


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


def render(study: Study, pictures: dict[str, Picture]) -> str:
    """The page as text."""
    results, estimates = study.results, study.estimates
    environment = Environment(
        loader=PackageLoader("analysis.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    loader = environment.loader
    assert loader is not None
    style, script = (loader.get_source(environment, name)[0] for name in ("report.css", "report.js"))
    lost, more_lost = facts.missing(results)
    has = bool(len(estimates))
    shown = [limit for limit in study.limits if limit.shown]
    return environment.get_template("report.html").render(
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        name=results.name,
        overview=captions.overview(results, estimates),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        period=_period(results),
        setting=facts.setting(results),
        emulated=has and bool(estimates["emulated"].any()),
        bases=facts.base_cases(estimates),
        base_words=base_words(estimates),
        cautions=captions.cautions(results, estimates),
        verdicts=study.verdicts,
        claims=[(v, why.comparisons(v), _records(v)) for v in study.verdicts],
        pictures=pictures,
        has=has,
        any_ok=has or bool((beside(results)["status"] == "ok").any()),
        sections=workloads.sections(study.workloads),
        scaling=tables.scaling(estimates, results),
        paired=has and bool(estimates["efficiency_from"].eq("beside").any()),
        beside=tables.beside(study.against, results),
        no_companion=facts.no_companion(results),
        limits=noted(why.limits(study.limits), study.notes(words.frame(shown, results))),
        energy=noted(why.energy(study.energies, results), study.notes(study.energies)),
        no_energy="" if len(study.energies) else energy.absent(results),
        roofline=noted(why.roofline(study.roofline), study.notes(study.roofline.points)),
        no_roofline=study.roofline.note,
        times=why.times(study.times, results),
        breakdown=noted(tables.breakdown(estimates, results), study.notes(estimates)),
        costs=noted(tables.step_costs(estimates, results), study.notes(estimates)),
        steps=noted(tables.steps(study.distributions.steps, results), study.notes(study.distributions.steps)),
        ranks=tables.worst_ranks(study.distributions.ranks),
        laws=why.laws(study.fits, estimates, results),
        unfitted=_unfitted(study.fits),
        launches=tables.launches(results),
        lost=lost,
        more_lost=more_lost,
        not_measured=facts.not_measured(results),
        set_aside=[(relative(results, s.path), s.reason) for s in results.set_aside],
        constant=facts.constant_factors(results),
        varied=facts.varied_factors(results),
        data=facts.data(results),
        left_out_of_data=facts.left_out_of_data(results),
        study_file=_study_file(results),
        rules=rules.answers(results, estimates, workloads.points(study.workloads, results), study.fits, study.roofline),
    )


def _records(verdict: claims.Verdict) -> list[str]:
    """The launches that the comparisons of a verdict stand on."""
    return sorted({record for comparison in verdict.comparisons for record in comparison.records})


def _unfitted(fits: list[law.LawFit]) -> list[tuple[str, str]]:
    """Each reason why a law was not fitted, with the curves that it holds for."""
    curves: dict[tuple[str, str], list[str]] = {}
    for fit in fits:
        if not fit.fitted:
            curves.setdefault((fit.note, fit.scaling), []).append(fit.strategy)
    return [(note, f"{scaling} scaling of {wording.some(dict.fromkeys(n))}") for (note, scaling), n in curves.items()]


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


__all__ = ["write"]
