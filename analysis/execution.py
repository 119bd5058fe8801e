"""Ways to execute the same program, compared: a graph over eager, within one strategy.

A trial's `execution` is "default" for what its framework's users write first: eager PyTorch, and
TensorFlow's tf.function. Here each is called by its own name, so that both frameworks' graphs are set
against their own eager execution, never against the other framework's.
"""

from __future__ import annotations

import polars as pl

from analysis.contrast import Comparison, Rates, compared, decided
from analysis.load import Results

PLAIN = {"PyTorch": "eager", "TensorFlow": "graph", "JAX": "xla"}
CALLED = {
    ("PyTorch", "graph"): "torch.compile",
    ("TensorFlow", "graph"): "tf.function",
    ("TensorFlow", "xla"): "tf.function with XLA",
    ("JAX", "xla"): "jax.jit",
}


def named(trials: pl.DataFrame) -> pl.DataFrame:
    """`trials` with `execution` by its own name: eager, graph or xla."""
    own = pl.col("framework").replace_strict(PLAIN, default=None)
    if "execution" not in trials.columns:
        return trials.with_columns(own.alias("execution"))
    written = pl.col("execution").fill_null("default")
    return trials.with_columns(pl.when(written == "default").then(own).otherwise(written).alias("execution"))


def over_eager(results: Results, margin: float, workload: str, frameworks: tuple[str, ...]) -> list[Comparison]:
    """Throughput of each other way to execute over eager, per strategy, size and setting of the factors.

    Primary is the graph of a plain process; distributed strategies and XLA are told beside.
    """
    trials = named(results.trials).filter(pl.col("framework").is_in(frameworks))
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
