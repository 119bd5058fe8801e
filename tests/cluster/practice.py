"""The practice cluster of slurm/practice, and what the tests do to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

PRACTICE = Path(__file__).parents[2] / "slurm" / "practice"
NODES = ("n1", "n2", "n3", "n4")


def absent() -> str | None:
    """Why there can be no practice cluster here, None if there can."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [p for p in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(p, path=path)]
    return f"SLURM is missing ({', '.join(missing)})" if missing else None


@contextmanager
def practice_cluster(folder: Path) -> Iterator[None]:
    """A cluster of four nodes in `folder`, found by SLURM's commands while it is up."""
    up = subprocess.run([PRACTICE / "up", folder], capture_output=True, text=True, timeout=120)
    assert up.returncode == 0, up.stderr
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        yield
    finally:
        subprocess.run([PRACTICE / "down", folder], check=True, timeout=60)
        os.environ.pop("SLURM_CONF")


def slurm(*command: str) -> str:
    """What one of SLURM's commands prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def restart_controller(folder: Path, number: signal.Signals) -> None:
    """End slurmctld by a signal and start it again on its saved state."""
    controller = psutil.Process(int((folder / "slurmctld.pid").read_text()))
    controller.send_signal(number)
    gone(controller)
    start = ["/usr/sbin/slurmctld", "-f", str(folder / "slurm.conf")]
    subprocess.run(start, check=True, timeout=30, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def gone(process: psutil.Process, seconds: float = 10.0) -> None:
    """Wait until the process, which need not be a child, is no more."""
    deadline = time.monotonic() + seconds
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, process
        time.sleep(0.05)


def empty() -> None:
    """End all jobs and bring all nodes back, so that no test sees another's leavings."""
    slurm("scancel", "--me")
    deadline = time.monotonic() + 60
    while slurm("squeue", "--me", "--noheader") or "4" not in slurm("sinfo", "-h", "-t", "idle", "-o", "%D"):
        for node in NODES:
            if slurm("sinfo", "-h", "-n", node, "-t", "down,drain,fail", "-o", "%n"):
                subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], capture_output=True)
        assert time.monotonic() < deadline, slurm("sinfo", "-N", "-l") + slurm("squeue")
        time.sleep(0.2)
