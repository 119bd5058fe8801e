"""What of a study can run on a launcher, found before anything is launched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.driver.beside import Beside, with_base_beside
from cluster.launcher import LAUNCHERS, Launcher, OptionsError
from cluster.results.folder import ResultsFolder
from cluster.setup import names
from cluster.study.grid import Grid, grid
from cluster.study.schema import Study, StudyError
from jobs.contract.catalog import STRATEGIES
from jobs.contract.registry import RegistryError
from jobs.contract.trial import Trial
from jobs.machine import variables
from jobs.machine.cores import quota_note
from jobs.machine.gpus import GpuError
from jobs.machine.tpu import TpuError

LINE_BYTES, REPORT_BYTES = 100, 5_000  # a step's line; a rank's report, its part of the outcome and its log


@dataclass(frozen=True)
class Plan:
    """A study on a launcher of this machine: the grid of what can run, and why the rest cannot.

    `data` is what was found in the user's own folders of images, as plan.json has it. `about_here` says what is odd
    about this machine: a quota, a package that its ranks import and that is another than it should be. `base_beside`
    is what was decided of the base case beside, for each point that could have it.
    """

    study: Study
    grid: Grid
    not_available: dict[str, str]
    data: list[dict[str, Any]] = field(default_factory=list)
    about_here: list[str] = field(default_factory=list)
    base_beside: Beside = field(default_factory=dict)

    def least_bytes(self, folder: ResultsFolder) -> int:
        """Of files that the launches leave, at least, which `folder` does not have yet."""
        every = (p.model_copy(update={"repeat": r}) for p in self.grid.points for r in range(self.study.repeats.min))
        return sum(_bytes(trial) for trial in every if not folder.has(trial))

    def notes(self) -> list[str]:
        """What to know before anything is launched, and what is left out of the study and why, one line each."""
        absent = [f"{name}: not available: {why}" for name, why in self.not_available.items()]
        without: dict[str, list[str]] = {}
        for point, what in self.base_beside.items():
            if isinstance(what, str) and self.study.steps.base_beside != "never":
                without.setdefault(what, []).append(point.rpartition("-")[0])
        apart = [f"no base case beside {', '.join(points)}: {why}" for why, points in without.items()]
        return self.about_here + absent + self.grid.left_out + apart


def _bytes(trial: Trial) -> int:
    steps = trial.steps
    lines = steps.warmup + steps.measured + steps.compute_only + 2 * (steps.blocks or 0)
    return (trial.processes + len(trial.base_batches)) * (LINE_BYTES * lines + REPORT_BYTES)


def launcher_of(study: Study, results: Path) -> Launcher:
    """The launcher that `study` names, for its `results`. Raises StudyError, as its keys stand in the study."""
    kind = study.launcher.kind
    if kind not in LAUNCHERS:
        raise StudyError([f"launcher.kind: {kind!r} is not a launcher; known: {', '.join(LAUNCHERS)}"])
    try:
        return LAUNCHERS[kind](study.launcher.options, results)
    except RegistryError as error:
        raise StudyError([f"launcher.kind: {error}"]) from None
    except OptionsError as error:
        raise StudyError([f"launcher.{fault}" for fault in error.faults]) from None


def plan(study: Study, launcher: Launcher, beside: Beside | None = None) -> Plan:
    """What of `study` can run on `launcher`. Raises StudyError if nothing can, a size never fits, or the shell has
    set what nothing is measured with. `beside` is what was decided before of the base case beside."""
    if faults := variables.refused(os.environ):
        raise StudyError(faults)
    strategies = list(dict.fromkeys(study.strategies))
    reasons = {name: launcher.unavailable(name) for name in strategies}
    not_available = {name: why for name, why in reasons.items() if why}
    absent = [f"{name}: not available: {why}" for name, why in not_available.items()]
    possible = [name for name in strategies if name not in not_available]
    if not possible:
        raise StudyError(absent)
    largest = _tpu_cores(launcher) if study.resources.tpu == "real" else _largest(study, launcher)
    grid = study_grid(study, possible, largest)
    unfit = {point.point: why for point in grid.points if (why := launcher.unfit(point) or _unfit_mesh(point, largest))}
    left_out = [f"{p.strategy} at {p.workers} workers: {unfit[p.point]}" for p in grid.points if p.point in unfit]
    grid = Grid([p for p in grid.points if p.point not in unfit], grid.left_out + list(dict.fromkeys(left_out)))
    if not grid.points:
        raise StudyError(absent + grid.left_out)
    possible_study = study.model_copy(update={"strategies": possible})
    points, decided = with_base_beside(possible_study, grid.points, launcher, beside or {})
    grid = Grid(points, grid.left_out)
    faults = launcher.refuse(grid.points)
    if too_many := sorted({p.workers for p in grid.points if p.tpu == "real" and p.workers > largest}):
        faults.append(f"workers: {', '.join(map(str, too_many))} are more than the {largest} cores the TPU has")
    if faults:
        raise StudyError(faults)
    about_here = [str(each) for each in names.wrong(_imported(strategies, launcher))]
    if launcher.kind == "local" and (note := quota_note()):
        about_here.append(note)
    return Plan(study, grid, not_available, about_here=about_here, base_beside=decided)


def _imported(strategies: Sequence[str], launcher: Launcher) -> list[str]:
    """What the ranks of the study import of this environment, as far as it may be mistaken for something else."""
    strategies = [name for name in strategies if not launcher.elsewhere(name)]
    if not strategies:
        return []
    needed = [module for name in strategies for module in STRATEGIES[name].needs]
    with_it = {"tensorflow": ["keras"], "jax": ["jaxlib"]}
    beside = [other for module in needed for other in with_it.get(module, [])]
    return [*needed, *beside, *(["ray"] if launcher.kind == "ray" else []), *names.ALWAYS]


def _largest(study: Study, launcher: Launcher) -> int:
    try:
        return launcher.largest(study.resources.threads_per_worker, study.resources.most_gpus)
    except GpuError as error:
        raise StudyError([f"resources.gpus_per_worker: {error}"]) from None


def _unfit_mesh(point: Trial, devices: int) -> str | None:
    """Why the strategy cannot lay its mesh over as many of a TPU's devices."""
    mesh = STRATEGIES[point.strategy].mesh
    if mesh and point.tpu == "real" and 1 < point.workers < devices:
        return f"{mesh.format(devices=devices)}; it runs on 1 or {devices}"
    return None


def _tpu_cores(launcher: Launcher) -> int:
    """How many cores the TPU has. Raises StudyError if there is none."""
    try:
        return launcher.tpu_cores()
    except TpuError as error:
        raise StudyError(
            [f"resources.tpu: no TPU can be used here ({error}); `emulated` lets CPU devices stand in for its cores"]
        ) from None


def study_grid(study: Study, strategies: list[str], largest: int) -> Grid:
    return grid(study.model_copy(update={"strategies": strategies}), largest)
