"""Runs a study: what is missing, in which order, how often, until when.

Launches are in random order, a whole round of all points after the other, so that drift of the
machine hits all points alike (a randomized complete block design). After the least number of
repeats, points whose interval is still too wide get further launches.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cluster.folder import ResultsFolder
from cluster.launcher import Launch, Launcher
from cluster.study import Grid, Study, StudyError
from jobs.results import Outcome, UnreadableOutcome, read_outcome, write_trial
from jobs.trial import Trial

POLL_SECONDS = 1.0

# Point ─▶ relative half-width of the 95% interval of its throughput, from the results so far.
Precision = Callable[[Path], dict[str, float]]


class Display(Protocol):
    """Who tells the person at the terminal."""

    def planned(self, trials: Sequence[Trial], done: int) -> None: ...

    def tick(self, running: dict[str, str]) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...


@dataclass
class Summary:
    """What a run came to."""

    done_before: int = 0
    ok: int = 0
    failed: list[Outcome] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """A study on a launcher of this machine: the grid of what can run, and why the rest cannot."""

    study: Study
    grid: Grid
    not_available: dict[str, str]

    def notes(self) -> list[str]:
        """What is left out of the study and why, one line each."""
        return [f"{name}: not available: {why}" for name, why in self.not_available.items()] + self.grid.left_out


def plan(study: Study, launcher: Launcher) -> Plan:
    """What of `study` can run on `launcher`. Raises StudyError if nothing can or a size never fits."""
    strategies = list(dict.fromkeys(study.strategies))
    reasons = {name: launcher.unavailable(name) for name in strategies}
    not_available = {name: why for name, why in reasons.items() if why}
    possible = [name for name in strategies if name not in not_available]
    largest = launcher.largest(study.resources.threads_per_worker)
    if not possible:
        raise StudyError([f"{name}: not available: {why}" for name, why in not_available.items()])
    grid = study_grid(study, possible, largest)
    faults = launcher.refuse(grid.points)
    if faults:
        raise StudyError(faults)
    return Plan(study, grid, not_available)


def study_grid(study: Study, strategies: list[str], largest: int) -> Grid:
    from cluster.study import grid

    return grid(study.model_copy(update={"strategies": strategies}), largest)


def schedule(points: Sequence[Trial], repeats: range, seed: int) -> list[Trial]:
    """All launches: round by round, each round in a random order of its own."""
    launches = []
    for repeat in repeats:
        order = list(points)
        random.Random(f"{seed}/{repeat}").shuffle(order)
        launches += [trial.model_copy(update={"repeat": repeat}) for trial in order]
    return launches


def run(plan: Plan, folder: ResultsFolder, launcher: Launcher, precision: Precision, display: Display) -> Summary:
    """Do what is missing of the study. `folder` is open; on any way out the launcher is closed."""
    study = plan.study
    folder.write_study(study)
    folder.write_plan(plan.grid, study.repeats.min, plan.not_available)
    summary = Summary()
    order = folder.last_order() + 1
    attempted: set[str] = set()
    try:
        trials = schedule(plan.grid.points, range(study.repeats.min), study.seed)
        while trials:
            missing = []
            for trial in trials:
                found = folder.find(trial)
                if found is not None and found.outcome is None:
                    folder.set_aside(trial, found.why)
                if found is None or found.outcome is None:
                    missing.append(trial)
            summary.done_before += len(trials) - len(missing)
            display.planned(missing, len(trials) - len(missing))
            order = _launch_all(missing, order, folder, launcher, display, summary)
            attempted |= {trial.id for trial in trials}
            trials = _further(plan, folder, precision, attempted)
    finally:
        launcher.close()
    return summary


def _launch_all(
    trials: Sequence[Trial],
    order: int,
    folder: ResultsFolder,
    launcher: Launcher,
    display: Display,
    summary: Summary,
) -> int:
    """Start all `trials` as the launcher has room, wait for all; return the next launch number."""
    waiting = list(trials)
    while waiting or launcher.running():
        batch = []
        for trial in waiting[: launcher.room()]:
            path = folder.trials / trial.id
            write_trial(path, trial)
            batch.append(Launch(trial, path, order))
            order += 1
        del waiting[: len(batch)]
        if batch:
            launcher.start(batch)
        for trial_id in launcher.wait(POLL_SECONDS):
            try:
                outcome = read_outcome(folder.trials / trial_id)
            except UnreadableOutcome:
                outcome = None
            if outcome is None:
                continue
            if outcome.status == "ok":
                summary.ok += 1
            else:
                summary.failed.append(outcome)
            display.ended(outcome)
        display.tick(launcher.running())
    return order


def _further(plan: Plan, folder: ResultsFolder, precision: Precision, attempted: set[str]) -> list[Trial]:
    """One more launch of each point that is still too uncertain and may have more."""
    repeats = plan.study.repeats
    if repeats.max is None or repeats.until_ci is None:
        return []
    widths = precision(folder.path)
    further = []
    for point in plan.grid.points:
        if widths.get(point.point, 0.0) <= repeats.until_ci:
            continue  # narrow enough, or no launch of it ever worked
        for repeat in range(repeats.min, repeats.max):
            trial = point.model_copy(update={"repeat": repeat})
            found = folder.find(trial)
            if trial.id not in attempted and (found is None or found.outcome is None):
                further.append(trial)
                break
    random.Random(f"{plan.study.seed}/{len(attempted)}").shuffle(further)
    return further
