"""tf-tpu: TPUStrategy over k cores of a TPU, all replicas in one process.

The TPU is this machine's, or the one that TPU_NAME names, a slice of several hosts too: its resolver
then brings their addresses. `tpu: emulated` takes logical CPU devices for cores, and the same loop.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from jobs.contract.catalog import StrategyInfo
from jobs.machine import tpu
from jobs.strategies.interface import Context, Facts
from jobs.strategies.tf.mirrored import mirrored_on_cpu
from jobs.strategies.tf.plain import CALLED, CHANNELS_LAST, FLOAT16, TensorFlowLoop

INFO = StrategyInfo(
    "TensorFlow",
    "native",
    base_case="tf-tpu",
    needs=("tensorflow",),
    one_process=True,
    gpus=False,
    tpu="only",
    several_steps_per_call=True,
    executions={"infer": CALLED},
    lacks={"channels-last": CHANNELS_LAST, "float16": FLOAT16},
)


def assignment(topology: Any, replicas: int) -> Any | None:
    """The tf.tpu DeviceAssignment of `replicas` cores of `topology`; None for all of them.

    Raises ValueError if it has fewer.
    """
    import tensorflow as tf

    there = topology.num_tasks * topology.num_tpus_per_task
    if replicas > there:
        raise ValueError(f"{replicas} workers on a TPU of {there} cores; use at most {there}")
    if replicas == there:
        return None
    return tf.tpu.experimental.DeviceAssignment.build(topology, num_replicas=replicas)


class TensorFlowTPU(TensorFlowLoop):
    """Every replica is a core; XLA compiles its step and sums the gradients between the cores."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.replicas = self.trial.workers

    def prepare(self) -> None:
        if self.trial.tpu != "real":
            os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # off a TPU its metadata server is asked in vain, for minutes
        super().prepare()

    def distribute(self) -> Any:
        import tensorflow as tf

        if self.trial.tpu != "real":
            return mirrored_on_cpu(self.replicas)
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu.address())
        tf.config.experimental_connect_to_cluster(resolver)
        topology = tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver, experimental_device_assignment=assignment(topology, self.replicas))

    def facts(self) -> Facts:
        found = super().facts()
        return replace(found, device=tpu.name()) if self.trial.tpu == "real" else found


STRATEGY = TensorFlowTPU
