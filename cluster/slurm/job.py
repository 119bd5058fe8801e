"""A job's folder, `RESULTS/slurm/<job>/`: what the driver, the job itself and a later driver share.

    job.sbatch      the script, which may also be submitted by hand
    launches.json   the trials it runs, in order, with their sizes
    job.json        the job's id, once SLURM has given one
    began.json      the nodes it has, once it runs
    output.txt      what the script printed
    end.json        how the script ended; if SLURM ended it with force, what the driver says of that later

Nothing else is needed to come back to a study, from another login node too.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.slurm.size import Size
from jobs.contract.files import TRIAL, look_afresh, write_atomically

STARTS_SECONDS = 30.0  # that a job's first ranks may take until they give a sign of life


FORMAT = 1  # of the files here


@dataclass(frozen=True)
class Planned:
    """One trial of a job. `order` counts launches over the study."""

    trial: str
    order: int
    size: Size


@dataclass(frozen=True)
class JobFolder:
    """`name` is the job's in the queue, by which it is found again if nobody noted its id."""

    path: Path
    name: str
    allocation: str
    interface: str | None
    launches: tuple[Planned, ...]

    @property
    def script(self) -> Path:
        return self.path / "job.sbatch"

    @property
    def output(self) -> Path:
        return self.path / "output.txt"

    def trial(self, planned: Planned) -> Path:
        """The folder of one of its trials."""
        return self.path.parent.parent / "trials" / planned.trial

    def write(self) -> None:
        self.path.mkdir(parents=True)
        content = {
            "format": FORMAT,
            "name": self.name,
            "allocation": self.allocation,
            "interface": self.interface,
            "launches": [asdict(p) for p in self.launches],
        }
        write_atomically(self.path / "launches.json", json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> JobFolder:
        """Raises ValueError if `path` is not a job's folder as this version writes it."""
        try:
            content = json.loads((path / "launches.json").read_text(encoding="utf-8"))
            if content["format"] > FORMAT:
                raise ValueError(f"format {content['format']}")
            launches = tuple(Planned(p["trial"], p["order"], Size(**p["size"])) for p in content["launches"])
            return cls(path, content["name"], content["allocation"], content["interface"], launches)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not a job's folder ({error})") from None

    @property
    def job_id(self) -> str | None:
        return (self._note("job.json") or {}).get("job_id")

    def submitted(self, job_id: str) -> None:
        write_atomically(self.path / "job.json", json.dumps({"format": FORMAT, "job_id": job_id}) + "\n")

    def began(self, nodes: Sequence[str]) -> None:
        """Note that it runs, and on which nodes. An end that is noted is that of a run before a requeue."""
        (self.path / "end.json").unlink(missing_ok=True)
        write_atomically(self.path / "began.json", json.dumps({"format": FORMAT, "nodes": list(nodes)}) + "\n")

    @property
    def nodes(self) -> set[str]:
        """The nodes it has or had; none if it did not begin."""
        return set((self._note("began.json") or {}).get("nodes", []))

    @property
    def end(self) -> str | None:
        """Why the script ended: done, time, signal, away (SLURM did not answer it); gone if it left no word and
        the driver has seen so; None before that."""
        return (self._note("end.json") or {}).get("reason")

    def ended(self, reason: str) -> None:
        write_atomically(self.path / "end.json", json.dumps({"format": FORMAT, "reason": reason}) + "\n")

    def _note(self, name: str) -> dict[str, Any] | None:
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None


def begun(folder: Path) -> bool:
    """Whether anything but the trial itself is in its folder."""
    try:
        return any(entry.name != TRIAL and not entry.name.startswith(".") for entry in folder.iterdir())
    except FileNotFoundError:
        return False


def withdrawn(folder: Path) -> bool:
    """Remove the folder of a trial that has not begun, at one blow; whether that was so."""
    if begun(folder):
        return False
    aside = folder.parent.with_name(f".withdrawn-{folder.name}-{secrets.token_hex(4)}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return False
    if begun(aside):  # between the two
        aside.rename(folder)
        return False
    shutil.rmtree(aside, ignore_errors=True)
    return True


def beside_another(job: JobFolder, began: float, ended: float) -> bool:
    """Whether another job of the study ran on a node of `job` between these two Unix times."""
    if not (nodes := job.nodes):
        return False
    look_afresh(job.path.parent)
    return any(_ran(path, nodes, began, ended) for path in job.path.parent.iterdir() if path != job.path)


def _ran(path: Path, nodes: set[str], began: float, ended: float) -> bool:
    """Whether the job in `path` ran on one of `nodes` between these two Unix times."""
    first, last = _modified(path / "began.json"), _modified(path / "end.json")
    if first is None or first > ended or (last is not None and last < began):
        return False
    try:
        job = JobFolder.read(path)
    except ValueError:
        return False
    if last is None:  # it runs, or was ended with force: then its ranks' next sign of life, which they promise, is late
        alive = [_modified(file) for planned in job.launches for file in job.trial(planned).glob("rank-*.alive")]
        last = max([first + STARTS_SECONDS, *(due for due in alive if due is not None)])
    return last >= began and bool(nodes & job.nodes)


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
