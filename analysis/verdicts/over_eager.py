"""Ways to execute the same program, compared: a graph over eager, within one strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from analysis.load.results import Results
from analysis.verdicts.contrast import Comparison, Rates, Side, compared, decided, plain, without_stand_ins
from analysis.workloads.execution import CALLED, named


def over_eager(results: Results, margin: float, workload: str, frameworks: Sequence[str]) -> list[Comparison]:
    """Throughput of each other way to execute over eager, per strategy, size and setting of the factors.

    Primary is the graph of a plain process; distributed strategies and XLA are told beside.
    """
    trials = named(without_stand_ins(results.trials)).filter(pl.col("framework").is_in(frameworks))
    if "workload" in trials.columns:
        trials = trials.filter(pl.col("workload").fill_null("train") == workload)
    elif workload != "train":
        return []
    families: dict[bool, list[Comparison]] = {True: [], False: []}
    ways = [way for way in trials["execution"].unique(maintain_order=True).to_list() if way != "eager"]
    for cell in Rates.of_strategies(results, trials, without=("execution", "steps_per_call")):
        strategy, framework = cell.here["strategy"][0], cell.here["framework"][0]
        eager = cell.sides(pl.col("execution") == "eager")
        for way in ways:
            other = cell.sides(pl.col("execution") == way)
            if eager and other:
                name = f"{strategy}: {CALLED.get((framework, way), way)} / eager"
                primary = way == "graph" and cell.here["communication"][0] == "none"
                families[primary].append(compared(name, cell, other, eager))
    return [c for primary, family in families.items() for c in decided(family, margin, primary)]


def scaling_over_eager(results: Results, margin: float, frameworks: Sequence[str]) -> list[Comparison]:
    """Efficiency with a graph over that with eager execution, per strategy: does the graph change how it scales?

    Each way to execute has a base case of its own, the plain process that executes likewise.
    """
    trials = named(without_stand_ins(results.trials))
    shared = replace(results, factors=tuple(name for name in results.factors if name != "execution"))
    family = []
    for cell in Rates.cells(shared, trials):
        for framework in frameworks:
            eager, graph = (_efficiencies(cell, framework, way) for way in ("eager", "graph"))
            for name in eager.keys() & graph.keys():
                called = f"{name}: efficiency, {CALLED[framework, 'graph']} / eager"
                family.append(compared(called, cell, [graph[name]], [eager[name]]))
    return decided(sorted(family, key=lambda c: c.name), margin, primary=False)


def _efficiencies(cell: Rates, framework: str, way: str) -> dict[str, Side]:
    chosen = pl.col("execution") == way
    alone = replace(cell, here=cell.here.filter(chosen), bases=cell.bases.filter(chosen))
    return {side.name: side for side in plain(alone.efficiencies(framework))}
