"""The keys under `launcher:` for `kind: ray`, and what a trial needs by them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ValidationError

from cluster.launcher import OptionsError
from cluster.ray.capacity import Need
from jobs.contract.parts import Count, Part, Seconds
from jobs.contract.trial import Trial
from jobs.machine.cores import needed


def head_address(text: str) -> str:
    if text.startswith("ray://"):
        raise ValueError(f"{text!r} is Ray Client's; run on a node of the cluster and give its head as host:port")
    if re.match(r"https?://", text):
        raise ValueError(f"{text!r} is a dashboard's; write the head node's as host:port, 6379 by default")
    if not re.fullmatch(r"[^\s/@]+:\d{1,5}", text):
        raise ValueError(f"{text!r} is not an address; write the head node's as host:port")
    return text


class RayOptions(Part):
    """`launcher: {kind: ray, …}`.

    `address` (host:port of the head node) goes before RAY_ADDRESS. `placement`: `pack` fills a node
    before the next, `spread` puts one worker on each. `concurrent`: several trials at once where there
    is room; neighbours disturb a measurement, and the results say which had any. `shared_results`:
    whether all nodes see the results folder; if not, the files are brought back. `cpus_per_worker`
    is by default the study's `threads_per_worker`, or its `readers` if they are more; GPUs are its
    `gpus_per_worker`. `wait`: seconds a trial waits for a busy cluster.
    """

    address: Annotated[str, AfterValidator(head_address)] | None = None
    placement: Literal["pack", "spread"] = "pack"
    concurrent: bool = False
    shared_results: bool = True
    cpus_per_worker: Count | None = None
    wait: Seconds = 600.0

    def cpus(self, threads_per_worker: int) -> int:
        return self.cpus_per_worker or threads_per_worker

    def need(self, trial: Trial) -> Need:
        """What the trial takes. A process with several workers in it takes CPUs and GPUs for each."""
        cpus = self.cpus_per_worker and self.cpus_per_worker * (trial.workers // trial.processes)
        return Need(trial.processes, cpus or cores_of(trial), trial.gpus_per_process, self.placement == "spread")


def cores_of(trial: Trial) -> int:
    """The cores on which each process of the trial computes."""
    return needed(trial.model_dump(), trial.processes)


def parse(options: dict[str, Any]) -> RayOptions:
    """The options, checked. Raises OptionsError with a line per fault."""
    try:
        return RayOptions.model_validate(options)
    except ValidationError as error:
        faults = []
        for e in error.errors(include_url=False):
            place = ".".join(str(p) for p in e["loc"] if not str(p).startswith("function-"))
            message = str(e["msg"]).removeprefix("Value error, ")
            if e["type"] == "extra_forbidden" and place == "gpus_per_worker":
                message = "is the study's resources.gpus_per_worker; give it there"
            elif e["type"] == "extra_forbidden":
                message = f"is not an option of the ray launcher; known: {', '.join(RayOptions.model_fields)}"
            elif e["type"] != "value_error":
                message = f"{e['input']!r} is wrong; {message[0].lower()}{message[1:]}"
            faults.append(f"{place}: {message}" if place else message)
        raise OptionsError(list(dict.fromkeys(faults))) from None
