"""The keeper of one rank, where no launcher stands beside it: `python -m jobs.rank.keeper TRIAL_DIR`.

It starts the worker with the rank environment it was given, holds it to the trial's limits, and leaves
how it ended in `rank-NNNNN.exit`, whatever became of the launcher. The worker dies with it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from jobs.contract.environment import RankEnvironment, rank_variables
from jobs.contract.files import TRIAL, RankExit, rank_file
from jobs.machine.variables import for_ranks
from jobs.rank import scratch
from jobs.rank.parent import PARENT

GRACE_SECONDS = 2.0  # between being asked to end and being ended
LATE_SECONDS = 3.0  # how far past its own deadline a sign of life may be
ASKING = (signal.SIGTERM, signal.SIGUSR1)  # either asks a keeper to end its rank
# Whoever ends all processes of a step at once may come to the worker first and to its keeper this much later.
TOGETHER_SECONDS = 0.5
LOOK_SECONDS = 1.0  # how often limits are looked at; a death is seen at once
LOOK_AGAIN_SECONDS = 0.05  # where it cannot be, after this long


class Bounds(NamedTuple):
    """What a rank is held to, in seconds: `limits.trial` and `limits.hang` of its trial."""

    trial: float
    hang: float


class Worker(subprocess.Popen[bytes]):
    """A rank's process, and the folder of its temporary files; None where it has those of all processes."""

    scratch: scratch.Scratch | None = None


def start_worker(folder: Path, rank: int, variables: Mapping[str, str], python: str = sys.executable) -> Worker:
    """Start the worker of `rank` in a session of its own, with its output in its log. To be ended by `end`.

    `variables` is the rank environment; the rest is inherited, as jobs/machine/variables.py has it.
    """
    made = scratch.make()
    own = made.variables() if made else {}
    try:
        with rank_file(folder, rank, "log").open("wb") as log:
            worker = Worker(
                # -P: a torch.py in the user's folder is not PyTorch.
                [python, "-P", "-m", "jobs.worker", str(folder)],
                env=for_ranks(os.environ) | own | dict(variables) | {PARENT: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError:
        if made:
            made.remove()
        raise
    worker.scratch = made
    return worker


def overstepped(folder: Path, rank: int, limits: Bounds, age: float) -> str:
    """Which limit of the trial a living rank has overstepped, in words; empty if none.

    `age` is the trial's in seconds.
    """
    if age > limits.trial:
        return f"not done after limits.trial = {limits.trial:g} s"
    if silent(folder, rank):
        return silence(limits)
    return ""


def silence(limits: Bounds) -> str:
    return f"gave no sign of life for limits.hang = {limits.hang:g} s"


def silent(folder: Path, rank: int) -> bool:
    """Whether the sign of life that the rank's `alive` file promises is overdue."""
    try:
        due = rank_file(folder, rank, "alive").stat().st_mtime
    except FileNotFoundError:
        return False
    return time.time() > due + LATE_SECONDS


def stopped(folder: Path, rank: int, pid: int) -> bool:
    """Whether the rank, this process, stands still by SIGSTOP or under a debugger, and not for the turn of another
    process of its launch (jobs/beside), for which it has handed over."""
    try:
        if rank_file(folder, rank, "alive").stat().st_size:
            return False
    except OSError:
        pass
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in ("T", "t")


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End the processes and whatever they have started: ask, then force. Then go their temporary files."""
    living = [p for p in processes if p.poll() is None]
    for process in living:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in living:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            continue
    for process in processes:
        _signal(process, signal.SIGKILL)
        process.wait()
        if isinstance(process, Worker) and process.scratch:
            process.scratch.remove()
            process.scratch = None


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)  # start_new_session: its group has its pid
    except (ProcessLookupError, PermissionError):
        pass


def sleep_until_a_death(processes: list[subprocess.Popen[bytes]], seconds: float) -> None:
    """Return when one of the living processes ends, after `seconds` at the latest."""
    try:
        _sleep_until_told(processes, seconds)
    except (AttributeError, OSError):  # a Python built without pidfds, or a kernel before Linux 5.3
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and all(process.poll() is None for process in processes):
            time.sleep(min(LOOK_AGAIN_SECONDS, max(0.0, deadline - time.monotonic())))


def _sleep_until_told(processes: list[subprocess.Popen[bytes]], seconds: float) -> None:
    poller, watched = select.poll(), []
    try:
        for process in processes:
            try:
                watched.append(os.pidfd_open(process.pid))
            except ProcessLookupError:
                return  # one has ended and is gone already
            poller.register(watched[-1], select.POLLIN)
        poller.poll(seconds * 1000)
    finally:
        for descriptor in watched:
            os.close(descriptor)


class _Asked(Exception):
    """The trial is being ended from outside."""


def _asked(*_: object) -> None:
    _ask_no_more()
    raise _Asked


def _ask_no_more() -> None:
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)


def keep(folder: Path, place: RankEnvironment, variables: Mapping[str, str]) -> RankExit:
    """Run the rank to its end, whatever that is, and write its exit record."""
    written = json.loads((folder / TRIAL).read_text(encoding="utf-8"))["limits"]
    limits, rank, began = Bounds(written["trial"], written["hang"]), place.rank, time.monotonic()
    for number in ASKING:
        signal.signal(number, _asked)
    worker = start_worker(folder, rank, variables)
    why, still, asked = "", False, False
    try:
        while not why and worker.poll() is None:
            still = stopped(folder, rank, worker.pid)
            sleep_until_a_death([worker], LOOK_SECONDS)
            if worker.poll() is None:
                why = overstepped(folder, rank, limits, time.monotonic() - began)
        if worker.returncode == -signal.SIGTERM:
            time.sleep(TOGETHER_SECONDS)
        _ask_no_more()
    except _Asked:
        asked = worker.poll() in (None, -signal.SIGTERM)
    if still and worker.poll() != 0:
        why = why or silence(limits)  # somebody stopped it, and that is what the others have died of
    record = RankExit(rank=rank, limit=why, asked=asked)
    # Written before the end is enforced, since the keeper may be ended in the middle of that.
    record.write(folder)
    end([worker])
    record = replace(record, exit_code=worker.returncode, ended_unix=time.time())
    record.write(folder)
    return record


def main(folder: Path, variables: Mapping[str, str]) -> None:
    """The life of the keeper's process: its exit code is 0 only if the rank's was."""
    place = RankEnvironment.from_variables(variables)
    record = keep(folder, place, variables)
    code = record.exit_code if record.exit_code is not None else 1
    os._exit(1 if record.limit else code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main(Path(sys.argv[1]), rank_variables(RankEnvironment.from_variables(os.environ)))
