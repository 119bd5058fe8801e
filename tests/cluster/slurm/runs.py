"""Studies and single trials on the practice cluster, as the tests of the SLURM launcher begin and end them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from cluster.driver.plan import Plan, plan
from cluster.driver.run import Summary, run
from cluster.launcher import Launch
from cluster.results.folder import ResultsFolder
from cluster.slurm.launcher import SlurmLauncher
from cluster.study import file
from jobs.contract.files import rank_file
from jobs.contract.folder import write_trial
from jobs.contract.outcome import Outcome, read_outcome
from jobs.contract.parts import Limits, Steps
from jobs.contract.trial import Trial
from tests.running import Done, until

SCALING = Path(sys.executable).with_name("scaling")
LONG = Steps(warmup=1, measured=100_000, compute_only=0)
SHORT = {"warmup": 1, "measured": 3, "compute_only": 1}
STUDY: dict[str, Any] = {
    "name": "practice",
    "strategies": ["torch-ddp"],
    "workers": [1, 2],
    "scaling": ["strong"],
    "batch": {"global": 8},
    "steps": SHORT,
    "repeats": {"min": 1},
    "limits": {"trial": 60.0},
    "launcher": {"kind": "slurm", "nodes": 4},
}


class Watched:
    """A display that remembers; `on_tick` may do something to the cluster while trials run."""

    def __init__(self, on_tick: Callable[[], None] = lambda: None) -> None:
        self.outcomes: list[Outcome] = []
        self.on_tick = on_tick

    def planned(self, trials: Any, done: int) -> None: ...

    def tick(self, running: Any) -> None:
        self.on_tick()

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def left_out(self, trials: Any, why: str) -> None: ...


def planned(results: Path, **change: Any) -> tuple[Plan, SlurmLauncher]:
    study = file.check(STUDY | change)
    launcher = SlurmLauncher(study.launcher.options, results)
    return plan(study, launcher), launcher


def drive(results: Path, display: Watched | None = None, **change: Any) -> tuple[Summary, ResultsFolder]:
    made, launcher = planned(results, **change)
    folder = ResultsFolder(results)
    folder.open(made.study)
    try:
        return run(made, folder, launcher, lambda path: {}, display or Watched()), folder
    finally:
        folder.close()


def trials_of(results: Path) -> list[Done]:
    found = []
    for folder in sorted((results / "trials").iterdir()):
        outcome = read_outcome(folder)
        assert outcome is not None, folder
        found.append(Done(Trial.model_validate_json((folder / "trial.json").read_text()), folder, outcome))
    return found


def jobs_of(results: Path) -> list[Path]:
    return [path for path in sorted((results / "slurm").iterdir()) if (path / "launches.json").exists()]


# One trial, and what may befall it


def endless(strategy: str = "torch-ddp", workers: int = 2, **limits: float) -> Trial:
    bounds = Limits(**({"hang": 30.0, "trial": 300.0} | limits))
    return Trial.of(strategy=strategy, workers=workers, global_batch=8, steps=LONG, limits=bounds)


def begin(trial: Trial, results: Path, **options: Any) -> tuple[SlurmLauncher, Path]:
    """Submit `trial` and wait until all its ranks are in their step loop."""
    launcher = SlurmLauncher({"nodes": 4} | options, results)
    folder = results / "trials" / trial.id
    write_trial(folder, trial)
    launcher.start([Launch(trial, folder, 0)])

    def stepping() -> bool:
        assert not launcher.wait(0.1), (folder / "outcome.json").read_text()
        beats = [rank_file(folder, rank, "alive") for rank in range(trial.processes)]
        return all(b.exists() and b.stat().st_mtime < time.time() + trial.limits.hang + 1 for b in beats)

    until(stepping, 90)
    return launcher, folder


def end(launcher: SlurmLauncher, folder: Path, within: float) -> Outcome:
    deadline = time.monotonic() + within
    while not launcher.wait(0.5):
        assert time.monotonic() < deadline, launcher.running()
    outcome = read_outcome(folder)
    assert outcome is not None
    until(lambda: not workers_of(folder), 10)
    return outcome


def workers_of(folder: Path) -> list[psutil.Process]:
    """The living rank processes of a trial, in order of rank."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if "jobs.worker" in command and str(folder) in command and process.info["status"] != psutil.STATUS_ZOMBIE:
            with contextlib.suppress(psutil.Error):
                found.append((int(process.environ()["RANK"]), process))
    return [process for _, process in sorted(found, key=lambda pair: pair[0])]


def scaling(*arguments: object, within: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCALING, *map(str, arguments)], capture_output=True, text=True, timeout=within)


def write_study(folder: Path, **change: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | change))
    return path
