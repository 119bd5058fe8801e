"""Phases that took turns in blocks, one block of each in every round: are their lines what was planned, and how far do
the blocks of a phase lie apart?

A block is known by its round, from 1; block 0 is the warm-up before the first round. docs/results-format.md is the
contract.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# A block is off if its mean step lies so many robust standard deviations (1.4826 times the median absolute deviation)
# from the median of its phase. Of fewer blocks the deviation is too uncertain to say so.
OFF, FEWEST = 5.0, 10


def fault(phase: str, block: NDArray[np.int64], warmup: NDArray[np.bool_]) -> str:
    """Why lines of `phase` in these blocks, both [steps], are no blocks of rounds; "" if they are."""
    if block.min() < 0 or (np.diff(block) < 0).any():
        return f"the blocks of {phase} are not in order"
    if not warmup[block == 0].all():
        return f"a step of {phase} before the first round is not marked as warm-up"
    counted, marked = (np.bincount(block[which], minlength=int(block.max()) + 1)[1:] for which in (~warmup, warmup))
    if not len(counted):
        return f"no line of {phase} is of a round"
    if (counted != counted[0]).any() or not counted[0]:
        other = int(np.argmax(counted != counted[0])) if counted[0] else 0
        return f"block {other + 1} of {phase} has {counted[other]} counted steps, but block 1 has {counted[0]}"
    late = warmup[1:] & ~warmup[:-1] & (block[1:] == block[:-1])
    if late.any() or (marked != marked[0]).any() or not marked[0]:
        return f"not every block of {phase} begins with the steps that are not counted, and as many"
    return ""


def means(seconds: Floats, block: NDArray[np.int64]) -> Floats:
    """The mean of each block, in the order of time: of a phase, that is the order of rounds. Both are [steps]."""
    return np.asarray([seconds[block == each].mean() for each in np.unique(block)], dtype=np.float64)


def off(of_blocks: Floats) -> int:
    """How many of these means of a phase's blocks are off."""
    if len(of_blocks) < FEWEST:
        return 0
    away = np.abs(of_blocks - np.median(of_blocks))
    return int((away > max(OFF * 1.4826 * float(np.median(away)), 1e-9 * float(np.median(of_blocks)))).sum())
