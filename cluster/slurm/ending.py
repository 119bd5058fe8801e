"""How a trial has ended: by its ranks' own records, by what srun has said, and by what became of its job.

A job's own script, which sees the ranks and srun, comes first. The driver looks when a job has left the queue:
trials that have no outcome then get the one that the end of the job means.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cluster.slurm import queue
from cluster.slurm.job import JobFolder, Planned, beside_another
from cluster.slurm.queue import JobState
from cluster.slurm.setup import after, unfinished
from jobs.contract import reason
from jobs.contract.exits import Status, read_exits, verdict
from jobs.contract.files import TRIAL, RankExit
from jobs.contract.folder import read_trial
from jobs.contract.outcome import UnreadableOutcome, conclude, read_outcome
from jobs.machine.variables import masked

SRUN_LOG = "srun.log"  # in a trial's folder: what srun said, and the ranks' keepers

MEMORY = re.compile(r"oom[-_ ]?kill|out of memory|memory limit", re.I)
# What no trial is to blame for: a node, the network or the controller is gone, or the job has ended meanwhile.
NOT_ITS_FAULT = re.compile(
    r"node fail|communication|connect|timed? ?out|unable to contact|zero bytes|no route|not responding|\bdown\b|drain"
    r"|prolog|invalid job id|already complet",
    re.I,
)
# What srun says of its own doings, or of each task and the step once there is a reason.
ASIDE = re.compile(
    r"lacks support for|Exited with exit code|: Terminated$|Job step aborted|forcing job termination|got SIGCONT"
    r"|Terminating StepId|Force Terminated|\bSTEP \S+ ON \S+ CANCELLED AT \S+ \*|^Try .srun"
)


@dataclass
class Job:
    """A job as the driver knows it: the trials that have no outcome yet, and what the queue last showed."""

    folder: JobFolder
    job_id: str | None
    pending: dict[str, Planned]
    state: JobState | None = None
    gone_since: float | None = None


def step_verdict(folder: Path, exits: Sequence[RankExit], processes: int) -> tuple[Status, str] | None:
    """As `verdict`; of ranks that were killed for want of memory, which could not say so, srun does."""
    ended = verdict(folder, exits, processes)
    killed = len(exits) < processes or any(end.exit_code == -signal.SIGKILL for end in exits)
    if killed and (ended is None or ended[0] == "failed"):
        for line in reversed(_said(folder)):
            if MEMORY.search(line):
                return "failed", line
    return ended


def without_an_end(folder: Path, exits: Sequence[RankExit]) -> tuple[Status, str]:
    """What it means that srun has ended and the ranks' records do not tell why.

    Ranks that never began would not the next time either, unless the cluster was at fault.
    """
    said = _said(folder)
    elsewhere = [line for line in said if NOT_ITS_FAULT.search(line)]
    reasons = elsewhere or [line for line in said if not ASIDE.search(line)]
    begun = exits or any(folder.glob("rank-*.log"))
    if reasons and not begun and not elsewhere:
        return "failed", f"srun could not start the ranks: {reason.telling(reasons)}"
    return "lost", f"srun ended without an end of every rank: {(reasons or said or ['it said nothing'])[-1]}"


def concluded(folder: Path) -> bool:
    try:
        return read_outcome(folder) is not None
    except UnreadableOutcome:
        return True  # the driver sets it aside


def take_concluded(job: Job) -> list[str]:
    """Trials that have an outcome now. Those of a running job are done in order: the first tells of all."""
    done = []
    for trial, p in list(job.pending.items()):
        if concluded(job.folder.trial(p)):
            done.append(trial)
            del job.pending[trial]
        elif job.state is not None and job.state.goes_on:
            break
    return done


def fate(job: Job, state: JobState | None) -> tuple[Status, str]:
    """What the end of a job means for a trial of it that has no outcome."""
    name = f"job {job.job_id}"
    if state is None:
        if job.folder.end == "signal":
            return "lost", f"{name} was ended by SLURM, which keeps no record of why"
        return "lost", f"{name} is gone from the queue and left no record"
    said = f"{name} ended as {state.state}" + (f" on {state.nodes}" if state.nodes else "")
    meaning = queue.ENDED[state.state]
    setup = unfinished(job.folder.output) if meaning in ("failed", "ended", "timeout") else ""
    if meaning == "timeout" and setup:  # in the next allocation it would be the same
        return "timeout", f"{said} (launcher.time): {setup}"
    if state.state == "DEADLINE":
        return "timeout", f"{said} (--deadline in launcher.sbatch)"
    if meaning == "timeout" and job.folder.allocation == "packed":
        return "lost", f"{said} (launcher.time)"
    if meaning == "timeout":
        return "timeout", f"{said} (launcher.time)"
    if meaning == "cancelled":
        return "cancelled", said
    if meaning == "lost":
        return "lost", said
    if job.folder.end == "time":
        return "lost", f"the time of {name} was up"
    if job.folder.end == "away":
        return "lost", f"SLURM did not answer {name} before it could begin: {_last_word(job.folder.output)}"
    if not job.folder.output.exists():
        return "failed", f"{said} and could not write {job.folder.output}; is that a folder which the nodes see?"
    code = queue.exit_code(job.job_id or "")
    last = setup or _last_word(job.folder.output)
    return "failed", said + (f" with exit code {code}" if code else "") + (f": {last}" if last else "")


def conclude_one(job: Job, planned: Planned, status: Status, why: str) -> None:
    """Write the outcome of a trial that has none: as its own records tell, else `status` for the reason `why`."""
    folder = job.folder.trial(planned)
    trial = read_trial(folder)
    exits = read_exits(folder, trial.processes)
    told = step_verdict(folder, exits, trial.processes)
    if told and (told[0] == "ok" or status == "failed"):
        status, why = told
    began, ended = _span(folder, exits)
    conclude(
        folder,
        status=status,
        error=why,
        launcher="slurm",
        job=job.job_id,
        order=planned.order,
        started=_utc(began),
        ended=_utc(ended),
        exits=exits,
        concurrent=beside_another(job.folder, began, ended),
    )


def conclude_all(job: Job, status: Status, why: str) -> None:
    for planned in job.pending.values():
        conclude_one(job, planned, status, why)


def _span(folder: Path, exits: Sequence[RankExit]) -> tuple[float, float]:
    """When a trial began and ended that has not written it down, by its files (Unix times).

    A log that stayed empty is as old as its rank or its srun; an `alive` file has a time that is to come.
    """
    changed: dict[Path, float] = {}
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            changed[path] = path.stat().st_mtime
    began = min((at for path, at in changed.items() if path.suffix == ".log"), default=changed[folder / TRIAL])
    seen = [end.ended_unix for end in exits if end.ended_unix]
    return began, max(began, max(seen or [at for path, at in changed.items() if path.suffix != ".alive"]))


def _utc(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")


def _last_word(path: Path) -> str:
    try:
        return masked(reason.telling(after(path)))
    except OSError:
        return ""


def _said(folder: Path) -> list[str]:
    try:
        said = (folder / SRUN_LOG).read_bytes()
    except OSError:
        return []
    return [line[:500] for line in reason.readable(said)]
