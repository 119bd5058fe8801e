"""Trial: everything that defines one training run, and nothing else.

The study file becomes a list of trials; a rank reads its trial from `trial.json` in the trial's
folder. A trial's id is made from its content, so the same configuration is found again.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from jobs.contract.catalog import MODELS, STRATEGIES, ModelName
from jobs.contract.parts import (
    TPU,
    Count,
    Data,
    Execution,
    Files,
    Gpus,
    Layout,
    LearningRateRule,
    Limits,
    Optimizer,
    Part,
    Precision,
    Source,
    Steps,
    Telemetry,
    Workload,
)
from jobs.contract.possible import accuracy_fault, executions, impossible


class Trial(Part):
    """One launch of one configuration.

    `global_batch` is samples per step over all workers; `threads_per_worker` is cores per worker;
    `steps_per_call` is training steps per host call (1 for eager PyTorch); `repeat` numbers
    the independent launches of one configuration. `execution` is "default" for what each framework's
    users write first: eager PyTorch, tf.function; see `executions` for the others. `workload` "infer"
    calls the untrained model on batches of `global_batch` images; its steps are calls. "ingest" turns
    `files` into batches by `readers` processes or threads, read from where `source` says (jobs/data/reading.py);
    its steps are batches.

    `precision` "bfloat16" and "float16" are mixed: float32 weights, arithmetic in 16 bits where the
    framework holds it safe, and a scaled loss for float16; "tf32" is float32 whose products a GPU rounds
    to 19 bits. `gpus_per_worker` 1 gives each worker a GPU of its own. With `tpu` "real" a worker is a
    core of a TPU; "emulated" lets CPU devices stand in for cores, and every result says so. With
    `until_accuracy` the model is trained once more from the start until it classifies that share of the
    held-out images right.
    `learning_rate` is meant for `reference_batch`; how it follows from the global batch, and its
    `learning_rate_warmup` in steps, is in jobs/strategies/learning_rate.py.
    """

    strategy: str
    workers: Count
    global_batch: Count
    repeat: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0
    model: ModelName = "cnn"
    data: Data = Data()
    steps: Steps = Steps()
    precision: Precision = "float32"
    optimizer: Optimizer = "adam"
    layout: Layout = "default"
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    learning_rate_rule: LearningRateRule = "none"
    learning_rate_warmup: Annotated[int, Field(ge=0)] = 0
    reference_batch: Count | None = None
    until_accuracy: Annotated[float, Field(gt=0, lt=1)] | None = None
    steps_per_call: Count = 1
    execution: Execution = "default"
    workload: Workload = "train"
    readers: Count = 1
    source: Source = "png"
    files: Files = Files()
    threads_per_worker: Count = 1
    gpus_per_worker: Gpus = 0
    tpu: TPU = "none"
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
        self._check_tpu()
        self._check_model()
        ways = executions(self.strategy, self.workload)
        if self.execution not in ways:
            raise ValueError(f"execution {self.execution}: {self.strategy} has {', '.join(ways)}")
        if self.execution in ("onnxruntime", "tflite") and (self.precision != "float32" or self.gpus_per_worker):
            raise ValueError(f"execution {self.execution}: runs in float32 on CPUs; use that precision and no GPU")
        if self.execution == "torchscript" and self.precision in ("bfloat16", "float16"):
            raise ValueError(f"execution torchscript: a trace in {self.precision} holds no autocast; use float32")
        if self.workload != "train" and not STRATEGIES[self.strategy].is_base_case:
            raise ValueError(f"workload {self.workload}: {self.strategy} adds nothing to it; use a base case")
        if self.workload == "ingest" and STRATEGIES[self.strategy].framework == "JAX":
            raise ValueError(f"workload ingest: {self.strategy} has no input pipeline of its own; use torch and tf")
        if self.workload != "train" and (self.steps.compute_only or self.steps_per_call > 1):
            raise ValueError(f"workload {self.workload}: has no compute-only steps and one step per call")
        if self.workload != "train" and self.optimizer != "adam":
            raise ValueError(f"workload {self.workload}: has no optimizer; leave it out")
        if self.workload == "ingest" and (self.precision != "float32" or self.layout != "default"):
            raise ValueError("precision and layout: ingest trials run no model; leave them out")
        if self.workload != "ingest" and (self.readers > 1 or self.source != "png" or self.files != Files()):
            raise ValueError("readers, source and files: belong to workload ingest")
        if self.execution == "eager" and self.steps_per_call > 1:
            raise ValueError("execution eager: several steps in one call are a graph; use steps_per_call 1")
        if why := impossible(self.strategy, self.workload, self.precision, self.layout, self.gpus_per_worker):
            raise ValueError(why)
        if (self.learning_rate_rule == "none") != (self.reference_batch is None):
            raise ValueError("learning_rate_rule and reference_batch: go together; give both or neither")
        if self.workload != "train" and (self.learning_rate_rule != "none" or self.learning_rate_warmup):
            raise ValueError(f"workload {self.workload}: has no learning rate; leave its rule and warm-up out")
        if why := accuracy_fault(self.until_accuracy, self.steps, self.data, self.workload):
            raise ValueError(why)
        phases = ("warmup", "measured", "compute_only", "at_most", "evaluate_every")
        for phase in phases if self.until_accuracy else phases[:3]:
            if getattr(self.steps, phase) % self.steps_per_call:
                count = getattr(self.steps, phase)
                raise ValueError(f"steps.{phase} {count} is not a multiple of steps_per_call {self.steps_per_call}")
        return self

    def _check_tpu(self) -> None:
        able = STRATEGIES[self.strategy].tpu
        if self.gpus_per_worker and self.tpu != "none":
            raise ValueError(f"resources.tpu {self.tpu}: a worker has a TPU's core or a GPU; set gpus_per_worker: 0")
        if able == "never" and self.tpu != "none":
            raise ValueError(f"resources.tpu {self.tpu}: {self.strategy} does not run on a TPU")
        if able == "only" and self.tpu == "none":
            raise ValueError(
                f"{self.strategy} runs on a TPU only: set resources.tpu to real, or to emulated for CPU devices "
                "that stand in for its cores"
            )

    def _check_model(self) -> None:
        info = MODELS[self.model]
        if self.workload == "ingest" and self.model != "cnn":
            raise ValueError("model: ingest trials read files and run none; leave it out")
        if self.model != "cnn" and STRATEGIES[self.strategy].framework == "JAX":
            raise ValueError(f"model {self.model}: {self.strategy} trains the CNN only")
        if self.model != "cnn" and self.data.kind in ("digits", "mnist"):
            raise ValueError(f"model {self.model}: {self.data.kind} are the CNN's; use data.kind synthetic or images")
        if self.data.side is not None and self.data.side not in info.sides:
            sides = f"{info.sides[0]} to {info.sides[-1]}" if len(info.sides) > 1 else f"{info.side}"
            raise ValueError(f"data.side: {self.model} takes {sides} pixels, not {self.data.side}")

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
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.strategy}-n{self.workers}-b{self.global_batch}-{digest}"

    @property
    def id(self) -> str:
        """The name of the trial's folder."""
        return f"{self.point}-r{self.repeat:02d}"
