"""What the PyTorch strategies share: the model, the data as resident tensors, one optimizer step.

Run one: `python -m jobs.worker TRIAL_DIR` with strategy torch, torch-ddp or torch-horovod.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import models
from jobs.data import Indices
from jobs.ingest import Plan
from jobs.strategies.base import Facts, Logits, Losses, Strategy, held_out


def channels_first(images: NDArray[Any]) -> Any:
    """[…, h, w, c] ─▶ a contiguous tensor […, c, h, w]. A copy even for one channel, whose strides would
    else pass for channels-last and choose other kernels."""
    import torch

    return torch.from_numpy(images).movedim(-1, -3).clone(memory_format=torch.contiguous_format)


class TorchLoop(Strategy):
    """Plain single-process training; DDP and Horovod override how a model is wrapped."""

    def prepare(self) -> None:
        import torch

        threads = self.trial.threads_per_worker
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)

    def build(self) -> None:
        import torch

        self.dtype = torch.float64 if self.trial.precision == "float64" else torch.float32
        self.join()
        data = self.context.dataset
        self.images = channels_first(data.train_images)
        self.labels = torch.from_numpy(data.train_labels).long()
        self.net = self.new_net()
        self.wrapped = self.executed(self.wrap(self.net))
        self.optimizer = self.wrap_optimizer(self.new_optimizer(self.net))

    def new_net(self) -> Any:
        from jobs.strategies.torch_model import build

        return build(models.load(self.trial.model), self.dtype, self.trial.seed)

    def new_optimizer(self, net: Any) -> Any:
        """torch.optim.Adam: its semantics are the shared ones, so both `optimizer` values mean it."""
        import torch

        return torch.optim.Adam(net.parameters(), lr=self.trial.learning_rate)

    def join(self) -> None:
        """Meet the other ranks; nothing to do for a single process."""

    def wrap(self, net: Any) -> Any:
        return net

    def wrap_optimizer(self, optimizer: Any) -> Any:
        return optimizer

    def executed(self, net: Any) -> Any:
        """`net` as it is called: eagerly, or compiled (torch.compile)."""
        import torch

        if self.trial.execution != "graph":
            return net
        # Each launch compiles anew: what an earlier one left would make this one's compile time a lie.
        torch._inductor.config.force_disable_caches = True
        return torch.compile(net)

    def train(self, batches: Indices) -> Losses:
        return self._step(self.wrapped, self.optimizer, batches[0])

    def compute_only(self, batches: Indices) -> Losses:
        return self._step(self.called_copy, self.copy_optimizer, batches[0])

    def _step(self, net: Any, optimizer: Any, indices: Any) -> float:
        import torch
        from torch.nn.functional import cross_entropy

        chosen = torch.from_numpy(indices)
        images = self.images[chosen].to(self.dtype).div_(255.0)
        optimizer.zero_grad()
        loss = cross_entropy(net(images), self.labels[chosen])
        loss.backward()
        optimizer.step()
        return float(loss.item())

    def copy_state(self) -> None:
        self.copy = self.new_net()
        self.copy.load_state_dict(self.net.state_dict())
        self.copy_optimizer = self.new_optimizer(self.copy)
        self.called_copy = self.executed(self.copy)
        self.copy_optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))

    def evaluate(self) -> float:
        import torch

        self.net.eval()
        right = 0
        with torch.no_grad():
            for images, labels in held_out(self.context.dataset):
                guesses = self.net(channels_first(images).to(self.dtype).div_(255.0)).argmax(1).numpy()
                right += int(np.sum(guesses == labels))
        self.net.train()
        return right / len(self.context.dataset.test_labels)

    def inference(self, pool: NDArray[np.floating]) -> tuple[Logits, Logits]:
        import torch

        net = self.net.eval()
        inputs = [channels_first(images).to(self.dtype) for images in pool]

        def caller(model: Any) -> Logits:
            def call(index: int) -> NDArray[np.floating]:
                with torch.inference_mode():
                    logits: NDArray[np.floating] = model(inputs[index]).numpy()
                return logits

            return call

        if self.trial.execution == "torchscript":
            with torch.no_grad():
                return caller(torch.jit.freeze(torch.jit.trace(net, inputs[0]))), caller(net)
        return caller(self.executed(net)), caller(net)

    def ingest(self, plan: Plan) -> Iterator[Any]:
        from jobs.strategies.torch_ingest import batches

        return batches(plan)

    def close(self) -> None:
        """Leave the other ranks; nothing to do for a single process."""

    def facts(self) -> Facts:
        import torch

        return Facts(
            device="cpu",
            parameters=sum(p.numel() for p in self.net.parameters()),
            intra_op_threads=torch.get_num_threads(),
            inter_op_threads=torch.get_num_interop_threads(),
        )
