"""One rank's life: `python -m jobs.worker TRIAL_DIR`.

Started by a launcher with torchrun's variables (RANK, WORLD_SIZE, …; none means a single process).
It reads the trial, pins itself to its cores, joins the other ranks, trains, and leaves its step
lines and its report in the trial's folder. What it prints belongs in the rank's log.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from jobs.rank.parent import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Container

    from jobs.contract.environment import RankEnvironment
    from jobs.contract.report import RankReport
    from jobs.contract.trial import Trial
    from jobs.data.dataset import Indices
    from jobs.meter import Meter
    from jobs.rank.rendezvous import Rendezvous
    from jobs.rank.watchdog import Watchdog
    from jobs.strategies.interface import Strategy


COMPUTE_ONLY_WARMUP_CALLS = 3


def run(folder: Path, ends: ExitStack) -> None:
    """All of a rank's life but its end; raises what went wrong. `ends` is left after all is done."""
    from jobs.contract import folder as contract_folder
    from jobs.contract import report as contract_report
    from jobs.contract.environment import RankEnvironment, RendezvousError
    from jobs.contract.files import rank_file
    from jobs.telemetry import start

    trial = contract_folder.read_trial(folder)
    place = RankEnvironment.from_variables(os.environ)
    if place.world_size != trial.processes:
        raise RendezvousError(f"WORLD_SIZE is {place.world_size}; trial {trial.id} has {trial.processes} processes")
    visible_devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    mask = os.sched_getaffinity(0)
    settle(trial, place)

    from jobs.data import load
    from jobs.machine.network import interface_of
    from jobs.rank.rendezvous import Rendezvous
    from jobs.rank.watchdog import Watchdog
    from jobs.strategies import interface
    from jobs.strategies.interface import Context

    watchdog = Watchdog(rank_file(folder, place.rank, "alive"), trial.limits.startup)
    laps = Laps()
    dataset = load.load(trial.data, trial.seed, trial.model)
    if trial.workload == "train":
        train, compute_only = meters(trial, place, len(dataset.train_labels))
    laps.lap("data_load")
    rendezvous = Rendezvous(place, trial.id, trial.limits.startup)
    if trial.gpus_per_worker:  # where NCCL's ranks meet, under every strategy; on no other interface does it listen
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface_of(rendezvous.address)}")
    ends.enter_context(start.sampling(folder, trial.telemetry.hertz, mask, rendezvous))
    laps.lap("rendezvous")
    strategy = interface.load(trial.strategy)(Context(trial, dataset, rendezvous))
    strategy.prepare()
    gc.freeze()  # what imports have made stays
    gc.enable()
    laps.lap("import")
    strategy.build()
    laps.lap("build")
    if trial.gpus_per_worker and not (device := strategy.facts().device).startswith("gpu "):
        raise RuntimeError(f"{trial.strategy} computes on {device}, and the trial asks for a GPU for each worker")

    if trial.workload == "ingest":
        ingest(folder, trial, rendezvous, strategy, laps, watchdog)
        return
    if trial.workload == "infer":
        infer(folder, trial, rendezvous, strategy, laps, watchdog)
        return

    hang = trial.limits.hang
    reached, curve = None, None
    more_rows: list[dict[str, object]] = []
    try:
        rendezvous.barrier()
        started = time.time()
        train.run(strategy.train, watchdog, hang, strategy.clock)
        ended = time.time()
        watchdog.allow(trial.limits.startup)
        accuracy = strategy.evaluate() if place.rank == 0 else None
        if trial.steps.compute_only:
            strategy.copy_state()
            rendezvous.barrier()
            compute_only.run(strategy.compute_only, watchdog, hang, strategy.clock)
        if trial.until_accuracy is not None:
            from jobs.accuracy import train_until

            reached, curve = train_until(trial, strategy, rendezvous, watchdog, more_rows)
        watchdog.allow(trial.limits.startup)
        rendezvous.barrier()
    finally:
        contract_folder.append_steps(folder, place.rank, train.rows() + compute_only.rows() + more_rows)

    report = rank_report(trial, rendezvous, strategy, laps, train, started, ended, accuracy)
    update: dict[str, object] = {"visible_devices": visible_devices}
    if place.rank == 0:
        update |= {"accuracy_reached": reached, "accuracy_curve": curve}
    report = report.model_copy(update=update)
    contract_report.write_rank_report(folder, report)
    rendezvous.barrier()
    strategy.close()
    rendezvous.close()
    watchdog.stop()


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
    from jobs.meter import Meter

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
    from jobs.meter import Meter

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


class Laps:
    """How long each part of the start-up took, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.seconds[name] = now - self._last
        self._last = now


def settle(trial: Trial, place: RankEnvironment) -> None:
    """Pin this process to its cores and settle what libraries read at import: the same for every
    launcher, and no GPU but its own, of which it has none in a run that is called a CPU run."""
    from jobs.machine import cores, gpus

    threads = cores.needed(trial.model_dump(), trial.processes)
    cores.pin(cores.share(cores.allowed_cores(), place.local_rank, place.local_world_size, threads))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[variable] = str(threads)
    mine: list[str] = []
    if wanted := trial.gpus_per_process:
        mine = gpus.share(gpus.visible(os.environ), place.local_rank, place.local_world_size, wanted)
    os.environ[gpus.VISIBLE] = ",".join(mine)
    os.environ.pop("TF_CONFIG", None)


def meters(trial: Trial, place: RankEnvironment, samples: int) -> tuple[Meter, Meter]:
    """The meters of training and of the compute-only phase, with this rank's part of every batch."""
    from jobs.data import dataset as data_dataset
    from jobs.meter import Meter

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


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit("usage: python -m jobs.worker TRIAL_DIR")
    die_with_parent()
    gc.disable()  # until all is imported: to look for garbage in it takes a fifth of the time and finds next to none
    try:
        with ExitStack() as ends:
            run(Path(arguments[0]), ends)
        code = 0
    except BaseException:
        traceback.print_exc()  # its last line is the reason; it is the last line of the log
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: TensorFlow's and Gloo's threads may hold up the interpreter's end for minutes.
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
