"""What the person at the terminal sees while a study runs: what runs, done of total, time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import mean

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from cluster.driver.plan import Plan
from cluster.launcher import State
from jobs.contract.catalog import STRATEGIES
from jobs.contract.outcome import Outcome
from jobs.contract.trial import Trial

LINE_SECONDS = 10.0  # between two lines about the same work where there is no terminal
# Factors whose value is told beside the strategy where it is not the default.
TOLD = ("model", "execution", "precision", "layout", "optimizer", "learning_rate_rule")


def describe(trial: Trial) -> str:
    """A trial in a few words."""
    workers = f"{trial.workers} worker{'s' if trial.workers > 1 else ''}"
    fields = type(trial).model_fields
    told = [name for name in TOLD if name in fields]
    others = [str(getattr(trial, name)) for name in told if getattr(trial, name) != fields[name].default]
    how = f" ({', '.join(others)})" if others else ""
    what = f", {trial.words}" if trial.words else ""
    beside = ""
    if trial.base_batches:
        beside = f" beside {STRATEGIES[trial.strategy].base_case} on {' and '.join(map(str, trial.base_batches))}"
    return f"{trial.strategy}{how}{what}, {workers}, batch {trial.global_batch}{beside}, launch {trial.repeat + 1}"


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def in_a_line(running: dict[str, State]) -> str:
    """Many trials in a few words: how many are in which state, and the scheduler's reason."""
    counts = Counter((state.text, state.reason) for state in running.values())
    return ", ".join(f"{n} {text}" + (f" ({reason})" if reason else "") for (text, reason), n in counts.items())


def show_plan(console: Console, plan: Plan) -> None:
    """Every point that would be measured, and how many launches that is at least."""
    for point in plan.grid.points:
        console.print(f"{describe(point).rpartition(',')[0]}  {point.point}", markup=False, highlight=False)
    least = len(plan.grid.points) * plan.study.repeats.min
    console.print(f"{len(plan.grid.points)} points, at least {least} launches")


def follow(console: Console, what: str, total: int, counts: Iterable[int]) -> None:
    """Work through `counts`, of which each says how many of `total` are done: a bar, or now and then a line."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    told = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        for count in counts:
            progress.update(task, completed=count)
            if not console.is_terminal and time.monotonic() > told + LINE_SECONDS:
                told = time.monotonic()
                console.print(f"{what}: {count:,} of {total:,}", markup=False, highlight=False)


class TerminalDisplay:
    """A bar that is redrawn at most once a second, since it runs beside the measurement; plain
    lines where the output is not a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", table_column=None),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._waiting: dict[str, Trial] = {}
        self._seconds: dict[str, list[float]] = {}
        self._since: dict[str, float] = {}
        self._total = 0
        self._side_by_side = 1

    def __enter__(self) -> TerminalDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def planned(self, trials: Sequence[Trial], done: int) -> None:
        if done and not self._total:
            self._console.print(f"{done} launches are measured already")
        self._waiting = {trial.id: trial for trial in trials}
        self._total += len(trials)
        if trials:
            self._console.print(f"{len(trials)} launches to do")
        if self._task is None:
            self._task = self._progress.add_task("", total=self._total, left="")
        self._progress.update(self._task, total=self._total)

    def tick(self, running: dict[str, State]) -> None:
        if self._task is None or not self._console.is_terminal:
            return
        now = time.monotonic()
        self._since = {trial_id: self._since.get(trial_id, now) for trial_id in running}
        self._side_by_side = max(1, sum(state.text == "running" for state in running.values()))
        names = [describe(self._waiting[i]) for i in running if i in self._waiting]
        what = names[0] if len(names) == 1 else in_a_line(running) or "waiting for room"
        self._progress.update(self._task, description=what, left=self._left(now))
        self._progress.refresh()

    def ended(self, outcome: Outcome) -> None:
        trial = self._waiting.pop(outcome.trial_id, None)
        if trial is None:
            return
        seconds = outcome.seconds
        self._seconds.setdefault(trial.strategy, []).append(seconds)
        if self._task is not None:
            self._progress.advance(self._task)
        done = self._total - len(self._waiting)
        if outcome.status != "ok":
            line = Text(f"{describe(trial)}: {outcome.status}: {outcome.error}", style="red")
            self._console.print(line)
        elif not self._console.is_terminal:
            self._console.print(Text(f"{done}/{self._total} {describe(trial)}: {seconds:.1f} s, {self._left(0)}"))

    def left_out(self, trials: Sequence[Trial], why: str) -> None:
        for trial in trials:
            self._waiting.pop(trial.id, None)
        self._total -= len(trials)
        if self._task is not None:
            self._progress.update(self._task, total=self._total)
        self._console.print(Text(f"left out: {why}", style="red"))

    def _left(self, now: float) -> str:
        """Time left, from what launches of the same strategy have taken so far."""
        known = [s for values in self._seconds.values() for s in values]
        if not known:
            return "time left: unknown yet"
        per_strategy = {name: mean(values) for name, values in self._seconds.items()}
        total = sum(per_strategy.get(t.strategy, mean(known)) for t in self._waiting.values())
        spent = sum(now - since for since in self._since.values()) if now and self._side_by_side == 1 else 0.0
        return f"about {minutes(max(0.0, total - spent) / self._side_by_side)} left"
