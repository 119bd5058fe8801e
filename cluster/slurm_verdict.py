"""How a trial's step has ended: by its ranks' own records, and by what srun has said."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path

from jobs.contract.exits import Status, verdict
from jobs.contract.files import RankExit

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
