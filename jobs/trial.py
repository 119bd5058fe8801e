"""Trial: everything that defines one training run, and nothing else.

The study file becomes a list of trials; a rank reads its trial from `trial.json` in the trial's
folder. A trial's id is made from its content, so the same configuration is found again.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from jobs.strategies import STRATEGIES

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Precision = Literal["float32", "float64"]
Workload = Literal["train", "infer", "ingest"]
Execution = Literal["default", "eager", "graph", "xla", "torchscript", "savedmodel", "tflite"]
Optimizer = Literal["adam", "framework-default"]


class Part(BaseModel):
    """A frozen piece of a trial or a study; an unknown key, or a text for a number, is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Data(Part):
    """Which images: `digits` are real and ship with scikit-learn, `mnist` are read from `path`
    (a folder with the four IDX files, or mnist.npz; fetched from OpenML if no path is given),
    `synthetic` are noise."""

    kind: Literal["digits", "mnist", "synthetic"] = "digits"
    path: str | None = None

    @model_validator(mode="after")
    def _path_belongs_to_mnist(self) -> Data:
        if self.path is not None and self.kind != "mnist":
            raise ValueError(f"`path` goes with kind mnist only, not with {self.kind}; remove it")
        return self


class Files(Part):
    """Which image files an ingest trial reads: the PNG files below `path`, else `count` of `side` × `side`
    pixels that are made from the digits. Each is resized to `resize` × `resize`."""

    count: Count = 1024
    side: Count = 128
    resize: Count = 64
    path: str | None = None


class Steps(Part):
    """How many steps of each phase: `warmup` before the clock counts, `measured` for the
    result, `compute_only` on a copy of the state without communication."""

    warmup: Count = 10
    measured: Count = 50
    compute_only: Annotated[int, Field(ge=0)] = 20


class Limits(Part):
    """When a trial is given up, in seconds: `startup` until the first step is done, `hang`
    between two steps, `trial` for the whole. They do not define the measurement, so they are not
    part of a trial's id."""

    startup: Seconds = 180.0
    hang: Seconds = 30.0
    trial: Seconds = 900.0


class Telemetry(Part):
    """How often each node's sampler (jobs/telemetry.py) looks, in samples per second; 0, or `telemetry: off`,
    starts none. Like `limits` no part of a trial's id: what is measured does not depend on it."""

    hertz: Annotated[float, Field(ge=0, le=20, allow_inf_nan=False)] = 2.0

    @model_validator(mode="before")
    @classmethod
    def _off(cls, given: object) -> object:
        return {"hertz": 0.0} if given is False else given  # YAML reads `off` as false


class Trial(Part):
    """One launch of one configuration.

    `global_batch` is samples per step over all workers; `threads_per_worker` is cores per worker;
    `steps_per_call` is training steps per host call (TensorFlow strategies only); `repeat` numbers
    the independent launches of one configuration. `execution` is "default" for what each framework's
    users write first: eager PyTorch, tf.function; see `executions` for the others. `workload` "infer"
    calls the untrained model on batches of `global_batch` images; its steps are calls. "ingest" turns
    `files` into batches by `readers` processes or threads; its steps are batches.
    """

    strategy: str
    workers: Count
    global_batch: Count
    repeat: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0
    data: Data = Data()
    steps: Steps = Steps()
    precision: Precision = "float32"
    optimizer: Optimizer = "adam"
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    steps_per_call: Count = 1
    execution: Execution = "default"
    workload: Workload = "train"
    readers: Count = 1
    files: Files = Files()
    threads_per_worker: Count = 1
    limits: Limits = Limits()
    telemetry: Telemetry = Telemetry()

    @field_validator("strategy")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in STRATEGIES:
            raise ValueError(f"unknown strategy {name!r}")
        return name

    @model_validator(mode="after")
    def _possible(self) -> Trial:
        if self.global_batch % self.workers:
            raise ValueError(f"global batch {self.global_batch} is not divisible by {self.workers} workers")
        if STRATEGIES[self.strategy].is_base_case and self.workers != 1:
            raise ValueError(f"{self.strategy} is a base case: it runs with one worker")
        ways = executions(self.strategy, self.workload)
        if self.execution not in ways:
            raise ValueError(f"execution {self.execution}: {self.strategy} has {', '.join(ways)}")
        if self.execution == "tflite" and self.precision != "float32":
            raise ValueError(f"execution tflite: there is none in {self.precision}; use float32")
        if self.workload != "train" and not STRATEGIES[self.strategy].is_base_case:
            raise ValueError(f"workload {self.workload}: {self.strategy} adds nothing to it; use a base case")
        if self.workload != "train" and (self.steps.compute_only or self.steps_per_call > 1):
            raise ValueError(f"workload {self.workload}: has no compute-only steps and one step per call")
        if self.workload != "ingest" and (self.readers > 1 or self.files != Files()):
            raise ValueError("readers and files: belong to workload ingest")
        if self.execution == "eager" and self.steps_per_call > 1:
            raise ValueError("execution eager: several steps in one call are a graph; use steps_per_call 1")
        for phase in ("warmup", "measured", "compute_only"):
            if getattr(self.steps, phase) % self.steps_per_call:
                count = getattr(self.steps, phase)
                raise ValueError(f"steps.{phase} {count} is not a multiple of steps_per_call {self.steps_per_call}")
        return self

    @property
    def worker_batch(self) -> int:
        """Samples per step of one worker."""
        return self.global_batch // self.workers

    @property
    def processes(self) -> int:
        """How many processes the launcher starts."""
        return STRATEGIES[self.strategy].processes(self.workers)

    @property
    def point(self) -> str:
        """Readable name plus a hash of the configuration: equal for all repeats of one point.

        Fields at their default value are left out of the hash, so that a new field with a neutral
        default does not orphan results that were measured before it existed.
        """
        content = self.model_dump(mode="json", exclude={"repeat", "limits", "telemetry"}, exclude_defaults=True)
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.strategy}-n{self.workers}-b{self.global_batch}-{digest}"

    @property
    def id(self) -> str:
        """The name of the trial's folder."""
        return f"{self.point}-r{self.repeat:02d}"


# What "default" is called where ways to execute are compared.
PLAIN_EXECUTION = {"PyTorch": "eager", "TensorFlow": "graph"}


def executions(strategy: str, workload: Workload = "train") -> tuple[Execution, ...]:
    """The values of `execution` that `strategy` can run with.

    "graph" for PyTorch is torch.compile; "eager" for TensorFlow is the same code without tf.function,
    and "xla" its tf.function with jit_compile, both in the plain process only: the tf.distribute
    strategies' collectives want a graph, and on CPUs are no XLA operations. A model that is only called
    can also be a traced and frozen TorchScript, a SavedModel, or a TFLite model.
    """
    if workload == "ingest":
        return ("default",)
    if STRATEGIES[strategy].framework == "PyTorch":
        return ("default", "graph", "torchscript") if workload == "infer" else ("default", "graph")
    if workload == "infer":
        return ("default", "eager", "xla", "savedmodel", "tflite")
    return ("default", "eager", "xla") if STRATEGIES[strategy].is_base_case else ("default",)


def named_execution(strategy: str, execution: str, workload: Workload = "train") -> Execution | None:
    """The value for `strategy` of what a study calls "eager", "graph" or "xla"; None if it has none."""
    if execution == "default" or execution == PLAIN_EXECUTION[STRATEGIES[strategy].framework]:
        return "default"
    return next((e for e in executions(strategy, workload) if e == execution), None)
