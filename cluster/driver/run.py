"""Runs a study: what is missing, in which order, how often, until when.

Launches are in random order, a whole round of all points after the other, so that drift of the
machine hits all points alike (a randomized complete block design). After the least number of
repeats, points whose interval is still too wide get further launches.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cluster.driver.hopeless import Hopeless, Kind
from cluster.driver.plan import Plan
from cluster.launcher import Launch, Launcher, State
from cluster.results.folder import ResultsFolder
from jobs.contract.folder import read_trial, write_trial
from jobs.contract.outcome import Outcome, UnreadableOutcome, read_outcome
from jobs.contract.trial import Trial

POLL_SECONDS = 1.0
RETRIES = 2  # of a launch whose node or job was lost: not the trial's fault

# Point ─▶ relative half-width of the 95% interval of its throughput, from the results so far.
Precision = Callable[[Path], dict[str, float]]


class Display(Protocol):
    """Who tells the person at the terminal."""

    def planned(self, trials: Sequence[Trial], done: int) -> None: ...

    def tick(self, running: dict[str, State]) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...

    def left_out(self, trials: Sequence[Trial], why: str) -> None: ...


@dataclass
class Summary:
    """What a run came to. `left` launches wait until somebody runs the study again; `left_out` were not made as
    others like them had failed."""

    done_before: int = 0
    ok: int = 0
    failed: list[Outcome] = field(default_factory=list)
    left: int = 0
    left_out: int = 0


def schedule(points: Sequence[Trial], repeats: range, seed: int) -> list[Trial]:
    """All launches: round by round, each round in a random order of its own."""
    launches = []
    for repeat in repeats:
        order = list(points)
        random.Random(f"{seed}/{repeat}").shuffle(order)
        launches += [trial.model_copy(update={"repeat": repeat}) for trial in order]
    return launches


class Cancelled(Exception):
    """Somebody asked, by `scaling cancel`, that the study be ended."""


def run(
    plan: Plan,
    folder: ResultsFolder,
    launcher: Launcher,
    precision: Precision,
    display: Display,
    detach: bool = False,
) -> Summary:
    """Do what is missing of the study. `folder` is open; on any way out the launcher is closed.

    With `detach`, start as many launches as there is room for and return; only for a launcher whose
    trials stay. Raises Cancelled.
    """
    study = plan.study
    folder.write_study(study)
    folder.write_plan(plan.grid, study.repeats.min, plan.not_available, plan.data, plan.base_beside)
    work = _Work(folder, launcher, display, Summary())
    attempted: set[str] = set()
    try:
        work.order = max(launcher.resume(), folder.last_order()) + 1
        trials = schedule(plan.grid.points, range(study.repeats.min), study.seed)
        while trials:
            under_way = launcher.running()
            missing = []
            for trial in trials:
                found = folder.find(trial)
                if found is not None and found.outcome is None and trial.id not in under_way:
                    folder.set_aside(trial, found.why)
                if found is None or found.outcome is None:
                    missing.append(trial)
                else:
                    work.hopeless.note(trial, found.outcome)
            work.summary.done_before += len(trials) - len(missing)
            display.planned(missing, len(trials) - len(missing))
            work.do([trial for trial in missing if trial.id not in under_way], detach)
            if detach:
                break
            attempted |= {trial.id for trial in trials}
            trials = _further(plan, folder, precision, attempted)
    finally:
        launcher.close()
    return work.summary


@dataclass
class _Work:
    """Launches being made. A trial whose place was lost is launched again, RETRIES times."""

    folder: ResultsFolder
    launcher: Launcher
    display: Display
    summary: Summary
    order: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    hopeless: Hopeless = field(default_factory=Hopeless)
    _left_out: dict[Kind, list[Trial]] = field(default_factory=dict)

    def do(self, trials: Sequence[Trial], detach: bool) -> None:
        """Start all `trials` as the launcher has room, and wait for these and all that run."""
        waiting = list(trials)
        started: dict[str, Trial] = {}
        while waiting or self.launcher.running():
            if self.folder.cancel_wanted():
                self.launcher.cancel()
                raise Cancelled
            batch = waiting[: self.launcher.room()]
            del waiting[: len(batch)]
            if batch:
                started |= {trial.id: trial for trial in batch}
                self.launcher.start([self._launch(trial) for trial in batch])
            for trial_id in self.launcher.wait(0.0 if detach else POLL_SECONDS):
                trial = started.get(trial_id) or self._trial(trial_id)
                if trial is None:
                    continue
                outcome, again = self._ended(trial)
                if again and (kind := self.hopeless.covers(trial)):
                    self._leave_out(kind, [trial])
                elif again:
                    waiting.append(trial)
                elif outcome is not None and (kind := self.hopeless.note(trial, outcome)):
                    waiting = self._without(kind, waiting)
            if detach:
                self.summary.left = len(waiting)
                return
            self.display.tick(self.launcher.running())

    def _launch(self, trial: Trial) -> Launch:
        path = self.folder.trials / trial.id
        if not path.exists():  # it is there if the launcher has handed it back
            write_trial(path, trial)
        launch = Launch(trial, path, self.order)
        self.order += 1
        return launch

    def _trial(self, trial_id: str) -> Trial | None:
        """A trial that an earlier command has started; None if somebody has taken its folder away."""
        try:
            return read_trial(self.folder.trials / trial_id)
        except FileNotFoundError:
            return None

    def _without(self, kind: Kind, waiting: Sequence[Trial]) -> list[Trial]:
        """`waiting` without what is hopeless, which the launcher too is to hand back as far as it has not begun."""
        running = {trial_id: self._trial(trial_id) for trial_id in self.launcher.running()}
        wanted = {trial_id: trial for trial_id, trial in running.items() if trial and self.hopeless.covers(trial)}
        back = [wanted[trial_id] for trial_id in self.launcher.withdraw(list(wanted))]
        self._leave_out(kind, [trial for trial in waiting if self.hopeless.covers(trial)] + back)
        return [trial for trial in waiting if not self.hopeless.covers(trial)]

    def _leave_out(self, kind: Kind, trials: Sequence[Trial]) -> None:
        """Say that these are left out, of which nothing may be left."""
        if not trials:
            return
        for trial in trials:  # one that was handed back
            shutil.rmtree(self.folder.trials / trial.id, ignore_errors=True)
        self._left_out.setdefault(kind, []).extend(trials)
        self.summary.left_out += len(trials)
        lines = {each: self.hopeless.words(each, len(those)) for each, those in self._left_out.items()}
        self.folder.note_given_up(list(lines.values()))
        self.display.left_out(trials, lines[kind])

    def _ended(self, trial: Trial) -> tuple[Outcome | None, bool]:
        """Note how a trial ended; its outcome, if it can be read, and whether it is to be started again."""
        try:
            outcome = read_outcome(self.folder.trials / trial.id)
        except UnreadableOutcome:
            return None, False
        if outcome is None:
            return None, True
        if outcome.status == "ok":
            self.summary.ok += 1
        elif outcome.status == "lost" and self.lost[trial.id] < RETRIES:
            self.lost[trial.id] += 1
            self.folder.set_aside(trial, f"was lost: {outcome.error}")
            return outcome, True
        else:
            self.summary.failed.append(outcome)
        self.display.ended(outcome)
        return outcome, False


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
