"""How a model is built and trained, and how files are read: what strategies are told of a trial."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from jobs.contract.catalog import ModelName
from jobs.contract.parts import Count, Part

Precision = Literal["float32", "float64", "tf32", "bfloat16", "float16"]
Layout = Literal["default", "channels-last"]
LearningRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
LearningRateRule = Literal["none", "linear", "sqrt"]
Execution = Literal["default", "eager", "graph", "xla", "torchscript", "onnxruntime", "savedmodel", "tflite"]
Optimizer = Literal["adam", "framework-default"]
Source = Literal["png", "tfrecord", "cached"]


class Recipe(Part):
    """Of a model that is trained or called; the defaults are what a workload without a model is given.

    `execution` is "default" for what each framework's users write first: eager PyTorch, tf.function; see
    jobs/contract/possible.py for the others. `precision` "bfloat16" and "float16" are mixed: float32 weights,
    arithmetic in 16 bits where the framework holds it safe, and a scaled loss for float16; "tf32" is float32 whose
    products a GPU rounds to 19 bits. `steps_per_call` is training steps per host call (1 for eager PyTorch).
    `learning_rate` is meant for `reference_batch`; how it follows from the global batch, and its
    `learning_rate_warmup` in steps, is in jobs/strategies/learning_rate.py.
    """

    model: ModelName = "cnn"
    precision: Precision = "float32"
    optimizer: Optimizer = "adam"
    layout: Layout = "default"
    learning_rate: LearningRate = 1e-3
    learning_rate_rule: LearningRateRule = "none"
    learning_rate_warmup: Annotated[int, Field(ge=0)] = 0
    reference_batch: Count | None = None
    steps_per_call: Count = 1
    execution: Execution = "default"


class Files(Part):
    """Which image files are read: the PNG files below `path`, else `count` of `side` × `side`
    pixels that are made from the digits. Each is resized to `resize` × `resize`."""

    count: Count = 1024
    side: Count = 128
    resize: Count = 64
    path: str | None = None


class Reading(Part):
    """How `files` become batches: by `readers` processes or threads, from where `source` says
    (jobs/data/reading.py)."""

    readers: Count = 1
    source: Source = "png"
    files: Files = Files()
