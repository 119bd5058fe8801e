"""Ingest: batches out of image files, by a framework's own input pipeline, and nothing else; its steps are batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from jobs.contract import possible
from jobs.contract.recipe import LearningRate, Reading
from jobs.contract.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Container

    from jobs.data.dataset import Indices
    from jobs.workloads.startup import Rank

NO_MODEL = "precision and layout: ingest trials run no model; leave them out"
NO_RATE = "workload ingest: has no learning rate; leave its rule and warm-up out"


class Ingest(Reading, Trial):
    """`files` become batches of `global_batch` by `readers` processes or threads."""

    factors: ClassVar[tuple[str, ...]] = ("readers", "source")
    own: ClassVar[tuple[str, ...]] = ("readers", "source", "files")
    scales: ClassVar[bool] = False
    without: ClassVar[Mapping[str, str]] = {
        "model": "model: ingest trials read files and run none; leave it out",
        "precision": NO_MODEL,
        "layout": NO_MODEL,
        "execution": "execution: ingest trials run no model; leave it out",
        "optimizer": "workload ingest: has no optimizer; leave it out",
        "steps_per_call": "workload ingest: has no compute-only steps and one step per call",
        "learning_rate_rule": NO_RATE,
        "learning_rate_warmup": NO_RATE,
        "until_accuracy": "until_accuracy: workload ingest does not train; leave it out",
    }
    no_gpus: ClassVar[str] = "files are read and decoded by CPUs"

    workload: Literal["ingest"] = "ingest"
    learning_rate: LearningRate = 1e-3  # is not used, but has always been a part of the id

    @property
    def needs(self) -> tuple[str, ...]:
        return ("tfrecord",) if self.source == "tfrecord" else ()

    @property
    def cores(self) -> tuple[int, str]:
        return max(super().cores, (self.readers, "readers"))

    @property
    def words(self) -> str:
        return f"{self.source}, {self.readers} reader{'s' if self.readers > 1 else ''}"

    def faults(self) -> Iterator[str]:
        yield from possible.single_process_faults(self)
        if why := possible.impossible(self.strategy, "float32", "default", self.gpus_per_worker, self.no_gpus):
            yield why


TRIAL = Ingest


def run(rank: Rank[Ingest]) -> None:
    """The rest of a rank's life."""
    import math
    import sys
    import tempfile
    import traceback

    import numpy as np
    import psutil

    from jobs.contract import folder
    from jobs.data import reading
    from jobs.data.dataset import DataError
    from jobs.workloads import reporting
    from jobs.workloads.meter import Meter

    trial, laps = rank.trial, rank.laps
    data = rank.load()
    rank.meet()
    strategy = rank.build(data)
    count, batch = trial.steps.warmup + trial.steps.measured, trial.global_batch
    with tempfile.TemporaryDirectory() as made:
        plan, rank.told = reading.plan(trial, trial.steps, batch, trial.seed, Path(made), rank.watchdog.work)
        laps.lap("files")
        apart = {child.pid for child in psutil.Process().children()}  # the node's sampler is no reader
        cpu, _ = family(apart)
        batches = strategy.ingest(plan)
        laps.lap("prepare")
        meter = Meter("ingest", np.zeros((count, batch), np.int32), trial.steps.warmup, 1)

        def step(_: Indices) -> float:
            next(batches)
            return math.nan

        started = time.time()
        try:
            meter.run(step, rank.watchdog, trial.limits.hang)
        except Exception as error:
            traceback.print_exception(error)  # whatever becomes of the search for the file
            sys.stderr.flush()
            rank.watchdog.allow(trial.limits.startup)
            try:
                reading.blame(plan, meter.done, rank.watchdog.work)
            except DataError as file:
                raise file from error
            raise
        finally:
            folder.append_steps(rank.folder, 0, meter.rows())
        ended = time.time()
        cpu_after, memory = family(apart)
        if trial.files.path is not None:  # not before they are read, which would be quicker then
            reading.examine(dict.fromkeys(plan.paths), rank.watchdog.work)
    # As TFRecord files they have an end; of the others the next epoch has another order.
    left_over = plan.epoch % batch if trial.source == "tfrecord" and count > plan.epoch // batch else 0
    more = {
        "not_as_asked": [f"{left_over} of {plan.epoch} files fill no batch and are not read"] if left_over else [],
        "prepare_seconds": laps.seconds["prepare"],
        "cpu_seconds_per_sample": (cpu_after - cpu) / (count * batch),
        "memory_bytes": memory,
    }
    reporting.report(rank, strategy, meter, started, ended, more)
    rank.leave(strategy)


def family(apart: Container[int]) -> tuple[float, int]:
    """CPU seconds and memory in bytes of this process and of those it has started, but for the pids `apart`.

    Memory that several share counts once (PSS): forked readers have most of theirs from their parent.
    """
    import psutil

    own = psutil.Process()
    seconds, memory = 0.0, 0
    for process in [own, *own.children(recursive=True)]:
        if process.pid in apart:
            continue
        try:
            times, shared_out = process.cpu_times(), process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
        seconds, memory = seconds + times.user + times.system, memory + shared_out
    return seconds, memory
