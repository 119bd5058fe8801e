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
from typing import TYPE_CHECKING

from jobs.rank.parent import die_with_parent
from jobs.workloads.infer import infer
from jobs.workloads.ingest import ingest
from jobs.workloads.reporting import Laps, rank_report
from jobs.workloads.train import meters

if TYPE_CHECKING:
    from jobs.contract.environment import RankEnvironment
    from jobs.contract.trial import Trial


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
            from jobs.workloads.accuracy import train_until

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
