"""Training: steps of an optimizer on any number of workers, and steps of a copy without communication.

One phase after the other, or, with `steps.blocks`, by turns: a round has a block of each, in random order, and beside
them of the base case, which then runs as a process of its own (jobs/beside). Slow noise, which hits all of a round
alike, cancels in the phases' ratios. The first call after a change is marked and not counted.

With `until_accuracy` the model is trained once more from the start until it classifies that share of the held-out
images right (jobs/workloads/accuracy.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from jobs.contract import possible
from jobs.contract.recipe import Recipe
from jobs.contract.trial import Trial

if TYPE_CHECKING:
    from jobs.workloads.meter import Meter
    from jobs.workloads.startup import Rank

COMPUTE_ONLY_WARMUP_CALLS = 3


class Train(Recipe, Trial):
    """Its steps are steps of training; `until_accuracy` is a share of the held-out images."""

    factors: ClassVar[tuple[str, ...]] = (
        "model", "precision", "layout", "optimizer", "learning_rate_rule", "learning_rate_warmup", "steps_per_call",
        "execution",
    )  # fmt: skip

    in_phases: ClassVar[bool] = True

    workload: Literal["train"] = "train"
    until_accuracy: Annotated[float, Field(gt=0, lt=1)] | None = None

    @property
    def recipe(self) -> Recipe:
        return self

    @property
    def words(self) -> str:
        return ""

    def faults(self) -> Iterator[str]:
        yield from possible.model_faults(self, self)
        if self.execution == "eager" and self.steps_per_call > 1:
            yield "execution eager: several steps in one call are a graph; use steps_per_call 1"
        if why := possible.impossible(self.strategy, self.precision, self.layout, self.gpus_per_worker):
            yield why
        if (self.learning_rate_rule == "none") != (self.reference_batch is None):
            yield "learning_rate_rule and reference_batch: go together; give both or neither"
        if why := possible.accuracy_fault(self.until_accuracy, self.steps, self.data):
            yield why
        phases = ("warmup", "measured", "compute_only", "at_most", "evaluate_every")
        for phase in phases if self.until_accuracy else phases[:3]:
            count = getattr(self.steps, phase)
            if count % self.steps_per_call:
                yield f"steps.{phase} {count} is not a multiple of steps_per_call {self.steps_per_call}"
        yield from self._faults_of_blocks()

    def _faults_of_blocks(self) -> Iterator[str]:
        blocks, k = self.steps.blocks, self.steps_per_call
        if blocks is None:
            return
        if self.until_accuracy:
            yield "steps.blocks: until_accuracy trains in one go; leave one of them out"
        for phase in ("measured", "compute_only"):
            count = getattr(self.steps, phase)
            if count % (blocks * k) or 0 < count < 2 * blocks * k:
                least = max(2, round(count / (blocks * k))) * blocks * k
                yield (
                    f"steps.{phase}: {count} steps are not as many in each of {blocks} blocks, two at least"
                    f"{f', in calls of {k}' if k > 1 else ''}; take {least}"
                )


TRIAL = Train


def run(rank: Rank[Train]) -> None:
    """The rest of a rank's life: train, evaluate, and the compute-only steps."""
    from jobs.contract import folder
    from jobs.models import layers
    from jobs.workloads import reporting

    trial, place, watchdog, hang = rank.trial, rank.place, rank.watchdog, rank.trial.limits.hang
    variables = dict(os.environ)
    dataset = rank.load()
    train, compute_only = meters(rank, len(dataset.train_labels))
    rendezvous = rank.meet()
    strategy = rank.build(dataset)
    reached, curve = None, None
    more_rows: list[dict[str, object]] = []
    try:
        rendezvous.barrier()
        started = time.time()
        if trial.steps.blocks:
            from jobs.workloads import blocks

            blocks.run(rank, strategy, train, compute_only, variables)
        else:
            train.run(strategy.train, watchdog, hang, strategy.clock)
        ended = time.time()
        watchdog.allow(trial.limits.startup)
        accuracy = strategy.evaluate() if place.rank == 0 else None
        if trial.steps.compute_only and not trial.steps.blocks:
            strategy.copy_state()
            rendezvous.barrier()
            compute_only.run(strategy.compute_only, watchdog, hang, strategy.clock)
        if trial.until_accuracy is not None:
            from jobs.workloads.accuracy import train_until

            reached, curve = train_until(trial.until_accuracy, trial, strategy, rendezvous, watchdog, more_rows)
        watchdog.allow(trial.limits.startup)
        rendezvous.barrier()
    finally:
        folder.append_steps(rank.folder, place.rank, train.rows() + compute_only.rows() + more_rows)

    side = dataset.train_images.shape[1]
    more: dict[str, object] = {"test_accuracy": accuracy, "work": asdict(layers.work(trial.model, side))}
    if trial.steps.blocks:
        in_time = sorted(train.blocks + compute_only.blocks, key=lambda block: block.begin_unix)
        more["blocks"] = [asdict(block) for block in in_time]
    if place.rank == 0:
        more |= {"accuracy_reached": reached, "accuracy_curve": curve}
    reporting.report(rank, strategy, train, started, ended, more)
    rank.leave(strategy)


def meters(rank: Rank[Train], samples: int) -> tuple[Meter, Meter]:
    """The meters of training and of the compute-only phase, with this rank's part of every batch."""
    from jobs.data import dataset
    from jobs.workloads.meter import Meter

    trial, place = rank.trial, rank.place
    steps, k = trial.steps, trial.steps_per_call
    between = (steps.blocks or 0) * k  # the first call of each block
    warmup = COMPUTE_ONLY_WARMUP_CALLS * k if steps.compute_only else 0
    train_steps = steps.warmup + steps.measured + between
    alone_steps = warmup + steps.compute_only + (between if steps.compute_only else 0)
    order = dataset.batch_indices(samples, trial.global_batch, train_steps + alone_steps, trial.seed)
    mine = dataset.rank_slice(order, place.rank, place.world_size)
    return (
        Meter("train", mine[:train_steps], steps.warmup, k, steps.blocks or 0),
        Meter("compute_only", mine[train_steps:], warmup, k, steps.blocks or 0),
    )
