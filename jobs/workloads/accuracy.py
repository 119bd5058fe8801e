"""Time to accuracy: training from the start until the held-out images are classified well enough.

Throughput alone flatters large batches, which do more samples per second and learn less from each. This
phase comes after the steps that throughput is measured by, on a model put back to its initial weights,
and has step lines of its own. Its clock runs while training does: rank 0 classifies the held-out images
between segments of steps, and what it finds is told to all ranks, so that all stop after the same step.
"""

from __future__ import annotations

import numpy as np

from jobs.contract.report import AccuracyPoint, AccuracyReached
from jobs.contract.trial import Trial
from jobs.data import dataset
from jobs.rank.rendezvous import Rendezvous
from jobs.rank.watchdog import Watchdog
from jobs.strategies.interface import Strategy
from jobs.workloads.meter import Meter


def train_until(
    wanted: float,
    trial: Trial,
    strategy: Strategy,
    rendezvous: Rendezvous,
    watchdog: Watchdog,
    rows: list[dict[str, object]],
) -> tuple[AccuracyReached | None, list[AccuracyPoint]]:
    """Train until the accuracy `wanted` is reached (None if it was not within `steps.at_most`), and the
    accuracy over time; equal on all ranks. The step lines are added to `rows`."""
    steps, place = trial.steps, rendezvous.place
    assert steps.at_most is not None
    samples = len(strategy.context.dataset.train_labels)
    # Launches of a point begin with the same weights and see the images in different orders, so their spread is
    # that of training too. The same repeat has the same order under every strategy.
    order = dataset.batch_indices(samples, trial.global_batch, steps.at_most, trial.seed + trial.repeat)
    mine = dataset.rank_slice(order, place.rank, place.world_size)
    strategy.start_over()
    curve: list[AccuracyPoint] = []
    done, seconds, took = 0, 0.0, np.zeros(0)
    while True:
        watchdog.allow(trial.limits.startup)
        accuracy = strategy.evaluate() if place.rank == 0 else None
        everyone = rendezvous.gather([took.tolist(), accuracy])
        # The slowest rank's time, step by step, as for throughput.
        seconds += float(np.max([times for times, _ in everyone], axis=0).sum())
        accuracy = everyone[0][1]
        curve.append(AccuracyPoint(step=done, seconds=seconds, accuracy=accuracy))
        if accuracy >= wanted:
            return AccuracyReached(**curve[-1].model_dump(), samples=done * trial.global_batch), curve
        if done == steps.at_most:
            return None, curve
        segment = Meter("accuracy", mine[done : done + steps.evaluate_every], 0, trial.recipe.steps_per_call)
        try:
            segment.run(strategy.train, watchdog, trial.limits.hang, strategy.clock)
        finally:
            rows += [row | {"step": done + step} for step, row in enumerate(segment.rows())]
        took, done = segment.recording.seconds, done + segment.done * trial.recipe.steps_per_call
