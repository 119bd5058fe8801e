"""One rank's life: `python -m jobs.worker TRIAL_DIR`.

Started by a launcher with torchrun's variables (RANK, WORLD_SIZE, …; none means a single process).
It reads the trial, pins itself to its cores, joins the other ranks, trains, and leaves its step
lines and its report in the trial's folder. What it prints belongs in the rank's log.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from time import perf_counter

COMPUTE_ONLY_WARMUP_CALLS = 3
# A launcher that lives as long as the trial gives its own pid: the rank then dies with it.
PARENT = "SCALING_PARENT_PID"
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Be killed when the launcher dies, however it dies (prctl(2), PR_SET_PDEATHSIG)."""
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it died before the line above
        os._exit(1)


def settle_environment(threads: int) -> None:
    """Before any library that reads these at import: the same for every launcher, and no GPU that
    a framework would otherwise take by itself in a run that is called a CPU run."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[variable] = str(threads)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.pop("TF_CONFIG", None)


def run(folder: Path) -> None:
    """All of a rank's life but its end; raises what went wrong."""
    from jobs import cores, results
    from jobs.rendezvous import RankEnvironment, RendezvousError

    trial = results.read_trial(folder)
    place = RankEnvironment.from_variables(os.environ)
    if place.world_size != trial.processes:
        raise RendezvousError(f"WORLD_SIZE is {place.world_size}; trial {trial.id} has {trial.processes} processes")
    threads = trial.threads_per_worker * (trial.workers // trial.processes)
    cpus = cores.share(cores.allowed_cores(), place.local_rank, place.local_world_size, threads)
    cores.pin(cpus)
    settle_environment(threads)

    import psutil

    from jobs import data, provenance, strategies
    from jobs.meter import Meter
    from jobs.rendezvous import Rendezvous
    from jobs.strategies.base import Context
    from jobs.watchdog import Watchdog

    started = psutil.Process().create_time()
    limits, steps, k = trial.limits, trial.steps, trial.steps_per_call
    watchdog = Watchdog(results.rank_file(folder, place.rank, "alive"), limits.startup)

    clock = perf_counter()
    dataset = data.load(trial.data, trial.seed)
    compute_only_warmup = COMPUTE_ONLY_WARMUP_CALLS * k if steps.compute_only else 0
    train_steps = steps.warmup + steps.measured
    order = data.batch_indices(
        len(dataset.train_labels),
        trial.global_batch,
        train_steps + compute_only_warmup + steps.compute_only,
        trial.seed,
    )
    order = data.rank_slice(order, place.rank, place.world_size)
    data_load_seconds, clock = perf_counter() - clock, perf_counter()

    rendezvous = Rendezvous(place, trial.id, limits.startup)
    rendezvous_seconds, clock = perf_counter() - clock, perf_counter()
    strategy = strategies.load(trial.strategy)(Context(trial, dataset, rendezvous))
    strategy.prepare()
    import_seconds, clock = perf_counter() - clock, perf_counter()
    strategy.build()
    build_seconds = perf_counter() - clock

    train = Meter("train", order[:train_steps], steps.warmup, k)
    compute_only = Meter("compute_only", order[train_steps:], compute_only_warmup, k)
    try:
        rendezvous.barrier()
        train_started = time.time()
        train.run(strategy.train, watchdog, limits.hang)
        train_ended = time.time()
        watchdog.allow(limits.startup)
        accuracy = strategy.evaluate() if place.rank == 0 else None
        if steps.compute_only:
            strategy.copy_state()
            rendezvous.barrier()
            compute_only.run(strategy.compute_only, watchdog, limits.hang)
        watchdog.allow(limits.startup)
        rendezvous.barrier()
    finally:
        results.append_steps(folder, place.rank, train.rows() + compute_only.rows())

    facts = strategy.facts()
    report = results.RankReport(
        rank=place.rank,
        host=rendezvous.peers[place.rank].host,
        address=rendezvous.address,
        pid=os.getpid(),
        cpus=sorted(os.sched_getaffinity(0)),
        threads=threads,
        niceness=os.getpriority(os.PRIO_PROCESS, 0),
        startup_seconds=train_started - started,
        data_load_seconds=data_load_seconds,
        import_seconds=import_seconds,
        rendezvous_seconds=rendezvous_seconds,
        build_seconds=build_seconds,
        first_step_seconds=float(train.recording.seconds[0]),
        train_started_unix=train_started,
        train_ended_unix=train_ended,
        test_accuracy=accuracy,
        versions=provenance.versions(),
        hardware=provenance.hardware(),
        device=facts.device,
        parameters=facts.parameters,
        intra_op_threads=facts.intra_op_threads,
        inter_op_threads=facts.inter_op_threads,
    )
    results.write_rank_report(folder, report)
    rendezvous.barrier()
    strategy.close()
    rendezvous.close()
    watchdog.stop()


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit("usage: python -m jobs.worker TRIAL_DIR")
    die_with_parent()
    try:
        run(Path(arguments[0]))
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
