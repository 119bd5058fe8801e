"""What the PyTorch strategies share: the model, the data as resident tensors, one optimizer step.

Run one: `python -m jobs.worker TRIAL_DIR` with strategy torch, torch-ddp or torch-horovod.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.contract.catalog import StrategyInfo
from jobs.data.dataset import Indices
from jobs.models import layers
from jobs.strategies import learning_rate
from jobs.strategies.interface import Facts, Logits, Losses, Strategy, held_out
from jobs.strategies.torch import device

if TYPE_CHECKING:
    from jobs.data.reading import Plan

# Compiled by torch.compile as "graph"; a model that is only called can also be traced and frozen, or an ONNX model.
EXECUTIONS = {"train": ("default", "graph"), "infer": ("default", "graph", "torchscript", "onnxruntime")}
COMPILED = ("graph",)  # by PyTorch's Inductor, which writes C++
INFO = StrategyInfo("PyTorch", "none", base_case="torch", needs=("torch",), executions=EXECUTIONS, compiled=COMPILED)


def channels_first(images: NDArray[Any]) -> Any:
    """[…, h, w, c] ─▶ a contiguous tensor […, c, h, w]. A copy even for one channel, whose strides would
    else pass for channels-last and choose other kernels."""
    import torch

    return torch.from_numpy(images).movedim(-1, -3).clone(memory_format=torch.contiguous_format)


@dataclass
class _Side:
    """What a step works on: the model as it is called, its optimizer, and how many steps it has had."""

    net: Any
    optimizer: Any
    scaler: Any | None
    steps: int = 0


class TorchLoop(Strategy):
    """Plain single-process training; DDP and Horovod override how a model is wrapped."""

    def prepare(self) -> None:
        import torch
        import torch._dynamo  # as the first optimizer and DDP would do

        threads = self.trial.threads_per_worker
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)

    def build(self) -> None:
        import torch

        self.device = device.settle(self.trial)
        self.dtype = torch.float64 if self.recipe.precision == "float64" else torch.float32
        self.layout = torch.channels_last if self.recipe.layout == "channels-last" else torch.preserve_format
        self.autocast = device.autocast(self.trial, self.device)
        self.join()
        data = self.context.dataset
        self.images = channels_first(data.train_images).to(self.device)
        self.labels = torch.from_numpy(data.train_labels).long().to(self.device)
        self.net = self.new_net()
        self.optimizer = self.wrap_optimizer(self.new_optimizer(self.net))
        self.trained = _Side(self.executed(self.wrap(self.net)), self.optimizer, device.scaler(self.trial, self.device))
        if self.device.type == "cuda":
            self.clock = device.CudaClock(self.device)

    def new_net(self) -> Any:
        """The model with its initial weights, on the device and in the trial's layout."""
        from jobs.strategies.torch.model import build

        net = build(layers.load(self.recipe.model), self.dtype, self.trial.seed)
        return net.to(self.device, memory_format=self.layout)

    def new_optimizer(self, net: Any) -> Any:
        """torch.optim.Adam: its semantics are the shared ones, so both `optimizer` values mean it."""
        import torch

        return torch.optim.Adam(net.parameters(), lr=learning_rate.at(self.recipe, self.trial.global_batch, 0))

    def join(self) -> None:
        """Meet the other ranks; nothing to do for a single process."""

    def wrap(self, net: Any) -> Any:
        return net

    def wrap_optimizer(self, optimizer: Any) -> Any:
        return optimizer

    def executed(self, net: Any) -> Any:
        """`net` as it is called: eagerly, or compiled (torch.compile)."""
        import torch

        if self.recipe.execution != "graph":
            return net
        # Each launch compiles anew: what an earlier one left would make this one's compile time a lie.
        torch._inductor.config.force_disable_caches = True
        return torch.compile(net)

    def train(self, batches: Indices) -> Losses:
        return self._step(self.trained, batches[0])

    def compute_only(self, batches: Indices) -> Losses:
        return self._step(self.alone, batches[0])

    def _step(self, side: _Side, indices: Any) -> Losses:
        import torch
        from torch.nn.functional import cross_entropy

        if side.steps < self.recipe.learning_rate_warmup:
            self._set_rate(side)
        side.steps += 1
        chosen = torch.from_numpy(indices) if self.clock is None else indices
        images = self.images[chosen].to(self.dtype, memory_format=self.layout).div_(255.0)
        side.optimizer.zero_grad()
        with self.autocast():
            logits = side.net(images)
        loss = cross_entropy(logits.to(self.dtype), self.labels[chosen])
        if side.scaler is None:
            loss.backward()
            side.optimizer.step()
        else:
            side.scaler.scale(loss).backward()
            self.scaled_step(side.optimizer, side.scaler)
            side.scaler.update()
        return float(loss.item()) if self.clock is None else loss.detach()

    def scaled_step(self, optimizer: Any, scaler: Any) -> None:
        """The optimizer's step on scaled gradients, left out where one of them is not finite."""
        scaler.step(optimizer)

    def _set_rate(self, side: _Side) -> None:
        for group in side.optimizer.param_groups:
            group["lr"] = learning_rate.at(self.recipe, self.trial.global_batch, side.steps)

    def copy_state(self) -> None:
        net = self.new_net()
        net.load_state_dict(self.net.state_dict())
        optimizer = self.new_optimizer(net)
        optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        scaler = copy.deepcopy(self.trained.scaler)
        self.alone = _Side(self.executed(net), optimizer, scaler, self.trained.steps)

    def start_over(self) -> None:
        self.net.load_state_dict(self.new_net().state_dict())
        self.optimizer.state.clear()  # Adam makes its moments anew, as zeros
        self.trained.scaler, self.trained.steps = device.scaler(self.trial, self.device), 0
        self._set_rate(self.trained)

    def evaluate(self) -> float:
        import torch

        self.net.eval()
        right = 0
        with torch.no_grad(), self.autocast():
            for images, labels in held_out(self.context.dataset):
                given = channels_first(images).to(self.device).to(self.dtype, memory_format=self.layout).div_(255.0)
                guesses = self.net(given).argmax(1).cpu().numpy()
                right += int(np.sum(guesses == labels))
        self.net.train()
        return right / len(self.context.dataset.test_labels)

    def inference(self, pool: NDArray[np.floating]) -> tuple[Logits, Logits]:
        import torch

        from jobs.strategies.torch import inference

        net = self.net.eval()
        inputs = [channels_first(images).to(self.device, self.dtype, memory_format=self.layout) for images in pool]

        def caller(model: Any) -> Logits:
            def call(index: int) -> NDArray[np.floating]:
                with torch.inference_mode(), self.autocast():
                    logits: NDArray[np.floating] = model(inputs[index]).to(self.dtype).cpu().numpy()
                return logits

            return call

        if self.recipe.execution == "torchscript":
            return caller(inference.frozen(net, inputs[0])), caller(net)
        if self.recipe.execution == "onnxruntime":
            run = inference.onnx_session(net, inputs[0], self.trial.threads_per_worker)
            return (lambda index: run(inputs[index])), caller(net)
        return caller(self.executed(net)), caller(net)

    def ingest(self, plan: Plan) -> Iterator[Any]:
        from jobs.strategies.torch.ingest import batches

        return batches(plan)

    def close(self) -> None:
        """Leave the other ranks; nothing to do for a single process."""

    def facts(self) -> Facts:
        import torch

        return Facts(
            device=device.describe(self.device),
            parameters=sum(p.numel() for p in self.net.parameters()),
            intra_op_threads=torch.get_num_threads(),
            inter_op_threads=torch.get_num_interop_threads(),
            versions=device.versions(self.device),
        )


STRATEGY = TorchLoop
