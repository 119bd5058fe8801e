"""Where and in what precision PyTorch computes: the device, autocast, loss scaling, the device's clock."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.contract.trial import Trial
from jobs.data.dataset import Indices
from jobs.machine.gpus import VISIBLE, GpuError

MIXED = ("bfloat16", "float16")


def settle(trial: Trial) -> Any:
    """The device of this process, with float32 meaning what the trial says. Raises GpuError.

    Of the GPUs of the node, jobs/worker.py has left only this rank's to be seen.
    """
    import torch

    if not trial.gpus_per_worker:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        shown = os.environ.get(VISIBLE)
        raise GpuError(f"PyTorch {torch.__version__} finds no GPU to compute on ({VISIBLE}={shown})")
    # PyTorch rounds the products of convolutions to TF32 unless told not to, those of matrices not.
    torch.backends.cuda.matmul.allow_tf32 = trial.recipe.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = trial.recipe.precision == "tf32"
    # As TensorFlow and XLA do: each convolution's algorithm is chosen by trying, in the first steps.
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda", 0)
    torch.cuda.set_device(device)
    return device


def autocast(trial: Trial, device: Any) -> Callable[[], Any]:
    """A context for the forward pass: 16 bits where PyTorch holds it safe, nothing for other precisions."""
    if trial.recipe.precision not in MIXED:
        return contextlib.nullcontext
    import torch

    return lambda: torch.autocast(device.type, dtype=getattr(torch, trial.recipe.precision))


def scaler(trial: Trial, device: Any) -> Any | None:
    """What keeps float16 gradients from vanishing; None for precisions that need no loss scaling."""
    if trial.recipe.precision != "float16":
        return None
    import torch

    return torch.amp.GradScaler(device.type)


def describe(device: Any) -> str:
    """ "cpu", or "gpu" and the device's name as PyTorch has it."""
    import torch

    return "cpu" if device.type == "cpu" else f"gpu {torch.cuda.get_device_name(device)}"


def versions(device: Any) -> dict[str, str]:
    """CUDA, cuDNN and NCCL as PyTorch reports them; empty on CPUs."""
    import torch

    if device.type == "cpu":
        return {}
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    return {
        "cuda (torch)": str(torch.version.cuda),
        "cudnn (torch)": str(torch.backends.cudnn.version()),
        "nccl (torch)": nccl,
    }


class CudaClock:
    """Steps timed by events in the GPU's own queue of work (DeviceClock, jobs/strategies/interface.py).

    An event's time is when the GPU comes to it, so what lies between two of them is a step with all that
    it waited for, the host included. Resolution 0.5 µs (CUDA runtime API, cudaEventElapsedTime).
    """

    def __init__(self, device: Any, event: Callable[[], Any] | None = None) -> None:
        import torch

        self._device = device
        self._event = event or (lambda: torch.cuda.Event(enable_timing=True))
        self._marks: list[Any] = []

    def load(self, batches: Indices) -> Sequence[Any]:
        import torch

        return list(torch.from_numpy(batches).to(self._device))

    def mark(self) -> None:
        event = self._event()
        event.record()
        self._marks.append(event)

    def read(self, losses: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        import torch

        marks, self._marks = self._marks, []
        marks[-1].synchronize()
        seconds = [1e-3 * begin.elapsed_time(end) for begin, end in pairwise(marks)]
        found = torch.stack(list(losses)).double().cpu().numpy() if losses else np.empty(0)
        return np.array(seconds), found
