"""What a workload beside training shows of its launches, and where that is found.

A workload is a name: of its part of a trial, of the module that runs it in a rank (jobs/workloads), of its numbers
and words here, and of its figure (analysis/figures). Its module here has a constant `WORKLOAD`; terminal, figures,
page and tables show what that gives. Modules of other packages are found by an entry point of the group
`scaling.analysis`, whose name is the workload's:

    [project.entry-points."scaling.analysis"]
    exchange = "their_package.exchange"
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

import polars as pl

from analysis.cells import Table
from analysis.load.results import Results

if TYPE_CHECKING:
    from rich.console import RenderableType

GROUP = "scaling.analysis"
# Each with its module, in the order in which they are shown. Training is none of them: it has the page to itself.
WORKLOADS = {"infer": "analysis.workloads.infer", "ingest": "analysis.workloads.ingest"}


@dataclass(frozen=True)
class Workload:
    """`numbers` has a row per point, its launches in the column `n_launches`; no row if none of its launches is ok.
    What the steps of its phase tell is in the launches' frame; what else its ranks report, in `results.outcome(…)`.

    All others take these numbers, with at least one row. `figure` is "module:function" of the numbers and the results,
    which is imported only to draw.
    """

    numbers: Callable[[Results], pl.DataFrame]
    render: Callable[[pl.DataFrame], RenderableType]  # for the terminal
    section: str  # its heading on the page; those of one heading share a section
    about: str  # what the page says before any number
    table: Callable[[pl.DataFrame], Table]
    figure: str
    picture: str  # what kind of picture that is, for who cannot see it
    finding: Callable[[pl.DataFrame], str]  # what is to be seen in it, in a sentence
    file: str  # what the files of its figure and its table are called


@dataclass(frozen=True)
class Shown:
    """A workload that the results hold launches of, with its numbers."""

    name: str
    workload: Workload
    frame: pl.DataFrame


def beside(results: Results) -> pl.DataFrame:
    """The launches that are no training."""
    trials = results.trials
    return trials.filter(pl.col("workload") != "train") if "workload" in trials.columns else trials.clear()


def shown(results: Results) -> list[Shown]:
    """What can be shown of the launches that are no training."""
    found = [(name, workload) for name, workload in _of(results).items() if isinstance(workload, Workload)]
    frames = [(name, workload, workload.numbers(results)) for name, workload in found]
    return [Shown(*each) for each in frames if len(each[2])]


def unknown(results: Results) -> dict[str, pl.DataFrame]:
    """The launches of each workload that cannot be shown here."""
    names = [name for name, workload in _of(results).items() if not isinstance(workload, Workload)]
    return {name: results.trials.filter(workload=name) for name in names}


def untold(results: Results) -> list[str]:
    """That there are such launches, and why they are not shown, a line for each workload."""
    why = _of(results)
    return [
        f"{'1 launch is' if len(launches) == 1 else f'{len(launches):,} launches are'} of workload {name}, {why[name]}"
        for name, launches in unknown(results).items()
    ]


def _of(results: Results) -> dict[str, Workload | str]:
    """The workloads of the results, ours first; of one that cannot be shown here, why."""
    launches = beside(results)
    there = launches["workload"].unique().sort().to_list() if len(launches) else []
    found: dict[str, Workload | str] = {
        name: importlib.import_module(module).WORKLOAD for name, module in WORKLOADS.items() if name in there
    }
    others = [name for name in there if name not in WORKLOADS]
    if others:  # to look through all that is installed takes a while
        given = {entry.name: entry.value for entry in metadata.entry_points(group=GROUP)}
        found |= {name: _others(given.get(name)) for name in others}
    return found


def _others(module: str | None) -> Workload | str:
    """What another package's module gives, or why it cannot be used."""
    if module is None:
        return "which this installation cannot show"
    try:
        workload = importlib.import_module(module).WORKLOAD
    except Exception as error:  # whatever is wrong in it is not ours
        return f"whose module cannot be used: {error}"
    return workload if isinstance(workload, Workload) else f"whose module {module} has something else as WORKLOAD"
