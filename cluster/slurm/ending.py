"""How a trial's step has ended: by its ranks' own records, and by what srun has said."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cluster.slurm.job import JobFolder, Planned
from cluster.slurm.queue import JobState
from jobs.contract.exits import Status, verdict
from jobs.contract.files import TRIAL, RankExit
from jobs.contract.outcome import UnreadableOutcome, read_outcome


@dataclass
class Job:
    folder: JobFolder
    job_id: str | None
    pending: dict[str, Planned]
    state: JobState | None = None
    gone_since: float | None = None


def concluded(folder: Path) -> bool:
    try:
        return read_outcome(folder) is not None
    except UnreadableOutcome:
        return True  # the driver sets it aside


def last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.strip()), "")


def span(folder: Path, exits: Sequence[RankExit]) -> tuple[float, float]:
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


def utc(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")


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
        return "failed", f"srun could not start the ranks: {reasons[-1]}"
    return "lost", f"srun ended without an end of every rank: {(reasons or said or ['it said nothing'])[-1]}"


def _said(folder: Path) -> list[str]:
    try:
        lines = (folder / SRUN_LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line.strip()[:500] for line in lines if line.strip()]
