"""TODO."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.workloads.reporting import Laps, rank_report

if TYPE_CHECKING:
    from jobs.contract.trial import Trial
    from jobs.data.dataset import Indices
    from jobs.rank.rendezvous import Rendezvous
    from jobs.rank.watchdog import Watchdog
    from jobs.strategies.interface import Strategy


# Over the largest logit (or one): beyond it a callable is not the same model, and its speed means nothing.
LARGEST_DIFFERENCE = {"float64": 1e-3, "float32": 1e-3, "tf32": 1e-2, "float16": 2e-2, "bfloat16": 1e-1}


POOL = 8  # batches that inference calls take turns with


def infer(
    folder: Path, trial: Trial, rendezvous: Rendezvous, strategy: Strategy, laps: Laps, watchdog: Watchdog
) -> None:
    """The rest of an inference trial: calls of the model on resident images, one after the other."""
    import math

    import numpy as np

    from jobs.contract import folder as contract_folder
    from jobs.contract import report as contract_report
    from jobs.data import dataset as data_dataset
    from jobs.workloads.meter import Meter

    dataset = strategy.context.dataset
    chosen = data_dataset.batch_indices(len(dataset.train_labels), trial.global_batch, POOL, trial.seed)
    call, eager = strategy.inference(dataset.train_images[chosen] / np.float32(255))
    laps.lap("prepare")
    turns = np.arange(trial.steps.warmup + trial.steps.measured, dtype=np.int32) % POOL
    meter = Meter("infer", np.repeat(turns[:, None], trial.global_batch, axis=1), trial.steps.warmup, 1)

    def step(batches: Indices) -> float:
        call(int(batches[0, 0]))
        return math.nan

    started = time.time()
    try:
        meter.run(step, watchdog, trial.limits.hang)
    finally:
        contract_folder.append_steps(folder, 0, meter.rows())
    ended = time.time()
    watchdog.allow(trial.limits.startup)
    logits = [(call(i), eager(i)) for i in range(POOL)]
    difference = float(np.max([np.abs(ours - theirs).max() for ours, theirs in logits]))
    largest = float(np.max([np.abs(theirs).max() for _, theirs in logits]))
    if not difference <= LARGEST_DIFFERENCE[trial.precision] * max(1.0, largest):
        raise RuntimeError(
            f"{trial.execution} and eager execution differ by {difference:g} in their logits of up to {largest:g}"
        )
    report = rank_report(trial, rendezvous, strategy, laps, meter, started, ended, None)
    more = {"prepare_seconds": laps.seconds["prepare"], "max_difference": difference}
    contract_report.write_rank_report(folder, report.model_copy(update=more))
    strategy.close()
    rendezvous.close()
    watchdog.stop()
