"""The keys under `launcher:` for `kind: slurm`."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from cluster.launcher import OptionsError
from cluster.slurm.setup import checked
from jobs.contract.parts import Count, Part

# As sbatch(1): minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]].
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")

# Options of sbatch that may be shortened, and must stay as the scripts have them: by its name a job is found
# again, its output tells why it failed, and it is one job of this cluster, whose trials run once.
OURS = ("array", "clusters", "job-name", "output", "test-only", "wait", "wrap")


def _word(text: str) -> str:
    """An option's value: what SLURM's names and expressions are made of, and nothing else."""
    if not re.fullmatch(r"[A-Za-z0-9_.,:=+@%/&|*()\[\]-]+", text) or text.startswith("-"):
        raise ValueError(f"{text!r} holds a character that no SLURM option has; write it as for sbatch, without quotes")
    return text


def _line(text: str) -> str:
    try:
        words = shlex.split(text)  # sbatch takes several options on a line
    except ValueError:
        words = []
    if not text.startswith("-") or not text.isprintable() or not words:
        raise ValueError(f"{text!r} is not one sbatch option; write it as in '--mail-type=END'")
    for word in words:
        name = re.match(r"--([a-z-]*)|-([A-Za-z])|", word)
        long, short = name.groups("") if name else ("", "")
        if short in ("a", "J", "M", "o", "W") or (len(long) > 1 and any(each.startswith(long) for each in OURS)):
            raise ValueError(f"{word!r} would take a job out of this program's sight; leave it out")
    return text


def _image(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError(f"{text!r} is not on one line of printable text")
    return text


def _time(text: str | int) -> str | int:
    seconds_of(text)
    return text


def seconds_of(time: str | int) -> int:
    """Seconds of a time as sbatch takes it. Raises ValueError."""
    match = TIME.fullmatch(str(time))
    if match is None:
        raise ValueError(f"{time!r} is not a time; write minutes, H:MM:SS or D-HH:MM:SS (in quotes)")
    parts = [int(part) for part in match["parts"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = [*parts, 0, 0][:3]
        hours += 24 * int(match["days"])
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, minutes, seconds = 0, parts[0], parts[1] if len(parts) == 2 else 0
    if (total := hours * 3600 + minutes * 60 + seconds) <= 0:
        raise ValueError(f"{time!r} is no time at all; give the job some minutes")
    return total


Word = Annotated[str, AfterValidator(_word)]
OneLine = Annotated[str, AfterValidator(_image)]


class SlurmOptions(Part):
    """`launcher: {kind: slurm, …}`. Names are sbatch's where sbatch has the option.

    `allocation` is `per-trial` (one job each, sizes queue separately) or `packed` (one allocation of
    `nodes` nodes in which all trials run, one after the other). `nodes` × `tasks_per_node` is the
    most workers there can be. `cpus_per_task` is of one worker; its GPUs are the study's
    `resources.gpus_per_worker`. `module_load`, `setup` (shell lines) and `sbatch` (further options, one
    each) go into every script. `max_queued` is how many jobs may be in the queue at once. `interface`
    is the network over which the ranks talk (ib0, …), by default that of the node's address. `python` is
    the interpreter on the nodes, `container_image` and `container_mounts` are pyxis's.
    """

    allocation: Literal["per-trial", "packed"] = "per-trial"
    nodes: Count = 1
    tasks_per_node: Count = 1
    cpus_per_task: Count | None = None
    time: Annotated[int | str, AfterValidator(_time)] | None = None
    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    reservation: Word | None = None
    exclude: Word | None = None
    exclusive: bool = False
    requeue: bool = False
    max_queued: Count = 100
    interface: Annotated[Word, Field(max_length=15)] | None = None
    module_load: list[Word] = []
    setup: Annotated[list[str], AfterValidator(checked)] = []
    sbatch: list[Annotated[str, AfterValidator(_line)]] = []
    python: OneLine | None = None
    container_image: OneLine | None = None
    container_mounts: list[Word] = []

    @model_validator(mode="after")
    def _consistent(self) -> SlurmOptions:
        if self.allocation == "packed" and self.time is None:
            raise ValueError("time: is missing; it is how long the packed allocation may last")
        if self.container_mounts and not self.container_image:
            raise ValueError("container_image: is missing; container_mounts belongs to it")
        return self

    @property
    def most_workers(self) -> int:
        return self.nodes * self.tasks_per_node


def parse(options: dict[str, Any]) -> SlurmOptions:
    """The options, checked. Raises OptionsError with a line per fault."""
    try:
        return SlurmOptions.model_validate(options)
    except ValidationError as error:
        faults = []
        for e in error.errors(include_url=False):
            place = ".".join(str(p) for p in e["loc"] if not str(p).startswith("function-"))
            message = str(e["msg"]).removeprefix("Value error, ")
            if e["type"] == "extra_forbidden" and place == "gpus_per_task":
                message = "is the study's resources.gpus_per_worker; give it there"
            elif e["type"] == "extra_forbidden":
                message = f"is not an option of the slurm launcher; known: {', '.join(SlurmOptions.model_fields)}"
            elif e["type"] != "value_error":
                message = f"{e['input']!r} is wrong; {message[0].lower()}{message[1:]}"
            faults.append(f"{place}: {message}" if place else message)
        raise OptionsError(list(dict.fromkeys(faults))) from None
