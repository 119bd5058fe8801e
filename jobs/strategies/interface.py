"""The interface of a strategy, and what it is given.

The meter calls `build` once, then `train` and `compute_only` on batches, then `evaluate` and
`close`. A batch is int32 [k, b]: which training images this process uses in each of k steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jobs.contract.trial import Trial
from jobs.data.dataset import Dataset, Images, Indices, Labels
from jobs.rank.rendezvous import Rendezvous

if TYPE_CHECKING:
    from jobs.data.reading import Plan


class DeviceClock(Protocol):
    """A device that does its work in order, some time after it was told to."""

    def load(self, batches: Indices) -> Sequence[Any]:
        """What each step is given, on the device, of `batches` int32 [calls, k, b]."""

    def mark(self) -> None:
        """Note the time when all work so far is done; returns at once."""

    def read(self, losses: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Wait for the device; the seconds between the marks since the last reading, and the losses
        (scalars on the device), both float64."""


Logits = Callable[[int], NDArray[np.floating]]  # index into the pool ─▶ logits [b, classes]
Losses = NDArray[np.floating] | float | Any  # Any: a scalar that is still on the device


@dataclass(frozen=True)
class Context:
    """What a strategy is built from. The data are resident before the first step."""

    trial: Trial
    dataset: Dataset
    rendezvous: Rendezvous

    @property
    def process_batch(self) -> int:
        """Samples per step of this process (of all its replicas)."""
        return self.trial.global_batch // self.trial.processes


def held_out(dataset: Dataset) -> Iterator[tuple[Images, Labels]]:
    """The test images and labels, as many at a time as make 500 images of the CNN's size."""
    step = max(1, 500 * 28 * 28 // dataset.test_images[0].size)
    for start in range(0, len(dataset.test_labels), step):
        yield dataset.test_images[start : start + step], dataset.test_labels[start : start + step]


@dataclass(frozen=True)
class Facts:
    """`device` is what computed ("cpu", or "gpu" and its name), `parameters` are the trainable ones,
    threads as the library has them. `versions` are those of CUDA's libraries as the framework reports
    them, which need not be the packages' that are installed; empty on CPUs."""

    device: str
    parameters: int
    intra_op_threads: int
    inter_op_threads: int
    versions: dict[str, str] = field(default_factory=dict)


class Strategy(ABC):
    """One process's way to train. Imports of its framework happen in `prepare` and later.

    `clock` is None where a step is over when its call returns. Where it is not, on a GPU under PyTorch,
    `train` and `compute_only` take what `clock.load` has made of a batch, and return without waiting, the
    loss as a scalar on the device.
    """

    clock: DeviceClock | None = None

    def __init__(self, context: Context) -> None:
        self.context = context
        self.trial = context.trial
        self.recipe = context.trial.recipe

    @abstractmethod
    def prepare(self) -> None:
        """Import the framework and set its threads: the part that is import time."""

    @abstractmethod
    def build(self) -> None:
        """Join the other ranks; make model, optimizer and data resident."""

    @abstractmethod
    def train(self, batches: Indices) -> Losses:
        """Do one optimizer step per row of `batches` [k, b]; return the losses [k], the mean over
        this process's samples, when the work is done (so that the caller's clock sees all of it)."""

    @abstractmethod
    def copy_state(self) -> None:
        """Make the copy of model and optimizer that `compute_only` works on."""

    @abstractmethod
    def compute_only(self, batches: Indices) -> Losses:
        """As `train`, on the copy, without any communication."""

    def start_over(self) -> None:
        """Put model and optimizer back to where `build` left them; all ranks call it."""
        raise NotImplementedError(f"{self.trial.strategy} cannot start over, which until_accuracy needs")

    @abstractmethod
    def evaluate(self) -> float:
        """The share of the test images that the trained model classifies right; no communication."""

    def inference(self, pool: NDArray[np.floating]) -> tuple[Logits, Logits]:
        """Two ways to call the model on `pool[i]`, float [pools, b, h, w, c] in 0…1: as the trial's
        `execution` says, and eagerly. Base cases have it."""
        raise NotImplementedError(f"{self.trial.strategy} is not called for inference")

    def ingest(self, plan: Plan) -> Iterator[Any]:
        """The batches of `plan`, by the framework's own input pipeline. Base cases have it."""
        raise NotImplementedError(f"{self.trial.strategy} reads no files")

    @abstractmethod
    def close(self) -> None:
        """Leave the other ranks."""

    @abstractmethod
    def facts(self) -> Facts:
        """What the rank's report says of the model and the device."""
