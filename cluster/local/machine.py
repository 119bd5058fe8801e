"""Measures the machine of a local study once, before its first trial: `machine.json` of its results folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from cluster.results.folder import MACHINE, entries
from jobs.contract.files import write_atomically
from jobs.machine.variables import for_ranks
from jobs.rank.parent import PARENT

PATIENCE = 60.0  # seconds


def describe(results: Path, threads: int) -> None:
    """Write what `threads` cores of this machine can do at most, by a process of its own (jobs/machine/peaks.py).

    Does nothing in a folder that has trials already: they may be from another machine. Where it cannot
    be measured there is no file, and the report says so.
    """
    trials = results / "trials"
    if (results / MACHINE).exists() or (trials.is_dir() and entries(trials)):
        return
    command = [sys.executable, "-P", "-m", "jobs.rank.parent", "jobs.machine.peaks", str(threads)]
    try:
        done = subprocess.run(
            command,
            env=for_ranks(os.environ) | {PARENT: str(os.getpid())},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=True,
        )
        measured = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return
    write_atomically(results / MACHINE, json.dumps(measured, indent=1) + "\n")
