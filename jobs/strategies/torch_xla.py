"""torch-xla: PyTorch/XLA over all devices of one process in its SPMD mode; one device is plain PyTorch/XLA.

It needs an environment of its own (`make setup-xla`), as it is tied to PyTorch 2.9. The devices are the
cores of a TPU, or XLA's CPU devices. Every batch is uploaded: to index with what lies on the device would
compile each step anew. A step is only recorded until `torch_xla.sync`, so with several steps per call the
host records the next while the device computes.
"""

from __future__ import annotations

import contextlib
import copy
import os
from typing import Any

import numpy as np

from jobs import tpu
from jobs.data import Indices
from jobs.strategies.base import Context, Facts, Losses
from jobs.strategies.torch_loop import TorchLoop


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
        self.net = self.net.to(self.place)
        self.optimizer = self.new_optimizer(self.net)
        torch_xla.sync(wait=True)

    def train(self, batches: Indices) -> Losses:
        return self._steps(self.net, self.optimizer, batches, self.mesh)

    def copy_state(self) -> None:
        self.copy = copy.deepcopy(self.net)
        self.copy_optimizer = self.new_optimizer(self.copy)
        self.copy_optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))

    def compute_only(self, batches: Indices) -> Losses:
        """One device's part of the batch, which without a mesh every device computes for itself."""
        part = batches.shape[1] // self.devices
        return self._steps(self.copy, self.copy_optimizer, batches[:, :part], None)

    def start_over(self) -> None:
        self.build()

    def _steps(self, net: Any, optimizer: Any, batches: Indices, mesh: Any | None) -> Losses:
        import torch
        import torch_xla
        from torch.nn.functional import cross_entropy

        losses = []
        for indices in batches:
            chosen = torch.from_numpy(indices)
            images = self._uploaded(self.images[chosen], mesh).to(self.dtype).div_(255.0)
            labels = self._uploaded(self.labels[chosen], mesh)
            optimizer.zero_grad()
            with self._arithmetic():
                logits = net(images)
            loss = cross_entropy(logits.to(self.dtype), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            torch_xla.sync()
        found: Losses = torch.stack(losses).cpu().numpy()
        return found

    def _uploaded(self, host: Any, mesh: Any | None) -> Any:
        import torch_xla.distributed.spmd as spmd

        there = host.to(self.place)
        if mesh is not None:
            spmd.mark_sharding(there, mesh, ("data", *[None] * (there.dim() - 1)))
        return there

    def _arithmetic(self) -> Any:
        import torch

        if self.trial.precision == "bfloat16":
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


STRATEGY = TorchXLA
