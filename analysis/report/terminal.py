"""All that a terminal shows of a results folder, with its figures and its page written on the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from analysis.figures.write import write_all
from analysis.limits import words
from analysis.limits.limit import limits
from analysis.load.results import load
from analysis.measures import caveats, table
from analysis.measures.beside import against_alone
from analysis.measures.distribution import distributions
from analysis.measures.efficiency import estimate
from analysis.report import facts, page
from analysis.verdicts import claims
from analysis.workloads import accuracy
from analysis.workloads.interface import beside, shown, untold

if TYPE_CHECKING:
    from rich.console import Console


MOST_LINES = 8  # of what was left out


def show_results(console: Console, folder: Path) -> None:
    """Raises NotResults if `folder` is no results folder."""
    results = load(folder)
    if not (results.trials["status"] == "ok").any():
        for line in facts.left_out(results)[:MOST_LINES]:
            console.print(line, style="yellow", markup=False, highlight=False)
        console.print("no launch has succeeded; there is nothing to show")
        return
    estimates = estimate(results)
    if len(estimates):
        console.print(table.render(estimates, against_alone(results)))
        console.print(words.render(limits(results, estimates, distributions(results).ranks)))
    if len(of_training := accuracy.times(results)):
        console.print(accuracy.render(of_training))
    for each in shown(results):
        console.print(each.workload.render(each.frame))
        if "warning" not in each.frame.columns:  # of another package, whose table does not show them
            points = set(beside(results).filter(workload=each.name)["point"])
            warned = {point: texts for point, texts in caveats.by_point(results).items() if point in points}
            for line in caveats.counted(warned):
                console.print(line, style="yellow", markup=False, highlight=False)
    for line in untold(results):
        console.print(line, style="yellow", markup=False, highlight=False)
    lines = facts.left_out(results)
    for line in lines[:MOST_LINES]:
        console.print(line, style="yellow", markup=False, highlight=False)
    if len(lines) > MOST_LINES:
        console.print(f"and {len(lines) - MOST_LINES} more, which the report lists under Missing", style="yellow")
    console.print()
    console.print(claims.render(claims.judge(results)))
    figures = write_all(results, folder / "figures", estimates)
    written = page.write(folder)
    if figures:
        console.print(f"figures: {figures[0].parent}", soft_wrap=True, highlight=False)
    console.print(f"report:  {written}", soft_wrap=True, highlight=False)
