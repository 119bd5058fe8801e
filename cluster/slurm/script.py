"""The templates of slurm/ ─▶ the text of a job's script."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from cluster.slurm.options import SlurmOptions
from cluster.slurm.setup import steps
from cluster.slurm.size import Size

PROJECT = Path(__file__).resolve().parents[2]
TEMPLATES = PROJECT / "slurm"
SIGNAL_SECONDS = 30  # before the time limit


def directive(option: str) -> str:
    """`option` as sbatch reads it in an #SBATCH line: in double quotes, where a backslash takes away
    the meaning of a quote and of itself, and nothing else has any.

    Raises ValueError for what would not stay on the line: bash would run the rest of it.
    """
    if not option.isprintable():
        raise ValueError(f"{option!r} is not on one line of printable text")
    if re.fullmatch(r"[A-Za-z0-9_.,:/=+@%-]*", option):
        return option
    return '"' + option.replace("\\", "\\\\").replace('"', '\\"') + '"'


def script(options: SlurmOptions, size: Size, minutes: int, job: Path, name: str) -> str:
    """The sbatch script of the job in the folder `job`, called `name` in the queue."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # every value passes through directive() or shlex.quote() in the template
    )
    environment.filters |= {"directive": directive, "sh": lambda value: shlex.quote(str(value))}
    template = "packed.sbatch.j2" if options.allocation == "packed" else "trial.sbatch.j2"
    return environment.get_template(template).render(
        options=options,
        steps=steps(options.module_load, options.setup),
        size=size,
        minutes=minutes,
        signal_seconds=SIGNAL_SECONDS,
        name=name,
        job=job,
        output=str(job / "output.txt").replace("%", "%%"),
        project=PROJECT,
        python=sys.executable,
        rank_python=options.python or ("python3" if options.container_image else sys.executable),
    )
