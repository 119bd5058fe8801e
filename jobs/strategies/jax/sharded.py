"""jax-sharded: JAX over several devices of one process, each with its part of every batch."""

from __future__ import annotations

from jobs.contract.catalog import StrategyInfo
from jobs.strategies.interface import Context
from jobs.strategies.jax.plain import EXECUTIONS, LACKS, JaxLoop

INFO = StrategyInfo(
    "JAX",
    "native",
    base_case="jax",
    needs=("jax", "optax"),
    gpu_needs=("jax_cuda13_plugin",),
    one_process=True,
    tpu="can",
    several_steps_per_call=True,
    executions=EXECUTIONS,
    lacks=LACKS,
)


class JaxSharded(JaxLoop):
    """The compiler sums the gradients where the batch is split and the weights are not."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.devices = self.trial.workers


STRATEGY = JaxSharded
