"""The sections of the page on what is no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from analysis.cells import Table
from analysis.load.results import Results
from analysis.workloads.interface import Shown, unknown


@dataclass(frozen=True)
class Part:
    """A workload within its section; `figure` is the name of its picture."""

    about: str
    figure: str
    table: Table


@dataclass(frozen=True)
class Section:
    id: str
    heading: str
    parts: list[Part]


def sections(shown: Sequence[Shown]) -> list[Section]:
    """One for each heading, called as its first table."""
    parts: dict[str, list[Part]] = {}
    for each in shown:
        workload = each.workload
        table = replace(workload.table(each.frame), data=workload.file)
        parts.setdefault(workload.section, []).append(Part(workload.about, workload.file, table))
    return [Section(of_section[0].table.id, heading, of_section) for heading, of_section in parts.items()]


def points(shown: Sequence[Shown], results: Results) -> pl.DataFrame:
    """How many launches each point has that is no training, in the column `n_launches`."""
    counts = [count for each in shown for count in each.frame["n_launches"]]
    for launches in unknown(results).values():
        counts.extend(launches.filter(status="ok")["point"].value_counts()["count"])
    return pl.DataFrame({"n_launches": counts}, schema={"n_launches": pl.Int64})
