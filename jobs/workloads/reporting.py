"""What a rank says of itself at its end, whatever it ran."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.strategies.interface import Facts, Strategy
    from jobs.workloads.meter import Meter
    from jobs.workloads.startup import Rank


def report(
    rank: Rank[Any], strategy: Strategy, meter: Meter, started: float, ended: float, more: Mapping[str, Any]
) -> None:
    """Write the rank's report. `started` and `ended` are the Unix times of what `meter` has run; `more` is the
    workload's own."""
    timing = "host" if strategy.clock is None else "events"
    said: dict[str, Any] = {"timing": timing}
    if meter.throttled is not None:
        said |= dict(zip(("quota_periods", "throttled_periods", "throttled_seconds"), meter.throttled, strict=True))
    write(rank, strategy.facts(), float(meter.recording.seconds[0]), started, ended, said | dict(more))


def write(
    rank: Rank[Any], facts: Facts, first_step_seconds: float, started: float, ended: float, more: Mapping[str, Any]
) -> None:
    """As `report`, of a rank whose steps were counted by something else than a meter of ours."""
    import psutil

    from jobs.contract.report import RankReport, write_rank_report
    from jobs.machine import cores, provenance, quota, tpu, variables

    trial, number, laps = rank.trial, rank.place.rank, rank.laps.seconds
    hardware = provenance.hardware()
    if facts.device.startswith("gpu "):
        hardware["gpu"] = facts.device.removeprefix("gpu ")
    if trial.tpu == "real":
        hardware["accelerator"] = tpu.name()
    cpus = sorted(os.sched_getaffinity(0))
    said = RankReport(
        rank=number,
        local_rank=rank.place.local_rank,
        host=rank.rendezvous.peers[number].host,
        address=rank.rendezvous.address,
        pid=os.getpid(),
        cpus=cpus,
        cores=sorted({cores.core_of(cpu) for cpu in cpus}),
        cpu_quota=quota.cgroup_quota(),
        threads=cores.needed(trial.model_dump(), trial.processes),
        niceness=os.getpriority(os.PRIO_PROCESS, 0),
        visible_devices=rank.visible_devices,
        startup_seconds=started - psutil.Process().create_time() - laps.get("decode", 0.0),
        import_seconds=laps.get("import", 0.0),
        data_load_seconds=laps["data_load"],
        rendezvous_seconds=laps["rendezvous"],
        build_seconds=laps.get("build", 0.0),
        first_step_seconds=first_step_seconds,
        train_started_unix=started,
        train_ended_unix=ended,
        parameters=facts.parameters,
        device=facts.device,
        intra_op_threads=facts.intra_op_threads,
        inter_op_threads=facts.inter_op_threads,
        versions=provenance.versions() | facts.versions,
        hardware=hardware,
        environment=variables.recorded(os.environ),
        container=provenance.container(),
        commit=provenance.commit() if number == 0 else None,
        data=rank.told if number == 0 else None,
    )
    write_rank_report(rank.folder, said.model_copy(update=dict(more)))
