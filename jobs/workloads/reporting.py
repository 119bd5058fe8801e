"""TODO."""

from __future__ import annotations

import os
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.contract.report import RankReport
    from jobs.contract.trial import Trial
    from jobs.rank.rendezvous import Rendezvous
    from jobs.strategies.interface import Strategy
    from jobs.workloads.meter import Meter


class Laps:
    """How long each part of the start-up took, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.seconds[name] = now - self._last
        self._last = now


def rank_report(
    trial: Trial,
    rendezvous: Rendezvous,
    strategy: Strategy,
    laps: Laps,
    train: Meter,
    started: float,
    ended: float,
    accuracy: float | None,
) -> RankReport:
    """What this rank says of itself. `started` and `ended` are the Unix times of its training."""
    import psutil

    from jobs.contract.report import RankReport
    from jobs.machine import cores, provenance, tpu

    facts, rank = strategy.facts(), rendezvous.place.rank
    hardware = provenance.hardware()
    if facts.device.startswith("gpu "):
        hardware["gpu"] = facts.device.removeprefix("gpu ")
    if trial.tpu == "real":
        hardware["accelerator"] = tpu.name()
    return RankReport(
        rank=rank,
        local_rank=rendezvous.place.local_rank,
        host=rendezvous.peers[rank].host,
        address=rendezvous.address,
        pid=os.getpid(),
        cpus=sorted(os.sched_getaffinity(0)),
        threads=cores.needed(trial.model_dump(), trial.processes),
        niceness=os.getpriority(os.PRIO_PROCESS, 0),
        startup_seconds=started - psutil.Process().create_time(),
        import_seconds=laps.seconds["import"],
        data_load_seconds=laps.seconds["data_load"],
        rendezvous_seconds=laps.seconds["rendezvous"],
        build_seconds=laps.seconds["build"],
        first_step_seconds=float(train.recording.seconds[0]),
        train_started_unix=started,
        train_ended_unix=ended,
        test_accuracy=accuracy,
        parameters=facts.parameters,
        device=facts.device,
        timing="host" if strategy.clock is None else "events",
        intra_op_threads=facts.intra_op_threads,
        inter_op_threads=facts.inter_op_threads,
        versions=provenance.versions() | facts.versions,
        hardware=hardware,
        environment=provenance.environment(),
        container=provenance.container(),
        commit=provenance.commit() if rank == 0 else None,
    )
