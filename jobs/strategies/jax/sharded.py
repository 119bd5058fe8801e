"""jax-sharded: JAX over several devices of one process, each with its part of every batch."""

from __future__ import annotations

from jobs.strategies.interface import Context
from jobs.strategies.jax.plain import JaxLoop


class JaxSharded(JaxLoop):
    """The compiler sums the gradients where the batch is split and the weights are not."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.devices = self.trial.workers


STRATEGY = JaxSharded
