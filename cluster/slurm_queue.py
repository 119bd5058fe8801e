"""SLURM's commands, as this project asks them: sbatch, squeue, scontrol, sacct, scancel.

No call waits for ever, none goes through a shell, and what SLURM says is passed on in its own words.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ANSWER_SECONDS = 30.0

# State ─▶ what it means for a job's trials. Any other word of squeue's means that the job goes on.
ENDED = {
    "COMPLETED": "ended",
    "FAILED": "failed",
    "OUT_OF_MEMORY": "failed",
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "CANCELLED": "cancelled",
    "NODE_FAIL": "lost",
    "BOOT_FAIL": "lost",
    "PREEMPTED": "lost",
    "REVOKED": "lost",
    "LAUNCH_FAILED": "lost",
    "RECONFIG_FAIL": "lost",
}
# Too many jobs for now: they are submitted when others have ended.
FULL = re.compile(r"MaxSubmit|MaxJobs|job submit limit|Job array index|Resource temporarily unavailable", re.I)
# The controller is away or too busy: the job may or may not have been taken.
AWAY = re.compile(r"Unable to contact|Socket timed out|Connection refused|Zero Bytes|Communication connection", re.I)
REFUSED_DEPENDS_ON_TIME = re.compile(r"Requested nodes are busy|Resources? (are )?(busy|unavailable)", re.I)


class SlurmError(RuntimeError):
    """SLURM refused or did not answer; the message holds its own words."""


class ControllerAway(SlurmError):
    """slurmctld cannot be asked now: it is being restarted, or the network is down."""


class QueueFull(SlurmError):
    """A limit on the number of jobs: later there will be room."""


@dataclass(frozen=True)
class JobState:
    """A job as squeue sees it."""

    job_id: str
    name: str
    state: str
    reason: str = ""
    nodes: str = ""

    @property
    def goes_on(self) -> bool:
        return self.state not in ENDED


def _ask(command: Sequence[str]) -> str:
    """What `command` prints. Raises SlurmError with what it says on stderr."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=ANSWER_SECONDS, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise SlurmError(f"{command[0]} is not installed here; run this on a login node") from None
    except subprocess.TimeoutExpired:
        raise ControllerAway(f"{command[0]} gave no answer within {ANSWER_SECONDS:g} s") from None
    said = _one_line(done.stderr.decode(errors="replace"))
    if done.returncode:
        kind = ControllerAway if AWAY.search(said) else QueueFull if FULL.search(said) else SlurmError
        raise kind(said or f"{command[0]} ended with exit code {done.returncode}")
    return done.stdout.decode(errors="replace")


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def submit(script: Path) -> str:
    """Submit `script`; the job's id. Raises QueueFull, ControllerAway, SlurmError."""
    return _ask(["sbatch", "--parsable", str(script)]).strip().partition(";")[0]


def refusal(script: Path) -> str:
    """Why a job made from `script` could never start, in SLURM's words; empty if it could.

    Plain sbatch takes requests that can never start; --test-only says so at once.
    """
    try:
        _ask(["sbatch", "--test-only", str(script)])
    except (ControllerAway, QueueFull):
        raise
    except SlurmError as error:
        return "" if REFUSED_DEPENDS_ON_TIME.search(str(error)) else str(error)
    return ""


def jobs() -> dict[str, JobState]:
    """This user's jobs by id, with those that ended in the last minutes. One call, however many."""
    lines = _ask(["squeue", "--me", "--noheader", "--states=all", "--format=%i|%j|%T|%r|%N"]).splitlines()
    found = {}
    for line in lines:
        fields = line.strip().split("|")
        if len(fields) == 5:
            job_id, name, state, reason, nodes = fields
            found[job_id] = JobState(job_id, name, state, "" if reason == "None" else reason, nodes)
    return found


def last_word(job_id: str) -> JobState | None:
    """The state of a job that squeue does not show any more, from accounting if there is any."""
    try:
        wanted = ["--noheader", "--allocations", "--parsable2", "--format=State,NodeList"]
        lines = _ask(["sacct", *wanted, f"--jobs={job_id}"])
    except SlurmError:
        return None
    for line in lines.splitlines():
        state, _, nodes = line.partition("|")
        if state:
            return JobState(job_id, "", state.split()[0].rstrip("+"), "", nodes)  # "CANCELLED by 1000"
    return None


def exit_code(job_id: str) -> str:
    """The exit code of a job's script as scontrol has it ("7:0" is code 7, signal 0); empty if unknown."""
    try:
        found = re.search(r"\bExitCode=(\d+:\d+)", _ask(["scontrol", "show", "job", "--oneliner", job_id]))
    except SlurmError:
        return ""
    return found[1] if found else ""


def cancel(job_ids: Sequence[str]) -> None:
    """End the jobs. Raises SlurmError; a job that has ended already is no error."""
    if job_ids:
        _ask(["scancel", "--quiet", *job_ids])


def seconds_left(job_id: str) -> float | None:
    """Until the job's time limit; None if it has none or SLURM does not answer."""
    try:
        text = _ask(["squeue", "--noheader", f"--jobs={job_id}", "--format=%L"]).strip()
    except SlurmError:
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def address_of(node: str) -> str:
    """The address of a node by which the others reach it, from scontrol: no name need resolve."""
    text = _ask(["scontrol", "show", "node", "--oneliner", node])
    found = re.search(r"\bNodeAddr=(\S+)", text)
    if found is None:
        raise SlurmError(f"scontrol says no NodeAddr of node {node}: {_one_line(text)[:200]}")
    return found[1]
