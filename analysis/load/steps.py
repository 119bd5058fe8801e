"""One trial's step lines ─▶ what that launch measured.

All ranks of a synchronous step wait for each other, so the step lasts as long as its slowest rank:
every time here is that of the slowest rank, step by step, and throughput is samples over their sum.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.load import rounds
from analysis.load.lines import BrokenSteps
from analysis.stats import steady

Floats = NDArray[np.float64]

# What `measure` gives; seconds are per step unless named otherwise.
MEASURED = {
    "samples": pl.Int64,  # of all measured steps over all ranks
    "train_seconds": pl.Float64,  # sum over the measured steps
    "throughput": pl.Float64,  # samples / train_seconds
    "step_p50": pl.Float64,
    "step_p95": pl.Float64,
    "step_p99": pl.Float64,
    "compute_only_seconds": pl.Float64,  # mean over ranks and steps, its input wait included
    "exposed_seconds": pl.Float64,  # mean step - compute_only_seconds
    "data_seconds": pl.Float64,  # mean input wait of the rank that was slowest in the step
    "straggler_seconds": pl.Float64,  # mean over steps of (slowest rank - median rank)
    "stood_still_seconds": pl.Float64,  # beyond the median, of steps that cannot be the training's
    "stood_still_on_all": pl.Boolean,  # whether all ranks did in each of them; null if it did not
    "alone_still_seconds": pl.Float64,  # the same of compute-only steps, of the rank that stood longest
    "steady": pl.Boolean,
    "steady_note": pl.String,
}


# A step longer than the median by so many seconds, and by so many times what other steps of its launch lie apart, is no
# step of training: the machine slept or was moved, or somebody stopped the rank. It is counted as every other, and said
# wherever its launch is. A median longer it must be at least, and nine are enough whatever the others are.
STILL_SECONDS, STILL_SPREADS, STILL_MEDIANS = 0.5, 8, (1, 9)


@dataclass(frozen=True)
class Steps:
    """The measured steps of one phase, each array [ranks, steps]; `block` [steps] is the round of each, None if the
    phase was not measured in blocks."""

    seconds: Floats
    data_seconds: Floats
    samples: NDArray[np.int64]
    block: NDArray[np.int64] | None = None

    @property
    def rounds(self) -> int | None:
        return None if self.block is None else int(self.block.max())

    def without(self, unused: Collection[int]) -> Steps:
        """The steps of the other rounds."""
        if self.block is None or not unused:
            return self
        kept = ~np.isin(self.block, list(unused))
        return Steps(self.seconds[:, kept], self.data_seconds[:, kept], self.samples[:, kept], self.block[kept])


def phases(frame: pl.DataFrame, expected_ranks: Iterable[int] | None) -> dict[str, Steps]:
    """The measured (not warm-up) steps of each phase, checked. Raises BrokenSteps.

    `frame` is that of `read_steps`; `expected_ranks` are the processes of the trial, if known.
    """
    ranks, counts = np.unique(frame["rank"].to_numpy(), return_counts=True)
    expected = set(range(int(ranks.max()) + 1 if len(ranks) else 1))
    if expected_ranks is not None:
        expected = set(expected_ranks)
    if absent := sorted(expected - set(ranks.tolist())):
        raise BrokenSteps(f"no steps of rank {_few(absent)}")
    if extra := sorted(set(ranks.tolist()) - expected):
        raise BrokenSteps(f"steps of rank {_few(extra)}, which the trial does not have")
    if counts.min() != counts.max():
        fewest, most = int(ranks[counts.argmin()]), int(ranks[counts.argmax()])
        raise BrokenSteps(f"rank {fewest} has {counts.min()} steps, but rank {most} has {counts.max()} steps")
    if frame["phase"].null_count() or frame["step"].null_count():
        raise BrokenSteps("a line has no phase or no step")
    per_rank = frame.with_columns(pl.col("warmup").fill_null(False))
    shape = (len(ranks), int(counts[0]))
    first = per_rank.slice(0, shape[1])
    step = per_rank["step"].to_numpy().reshape(shape)
    warmup = per_rank["warmup"].to_numpy().reshape(shape)
    block = _blocks(frame["block"], shape)
    if (step != step[0]).any() or (warmup != warmup[0]).any() or (block is not None and (block != block[0]).any()):
        raise BrokenSteps("the ranks do not have the same steps")
    found = {}
    for phase in first["phase"].unique(maintain_order=True):
        mask = (first["phase"] == phase).to_numpy()
        of_all = (per_rank["phase"] == phase).to_numpy().reshape(shape)
        if (of_all != mask).any():
            raise BrokenSteps("the ranks do not have the same steps")
        if (step[0][mask] != np.arange(mask.sum())).any():
            raise BrokenSteps(f"{phase} step numbers are not 0, 1, 2, …: lines are missing or repeated")
        wanted = np.flatnonzero(mask & ~warmup[0])
        found[phase] = _checked(per_rank, shape, wanted, phase, step[0])
        if block is not None:
            if wrong := rounds.fault(phase, block[0][mask], warmup[0][mask]):
                raise BrokenSteps(wrong)
            found[phase] = replace(found[phase], block=block[0][wanted])
    return found


def _blocks(blocks: pl.Series, shape: tuple[int, int]) -> NDArray[np.int64] | None:
    """The block of each line, [ranks, steps]; None if no line says one."""
    if blocks.null_count() == len(blocks):
        return None
    if blocks.null_count():
        raise BrokenSteps("some lines say which block they are of, and others do not")
    return blocks.to_numpy().reshape(shape)


def _checked(
    frame: pl.DataFrame, shape: tuple[int, int], wanted: NDArray[np.intp], phase: str, step: NDArray[np.int64]
) -> Steps:
    """The columns `wanted` of each rank, all of them positive (seconds, samples) or not negative."""
    arrays: dict[str, Any] = {}
    for name in ("seconds", "data_seconds", "samples"):
        array = frame[name].fill_null(-1).to_numpy().reshape(shape)[:, wanted]
        wrong = ~(array >= 0) | np.isinf(array) if name == "data_seconds" else ~(array > 0) | np.isinf(array)
        if wrong.any():
            rank, at = np.argwhere(wrong)[0]
            raise BrokenSteps(f"{name} of {phase} step {step[wanted[at]]} of rank {rank} is missing or not positive")
        arrays[name] = array
    return Steps(**arrays)


def measure(
    found: dict[str, Steps],
    global_batch: int,
    planned_steps: int | None,
    *,
    planned_alone: int | None = None,
    planned_rounds: int | None = None,
    unused: Collection[int] = (),
    workload: str = "train",
    check_steady: bool = True,
) -> dict[str, Any]:
    """The columns MEASURED of one trial, from the phase that is called as its workload. Raises BrokenSteps.

    `planned_steps` and `planned_alone` are how many steps of training, and of the compute-only phase, there must be; in
    `planned_rounds` rounds, of which the `unused` are left out.

    Times in seconds; percentiles are over the measured steps of this launch.
    """
    train = found.get(workload)
    if train is None or not train.seconds.size:
        raise BrokenSteps("no measured training steps")
    if planned_steps is not None and train.seconds.shape[1] != planned_steps:
        raise BrokenSteps(f"{train.seconds.shape[1]} measured training steps, but {planned_steps} were planned")
    compute = found.get("compute_only")
    done_alone = compute.seconds.shape[1] if compute is not None else 0
    if planned_alone is not None and done_alone != planned_alone:
        raise BrokenSteps(f"{done_alone} measured compute-only steps, but {planned_alone} were planned")
    for phase, steps in found.items():
        if steps.rounds != planned_rounds:
            raise BrokenSteps(f"{phase} is in {steps.rounds or 'no'} rounds, planned were {planned_rounds or 'none'}")
    train, compute = train.without(unused), compute and compute.without(unused)
    if not train.seconds.size:
        raise BrokenSteps(f"none of {planned_rounds} rounds can be used: a side that was stopped used a CPU in each")
    per_step = train.samples.sum(axis=0)
    if (per_step != global_batch).any():
        raise BrokenSteps(f"samples of a step sum to {per_step[per_step != global_batch][0]}, not {global_batch}")
    slowest = train.seconds.max(axis=0)
    waits = np.take_along_axis(train.data_seconds, train.seconds.argmax(axis=0)[None, :], axis=0)[0]
    alone = float(compute.seconds.mean()) if compute is not None and compute.seconds.size else None
    p50, p95, p99 = np.percentile(slowest, (50, 95, 99)).tolist()
    limit = _longest_sound(slowest)
    still = slowest > limit
    is_steady, note = None, ""
    if check_steady:
        series = (slowest,) if train.block is None else (blocks_of(train), "round", 1)
        is_steady, note = steady.check(*series)
    total = float(slowest.sum())
    return {
        "samples": int(per_step.sum()),
        "train_seconds": total,
        "throughput": float(per_step.sum()) / total,
        "step_p50": p50,
        "step_p95": p95,
        "step_p99": p99,
        "compute_only_seconds": alone,
        "exposed_seconds": None if alone is None else float(slowest.mean()) - alone,
        "data_seconds": float(waits.mean()),
        "straggler_seconds": float((slowest - np.median(train.seconds, axis=0)).mean()),
        "stood_still_seconds": float((slowest[still] - p50).sum()),
        "stood_still_on_all": bool((train.seconds[:, still] > limit).all()) if still.any() else None,
        "alone_still_seconds": None if alone is None or compute is None else longest_still(compute.seconds),
        "steady": is_steady,
        "steady_note": note,
    }


def blocks_of(steps: Steps) -> Floats:
    """The mean step of each block, of the slowest rank step by step."""
    assert steps.block is not None
    return rounds.means(steps.seconds.max(axis=0), steps.block)


def _longest_sound(seconds: Floats) -> float:
    """What a step may take; longer ones stood still. How far others lie apart is told by what no stop makes longer: the
    fastest step, and the ninth decile."""
    p50, p90 = np.median(seconds), np.quantile(seconds, 0.9, method="lower")
    least, enough = (times * p50 for times in STILL_MEDIANS)
    apart = STILL_SPREADS * max(p50 - seconds.min(), p90 - p50)
    return float(p50 + max(STILL_SECONDS, min(enough, max(least, apart))))


def longest_still(seconds: Floats) -> float:
    """Of the rank that stood still longest, the seconds beyond the median; `seconds` is [ranks, steps]."""
    return float(((seconds - np.median(seconds)) * (seconds > _longest_sound(seconds))).sum(axis=1).max())


def _few(numbers: Sequence[int], most: int = 5) -> str:
    text = ", ".join(str(n) for n in numbers[:most])
    return text + (f" and {len(numbers) - most} more" if len(numbers) > most else "")
