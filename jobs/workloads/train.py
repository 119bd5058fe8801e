"""TODO."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.contract.environment import RankEnvironment
    from jobs.contract.trial import Trial
    from jobs.workloads.meter import Meter


COMPUTE_ONLY_WARMUP_CALLS = 3


def meters(trial: Trial, place: RankEnvironment, samples: int) -> tuple[Meter, Meter]:
    """The meters of training and of the compute-only phase, with this rank's part of every batch."""
    from jobs.data import dataset as data_dataset
    from jobs.workloads.meter import Meter

    steps, k = trial.steps, trial.steps_per_call
    warmup = COMPUTE_ONLY_WARMUP_CALLS * k if steps.compute_only else 0
    train_steps = steps.warmup + steps.measured
    order = data_dataset.batch_indices(
        samples, trial.global_batch, train_steps + warmup + steps.compute_only, trial.seed
    )
    mine = data_dataset.rank_slice(order, place.rank, place.world_size)
    return (
        Meter("train", mine[:train_steps], steps.warmup, k),
        Meter("compute_only", mine[train_steps:], warmup, k),
    )
