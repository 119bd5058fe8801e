"""Launch real trials from tests, and read what they left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from cluster.launcher import Launch
from cluster.local.launcher import LocalLauncher
from jobs.contract.catalog import STRATEGIES
from jobs.contract.files import rank_file
from jobs.contract.folder import write_trial
from jobs.contract.outcome import Outcome, read_outcome
from jobs.contract.parts import Steps
from jobs.contract.trial import Trial

# Those that run in this environment on CPUs.
DISTRIBUTED = [n for n, info in STRATEGIES.items() if not (info.is_base_case or info.apart or info.tpu == "only")]


@dataclass(frozen=True)
class Done:
    """A trial that has ended."""

    trial: Trial
    folder: Path
    outcome: Outcome

    def rows(self, rank: int, phase: str) -> list[dict[str, Any]]:
        lines = rank_file(self.folder, rank, "jsonl").read_text().splitlines()
        return [row for row in map(json.loads, lines) if row["phase"] == phase]

    def losses(self, phase: str = "train") -> np.ndarray:
        """The global loss of each step: the mean over ranks, which have equal samples."""
        per_rank = [[row["loss"] for row in self.rows(r, phase)] for r in range(self.trial.processes)]
        return np.mean(np.array(per_rank), axis=0)


def launch(trial: Trial, results: Path) -> Done:
    """Run `trial` with the local launcher until it has ended."""
    launcher = LocalLauncher({"oversubscribe": True}, results)
    folder = results / "trials" / trial.id
    write_trial(folder, trial)
    launcher.start([Launch(trial, folder, 0)])
    try:
        while not launcher.wait(5.0):
            pass
    finally:
        launcher.close()
    outcome = read_outcome(folder)
    assert outcome is not None
    return Done(trial, folder, outcome)


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait for `condition` to become true and return its value; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{condition} did not come true in {seconds} s")


def in_blocks(trial: Trial) -> Trial:
    """The same trial without an end, in blocks and with the base case beside, each turn a third of a second."""
    steps = Steps(warmup=1, measured=200_000, compute_only=0, blocks=1000)
    return trial.model_copy(update={"steps": steps, "base_batches": (trial.global_batch,)})


def stop_in_its_turn(rank: psutil.Process, folder: Path) -> None:
    """Stop a rank while it trains: in a turn of the base case it stands still anyway, and goes on after it."""
    alive = rank_file(folder, int(rank.environ()["RANK"]), "alive")

    def trains() -> bool:
        return alive.exists() and not alive.stat().st_size

    def stopped() -> bool:
        until(trains, 20)
        rank.suspend()
        time.sleep(0.1)
        return trains() and rank.status() == psutil.STATUS_STOPPED

    until(stopped, 20)


def ranks_of(folder: Path) -> list[psutil.Process]:
    """The living rank processes of all trials below `folder`."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        ours = "jobs.worker" in command and any(str(folder) in part for part in command)
        if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found
