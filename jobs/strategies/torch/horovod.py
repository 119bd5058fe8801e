"""torch-horovod: PyTorch with Horovod's DistributedOptimizer, over Gloo on CPUs and NCCL on GPUs."""

from __future__ import annotations

from typing import Any

from jobs.contract.catalog import StrategyInfo
from jobs.strategies.horovod import needs_nccl, start_horovod
from jobs.strategies.torch.plain import COMPILED, EXECUTIONS, TorchLoop

INFO = StrategyInfo(
    "PyTorch", "horovod", base_case="torch", needs=("torch", "horovod"), executions=EXECUTIONS, compiled=COMPILED
)


class TorchHorovod(TorchLoop):
    """Gradients are averaged by hooks that run while the backward pass goes on."""

    def prepare(self) -> None:
        super().prepare()
        import horovod.torch as hvd

        needs_nccl(hvd, self.trial)

    def join(self) -> None:
        import horovod.torch as hvd

        start_horovod(hvd, self.context.rendezvous)

    def wrap_optimizer(self, optimizer: Any) -> Any:
        import horovod.torch as hvd

        return hvd.DistributedOptimizer(optimizer, named_parameters=self.net.named_parameters())

    def scaled_step(self, optimizer: Any, scaler: Any) -> None:
        if optimizer is not self.optimizer:  # the copy's, which has nobody to wait for
            super().scaled_step(optimizer, scaler)
            return
        # Infinities are looked for in what all ranks have in common, so that they leave out the same steps.
        optimizer.synchronize()
        scaler.unscale_(optimizer)
        with optimizer.skip_synchronize():
            scaler.step(optimizer)

    def close(self) -> None:
        import horovod.torch as hvd

        hvd.shutdown()


STRATEGY = TorchHorovod
