"""What every source of data gives, and the order in which all ranks see it.

The order of samples is a function of (seed, epoch) alone: global batch k holds the same images
whatever the strategy and the number of workers, and rank r takes its slice of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Labels = NDArray[np.int32]
Indices = NDArray[np.int32]


class DataError(ValueError):
    """The data cannot be used; the message is one line: where, what, what instead."""


@dataclass(frozen=True)
class Dataset:
    """Images are uint8 [n, side, side, channels] (0 to 255), labels int32 [n] from 0 on."""

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels


def batch_indices(samples: int, global_batch: int, steps: int, seed: int) -> Indices:
    """int32 [steps, global_batch]: which training images make each global batch.

    One permutation per epoch, drawn from (seed, epoch); batches run on across the ends of epochs.
    """
    if global_batch < 1 or samples < 1:
        raise ValueError(f"samples {samples} and global batch {global_batch} must be at least 1")
    epochs = -(-steps * global_batch // samples)
    order = [np.random.default_rng((seed, epoch)).permutation(samples) for epoch in range(epochs)]
    flat = np.concatenate(order) if order else np.empty(0, np.int64)
    return flat[: steps * global_batch].astype(np.int32).reshape(steps, global_batch)


def rank_slice(indices: Indices, rank: int, world_size: int) -> Indices:
    """The columns of `indices` [steps, global_batch] that are rank's part of each global batch."""
    part = indices.shape[1] // world_size
    return np.ascontiguousarray(indices[:, rank * part : (rank + 1) * part])
