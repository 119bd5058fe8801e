"""A study's results folder: whose it is, what is done in it, and what must be set aside.

Only one driver at a time works on a folder (a lock on `.lock`), a folder belongs to one study on one
kind of launcher, and a leftover of a killed run is moved to `set-aside/` by name, never trusted and
never dropped.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

import yaml
from pydantic import ValidationError

from cluster.study.grid import Grid
from cluster.study.schema import Study, StudyError, resolved
from jobs.contract.files import litter, write_atomically
from jobs.contract.folder import read_trial, set_aside
from jobs.contract.outcome import FORMAT, Outcome, UnreadableOutcome, read_outcome, untrue
from jobs.contract.trial import Trial

# A study may grow in these and still own what was measured before; anything else makes it another.
MAY_CHANGE = ("strategies", "workers", "scaling", "repeats", "limits", "telemetry", "launcher")
MACHINE = "machine.json"  # what the machine can do at most, measured (jobs/machine/peaks.py)
LOOK = ".look"  # put there for Ray's nodes to see
# What may be there before the study's own file is: a launcher's scripts that were refused, or what a
# command left that was killed in its first moments.
OWN = (".lock", ".cancel", ".importing", LOOK, MACHINE, "slurm")
# Factors multiply the grid, so a new value adds points; a trial's id keeps them apart.
FACTORS = (
    "precision", "layout", "optimizer", "steps_per_call", "execution", "readers", "source",
    "learning_rate_rule", "learning_rate_warmup", "gpus_per_worker",
)  # fmt: skip


class InUse(StudyError):
    """Another driver works on the folder."""


@dataclass(frozen=True)
class Found:
    """What a trial's folder holds: `outcome` of a finished trial, else `why` it does not count."""

    outcome: Outcome | None
    why: str = ""


class ResultsFolder:
    """`results/<study>/` while a driver works on it; a context manager that holds the lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials = path / "trials"
        self._cancel = path / ".cancel"
        self._lock: IO[str] | None = None
        self.moved: list[str] = []

    def check(self, study: Study, bytes_wanted: int = 0) -> None:
        """Raises StudyError if the folder is not this study's, or cannot take so much more. Changes nothing."""
        if self.path.exists() and not self.path.is_dir():
            raise StudyError([f"{self.path}: is a file; name a folder with --results"])
        home = next(place for place in (self.path.absolute(), *self.path.absolute().parents) if place.exists())
        if not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
            raise StudyError([f"{home}: cannot be written to; use --results"])
        old = self._old_study()
        if old is None and self.path.is_dir() and any(map(self._strange, self.path.iterdir())):
            raise StudyError([f"{self.path}: holds something that is not a study's results; name another folder"])
        if old is not None:
            faults = _differences(_filled(old), resolved(study))
            if faults:
                raise StudyError(
                    [f"{self.path}: holds another study ({f}); use --results or another name" for f in faults]
                )
        if not bytes_wanted:
            return
        there = os.statvfs(home)
        if (free := there.f_bavail * there.f_frsize) < bytes_wanted or (there.f_files and not there.f_favail):
            wanted = f"{bytes_wanted / 2**20:.1f} MiB and a file for each rank"
            raise StudyError(
                [f"{home}: {free / 2**20:.1f} MiB are free on its disk, the study writes {wanted}; use --results"]
            )

    def open(self, study: Study) -> None:
        """Make or check the folder and lock it. Raises StudyError if it is not this study's."""
        self.check(study)
        try:
            self.trials.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise StudyError([f"{self.path}: cannot be written to ({error.strerror}); use --results"]) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "another process"
            self._lock.close()
            raise InUse([f"{self.path}: in use by {owner}; wait for it, or end it with `scaling cancel`"]) from None
        except OSError as error:
            self._lock.close()
            raise StudyError(
                [f"{self.path}: its file system has no locks ({error.strerror}); name another place with --results"]
            ) from None
        self._cancel.unlink(missing_ok=True)
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._lock.flush()

    def close(self) -> None:
        if self._lock:
            self._lock.truncate(0)
            self._lock.close()

    def want_cancel(self) -> None:
        """Ask the driver that works on the folder, wherever it runs, to end its study."""
        self._cancel.touch()

    def cancel_wanted(self) -> bool:
        return self._cancel.exists()

    def write_study(self, study: Study) -> None:
        content = yaml.safe_dump({"format": study.format, **resolved(study)}, sort_keys=False, allow_unicode=True)
        write_atomically(self.path / "study.yaml", content)

    def write_plan(
        self,
        grid: Grid,
        repeats: int,
        not_available: dict[str, str],
        data: Sequence[dict[str, Any]] = (),
        base_beside: Mapping[str, list[int] | str] | None = None,
    ) -> None:
        """`plan.json`: the points, the least number of repeats of each, what was left out, the user's data, and where
        the base case runs beside."""
        plan = {
            "format": max(p.format for p in grid.points),
            "points": [p.point for p in grid.points],
            "repeats": repeats,
            "left_out": grid.left_out,
            "not_available": not_available,
            **({"data": list(data)} if data else {}),
            **({"base_beside": self.base_beside() | dict(base_beside)} if base_beside else {}),
        }
        write_atomically(self.path / "plan.json", json.dumps(plan, indent=1) + "\n")

    def base_beside(self) -> dict[str, list[int] | str]:
        """What an earlier run has decided of the base case beside (cluster/driver/beside.py)."""
        try:
            found = json.loads((self.path / "plan.json").read_text(encoding="utf-8")).get("base_beside", {})
        except (OSError, ValueError, AttributeError):
            return {}
        read = found if isinstance(found, dict) else {}
        return {
            point: what
            for point, what in read.items()
            if isinstance(what, str) or (isinstance(what, list) and all(isinstance(batch, int) for batch in what))
        }

    def note_given_up(self, lines: list[str]) -> None:
        """Add to `plan.json` what of it is left out as others like it had failed, one line each."""
        path = self.path / "plan.json"
        plan = json.loads(path.read_text(encoding="utf-8"))
        write_atomically(path, json.dumps({**plan, "given_up": lines}, indent=1) + "\n")

    def find(self, trial: Trial) -> Found | None:
        """What is there of `trial`; None if nothing."""
        folder = self.trials / trial.id
        if not folder.exists():
            return None
        try:
            there = read_trial(folder)
        except (OSError, ValueError):
            return Found(None, "has no readable trial.json")
        if there.id != trial.id:
            return Found(None, f"holds trial {there.id}")
        try:
            outcome = read_outcome(folder)
        except UnreadableOutcome as error:
            return Found(None, f"has an outcome that cannot be trusted: {error}")
        if outcome is None:
            return Found(None, "was not finished")
        if outcome.status != "ok":
            return Found(None, f"had ended as {outcome.status}: {outcome.error}")
        if differs := untrue(folder, outcome):
            return Found(None, f"cannot be trusted: {differs}")
        return Found(outcome)

    def has(self, trial: Trial) -> bool:
        """Whether the trial is there and was ok, by its outcome alone; its other files are not read."""
        try:
            outcome = read_outcome(self.trials / trial.id)
        except UnreadableOutcome:
            return False
        return outcome is not None and outcome.status == "ok"

    def set_aside(self, trial: Trial, why: str) -> None:
        """Move the trial's folder to `set-aside/`, so that the trial can be done anew."""
        self.moved.append(set_aside(self.trials / trial.id, why))

    def foreign(self) -> list[str]:
        """Entries of `trials/` that are not folders of a trial, one line each; they stay where they are."""
        lines = []
        for entry in entries(self.trials):
            if not entry.is_dir():
                lines.append(f"{entry}: is not a trial's folder; left alone")
                continue
            try:
                if read_trial(entry).id != entry.name:
                    lines.append(f"{entry}: holds another trial than its name says; left alone")
            except (OSError, ValueError):
                lines.append(f"{entry}: has no readable trial.json; left alone")
        return lines

    def last_order(self) -> int:
        """The highest launch number given so far, -1 if none."""
        orders = [-1]
        for path in self.trials.glob("*/outcome.json"):
            try:
                found = read_outcome(path.parent)
            except UnreadableOutcome:
                continue
            if found is not None:
                orders.append(found.order)
        return max(orders)

    def _strange(self, entry: Path) -> bool:
        """Whether `entry`, in a folder without a study, is nothing that this class may have made."""
        empty = entry == self.trials and entry.is_dir() and not entries(entry)
        return entry.name not in OWN and not empty and not litter(PurePath(entry.name))

    def _old_study(self) -> dict[str, Any] | None:
        path = self.path / "study.yaml"
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise StudyError([f"{path}: cannot be read ({' '.join(str(error).split())})"]) from None
        if not isinstance(content, dict) or "format" not in content:
            raise StudyError([f"{path}: is not a study as this program writes it; use --results"])
        if not isinstance(content["format"], int) or content["format"] > FORMAT:
            raise StudyError([f"{path}: format {content['format']!r}; this version reads up to {FORMAT}; update it"])
        return content


def entries(folder: Path) -> list[Path]:
    """What is in `folder`, in order of names, but for what other programs leave in folders."""
    return sorted(entry for entry in folder.iterdir() if not litter(PurePath(entry.name)))


def _filled(old: dict[str, Any]) -> dict[str, Any]:
    """The study `old` with the defaults of keys that are newer than it."""
    try:
        return resolved(Study.model_validate({key: value for key, value in old.items() if key != "format"}))
    except ValidationError:
        return old  # whatever is odd in it is among its differences


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What makes `new` another study than `old`, a few words each."""
    faults = []
    kinds = [(c.get("launcher") or {}).get("kind") for c in (old, new)]
    if kinds[0] != kinds[1]:
        faults.append(f"launcher.kind: {kinds[0]} there, {kinds[1]} here")
    for key in _leaves(old) | _leaves(new):
        if key[0] in MAY_CHANGE or key[-1] in FACTORS or key == ("format",):
            continue
        there, here = _at(old, key), _at(new, key)
        # A batch that one of the two does not use yet is growth, not a difference.
        if there != here and not (key[0] == "batch" and None in (there, here)):
            faults.append(f"{'.'.join(key)}: {there} there, {here} here")
    return sorted(faults)


def _leaves(content: dict[str, Any], at: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for key, value in content.items():
        found |= _leaves(value, (*at, str(key))) if isinstance(value, dict) else {(*at, str(key))}
    return found


def _at(content: dict[str, Any], key: Iterable[str]) -> Any:
    value: Any = content
    for part in key:
        value = value.get(part) if isinstance(value, dict) else None
    return value


CANCEL_SECONDS = 120.0  # that the command which runs a study has to end it


def take_over(folder: ResultsFolder, study: Study) -> None:
    """Ask the driver of `folder` to stop, and take the folder over when it has."""
    folder.want_cancel()
    deadline = time.monotonic() + CANCEL_SECONDS
    while True:
        try:
            folder.open(study)
            return
        except InUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
