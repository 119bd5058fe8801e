"""Inference: calls of the untrained model on resident images, one after the other; its steps are calls."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from jobs.contract import possible
from jobs.contract.catalog import ModelName
from jobs.contract.recipe import Execution, Layout, LearningRate, Precision, Recipe
from jobs.contract.trial import Trial

if TYPE_CHECKING:
    from jobs.data.dataset import Indices
    from jobs.workloads.startup import Rank

# Over the largest logit (or one): beyond it a callable is not the same model, and its speed means nothing.
LARGEST_DIFFERENCE = {"float64": 1e-3, "float32": 1e-3, "tf32": 1e-2, "float16": 2e-2, "bfloat16": 1e-1}
POOL = 8  # batches that calls take turns with
NO_RATE = "workload infer: has no learning rate; leave its rule and warm-up out"


class Infer(Trial):
    """The model is called on batches of `global_batch` images."""

    factors: ClassVar[tuple[str, ...]] = ("model", "precision", "layout", "execution")
    scales: ClassVar[bool] = False
    without: ClassVar[Mapping[str, str]] = {
        "optimizer": "workload infer: has no optimizer; leave it out",
        "steps_per_call": "workload infer: has no compute-only steps and one step per call",
        "learning_rate_rule": NO_RATE,
        "learning_rate_warmup": NO_RATE,
        "until_accuracy": "until_accuracy: workload infer does not train; leave it out",
    }

    workload: Literal["infer"] = "infer"
    learning_rate: LearningRate = 1e-3  # is not used, but has always been a part of the id
    model: ModelName = "cnn"
    precision: Precision = "float32"
    layout: Layout = "default"
    execution: Execution = "default"

    @property
    def recipe(self) -> Recipe:
        return Recipe(model=self.model, precision=self.precision, layout=self.layout, execution=self.execution)

    @property
    def needs(self) -> tuple[str, ...]:
        return ("onnxruntime", "onnxscript") if self.execution == "onnxruntime" else ()

    @property
    def words(self) -> str:
        return "inference"

    def faults(self) -> Iterator[str]:
        yield from possible.model_faults(self, self.recipe)
        yield from possible.single_process_faults(self)
        if why := possible.impossible(self.strategy, self.precision, self.layout, self.gpus_per_worker):
            yield why


TRIAL = Infer


def run(rank: Rank[Infer]) -> None:
    """The rest of a rank's life."""
    import math

    import numpy as np

    from jobs.contract import folder
    from jobs.data import dataset
    from jobs.workloads import reporting
    from jobs.workloads.meter import Meter

    trial, laps = rank.trial, rank.laps
    data = rank.load()
    rank.meet()
    strategy = rank.build(data)
    chosen = dataset.batch_indices(len(data.train_labels), trial.global_batch, POOL, trial.seed)
    call, eager = strategy.inference(data.train_images[chosen] / np.float32(255))
    laps.lap("prepare")
    turns = np.arange(trial.steps.warmup + trial.steps.measured, dtype=np.int32) % POOL
    meter = Meter("infer", np.repeat(turns[:, None], trial.global_batch, axis=1), trial.steps.warmup, 1)

    def step(batches: Indices) -> float:
        call(int(batches[0, 0]))
        return math.nan

    started = time.time()
    try:
        meter.run(step, rank.watchdog, trial.limits.hang)
    finally:
        folder.append_steps(rank.folder, 0, meter.rows())
    ended = time.time()
    rank.watchdog.allow(trial.limits.startup)
    logits = [(call(i), eager(i)) for i in range(POOL)]
    difference = float(np.max([np.abs(ours - theirs).max() for ours, theirs in logits]))
    largest = float(np.max([np.abs(theirs).max() for _, theirs in logits]))
    if not difference <= LARGEST_DIFFERENCE[trial.precision] * max(1.0, largest):
        raise RuntimeError(
            f"{trial.execution} and eager execution differ by {difference:g} in their logits of up to {largest:g}"
        )
    more = {"prepare_seconds": laps.seconds["prepare"], "max_difference": difference}
    reporting.report(rank, strategy, meter, started, ended, more)
    rank.leave(strategy)
