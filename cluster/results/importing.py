"""Bring results that were measured on another machine into a results folder: `scaling import`.

Only launches that have ended, and whose files bear out what they say, come in. Nothing that is there is
overwritten. All is copied aside first and then renamed into place, launch by launch, so that an import
that is killed has brought in whole launches only, and the same command brings in the rest.
"""

from __future__ import annotations

import filecmp
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from cluster.results.archive import unpack
from cluster.results.folder import MACHINE, ResultsFolder, entries
from cluster.results.growing import NOT_IMPORTED, Plan, fault_of, grow, one_line, read_plan
from cluster.study import file
from cluster.study.schema import Study, StudyError
from jobs.contract.files import LITTER, litter
from jobs.contract.folder import read_trial
from jobs.contract.outcome import OUTCOME, Outcome, UnreadableOutcome, read_outcome, untrue
from jobs.contract.trial import Trial
from jobs.rank.scratch import temporary_folder

# A launch's folder ─▶ the status that its files bear out ("broken" if they contradict it), and why.
Examine = Callable[[Path], tuple[str, str]]


@dataclass(frozen=True)
class Arrival:
    """A launch in the folder that is imported, checked."""

    folder: Path
    trial: Trial
    outcome: Outcome


@dataclass
class Brought:
    """What an import came to. `left` and `refused` hold one line each: launches that have not ended,
    and launches that could not come in."""

    target: Path
    study: str
    machines: list[str] = field(default_factory=list)
    launches: Counter[str] = field(default_factory=Counter)  # by strategy
    there: int = 0
    left: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For the person at the terminal."""
        parts = ", ".join(f"{name} {count}" for name, count in self.launches.items())
        said = [f"study {self.study!r}, measured on {'; '.join(self.machines) or 'nothing that says what it is'}"]
        said.append(f"brought into {self.target}: {self.launches.total()} launches{f' ({parts})' if parts else ''}")
        if self.there:
            said.append(f"there already, the same: {self.there} launches")
        said += [f"set aside: {line}" for line in self.moved]
        said += [f"left out: {line}" for line in self.left]
        said += [f"refused: {line}" for line in self.refused]
        return ["".join(c if c.isprintable() else "?" for c in line) for line in said]


def bring(source: Path, results: Path | None, examine: Examine) -> Brought:
    """Import the results folder `source`, or the zip of one, into `results` (default: results/<study>).

    Raises StudyError if nothing of it can be used, or if it does not belong there.
    """
    with temporary_folder() as scratch:
        try:
            home = source if source.is_dir() else _unpacked(source, Path(scratch))
            _only_plain_files(home)
            study = file.stored(home)
            arrivals, left, refused = _look_through(home, examine)
            target = results or Path("results", study.slug)
            if target.resolve() == home.resolve():
                raise StudyError([f"{source}: is the folder itself; name another with --results"])
            if not arrivals:
                reasons = "; ".join((left + refused)[:3]) or "it holds no launch"
                raise StudyError([f"{source}: nothing of it can be imported: {reasons}"])
            brought = Brought(target, study.name, left=left, refused=refused)
            brought.machines = sorted({_machine(a.outcome) for a in arrivals if a.outcome.status == "ok"})
            _into(target, home, study, arrivals, brought)
        except StudyError as error:
            raise type(error)([fault.replace(scratch, str(source)) for fault in error.faults]) from None
        except OSError as error:
            raise StudyError([f"{error.filename or source}: {error.strerror or error}"]) from None
    return brought


def _unpacked(archive: Path, scratch: Path) -> Path:
    """The results folder in a zip: its root, or a folder below it."""
    unpack(archive, scratch)
    homes = sorted((p.parent for p in scratch.rglob("study.yaml")), key=lambda p: len(p.parts))
    homes = [p for p in homes if len(p.parts) == len(homes[0].parts)]
    if len(homes) != 1:
        held = "no results folder (no study.yaml in it)" if not homes else f"{len(homes)} results folders"
        raise StudyError([f"{archive}: holds {held}; zip one results folder"])
    return homes[0]


def _only_plain_files(home: Path) -> None:
    """Raises StudyError on a link, device or pipe among what would be copied."""
    for path in (home / "study.yaml", home / "plan.json", home / MACHINE, *sorted((home / "trials").rglob("*"))):
        mode = path.lstat().st_mode if path.is_symlink() or path.exists() else stat.S_IFREG
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise StudyError([f"{path}: is a link, a device or a pipe; results are plain files"])


def _look_through(home: Path, examine: Examine) -> tuple[list[Arrival], list[str], list[str]]:
    """The launches that may come in, and a line for each that has not ended or cannot be trusted."""
    arrivals, left, refused = [], [], []
    for folder in entries(home / "trials") if (home / "trials").is_dir() else []:
        status, why = examine(folder)
        if status == "unfinished":
            left.append(f"{folder.name} was not finished")
            continue
        try:
            trial, outcome = read_trial(folder), read_outcome(folder)
        except ValidationError as error:
            refused.append(f"{folder.name}: trial.json: {fault_of(error)}")
        except (OSError, ValueError) as error:
            refused.append(f"{folder.name}: {why or one_line(error)}")
        else:
            if trial.id != folder.name and outcome is not None:
                refused.append(f"{folder.name}: its trial.json is that of {trial.id}")
            elif status == "broken" or outcome is None:
                refused.append(f"{folder.name}: {why}")
            else:
                arrivals.append(Arrival(folder, trial, outcome))
    return arrivals, left, refused


def _into(target: Path, home: Path, study: Study, arrivals: Sequence[Arrival], brought: Brought) -> None:
    """Put what is new into `target`, which nobody else may work on meanwhile."""
    folder, plan = ResultsFolder(target), _plan(home, study, arrivals, brought.left + brought.refused)
    folder.open(study)
    staged = target / ".importing"
    try:
        _same_machine(folder, arrivals)
        shutil.rmtree(staged, ignore_errors=True)  # of an import that was killed
        new = _new(folder, arrivals, brought)
        for arrival in new:
            shutil.copytree(arrival.folder, staged / arrival.trial.id, ignore=shutil.ignore_patterns(*LITTER))
        if not entries(folder.trials) and (home / MACHINE).is_file():
            staged.mkdir(exist_ok=True)
            shutil.copyfile(home / MACHINE, staged / MACHINE)
            (staged / MACHINE).replace(target / MACHINE)
        grow(folder, study, plan, _ended(folder) | {arrival.trial.id for arrival in new})
        for arrival in new:
            _make_room(folder, arrival.trial)
            (staged / arrival.trial.id).rename(folder.trials / arrival.trial.id)
            brought.launches[arrival.trial.strategy] += 1
        brought.moved = folder.moved
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        folder.close()


def _new(folder: ResultsFolder, arrivals: Sequence[Arrival], brought: Brought) -> list[Arrival]:
    """Those that are not there yet; the others are counted or refused in `brought`.

    A launch that has failed there, or is not what it was, makes room for one that is ok, as it does for the driver's.
    """
    new = []
    for arrival in arrivals:
        name, there = arrival.trial.id, folder.trials / arrival.trial.id
        if not there.exists():
            new.append(arrival)
        elif _same(arrival.folder, there):
            brought.there += 1
        elif arrival.outcome.status == "ok" and _of_no_use(there):
            new.append(arrival)
        else:
            brought.refused.append(
                f"{name}: another launch of that name is in {folder.path}; import this one into another folder"
            )
    return new


def _ended(folder: ResultsFolder) -> set[str]:
    """The launches that are there and have an outcome."""
    return {path.name for path in entries(folder.trials) if (path / OUTCOME).exists()}


def _same(one: Path, other: Path) -> bool:
    """Whether two launches' folders hold the same files, byte for byte."""
    names = [sorted(p for p in _files(home) if not litter(p)) for home in (one, other)]
    return names[0] == names[1] and all(filecmp.cmp(one / n, other / n, shallow=False) for n in names[0])


def _files(home: Path) -> Iterator[Path]:
    return (path.relative_to(home) for path in home.rglob("*") if path.is_file())


def _of_no_use(there: Path) -> bool:
    """Not one without an outcome: it may be running."""
    try:
        outcome = read_outcome(there)
    except UnreadableOutcome:
        return True
    return outcome is not None and (outcome.status != "ok" or bool(untrue(there, outcome)))


def _make_room(folder: ResultsFolder, trial: Trial) -> None:
    found = folder.find(trial)
    if found is not None:
        folder.set_aside(trial, found.why)


def _machine(outcome: Outcome) -> str:
    """What a launch ran on, in words."""
    host, device = _hardware(outcome)
    return f"{device} in {host}" if device else host


def _hardware(outcome: Outcome) -> tuple[str, str]:
    """The host and its accelerator ("" where none was used), without what differs between alike machines."""
    hardware = outcome.hardware
    device = str(hardware.get("accelerator") or hardware.get("gpu") or "")
    if outcome.emulated or hardware.get("emulated"):
        device = f"{device or 'TPU cores'} (emulated)"
    return f"{hardware.get('cpu') or 'an unknown CPU'}, {hardware.get('physical_cores') or '?'} cores", device


def _same_machine(folder: ResultsFolder, arrivals: Sequence[Arrival]) -> None:
    """Raises StudyError where a curve would mix machines: another host than any there, or another
    accelerator than the strategy's launches there had."""
    there: dict[str, set[tuple[str, str]]] = {}
    for path in entries(folder.trials):
        try:
            outcome, strategy = read_outcome(path), read_trial(path).strategy
        except (OSError, ValueError):
            continue
        if outcome is not None and outcome.status == "ok":
            there.setdefault(strategy, set()).add(_hardware(outcome))
    hosts = {host for found in there.values() for host, _ in found}
    for arrival in arrivals:
        if arrival.outcome.status != "ok" or not there:
            continue
        host, device = _hardware(arrival.outcome)
        devices = {d for _, d in there.get(arrival.trial.strategy, ())}
        if host not in hosts or (devices and device not in devices):
            known = "; ".join(sorted({f"{d} in {h}" if d else h for found in there.values() for h, d in found}))
            raise StudyError(
                [
                    f"{folder.path}: was measured on {known}, this on {_machine(arrival.outcome)}; a curve over both "
                    "would mean nothing: name another folder with --results"
                ]
            )


def _plan(home: Path, study: Study, arrivals: Sequence[Arrival], not_taken: Sequence[str]) -> Plan:
    """The plan that came with the launches, their own points at least, and those launches that did not come in."""
    plan = read_plan(home / "plan.json") or Plan(repeats=study.repeats.min)
    left_out = ["".join(c if c.isprintable() else "?" for c in f"{NOT_IMPORTED}{line}") for line in not_taken]
    points = list(dict.fromkeys(a.trial.point for a in arrivals))
    return plan.joined(Plan(points, left_out=left_out, format=max((a.trial.format for a in arrivals), default=1)))
