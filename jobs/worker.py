"""One rank's life: `python -m jobs.worker TRIAL_DIR`.

Started by a launcher with torchrun's variables (RANK, WORLD_SIZE, …; none means a single process).
It reads the trial, pins itself to its cores, joins the other ranks, trains, and leaves its step
lines and its report in the trial's folder. What it prints belongs in the rank's log.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.rank.parent import die_with_parent

if TYPE_CHECKING:
    from jobs.contract.environment import RankEnvironment


def run(folder: Path, ends: ExitStack) -> None:
    """All of a rank's life but its end; raises what went wrong. `ends` is left after all is done."""
    from jobs.contract.environment import RankEnvironment, RendezvousError
    from jobs.contract.files import TRIAL, rank_file

    place = RankEnvironment.from_variables(os.environ)
    visible_devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    mask = os.sched_getaffinity(0)
    # Before the trial is checked, for which its strategy's file is imported, and NumPy with it.
    settle(json.loads((folder / TRIAL).read_text(encoding="utf-8")), place)

    from jobs.contract.catalog import STRATEGIES
    from jobs.contract.folder import read_trial
    from jobs.contract.trial import WORKLOADS
    from jobs.rank.watchdog import Watchdog
    from jobs.workloads.startup import Rank

    trial = read_trial(folder)
    if place.world_size != trial.processes:
        raise RendezvousError(f"WORLD_SIZE is {place.world_size}; trial {trial.id} has {trial.processes} processes")
    # A strategy whose ranks do not live as those of the workload brings its own `run`.
    live = getattr(STRATEGIES.module(trial.strategy), "run", None) or WORKLOADS.constant(trial.workload, "run")
    watchdog = Watchdog(rank_file(folder, place.rank, "alive"), trial.limits.startup)
    live(Rank(folder, trial, place, watchdog, mask, visible_devices, ends))


def settle(trial: Mapping[str, Any], place: RankEnvironment) -> None:
    """Pin this process to its cores and settle what libraries read at import: the same for every
    launcher, and no GPU but its own, of which it has none in a run that is called a CPU run.

    `trial` is the trial as its JSON has it.
    """
    from jobs.machine import cores, gpus

    threads = cores.needed(trial, place.world_size)
    cores.pin(cores.share(cores.allowed_cores(), place.local_rank, place.local_world_size, threads))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[variable] = str(threads)
    mine: list[str] = []
    if wanted := trial.get("gpus_per_worker", 0) * (trial["workers"] // place.world_size):
        mine = gpus.share(gpus.visible(os.environ), place.local_rank, place.local_world_size, wanted)
    os.environ[gpus.VISIBLE] = ",".join(mine)
    os.environ.pop("TF_CONFIG", None)


def say_why(error: BaseException) -> None:
    """The whole traceback, then the reason in a line, which is the last of the log (jobs/rank/raised.py)."""
    sys.stdout.flush()
    traceback.print_exception(error)
    try:
        from jobs.contract.reason import MARK
        from jobs.rank.raised import in_a_line

        said = MARK + in_a_line(error)
    except Exception:  # too many files are open, or no memory is left
        said = f"reason: {type(error).__name__}: {error}".splitlines()[0]
    print(said, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        sys.exit("usage: python -m jobs.worker TRIAL_DIR")
    die_with_parent()
    gc.disable()  # until all is imported: to look for garbage in it takes a fifth of the time and finds next to none
    try:
        with ExitStack() as ends:
            run(Path(arguments[0]), ends)
        code = 0
    except BaseException as error:
        code = getattr(error, "EXIT_CODE", 1)
        with suppress(OSError):  # the disk of the log is full
            say_why(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    # Not sys.exit: TensorFlow's and Gloo's threads may hold up the interpreter's end for minutes.
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
