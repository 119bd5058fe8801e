"""Trial: everything that defines one training run, and nothing else.

The study file becomes a list of trials; a rank reads its trial from `trial.json` in the trial's
folder. A trial's id is made from its content, so the same configuration is found again.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from jobs.models import MODELS, ModelName
from jobs.strategies import STRATEGIES

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Precision = Literal["float32", "float64", "tf32", "bfloat16", "float16"]
Layout = Literal["default", "channels-last"]
Gpus = Annotated[int, Field(ge=0, le=1)]
LearningRateRule = Literal["none", "linear", "sqrt"]
Workload = Literal["train", "infer", "ingest"]
Execution = Literal["default", "eager", "graph", "xla", "torchscript", "onnxruntime", "savedmodel", "tflite"]
Source = Literal["png", "tfrecord", "cached"]
Optimizer = Literal["adam", "framework-default"]
TPU = Literal["none", "real", "emulated"]


class Part(BaseModel):
    """A frozen piece of a trial or a study; an unknown key, or a text for a number, is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Data(Part):
    """Which images: `digits` are real and ship with scikit-learn, `mnist` are read from `path`
    (a folder with the four IDX files, or mnist.npz; fetched from OpenML if no path is given),
    `synthetic` are noise, `images` are the PNG and JPEG files in `path`, a folder with a sub-folder for each
    class; both with `side` pixels on a side (the model's own size if not given)."""

    kind: Literal["digits", "mnist", "synthetic", "images"] = "digits"
    path: str | None = None
    side: Count | None = None

    @model_validator(mode="after")
    def _options_belong_to_kind(self) -> Data:
        if self.path is not None and self.kind not in ("mnist", "images"):
            raise ValueError(f"`path` goes with kind mnist or images only, not with {self.kind}; remove it")
        if self.path is None and self.kind == "images":
            raise ValueError("`path` is missing; kind images needs the folder that holds a sub-folder for each class")
        if self.side is not None and self.kind not in ("synthetic", "images"):
            raise ValueError(f"`side` goes with kind synthetic or images only, not with {self.kind}; remove it")
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
    result, `compute_only` on a copy of the state without communication. For `until_accuracy`: training
    is given up after `at_most` steps, and the held-out images are classified after every
    `evaluate_every`."""

    warmup: Count = 10
    measured: Count = 50
    compute_only: Annotated[int, Field(ge=0)] = 20
    at_most: Count | None = None
    evaluate_every: Count = 10


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
    `steps_per_call` is training steps per host call (1 for eager PyTorch); `repeat` numbers
    the independent launches of one configuration. `execution` is "default" for what each framework's
    users write first: eager PyTorch, tf.function; see `executions` for the others. `workload` "infer"
    calls the untrained model on batches of `global_batch` images; its steps are calls. "ingest" turns
    `files` into batches by `readers` processes or threads, read from where `source` says (jobs/ingest.py);
    its steps are batches.

    `precision` "bfloat16" and "float16" are mixed: float32 weights, arithmetic in 16 bits where the
    framework holds it safe, and a scaled loss for float16; "tf32" is float32 whose products a GPU rounds
    to 19 bits. `gpus_per_worker` 1 gives each worker a GPU of its own. With `tpu` "real" a worker is a
    core of a TPU; "emulated" lets CPU devices stand in for cores, and every result says so. With
    `until_accuracy` the model is trained once more from the start until it classifies that share of the
    held-out images right.
    `learning_rate` is meant for `reference_batch`; how it follows from the global batch, and its
    `learning_rate_warmup` in steps, is in jobs/learning_rate.py.
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


def impossible(strategy: str, workload: Workload, precision: Precision, layout: Layout, gpus: Gpus) -> str | None:
    """Why this combination cannot be, None if it can."""
    if precision == "tf32" and not gpus:
        return "precision tf32: is a mode of NVIDIA GPUs; set resources.gpus_per_worker: 1, or take float32"
    if layout == "channels-last" and STRATEGIES[strategy].framework != "PyTorch":
        return f"layout channels-last: {strategy} has its images channels-last (NHWC) as they are; take default"
    if layout == "channels-last" and STRATEGIES[strategy].tpu != "never":
        return f"layout channels-last: {strategy} leaves the layout to XLA; take default"
    if (
        STRATEGIES[strategy].tpu != "never"
        and STRATEGIES[strategy].framework != "TensorFlow"
        and (precision == "float16" or (precision == "tf32" and not _on_gpus(strategy)))
    ):
        return f"precision {precision}: {strategy} has float32, float64 and bfloat16"
    if precision == "float16" and strategy in ("tf-mirrored", "tf-multiworker", "tf-tpu"):
        return (
            f"precision float16: under {strategy} Keras scales the loss by each replica's own gradients, and they "
            "would part; take bfloat16"
        )
    if gpus and not _on_gpus(strategy):
        return f"gpus_per_worker 1: {strategy} does not compute on GPUs; take 0"
    if gpus and workload == "ingest":
        return "gpus_per_worker 1: files are read and decoded by CPUs; take 0"
    return None


def _on_gpus(strategy: str) -> bool:
    """Whether it can: PyTorch/XLA 2.9 has no GPUs any more, and a TPU's strategies have none."""
    return STRATEGIES[strategy].tpu != "only" and "torch_xla" not in STRATEGIES[strategy].needs


def accuracy_fault(until_accuracy: float | None, steps: Steps, data: Data, workload: Workload) -> str | None:
    """Why the time to `until_accuracy` cannot be measured, None if it can or is not asked for."""
    if until_accuracy is None:
        if steps.at_most is not None or steps.evaluate_every != Steps().evaluate_every:
            return "steps.at_most and steps.evaluate_every: belong to until_accuracy; leave them out"
    elif workload != "train":
        return f"until_accuracy: workload {workload} does not train; leave it out"
    elif data.kind == "synthetic":
        return "until_accuracy: synthetic images are noise, nothing can be learnt; take digits or mnist"
    elif steps.at_most is None:
        return "steps.at_most: is missing; until_accuracy needs a number of steps to give up after"
    return None


# What "default" is called where ways to execute are compared.
PLAIN_EXECUTION = {"PyTorch": "eager", "TensorFlow": "graph", "JAX": "xla"}


def executions(strategy: str, workload: Workload = "train") -> tuple[Execution, ...]:
    """The values of `execution` that `strategy` can run with.

    "graph" for PyTorch is torch.compile; "eager" for TensorFlow is the same code without tf.function,
    and "xla" its tf.function with jit_compile, both in the plain process only: the tf.distribute
    strategies' collectives want a graph, and on CPUs are no XLA operations. A model that is only called
    can also be a traced and frozen TorchScript, an ONNX model, a SavedModel, or a TFLite model. JAX and what runs on a
    TPU is compiled by XLA by default.
    """
    info = STRATEGIES[strategy]
    if workload == "ingest" or "torch_xla" in info.needs:
        return ("default",)
    if info.framework == "JAX":
        return ("default", "eager") if workload == "infer" else ("default",)
    if info.framework == "PyTorch":
        return ("default", "graph", "torchscript", "onnxruntime") if workload == "infer" else ("default", "graph")
    if workload == "infer":
        return ("default", "eager", "xla", "savedmodel", "tflite")
    return ("default", "eager", "xla") if info.is_base_case else ("default",)


# Why a strategy has no XLA where its framework's plain process has.
NO_XLA = {
    "tf-mirrored": "its replicas meet in every step, which cannot be inside one compiled program",
    "tf-multiworker": "its replicas meet in every step, which cannot be inside one compiled program",
    "tf-horovod": "Horovod's operations for XLA are not built: TensorFlow has moved what they are made of",
}


def named_execution(strategy: str, execution: str, workload: Workload = "train") -> Execution | None:
    """The value for `strategy` of what a study calls "eager", "graph" or "xla"; None if it has none."""
    if execution == "default" or execution == PLAIN_EXECUTION[STRATEGIES[strategy].framework]:
        return "default"
    return next((e for e in executions(strategy, workload) if e == execution), None)
