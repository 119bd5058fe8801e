"""tf-horovod: TensorFlow with Horovod's DistributedGradientTape, over Gloo on CPUs and NCCL on GPUs."""

from __future__ import annotations

from typing import Any

from jobs.contract.catalog import StrategyInfo
from jobs.strategies.horovod import needs_nccl, start_horovod
from jobs.strategies.tf.plain import CALLED, CHANNELS_LAST, TensorFlowLoop

INFO = StrategyInfo(
    "TensorFlow",
    "horovod",
    base_case="tf",
    needs=("tensorflow", "horovod"),
    several_steps_per_call=True,
    executions={"infer": CALLED},
    lacks={
        "channels-last": CHANNELS_LAST,
        "xla": "Horovod's operations for XLA are not built: TensorFlow has moved what they are made of",
    },
)


class TensorFlowHorovod(TensorFlowLoop):
    """Gradients are summed by Horovod before the optimizer sees them."""

    def prepare(self) -> None:
        super().prepare()
        import horovod.tensorflow as hvd

        needs_nccl(hvd, self.trial)

    def distribute(self) -> Any:
        import horovod.tensorflow as hvd

        start_horovod(hvd, self.context.rendezvous)
        return super().distribute()

    def gradients(self, tape: Any, loss: Any, variables: list[Any], synchronous: bool) -> Any:
        import horovod.tensorflow as hvd

        if synchronous:
            tape = hvd.DistributedGradientTape(tape, op=hvd.Sum)
        return tape.gradient(loss, variables)

    def close(self) -> None:
        import horovod.tensorflow as hvd

        hvd.shutdown()


STRATEGY = TensorFlowHorovod
