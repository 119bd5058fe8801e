"""What a job's script ends in: `python -m cluster.slurm.batch JOB_FOLDER RANK_PYTHON -- srun FLAGS…`.

It runs the job's trials one after the other, each as one step, and writes their outcomes: nobody need
be watching. SIGUSR1 (time is nearly up) ends it in good order when it must, SIGTERM (SLURM ends the job) at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple, TypeVar

from cluster.slurm import queue
from cluster.slurm.ending import SRUN_LOG, step_verdict, without_an_end
from cluster.slurm.job import JobFolder, Planned, begun, beside_another
from cluster.slurm.script import SIGNAL_SECONDS
from jobs.contract.environment import RendezvousError
from jobs.contract.exits import Status, read_exits
from jobs.contract.files import RankExit
from jobs.contract.folder import read_trial, set_aside, write_trial
from jobs.contract.outcome import UnreadableOutcome, conclude, now, read_outcome
from jobs.contract.trial import Trial
from jobs.machine.network import address_on, interfaces, master_port, meeting_address

SIGNALS = (signal.SIGUSR1, signal.SIGALRM, signal.SIGTERM)
END_SECONDS = 8.0  # that a step has to end its ranks when asked, and again when told
# A trial may take this much longer than the longest that was seen of its point, and still fit.
LONGER, MORE_SECONDS = 1.5, 15.0
AWAY_SECONDS, ASK_AGAIN_SECONDS = 120.0, 5.0  # how long a controller that does not answer is asked, and how often

Answer = TypeVar("Answer")

# What sbatch sets for the whole job, and srun would take for the step's.
OF_THE_JOB = (
    "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_TASKS_PER_NODE", "SLURM_NNODES", "SLURM_JOB_NUM_NODES", "SLURM_CPUS_PER",
    "SLURM_GPUS", "SLURM_MEM_PER", "SLURM_TRES_PER", "SLURM_DISTRIBUTION", "SLURM_CPU_BIND", "SLURM_EXCLUSIVE",
)  # fmt: skip


class Stop(Exception):
    """The job ends. The argument is "time" or "signal"."""


def _on_signal(number: int, _: FrameType | None) -> None:
    if number == signal.SIGUSR1:
        # It comes up to a minute early (sbatch(1), --signal), in which a trial may end by itself.
        try:
            left = (queue.seconds_left(os.environ["SLURM_JOB_ID"]) or 0.0) - SIGNAL_SECONDS
        except queue.ControllerAway:
            left = 0.0
        if left > 0:
            signal.setitimer(signal.ITIMER_REAL, left)
            return
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stop("signal" if number == signal.SIGTERM else "time")


def run(job: JobFolder, rank_command: list[str], srun: list[str]) -> None:
    """All trials of the job that have no outcome yet. Raises Stop, and ControllerAway before any has begun."""
    job_id, node = os.environ["SLURM_JOB_ID"], os.environ["SLURMD_NODENAME"]
    if job.job_id is None:
        job.submitted(job_id)
    job.began(queue.hostnames(os.environ["SLURM_JOB_NODELIST"]))
    address = address_on(job.interface) if job.interface else _answer(lambda: _meeting_address(node))
    left = _answer(lambda: queue.seconds_left(job_id))
    deadline = None if left is None else time.monotonic() + left - SIGNAL_SECONDS
    for planned in _missing(job):
        try:
            if job.allocation == "packed" and deadline is not None:
                wanted, left = seconds_wanted(job.trial(planned)), deadline - time.monotonic()
                if wanted > left:
                    why = f"it may take {wanted:.0f} s and {left:.0f} s are left"
                    print(f"{planned.trial}: not begun: {why}", flush=True)
                    raise Stop("time")
            step = _start(job.trial(planned), address, [*srun, *planned.size.flags()], rank_command)
        except FileNotFoundError:
            if job.trial(planned).exists():
                raise
            print(f"{planned.trial}: not begun: the driver has taken it back", flush=True)
            continue
        _finish(job, planned, job_id, step)


def _meeting_address(node: str) -> str:
    """The address of this node, where rank 0 will be, for ranks on all nodes of the job. Raises RendezvousError."""
    ((host, known_as),) = queue.hosts(node).items()
    others = [its for other, its in queue.hosts(os.environ["SLURM_JOB_NODELIST"]).items() if other != host]
    try:
        address = meeting_address(known_as, others)
    except RendezvousError as error:
        raise RendezvousError(
            f"NodeAddr={known_as} of node {node}: {error}; name the network between the nodes in launcher.interface "
            f"(this node has {', '.join(interfaces())})"
        ) from None
    if address != known_as:
        print(f"rank 0 is met at {address}; SLURM knows its node {node} by NodeAddr={known_as}", flush=True)
    return address


def _answer(ask: Callable[[], Answer]) -> Answer:
    """What `ask` returns; a controller that is away is asked again, as one that is restarted comes back."""
    deadline = time.monotonic() + AWAY_SECONDS
    while True:
        try:
            return ask()
        except queue.ControllerAway:
            if time.monotonic() > deadline:
                raise
            time.sleep(ASK_AGAIN_SECONDS)


def _missing(job: JobFolder) -> Iterator[Planned]:
    for planned in job.launches:
        folder = job.trial(planned)
        try:
            done = read_outcome(folder) is not None
        except UnreadableOutcome:
            done = True  # the driver sets it aside
        if done or not folder.exists():
            continue
        if begun(folder):  # SLURM has started this job again
            trial = read_trial(folder)
            print(set_aside(folder, "was not finished when its job was started again"), flush=True)
            write_trial(folder, trial)
        yield planned


def seconds_wanted(folder: Path) -> float:
    """What a trial may take: its limit, or less if other launches of the same point took less."""
    trial = read_trial(folder)
    seen = []
    for other in folder.parent.glob(f"{trial.point}-r*"):
        try:
            outcome = read_outcome(other)
        except UnreadableOutcome:
            continue
        if outcome is not None and outcome.status == "ok":
            seen.append(outcome.seconds)
    return min([trial.limits.trial, *([LONGER * max(seen) + MORE_SECONDS] if seen else [])])


class Step(NamedTuple):
    """A trial's step that has been started: its srun, when it began, and the inode of the trial's folder then."""

    srun: subprocess.Popen[bytes]
    trial: Trial
    began: str
    began_unix: float
    inode: int


def _start(folder: Path, address: str, srun: list[str], rank_command: list[str]) -> Step:
    """Start the step of the trial in `folder`. Raises FileNotFoundError if there is no such folder."""
    trial = read_trial(folder)
    # SLURM's own limit on the step is the last resort: the ranks' keepers hold the exact ones.
    minutes = int(trial.limits.trial // 60) + 2
    environment = {k: v for k, v in queue.for_commands(os.environ).items() if not k.startswith(OF_THE_JOB)}
    environment |= {"MASTER_ADDR": address, "MASTER_PORT": str(master_port(address))}
    began, began_unix, inode = now(), time.time(), folder.stat().st_ino
    with (folder / SRUN_LOG).open("wb") as log:
        process = subprocess.Popen(
            [*srun, f"--time={minutes}", *rank_command, str(folder)], env=environment, stdout=log, stderr=log
        )
    return Step(process, trial, began, began_unix, inode)


def _finish(job: JobFolder, planned: Planned, job_id: str, step: Step) -> None:
    """Wait for a trial's step and write the trial's outcome. On Stop the ranks are ended first."""
    folder = job.trial(planned)
    try:
        # Of a job that it ends, SLURM may reach the ranks before this process.
        stopped = Stop("signal") if step.srun.wait() and queue.is_ending(job_id) else None
    except Stop as stop:
        stopped = stop
        _end(step.srun)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # what has ended is written down first
    try:
        if ended := _written_down(job, planned, job_id, step, stopped):
            print(f"{planned.trial}: {ended}", flush=True)
    except FileNotFoundError:
        if folder.exists() and folder.stat().st_ino == step.inode:
            raise
        # A job that a controller has forgotten goes on; the driver gives its trial to another, in a new folder.
        print(f"{planned.trial}: has been set aside meanwhile; its end is not written down", flush=True)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if stopped:
        raise stopped


def _written_down(job: JobFolder, planned: Planned, job_id: str, step: Step, stopped: Stop | None) -> str:
    """Write the outcome of a trial whose step has ended; how it ended, empty if that is left to the driver. Raises
    FileNotFoundError if the folder is not the one in which it began."""
    folder = job.trial(planned)
    exits = read_exits(folder, step.trial.processes)
    ended = _verdict(job, folder, exits, step.trial.processes, stopped)
    if folder.stat().st_ino != step.inode:
        raise FileNotFoundError(folder)
    if ended is None:
        return ""
    conclude(
        folder,
        status=ended[0],
        error=ended[1],
        launcher="slurm",
        job=job_id,
        order=planned.order,
        started=step.began,
        exits=exits,
        concurrent=beside_another(job, step.began_unix, time.time()),
    )
    return " ".join(ended).rstrip()


def _verdict(
    job: JobFolder, folder: Path, exits: list[RankExit], processes: int, stopped: Stop | None
) -> tuple[Status, str] | None:
    """How a trial has ended; None leaves it to the driver, which learns why SLURM ended the job."""
    ended = step_verdict(folder, exits, processes)
    if ended and (ended[0] == "ok" or stopped is None):
        return ended
    if stopped is None:
        return without_an_end(folder, exits)
    if stopped.args[0] == "signal":
        return None
    if job.allocation == "packed":
        return "lost", "the time of the allocation was up (launcher.time); it takes part in the next one"
    return "timeout", "the time limit of its job was up (launcher.time)"


def _end(step: subprocess.Popen[bytes]) -> None:
    """srun passes SIGUSR1 on to the ranks' keepers; on SIGTERM it has all of the step killed."""
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGKILL):
        step.send_signal(number)
        try:
            step.wait(END_SECONDS)
            return
        except subprocess.TimeoutExpired:
            continue


def main(arguments: list[str]) -> None:
    try:
        split = arguments.index("--")
        folder, rank_python = arguments[:split]
    except ValueError:
        sys.exit("usage: python -m cluster.slurm.batch JOB_FOLDER RANK_PYTHON -- srun FLAGS…")
    for each in SIGNALS:
        signal.signal(each, _on_signal)
    job = JobFolder.read(Path(folder))
    try:
        run(job, [rank_python, "-P", "-m", "cluster.slurm.rank"], arguments[split + 1 :])
    except Stop as stop:
        job.ended(stop.args[0])
        sys.exit(0 if stop.args[0] == "time" and job.allocation == "packed" else 1)
    except queue.ControllerAway as error:
        job.ended("away")
        sys.exit(f"{error}")
    except (queue.SlurmError, RendezvousError) as error:
        sys.exit(f"{error}")
    job.ended("done")
    ok = all((found := read_outcome(job.trial(p))) and found.status == "ok" for p in job.launches)
    sys.exit(0 if ok or job.allocation == "packed" else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
