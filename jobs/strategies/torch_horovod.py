"""torch-horovod: PyTorch with Horovod's DistributedOptimizer over Gloo."""

from __future__ import annotations

from typing import Any

from jobs.strategies.horovod_start import start_horovod
from jobs.strategies.torch_loop import TorchLoop


class TorchHorovod(TorchLoop):
    """Gradients are averaged by hooks that run while the backward pass goes on."""

    def prepare(self) -> None:
        super().prepare()
        import horovod.torch  # noqa: F401

    def join(self) -> None:
        import horovod.torch as hvd

        start_horovod(hvd, self.context.rendezvous)

    def wrap_optimizer(self, optimizer: Any) -> Any:
        import horovod.torch as hvd

        return hvd.DistributedOptimizer(optimizer, named_parameters=self.net.named_parameters())

    def close(self) -> None:
        import horovod.torch as hvd

        hvd.shutdown()


STRATEGY = TorchHorovod
