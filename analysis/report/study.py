"""All that the report is made from, and its tables beside the page as CSV and Parquet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from analysis.laws import fit, law
from analysis.limits import words
from analysis.limits.limit import Limit, limits
from analysis.load.results import Results
from analysis.measures import beside, caveats, energy, roofline
from analysis.measures.breakdown import parts
from analysis.measures.distribution import Distributions, distributions
from analysis.measures.efficiency import KEY, estimate
from analysis.measures.hosts import hosts
from analysis.measures.utilization import Series, series
from analysis.report import facts
from analysis.verdicts import claims
from analysis.workloads import accuracy
from analysis.workloads.interface import Shown, shown

OF_STRATEGY = ("framework", "communication")  # follow from it; in the table of limits the second is a quantity


@dataclass(frozen=True)
class Study:
    """All that the report is made from."""

    results: Results
    estimates: pl.DataFrame
    distributions: Distributions
    fits: list[law.LawFit]
    verdicts: list[claims.Verdict]
    workloads: list[Shown]
    limits: list[Limit]
    energies: pl.DataFrame
    roofline: roofline.Roofline
    times: pl.DataFrame
    utilization: Series | None
    against: pl.DataFrame  # of measures.beside.against_alone

    @classmethod
    def of(cls, results: Results) -> Study:
        estimates, lower = estimate(results), distributions(results)
        return cls(
            results,
            estimates,
            lower,
            fit.fit(results),
            claims.judge(results),
            shown(results),
            limits(results, estimates, lower.ranks),
            energy.energies(results),
            roofline.roofline(results, estimates),
            accuracy.times(results),
            series(results),
            beside.against_alone(results),
        )

    def warned(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame with the column `warning`, if it has none and its rows name points: those of all estimates that
        have what a row names, so of a curve those of all its points."""
        on = [name for name in (*KEY, *self.results.factors) if name in frame.columns and name not in OF_STRATEGY]
        if "warning" in frame.columns or "strategy" not in on:
            return frame
        each = self.estimates.select(*on, pl.col("warning").str.split("; ")).explode("warning")
        texts = each.group_by(on).agg(pl.col("warning").unique(maintain_order=True).drop_nulls())
        named = frame.select(pl.col(name).cast(self.estimates.schema[name], strict=False) for name in on)
        found = named.join(texts, on=on, how="left", nulls_equal=True, maintain_order="left")["warning"]
        joined = ["; ".join(filter(None, [] if each is None else each)) for each in found.to_list()]
        return frame.with_columns(warning=pl.Series(joined, dtype=pl.String))

    def notes(self, frame: pl.DataFrame) -> list[str]:
        """The warnings of each row."""
        return self.warned(frame)["warning"].to_list() if len(frame) else []


def write_tables(study: Study, folder: Path) -> None:
    """Each table as CSV for people and other tools, and as Parquet with its types."""
    results = study.results
    folder.mkdir(parents=True, exist_ok=True)
    frames = {
        "estimates": study.estimates,
        "launches": results.trials.with_columns(
            warning=pl.Series(map(caveats.of_launch, results.trials.iter_rows(named=True)), dtype=pl.String)
        ),
        "breakdown": parts(study.estimates),
        "limits": words.frame(study.limits, results),
        "steps": study.distributions.steps,
        "ranks": study.distributions.ranks,
        "laws": fit.frame(study.fits),
        "claims": claims.frame(study.verdicts),
        **({"base-beside": study.against} if len(study.against) else {}),
        **({"hosts": of_hosts} if len(of_hosts := hosts(results)) else {}),
        **({"energy": study.energies} if len(study.energies) else {}),
        **({"roofline": study.roofline.points} if len(study.roofline.points) else {}),
        **({"accuracy": study.times} if len(study.times) else {}),
        **({"utilization": study.utilization.lines} if study.utilization else {}),
        "not-measured": pl.DataFrame(
            facts.not_measured(results), schema={"what": pl.String, "why": pl.String}, orient="row"
        ),
        "set-aside": pl.DataFrame(
            [(relative(results, s.path), s.reason) for s in results.set_aside],
            schema={"path": pl.String, "reason": pl.String},
            orient="row",
        ),
    }
    frames = {name: study.warned(frame) for name, frame in frames.items()}
    frames |= {each.workload.file: each.frame for each in study.workloads}
    for name, frame in frames.items():
        frame.write_csv(folder / f"{name}.csv")
        frame.write_parquet(folder / f"{name}.parquet")


def relative(results: Results, path: Path) -> str:
    inside = path.relative_to(results.folder) if path.is_relative_to(results.folder) else path
    return str(inside).encode("utf-8", errors="replace").decode("utf-8")
