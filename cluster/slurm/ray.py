"""A sbatch script that starts Ray on an allocation and runs a study there:

    python -m cluster.slurm.ray STUDY nodes=4 cpus_per_node=8 time=1:00:00 partition=cpu >ray.sbatch
    sbatch ray.sbatch

SLURM's own launcher (`--on slurm`) needs no Ray; this is for measuring Ray itself on a SLURM cluster.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import yaml
from pydantic import AfterValidator, Field, ValidationError

from cluster.slurm.options import Word, seconds_of
from cluster.slurm.script import SIGNAL_SECONDS, TEMPLATES, directive
from cluster.slurm.setup import checked, steps
from jobs.contract.parts import Count, Part


def _time(text: str | int) -> str | int:
    seconds_of(text)
    return text


class RayJob(Part):
    """What the allocation has. Names are sbatch's where sbatch has the option; one Ray node on each node."""

    nodes: Count = 1
    cpus_per_node: Count
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    time: Annotated[int | str, AfterValidator(_time)]
    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    reservation: Word | None = None
    exclude: Word | None = None
    exclusive: bool = False
    module_load: list[Word] = []
    setup: Annotated[list[str], AfterValidator(checked)] = []
    results: str | None = None


# What is not text is read as YAML; SLURM's names and expressions are full of what means something there.
AS_YAML = ("nodes", "cpus_per_node", "gpus_per_node", "exclusive", "module_load", "setup")


def script(study: Path, job: RayJob) -> str:
    """The script, which runs in today's folder and interpreter. Raises ValueError for a path that cannot be in one."""
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
    logs = Path(job.results or "results").resolve().parent / f"ray-on-slurm-{study.stem}"
    return environment.get_template("ray.sbatch.j2").render(
        options=job,
        steps=steps(job.module_load, job.setup),
        name=f"ray-{study.stem}",
        minutes=math.ceil(seconds_of(job.time) / 60),
        signal_seconds=SIGNAL_SECONDS,
        output=str(logs.parent / f"{logs.name}.txt").replace("%", "%%"),
        logs=logs,
        cwd=os.getcwd(),
        python=sys.executable,
        study=study.resolve(),
        results=job.results and Path(job.results).resolve(),
    )


def parse(words: list[str]) -> RayJob:
    """`key=value …`; texts as they stand, the other values as in YAML. Raises ValueError."""
    given: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{word}: write key=value")
        try:
            given[key] = yaml.safe_load(value) if key in AS_YAML else value
        except yaml.YAMLError:
            raise ValueError(f"{key}: {value!r} is not as in YAML") from None
    try:
        return RayJob.model_validate(given)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'][:1]))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise ValueError("\n".join(dict.fromkeys(lines))) from None


def main(arguments: list[str]) -> None:
    if not arguments or not Path(arguments[0]).is_file():
        _refuse("usage: python -m cluster.slurm.ray STUDY cpus_per_node=N time=MINUTES [nodes=N] [key=value …]")
    try:
        print(script(Path(arguments[0]), parse(arguments[1:])), end="")
    except ValueError as error:
        _refuse(str(error))


def _refuse(why: str) -> NoReturn:
    print(why, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
