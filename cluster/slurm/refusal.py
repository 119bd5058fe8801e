"""What SLURM would never start: asked by `sbatch --test-only` before anything is submitted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cluster.slurm import queue
from cluster.slurm import script as slurm_script
from cluster.slurm import size as slurm_size
from cluster.slurm.options import SlurmOptions
from cluster.slurm.size import Size, size_of
from jobs.contract.trial import Trial


def refused(points: Sequence[Trial], options: SlurmOptions, jobs_folder: Path) -> list[str]:
    """What SLURM would never start of `points`, in its own words, one line for each size.

    The scripts of these stay in `refused/` below `jobs_folder`; if there are none, no folder is left behind.
    """
    faults = []
    folder = jobs_folder / "refused"
    new = [path for path in (folder, jobs_folder, jobs_folder.parent) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.sbatch"):
            old.unlink()
    except OSError as error:
        return [f"{folder}: cannot be written to ({error.strerror}); use --results"]
    for group in [points] if options.allocation == "packed" else _by_size(points, options):
        size = slurm_size.largest([size_of(point, options) for point in group], options)
        script = folder / f"{size.nodes}-nodes-{size.tasks}-tasks.sbatch"
        minutes = slurm_size.time_limit(options, group)
        script.write_text(slurm_script.script(options, size, minutes, folder, "scaling-test-only"), encoding="utf-8")
        try:
            said = queue.refusal(script, size.nodes, options.partition)
        except queue.SlurmError as error:
            said = str(error)
        if said:
            faults.append(f"SLURM refuses {script}: {said}")
        else:
            script.unlink()
    for path in [] if faults else new:
        with suppress(OSError):  # another command may have begun to use it
            path.rmdir()
    return faults


def _by_size(points: Sequence[Trial], options: SlurmOptions) -> list[list[Trial]]:
    groups: dict[Size, list[Trial]] = {}
    for point in points:
        groups.setdefault(size_of(point, options), []).append(point)
    return list(groups.values())
