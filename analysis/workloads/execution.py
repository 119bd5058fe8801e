"""Ways to execute a program, by their own names.

A trial's `execution` is "default" for what its framework's users write first: eager PyTorch, and
TensorFlow's tf.function. Here each is called by its own name, so that both frameworks' graphs are set
against their own eager execution, never against the other framework's.
"""

from __future__ import annotations

import polars as pl

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
