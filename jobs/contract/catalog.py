"""The models that are trained, found by name through `MODELS`.

A model is described without a framework (jobs/models/layers.py); jobs/strategies/torch/model.py and
tf_model.py build it. This registry is plain data so that validating a study needs not even NumPy;
`load` imports the description that is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ModelName = Literal["cnn", "resnet50"]


@dataclass(frozen=True)
class ModelInfo:
    """What must be known of a model without its layers.

    It takes square images with `channels` and as many pixels on a side as `sides` allows, `side` if
    nothing else is said, and gives `classes` logits.
    """

    name: ModelName
    side: int
    sides: range
    channels: int
    classes: int


MODELS: dict[str, ModelInfo] = {
    info.name: info
    for info in (
        ModelInfo("cnn", side=28, sides=range(28, 29), channels=1, classes=10),
        ModelInfo("resnet50", side=224, sides=range(32, 513), channels=3, classes=1000),
    )
}


Framework = Literal["PyTorch", "TensorFlow", "JAX"]


Communication = Literal["none", "native", "horovod"]


OnTPU = Literal["never", "can", "only"]


@dataclass(frozen=True)
class StrategyInfo:
    """What must be known of a strategy without importing its framework.

    `communication` "none" marks the framework's base case: the plain single-process run.
    `one_process` is true where all workers are replicas inside a single process.
    `needs` are the modules without which it cannot run. `tpu` is whether its workers can be cores of a
    TPU. `own_base` marks a strategy whose device its framework's plain run cannot use: its base case is
    itself at one worker. `apart` says what installs a strategy that needs an environment of its own.
    """

    name: str
    framework: Framework
    communication: Communication
    needs: tuple[str, ...]
    one_process: bool = False
    tpu: OnTPU = "never"
    own_base: bool = False
    apart: str = ""

    @property
    def is_base_case(self) -> bool:
        return self.communication == "none"

    @property
    def has_steps_per_call(self) -> bool:
        """Whether several training steps can be one host call."""
        return self.framework != "PyTorch" or "torch_xla" in self.needs

    def processes(self, workers: int) -> int:
        """How many processes `workers` workers are."""
        return 1 if self.one_process else workers


STRATEGIES: dict[str, StrategyInfo] = {
    info.name: info
    for info in (
        StrategyInfo("torch", "PyTorch", "none", ("torch",)),
        StrategyInfo("torch-ddp", "PyTorch", "native", ("torch",)),
        StrategyInfo("torch-horovod", "PyTorch", "horovod", ("torch", "horovod")),
        StrategyInfo("tf", "TensorFlow", "none", ("tensorflow",)),
        StrategyInfo("tf-mirrored", "TensorFlow", "native", ("tensorflow",), one_process=True),
        StrategyInfo("tf-multiworker", "TensorFlow", "native", ("tensorflow",)),
        StrategyInfo("tf-horovod", "TensorFlow", "horovod", ("tensorflow", "horovod")),
        StrategyInfo("tf-tpu", "TensorFlow", "native", ("tensorflow",), one_process=True, tpu="only", own_base=True),
        StrategyInfo("jax", "JAX", "none", ("jax", "optax"), tpu="can"),
        StrategyInfo("jax-sharded", "JAX", "native", ("jax", "optax"), one_process=True, tpu="can"),
        StrategyInfo(
            "torch-xla", "PyTorch", "native", ("torch", "torch_xla"),
            one_process=True, tpu="can", own_base=True, apart="`make setup-xla` installs it into .venv-xla",
        ),
    )
}  # fmt: skip


def base_case(name: str) -> str:
    """The strategy whose run with one worker is what `name`'s speedup is over."""
    info = STRATEGIES[name]
    if info.own_base:
        return name
    return next(s.name for s in STRATEGIES.values() if s.framework == info.framework and s.is_base_case)


def missing(name: str) -> str | None:
    """Why strategy `name` cannot run in this environment, or None if it can."""
    info = STRATEGIES[name]
    return absent(info.needs, info.apart or "`make setup` installs it")


def absent(modules: Sequence[str], remedy: str) -> str | None:
    """Which of `modules` is not installed here, and the `remedy`; None if all are."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed here; {remedy}"
    return None
