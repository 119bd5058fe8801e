"""What cannot be submitted: by the options alone, and by SLURM's own word (`sbatch --test-only`)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cluster.slurm import queue, script
from cluster.slurm.options import SlurmOptions, seconds_of
from cluster.slurm.size import Size, largest, size_of, time_limit
from jobs.contract.trial import Trial


def refused(points: Sequence[Trial], options: SlurmOptions, jobs_folder: Path) -> list[str]:
    """Why `points` cannot be submitted, one line each; SLURM is asked only if nothing else is wrong."""
    return _by_options(points, options, jobs_folder) or _by_slurm(points, options, jobs_folder)


def _by_options(points: Sequence[Trial], options: SlurmOptions, jobs_folder: Path) -> list[str]:
    faults = []
    if "\\" in str(jobs_folder) or not str(jobs_folder).isprintable():
        faults.append(f"{jobs_folder!r}: SLURM takes no backslash in a path; name another place with --results")
    if options.container_image and set(":,") & set(f"{script.PROJECT}{jobs_folder}"):
        faults.append(
            f"launcher.container_image: {script.PROJECT} and {jobs_folder.parent} are mounted, and "
            "pyxis takes no colon and no comma in a path; use other folders"
        )
    if too_many := sorted({p.workers for p in points if p.workers > options.most_workers}):
        faults.append(
            f"workers: {', '.join(map(str, too_many))} do not fit; launcher.nodes × launcher.tasks_per_node is "
            f"{options.nodes} × {options.tasks_per_node}"
        )
    needed = max((p.limits.trial for p in points), default=0.0) + script.SIGNAL_SECONDS
    if (minutes := options.time) is not None and (given := seconds_of(minutes)) < needed:
        faults.append(
            f"launcher.time: {minutes} is {given} s, and one trial may take limits.trial = "
            f"{needed - script.SIGNAL_SECONDS:g} s; raise the one or lower the other"
        )
    return faults


def _by_slurm(points: Sequence[Trial], options: SlurmOptions, jobs_folder: Path) -> list[str]:
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
        size = largest([size_of(point, options) for point in group], options)
        path = folder / f"{size.nodes}-nodes-{size.tasks}-tasks.sbatch"
        text = script.script(options, size, time_limit(options, group), folder, "scaling-test-only")
        path.write_text(text, encoding="utf-8")
        try:
            said = queue.refusal(path, size.nodes, options.partition)
        except queue.SlurmError as error:
            said = str(error)
        if said:
            faults.append(f"SLURM refuses {path}: {said}")
        else:
            path.unlink()
    for path in [] if faults else new:
        with suppress(OSError):  # another command may have begun to use it
            path.rmdir()
    return faults


def _by_size(points: Sequence[Trial], options: SlurmOptions) -> list[list[Trial]]:
    groups: dict[Size, list[Trial]] = {}
    for point in points:
        groups.setdefault(size_of(point, options), []).append(point)
    return list(groups.values())
