"""SLURM's commands, as this project asks them: sbatch, squeue, scontrol, sacct, scancel.

No call waits for ever, none goes through a shell, and what SLURM says is passed on in its own words.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.machine.variables import neutral

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
# Too many jobs for now: they are submitted when others have ended. Named are the limits on how many may be
# submitted and the controller's MaxJobCount; the sentence about "job submit limit" is said of every limit.
FULL = re.compile(r"SubmitJob|temporarily un(able to accept|available)", re.I)
# The controller is away or too busy: the job may or may not have been taken.
AWAY = re.compile(r"Unable to contact|Socket timed out|Connection refused|Zero Bytes|Communication connection", re.I)
REFUSED_DEPENDS_ON_TIME = re.compile(r"Requested nodes are busy|Resources? (are )?(busy|unavailable)", re.I)
# This is said of what the cluster does not have, and of what it has not today.
NO_SUCH_NODES = re.compile(r"node configuration is not available", re.I)
NOT_TODAY = ("down", "drain", "drng", "fail", "unk", "boot", "maint", "inval")  # sinfo's %t begins with one

# What a shell holds of these may change what the commands print, and of sbatch's goes before a script's own lines.
OF_SLURM = ("SLURM_", "SRUN_", "SALLOC_", "SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SCONTROL_", "SPRIO_", "SSTAT_")
# But these are how people name their account once and for all; a script that names its own keeps it.
DEFAULTS = {"account": "-A", "partition": "-p", "qos": "-q"}


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


def _ask(command: Sequence[str], **defaults: str) -> str:
    """What `command` prints. Raises SlurmError with what it says on stderr."""
    variables = for_commands(os.environ) | defaults
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=ANSWER_SECONDS, stdin=subprocess.DEVNULL, env=variables
        )
    except FileNotFoundError:
        raise SlurmError(f"{command[0]} is not installed here; run this on a login node") from None
    except subprocess.TimeoutExpired as error:
        said = _one_line((error.stderr or b"").decode(errors="replace"))
        if FULL.search(said):
            raise QueueFull(said) from None
        raise ControllerAway(said or f"{command[0]} gave no answer within {ANSWER_SECONDS:g} s") from None
    said = _one_line(done.stderr.decode(errors="replace"))
    if done.returncode:
        kind = ControllerAway if AWAY.search(said) else QueueFull if FULL.search(said) else SlurmError
        raise kind(said or f"{command[0]} ended with exit code {done.returncode}")
    return done.stdout.decode(errors="replace")


def for_commands(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables without those that change what SLURM's commands take or print; the rest is a job's own matter."""
    foreign = (k for k in variables if k.startswith("SBATCH_") or (k.startswith(OF_SLURM) and neutral(k)))
    return {k: variables[k] for k in variables.keys() - set(foreign)}


def _sbatch(script: Path, *flags: str) -> str:
    named = _named(script.read_text(encoding="utf-8"))
    known = {f"SBATCH_{key.upper()}": os.environ.get(f"SBATCH_{key.upper()}") for key in DEFAULTS if key not in named}
    return _ask(["sbatch", *flags, str(script)], **{name: value for name, value in known.items() if value})


def _named(script: str) -> set[str]:
    """Which of DEFAULTS the script names itself: in full, shortened as getopt_long(3) allows, or by their letter."""
    found: set[str] = set()
    for line in script.splitlines():
        if not line.startswith("#SBATCH"):
            continue
        for word in shlex.split(line.removeprefix("#SBATCH"), comments=True):
            name = word.partition("=")[0]
            for key, letter in DEFAULTS.items():
                if (len(name) > 2 and f"--{key}".startswith(name)) or word.startswith(letter):
                    found.add(key)
    return found


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def submit(script: Path) -> str:
    """Submit `script`; the job's id. Raises QueueFull, ControllerAway, SlurmError."""
    return _sbatch(script, "--parsable").strip().partition(";")[0]


def refusal(script: Path, nodes: int, partition: str | None) -> str:
    """Why a job made from `script`, of `nodes` nodes, could never start, in SLURM's words; empty if it could.

    Plain sbatch takes requests that can never start; --test-only says so at once. Raises ControllerAway.
    """
    try:
        _sbatch(script, "--test-only")
    except ControllerAway:
        raise
    except QueueFull:
        return ""
    except SlurmError as error:
        said = str(error)
        if REFUSED_DEPENDS_ON_TIME.search(said) or (NO_SUCH_NODES.search(said) and _away(nodes, partition)):
            return ""
        return said
    return ""


def _away(nodes: int, partition: str | None) -> bool:
    """Whether so many nodes are down or drained that fewer than `nodes` are left, of a partition that has them."""
    lines = _ask(["sinfo", "--noheader", *([f"--partition={partition}"] if partition else []), "--format=%P|%D|%t"])
    found = [line.split("|") for line in lines.splitlines() if line.count("|") == 2]
    asked = [(int(count), state) for name, count, state in found if partition or name.endswith("*")]
    there = sum(count for count, _ in asked)
    return there - sum(count for count, state in asked if state.startswith(NOT_TODAY)) < nodes <= there


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
    """The state of a job that squeue does not show any more, from accounting if there is any.

    Its name tells whether it is the job that is meant: ids are given again.
    """
    try:
        wanted = ["--noheader", "--allocations", "--parsable2", "--format=State,NodeList,JobName"]
        lines = _ask(["sacct", *wanted, f"--jobs={job_id}"])
    except SlurmError:
        return None
    for line in lines.splitlines():
        state, nodes, name = [*line.split("|", 2), "", ""][:3]
        word = state.partition(" ")[0].rstrip("+")  # "CANCELLED by 1000"
        if word in ENDED:  # accounting may be late and still have it running
            return JobState(job_id, name, word, "", "" if nodes == "None assigned" else nodes)
    return None


def exit_code(job_id: str) -> str:
    """The exit code of a job's script as scontrol has it ("7:0" is code 7, signal 0); empty if unknown."""
    try:
        found = re.search(r"\bExitCode=(\d+:\d+)", _ask(["scontrol", "show", "job", "--oneliner", job_id]))
    except SlurmError:
        return ""
    return found[1] if found else ""


def cancel(job_ids: Sequence[str], state: str = "") -> None:
    """End the jobs, only those in `state` if one is given. Raises SlurmError; a job that has ended already is no
    error."""
    if job_ids:
        _ask(["scancel", "--quiet", *([f"--state={state}"] if state else []), *job_ids])


def seconds_left(job_id: str) -> float | None:
    """Until the job's time limit; None if it has none, or SLURM does not know it. Raises ControllerAway."""
    try:
        text = _ask(["squeue", "--noheader", f"--jobs={job_id}", "--format=%L"]).strip()
    except ControllerAway:
        raise
    except SlurmError:
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def is_ending(job_id: str) -> bool:
    """Whether SLURM is ending the job that this process runs in; False if it does not answer.

    The controller notes the end of a job before it has anything of it killed.
    """
    try:
        return _ask(["squeue", "--noheader", f"--jobs={job_id}", "--format=%T"]).strip() not in ("RUNNING", "")
    except SlurmError:
        return False


def hosts(nodes: str) -> dict[str, str]:
    """The hosts of `nodes` (one may be several nodes), and the name or address by which SLURM reaches each.

    Raises ControllerAway, SlurmError.
    """
    text = _ask(["scontrol", "show", "node", "--oneliner", nodes])
    found = {}
    for line in text.splitlines():
        address, host = (re.search(rf"\b{key}=(\S+)", line) for key in ("NodeAddr", "NodeHostName"))
        if address:
            found[host[1] if host else address[1]] = address[1]
    if not found:
        raise SlurmError(f"scontrol says no NodeAddr of node {nodes}: {_one_line(text)[:200]}")
    return found


def hostnames(nodes: str) -> list[str]:
    """`n[1-2]` ─▶ n1, n2, by scontrol, which asks nobody for that; none if it cannot tell."""
    try:
        return _ask(["scontrol", "show", "hostnames", nodes]).split()
    except SlurmError:
        return []
