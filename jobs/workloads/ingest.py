"""TODO."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.workloads.reporting import Laps, rank_report

if TYPE_CHECKING:
    from collections.abc import Container

    from jobs.contract.trial import Trial
    from jobs.data.dataset import Indices
    from jobs.rank.rendezvous import Rendezvous
    from jobs.rank.watchdog import Watchdog
    from jobs.strategies.interface import Strategy


def ingest(
    folder: Path, trial: Trial, rendezvous: Rendezvous, strategy: Strategy, laps: Laps, watchdog: Watchdog
) -> None:
    """The rest of an ingest trial: batches out of files, one after the other."""
    import math
    import tempfile

    import numpy as np
    import psutil

    from jobs.contract import folder as contract_folder
    from jobs.contract import report as contract_report
    from jobs.data.reading import plan
    from jobs.workloads.meter import Meter

    count, batch = trial.steps.warmup + trial.steps.measured, trial.global_batch
    with tempfile.TemporaryDirectory() as made:
        reading = plan(trial, Path(made))
        laps.lap("files")
        apart = {child.pid for child in psutil.Process().children()}  # the node's sampler is no reader
        cpu, _ = family(apart)
        batches = strategy.ingest(reading)
        laps.lap("prepare")
        meter = Meter("ingest", np.zeros((count, batch), np.int32), trial.steps.warmup, 1)

        def step(_: Indices) -> float:
            next(batches)
            return math.nan

        started = time.time()
        try:
            meter.run(step, watchdog, trial.limits.hang)
        finally:
            contract_folder.append_steps(folder, 0, meter.rows())
        ended = time.time()
        cpu_after, memory = family(apart)
    report = rank_report(trial, rendezvous, strategy, laps, meter, started, ended, None)
    more = {
        "prepare_seconds": laps.seconds["prepare"],
        "cpu_seconds_per_sample": (cpu_after - cpu) / (count * batch),
        "memory_bytes": memory,
    }
    contract_report.write_rank_report(folder, report.model_copy(update=more))
    strategy.close()
    rendezvous.close()
    watchdog.stop()


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
