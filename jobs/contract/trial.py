"""Trial: everything that defines one launch, and nothing else.

The study file becomes a list of trials; a rank reads its trial from `trial.json` in the trial's
folder. A trial's id is made from its content, so the same configuration is found again.

What is timed is its workload, and each workload adds its own fields: trials are a union that `workload` tells
apart. In the file they stand side by side with those that all have.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, ModelWrapValidatorHandler, field_validator, model_validator

from jobs.contract.catalog import STRATEGIES
from jobs.contract.parts import TPU, Count, Data, Gpus, Limits, Part, Steps, Telemetry
from jobs.contract.recipe import Files, Reading, Recipe
from jobs.contract.registry import Registry


class Trial(Part):
    """What all workloads have. One of a workload is made by `Trial.of` or read by `Trial.model_validate`.

    `global_batch` is samples per step over all workers; `threads_per_worker` is cores per worker; `repeat` numbers
    the independent launches of one configuration. `gpus_per_worker` 1 gives each worker a GPU of its own. With `tpu`
    "real" a worker is a core of a TPU; "emulated" lets CPU devices stand in for cores, and every result says so.
    `base_batches` are the global batches on which the base case runs beside the ranks, in turns with them.

    A workload says of itself: `factors`, which of its fields a study may give several values; `own`, which keys of a
    study are its own alone; `scales`, whether it runs on any number of workers, strongly and weakly scaled, with a
    phase of compute-only steps, or is a single process; `in_phases`, whether it has phases that may alternate;
    `without`, what is said to a study that gives a key which it does not have; `no_gpus`, why it takes none, if so.
    """

    factors: ClassVar[tuple[str, ...]] = ()
    own: ClassVar[tuple[str, ...]] = ()
    scales: ClassVar[bool] = True
    in_phases: ClassVar[bool] = False
    without: ClassVar[Mapping[str, str]] = {}
    no_gpus: ClassVar[str] = ""

    strategy: str
    workers: Count
    global_batch: Count
    repeat: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0
    data: Data = Data()
    steps: Steps = Steps()
    workload: str = "train"
    threads_per_worker: Count = 1
    gpus_per_worker: Gpus = 0
    tpu: TPU = "none"
    base_batches: Annotated[tuple[Count, ...], Field(strict=False)] = ()
    limits: Limits = Limits()
    telemetry: Telemetry = Telemetry()

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_workload(cls, given: Any, make: ModelWrapValidatorHandler[Self]) -> Trial:
        """One of the union, by its `workload`."""
        if not isinstance(given, dict):
            return make(given)
        if cls is not Trial:
            return make(_without_former(cls, given))
        name = given.get("workload", "train")
        if not isinstance(name, str) or name not in WORKLOADS:
            raise ValueError(f"unknown workload {name!r}")
        return WORKLOADS[name].model_validate(given)

    @classmethod
    def of(cls, **fields: Any) -> Trial:
        """A trial of the workload that is among `fields`, "train" if none is."""
        return Trial.model_validate(fields)

    @field_validator("strategy")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in STRATEGIES:
            raise ValueError(f"unknown strategy {name!r}")
        return name

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for fault in chain(self._shared_faults(), self.faults()):
            raise ValueError(fault)
        return self

    def faults(self) -> Iterator[str]:
        """Why the workload cannot run like this, a line each; the first is said."""
        yield from ()

    def _shared_faults(self) -> Iterator[str]:
        info = STRATEGIES[self.strategy]
        if self.steps.blocks and not self.in_phases:
            yield f"steps.blocks: workload {self.workload} has no phases that could alternate; leave it out"
        if self.base_batches and not self.steps.blocks:
            yield "base_batches: the base case runs beside training in blocks only; give steps.blocks"
        if self.base_batches and STRATEGIES[self.strategy].is_base_case:
            yield f"base_batches: {self.strategy} is a base case itself"
        if self.global_batch % self.workers:
            yield f"global batch {self.global_batch} is not divisible by {self.workers} workers"
        if info.is_base_case and self.workers != 1:
            yield f"{self.strategy} is a base case: it runs with one worker"
        if self.gpus_per_worker and self.tpu != "none":
            yield f"resources.tpu {self.tpu}: a worker has a TPU's core or a GPU; set gpus_per_worker: 0"
        if info.tpu == "never" and self.tpu != "none":
            yield f"resources.tpu {self.tpu}: {self.strategy} does not run on a TPU"
        if info.tpu == "only" and self.tpu == "none":
            yield (
                f"{self.strategy} runs on a TPU only: set resources.tpu to real, or to emulated for CPU devices "
                "that stand in for its cores"
            )

    @property
    def recipe(self) -> Recipe:
        """The model that a strategy is to build, and how."""
        return Recipe()

    def base_calls(self, batch: int) -> int:
        """Counted calls in a turn of the base case on batches of `batch`: about as long as a block of training, and at
        least two."""
        of_a_block = self.steps.measured // ((self.steps.blocks or 1) * self.recipe.steps_per_call)
        return max(2, round(of_a_block * self.worker_batch / batch))

    @property
    def needs(self) -> tuple[str, ...]:
        """Modules that this trial asks for beside its strategy's."""
        return ()

    @property
    def words(self) -> str:
        """What sets the workload apart, in a few words; empty for training."""
        return self.workload

    @property
    def cores(self) -> tuple[int, str]:
        """Cores that one worker is given, and what of it they are for."""
        return self.threads_per_worker, "threads"

    @property
    def worker_batch(self) -> int:
        """Samples per step of one worker."""
        return self.global_batch // self.workers

    @property
    def processes(self) -> int:
        """How many processes the launcher starts."""
        return STRATEGIES[self.strategy].processes(self.workers)

    @property
    def gpus_per_process(self) -> int:
        """GPUs of each process: one for every worker in it, or none."""
        return self.gpus_per_worker * (self.workers // self.processes)

    @property
    def point(self) -> str:
        """Readable name plus a hash of the configuration: equal for all repeats of one point.

        Fields at their default value are left out of the hash, so that a new field with a neutral
        default does not orphan results that were measured before it existed.
        """
        content = self.model_dump(mode="json", exclude={"repeat", "limits", "telemetry"}, exclude_defaults=True)
        if self.workload != "train":
            content["workload"] = self.workload
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.strategy}-n{self.workers}-b{self.global_batch}-{digest}"

    @property
    def content(self) -> dict[str, Any]:
        """What its file holds: every key that a reader of this format may ask for, those of other workloads at
        their defaults."""
        held = FORMER | self.model_dump(mode="json")
        if self.steps.blocks is None:
            del held["steps"]["blocks"]
        if not self.base_batches:
            del held["base_batches"]
        return {key: held[key] for key in ORDER} | held

    @property
    def format(self) -> int:
        """The oldest results format that can hold it."""
        return 1 if self.steps.blocks is None else 2

    @property
    def id(self) -> str:
        """The name of the trial's folder."""
        return f"{self.point}-r{self.repeat:02d}"


WORKLOADS: Registry[type[Trial]] = Registry(
    "scaling.workloads",
    "TRIAL",
    {
        "train": "jobs.workloads.train",
        "infer": "jobs.workloads.infer",
        "ingest": "jobs.workloads.ingest",
    },
)

# Keys that the file of every trial has in results format 1, whatever its workload; in this order.
ORDER = (
    "strategy", "workers", "global_batch", "repeat", "seed", "model", "data", "steps", "precision", "optimizer",
    "layout", "learning_rate", "learning_rate_rule", "learning_rate_warmup", "reference_batch", "until_accuracy",
    "steps_per_call", "execution", "workload", "readers", "source", "files", "threads_per_worker", "gpus_per_worker",
    "tpu", "limits", "telemetry",
)  # fmt: skip
FORMER: dict[str, Any] = {
    **Recipe().model_dump(),
    **Reading().model_dump(),
    "files": Files().model_dump(),
    "until_accuracy": None,
}


def foreign(workload: str, key: str) -> str:
    """What is said where `key` is given to a workload that does not have it."""
    if said := WORKLOADS[workload].without.get(key):
        return said
    for other, kind in WORKLOADS.ours.items():
        if other != workload and key in kind.own:
            keys = " and ".join(filter(None, [", ".join(kind.own[:-1]), kind.own[-1]]))
            return f"{keys}: belong to `workload: {other}`"
    return f"{key}: workload {workload} has none; leave it out"


def _without_former(kind: type[Trial], given: dict[str, Any]) -> dict[str, Any]:
    """`given` without keys of other workloads that say nothing. Raises ValueError for one that says something."""
    others = [key for key in given if key in FORMER and key not in kind.model_fields]
    for key in others:
        if given[key] != FORMER[key]:
            raise ValueError(foreign(kind.model_fields["workload"].default, key))
    return {key: value for key, value in given.items() if key not in others}
