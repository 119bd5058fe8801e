"""tf-mirrored: MirroredStrategy, all replicas in one process: a GPU each, on CPU a logical device each."""

from __future__ import annotations

from typing import Any

from jobs.contract.catalog import StrategyInfo
from jobs.strategies.interface import Context
from jobs.strategies.tf.plain import CALLED, CHANNELS_LAST, FLOAT16, XLA, TensorFlowLoop

INFO = StrategyInfo(
    "TensorFlow",
    "native",
    base_case="tf",
    needs=("tensorflow",),
    one_process=True,
    several_steps_per_call=True,
    executions={"infer": CALLED},
    lacks={"channels-last": CHANNELS_LAST, "float16": FLOAT16, "xla": XLA},
)


def mirrored_on_cpu(replicas: int) -> Any:
    """MirroredStrategy over `replicas` logical CPU devices; to be called before TensorFlow is used."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(replicas)])
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])


class TensorFlowMirrored(TensorFlowLoop):
    """Variables are mirrored on every replica and gradients summed between the devices."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.replicas = self.trial.workers

    def distribute(self) -> Any:
        import tensorflow as tf

        if self.gpus:  # its default then sums by NCCL
            return tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(self.replicas)])
        return mirrored_on_cpu(self.replicas)


STRATEGY = TensorFlowMirrored
