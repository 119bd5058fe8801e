"""Compare a trial with another program on a machine that is not quiet: both take turns on the same cores.

The other program is started, and stopped (SIGSTOP) once it is under way; then the trial is started. From its
first step on one is stopped while the other runs, and the other way round. Whatever else slows the machine
down slows neighbouring turns alike, so their ratio is steady where the rates themselves are not. A stop falls
into a step, which is then longer than the turn: there the sequence of steps is cut, and the cut steps and
their neighbours are left out.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from cluster.launcher import Launch, Launcher
from cluster.local.launcher import LocalLauncher
from jobs.contract.files import rank_file
from jobs.contract.folder import write_trial
from jobs.contract.outcome import read_outcome
from jobs.contract.trial import Trial
from jobs.machine.cores import allowed_cores
from tests.running import ranks_of, until

TURN_SECONDS = 1.0
WORK_SECONDS = 0.6  # of processor time, for a turn to be over
LONGEST_SECONDS = 15.0
FEWEST_STEPS = 4  # whole ones, for a turn to count


@dataclass(frozen=True)
class Turn:
    """Neighbouring turns. Seconds of each whole step; `rival_work` is what each of the rival's steps did."""

    ours: NDArray[np.float64]
    rival: NDArray[np.float64]
    rival_work: NDArray[np.float64]


@dataclass
class Rival:
    """The other program; it writes `out`.<rank>.first when it is under way and `out`.<rank> at its end."""

    process: subprocess.Popen[bytes]
    out: Path
    ranks: int

    def under_way(self) -> list[psutil.Process]:
        """Its ranks' processes, none while one is not yet under way."""
        try:
            return [psutil.Process(self.first(rank)["pid"]) for rank in range(self.ranks)]
        except (OSError, ValueError):
            assert self.process.poll() is None, self.out.with_suffix(".log").read_text()[-2000:]
            return []

    def first(self, rank: int) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(Path(f"{self.out}.{rank}.first").read_text())
        return content

    def result(self, key: str) -> NDArray[np.float64] | None:
        """Step by step, over the ranks the largest; None if it does not write that."""
        ranks = [json.loads(Path(f"{self.out}.{rank}").read_text()) for rank in range(self.ranks)]
        return np.max([rank[key] for rank in ranks], axis=0) if key in ranks[0] else None


def start_rival(command: list[str], out: Path, ranks: int) -> Rival:
    """Start `command` OUT on the cores which a trial's ranks take."""
    cores = ",".join(map(str, allowed_cores()))
    with out.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", cores, *command, str(out)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Rival(process, out, ranks)


def take_turns(
    trial: Trial, command: list[str], results: Path, ranks: int = 1, launcher: Launcher | None = None
) -> list[Turn]:
    """Run `trial`, on this machine, and `command` by turns until both are done."""
    own = launcher is None
    launcher = launcher or LocalLauncher({}, results)
    folder = results / "trials" / trial.id
    write_trial(folder, trial)
    rival = start_rival(command, results / "rival", ranks)
    try:
        theirs = until(rival.under_way, 120)
        _each(theirs, "suspend")  # it may be long under way before the trial is, and would be done by then
        launcher.start([Launch(trial, folder, 0)])
        until(lambda: launcher.wait(0.0) or trains(folder, trial), 120)
        ours = ranks_of(folder)
        assert len(ours) == trial.processes, "the trial ended before the turns began"
        _alternate(ours, theirs)
        while not launcher.wait(1.0):
            pass
        assert rival.process.wait(120) == 0, rival.out.with_suffix(".log").read_text()[-2000:]
    finally:
        if own or launcher.running():
            launcher.close()
        _end(rival)
    outcome = read_outcome(folder)
    assert outcome is not None
    assert outcome.status == "ok", outcome.error
    return _turns(_seconds(folder, trial), rival)


def trains(folder: Path, trial: Trial) -> bool:
    """After the first step the rank promises its next sign of life within limits.hang, not limits.startup."""
    alive = rank_file(folder, 0, "alive")
    return alive.exists() and 1 < alive.stat().st_mtime - time.time() < trial.limits.hang + 1


def _alternate(ours: list[psutil.Process], theirs: list[psutil.Process]) -> None:
    """Until one side is done; `theirs` are stopped."""
    running, waiting = ours, theirs
    while all(map(_lives, ours + theirs)):
        let_work(running)
        _each(running, "suspend")
        _each(waiting, "resume")
        running, waiting = waiting, running
    _each(ours + theirs, "resume")


def let_work(processes: list[psutil.Process]) -> None:
    """For one turn: where other programs take most of the cores, it is longer and has as many steps."""
    began, before = time.monotonic(), _cpu_seconds(processes)
    time.sleep(TURN_SECONDS)
    while _cpu_seconds(processes) < before + WORK_SECONDS and time.monotonic() < began + LONGEST_SECONDS:
        time.sleep(0.02)


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    """Of the one that has worked least; infinite once one has ended, as nobody need wait for it."""
    try:
        return min(sum(p.cpu_times()[:2]) for p in processes) if all(map(_lives, processes)) else np.inf
    except psutil.NoSuchProcess:
        return np.inf


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _each(processes: list[psutil.Process], action: str) -> None:
    for process in processes:
        try:
            getattr(process, action)()
        except psutil.NoSuchProcess:
            continue


def _end(rival: Rival) -> None:
    if rival.process.poll() is None:
        parent = psutil.Process(rival.process.pid)
        _each([parent, *parent.children(recursive=True)], "kill")
    rival.process.wait()


def _seconds(folder: Path, trial: Trial) -> NDArray[np.float64]:
    """Of each training step on the slowest rank; not the first, which compiles and may last a turn."""
    ranks = []
    for rank in range(trial.processes):
        rows = [json.loads(line) for line in rank_file(folder, rank, "jsonl").read_text().splitlines()]
        ranks.append([row["seconds"] for row in rows if row["phase"] == "train" and row["step"]])
    return np.asarray(np.max(ranks, axis=0), np.float64)


def _turns(ours: NDArray[np.float64], rival: Rival) -> list[Turn]:
    seconds = rival.result("seconds")
    assert seconds is not None
    work = rival.result("flop")
    works = np.ones_like(seconds) if work is None else work
    pairs = list(zip(_cut(ours), _cut(seconds), strict=False))
    whole = [(a, b) for a, b in pairs if min(b.stop - b.start, a.stop - a.start) >= FEWEST_STEPS]
    assert len(whole) >= 3, f"{len(whole)} turns of {len(pairs)} have {FEWEST_STEPS} whole steps: the machine is busy"
    return [Turn(ours[a], seconds[b], works[b]) for a, b in whole]


def _cut(seconds: NDArray[np.float64]) -> list[slice]:
    """The whole steps between one stop and the next."""
    stops = [int(i) for i in np.flatnonzero(seconds > 0.8 * TURN_SECONDS)]
    # Two ranks are not stopped at the same instant: adjoining long steps are one stop.
    stops = [stop for before, stop in zip([-9, *stops], stops, strict=False) if stop - before > 2]
    return [slice(min(a + 2, b - 1), b - 1) for a, b in pairwise(stops)]
