"""torch-xla: PyTorch/XLA over all devices of one process in its SPMD mode; one device is plain PyTorch/XLA.

It needs an environment of its own (`make setup-xla`), as it is tied to PyTorch 2.9. The devices are the
cores of a TPU, or XLA's CPU devices. The images lie on each device, as in the other frameworks; a step uploads
the indices of its batch. It is only recorded until `torch_xla.sync`, so with several steps per call the host
records the next while the device computes.
"""

from __future__ import annotations

import contextlib
import copy
import os
from typing import Any

import numpy as np

from jobs.contract.catalog import StrategyInfo
from jobs.data.dataset import Indices
from jobs.machine import tpu
from jobs.strategies import learning_rate
from jobs.strategies.interface import Context, Facts, Losses
from jobs.strategies.torch.plain import TorchLoop

NO_PRECISION = "{strategy} has float32, float64 and bfloat16"
INFO = StrategyInfo(
    "PyTorch",
    "native",
    base_case="torch-xla",
    needs=("torch", "torch_xla"),
    apart="`make setup-xla` installs it into .venv-xla",
    one_process=True,
    gpus=False,  # PyTorch/XLA 2.9 has none any more
    tpu="can",
    mesh="PyTorch/XLA's mesh spans all {devices} devices there are",
    several_steps_per_call=True,
    lacks={
        "channels-last": "{strategy} leaves the layout to XLA; take default",
        "float16": NO_PRECISION,
        "tf32": NO_PRECISION,
    },
)


class TorchXLA(TorchLoop):
    """The batch is laid out over a mesh of the devices; the compiler sums the gradients between them."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.devices = self.trial.workers

    def prepare(self) -> None:
        on_tpu = self.trial.tpu == "real"
        os.environ["PJRT_DEVICE"] = "TPU" if on_tpu else "CPU"
        if not on_tpu:
            os.environ["CPU_NUM_DEVICES"] = str(self.devices)
        super().prepare()
        import torch_xla  # noqa: F401
        import torch_xla.runtime as runtime

        if self.devices > 1:
            runtime.use_spmd()

    def build(self) -> None:
        super().build()
        import torch_xla
        import torch_xla.distributed.spmd as spmd
        import torch_xla.runtime as runtime

        there = runtime.global_runtime_device_count()
        if self.devices not in (1, there):
            raise RuntimeError(f"PyTorch/XLA's mesh spans all {there} devices there are; use 1 or {there} workers")
        self.mesh = spmd.Mesh(np.arange(there), (there,), ("data",)) if self.devices > 1 else None
        self.place = torch_xla.device()
        self.images, self.labels = self.images.to(self.place), self.labels.to(self.place)
        self.net = self.net.to(self.place)
        self.optimizer = self.new_optimizer(self.net)
        self.steps = 0
        torch_xla.sync(wait=True)

    def train(self, batches: Indices) -> Losses:
        losses = []
        for batch in batches:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate.at(self.recipe, self.trial.global_batch, self.steps)
            losses.append(self._step_on(self.net, self.optimizer, batch, self.mesh))
            self.steps += 1
        return _read(losses)

    def copy_state(self) -> None:
        self.copy = copy.deepcopy(self.net)
        self.copy_optimizer = self.new_optimizer(self.copy)
        self.copy_optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))

    def compute_only(self, batches: Indices) -> Losses:
        """One device's part of the batch, which without a mesh every device computes for itself."""
        part = batches.shape[1] // self.devices
        return _read([self._step_on(self.copy, self.copy_optimizer, batch[:part], None) for batch in batches])

    def start_over(self) -> None:
        self.build()

    def _step_on(self, net: Any, optimizer: Any, indices: Any, mesh: Any | None) -> Any:
        """One step, recorded and sent off; the loss as a scalar on the device."""
        import torch
        import torch_xla
        from torch.nn.functional import cross_entropy

        chosen = self._laid_out(torch.from_numpy(indices).to(self.place), mesh)
        images = self._laid_out(self.images.index_select(0, chosen), mesh).to(self.dtype).div(255.0)
        labels = self._laid_out(self.labels.index_select(0, chosen), mesh)
        optimizer.zero_grad()
        with self._arithmetic():
            logits = net(images)
        loss = cross_entropy(logits.to(self.dtype), labels)
        loss.backward()
        optimizer.step()
        torch_xla.sync()
        return loss.detach()

    def _laid_out(self, batch: Any, mesh: Any | None) -> Any:
        """`batch` with a part of its samples on each device of the mesh."""
        import torch_xla.distributed.spmd as spmd

        if mesh is not None:
            spmd.mark_sharding(batch, mesh, ("data", *[None] * (batch.dim() - 1)))
        return batch

    def _arithmetic(self) -> Any:
        import torch

        if self.recipe.precision == "bfloat16":
            return torch.autocast("xla", dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def evaluate(self) -> float:
        placed = self.net
        self.net = copy.deepcopy(placed).cpu()
        try:
            return super().evaluate()
        finally:
            self.net = placed

    def facts(self) -> Facts:
        return Facts(
            device=tpu.name() if self.trial.tpu == "real" else "cpu",
            parameters=sum(parameter.numel() for parameter in self.net.parameters()),
            # XLA's pool has a thread for each core this process may use; its threads have no names here.
            intra_op_threads=len(os.sched_getaffinity(0)),
            inter_op_threads=1,
        )


def _read(losses: list[Any]) -> Losses:
    """Losses [k] from as many scalars on the device, once the last step is done."""
    import torch

    found: Losses = torch.stack(losses).cpu().numpy()
    return found


STRATEGY = TorchXLA
