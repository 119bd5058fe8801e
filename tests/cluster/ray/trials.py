"""Trials on Ray: started, awaited, and looked for among the machine's processes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil

from cluster.launcher import Launch
from cluster.ray.launcher import RayLauncher
from jobs.contract.files import rank_file
from jobs.contract.folder import write_trial
from jobs.contract.outcome import Outcome, read_outcome
from jobs.contract.parts import Limits, Steps
from jobs.contract.trial import Trial
from tests.running import ranks_of, until

SHORT = Steps(warmup=1, measured=3, compute_only=0)
LONG = Steps(warmup=1, measured=100_000, compute_only=0)


def keepers_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        ours = "cluster.ray.rank" in command and any(str(folder) in part for part in command)
        if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def drivers() -> list[psutil.Process]:
    """The processes of ours that talk to Ray."""
    children = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]
    return [p for p in children if p.cmdline()[-1:] == ["cluster.ray.process"]]


def trial(strategy: str, workers: int, steps: Steps = SHORT, **fields: Any) -> Trial:
    factors = {"strategy": strategy, "workers": workers, "global_batch": 12, "steps": steps, "precision": "float64"}
    return Trial.of(**(factors | fields))


def endless(workers: int = 2, strategy: str = "torch-ddp", **limits: float) -> Trial:
    return trial(strategy, workers, LONG, limits=Limits(**({"hang": 20.0} | limits)))


def study() -> dict[str, Any]:
    return {
        "name": "tiny",
        "strategies": ["torch", "torch-ddp"],
        "workers": [1, 2],
        "scaling": ["strong"],
        "batch": {"global": 64},
        "launcher": {"kind": "ray"},
    }


def start(launcher: RayLauncher, what: Trial, results: Path) -> Path:
    folder = results / "trials" / what.id
    write_trial(folder, what)
    launcher.start([Launch(what, folder, 0)])
    return folder


def begin(launcher: RayLauncher, what: Trial, results: Path) -> tuple[Path, list[psutil.Process]]:
    """Start `what` and wait until all its ranks are in their step loop."""
    folder = start(launcher, what, results)

    def stepping() -> list[psutil.Process]:
        ended = launcher.wait(0.1)
        assert not ended, read_outcome(folder)
        beats = [rank_file(folder, rank, "alive") for rank in range(what.processes)]
        ready = all(b.exists() and b.stat().st_mtime < time.time() + what.limits.hang + 1 for b in beats)
        return ranks_of(folder) if ready else []

    return folder, until(stepping)


def end(launcher: RayLauncher, folder: Path, within: float = 60.0) -> Outcome:
    began = time.monotonic()
    while not launcher.wait(0.5):
        assert time.monotonic() - began < within, launcher.running()
    outcome = read_outcome(folder)
    assert outcome is not None
    assert outcome.launcher == "ray"
    return outcome


def goes_on(launcher: RayLauncher, results: Path) -> None:
    """The next trial of the study is not hurt by what became of the last."""
    folder = start(launcher, trial("torch", 1), results)
    assert end(launcher, folder).status == "ok"
