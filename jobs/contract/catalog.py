"""The ways to train and the models that are trained, by name: plain data, so that a trial can be checked.

A strategy = a framework + a way of communicating gradients. A model is described without a framework
(jobs/models/layers.py); jobs/strategies/torch/model.py and jobs/strategies/tf/model.py build it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from jobs.contract.registry import Registry

Communication = Literal["none", "native", "horovod"]
OnTPU = Literal["never", "can", "only"]


@dataclass(frozen=True)
class StrategyInfo:
    """What must be known of a strategy without importing its framework: INFO at the top of its file.

    `framework` is PyTorch, TensorFlow, JAX or what else a figure is to call it. `communication` "none" marks the
    framework's base case: the plain single-process run. `base_case` is the strategy whose run with one worker its
    speedup is over: its framework's plain run, or itself where that cannot use its device. `needs` are the modules
    without which it cannot run, `gpu_needs` what it needs on GPUs besides, and `apart` says what installs a strategy
    that has an environment of its own. `one_process` is true where all workers are replicas inside a single
    process. `gpus` is whether it computes on GPUs, `tpu` whether its workers can be cores of a TPU, and
    `mesh` why of {devices} cores it takes one or all, if it does;
    `several_steps_per_call` whether several training steps can be one host call. `executions` are the ways to
    execute that it has in each workload, if not "default" alone, and `compiled` are those for which a C++ compiler must
    be there. `lacks` says of values of factors, workloads and
    models why it does not have them; {strategy} is its name there.
    """

    framework: str
    communication: Communication
    base_case: str
    needs: tuple[str, ...]
    gpu_needs: tuple[str, ...] = ()
    apart: str = ""
    one_process: bool = False
    gpus: bool = True
    tpu: OnTPU = "never"
    mesh: str = ""
    several_steps_per_call: bool = False
    executions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    compiled: tuple[str, ...] = ()
    lacks: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_base_case(self) -> bool:
        return self.communication == "none"

    def processes(self, workers: int) -> int:
        """How many processes `workers` workers are."""
        return 1 if self.one_process else workers


STRATEGIES: Registry[StrategyInfo] = Registry(
    "scaling.strategies",
    "INFO",
    {
        "torch": "jobs.strategies.torch.plain",
        "torch-ddp": "jobs.strategies.torch.ddp",
        "torch-horovod": "jobs.strategies.torch.horovod",
        "tf": "jobs.strategies.tf.plain",
        "tf-mirrored": "jobs.strategies.tf.mirrored",
        "tf-multiworker": "jobs.strategies.tf.multiworker",
        "tf-horovod": "jobs.strategies.tf.horovod",
        "tf-tpu": "jobs.strategies.tf.tpu",
        "jax": "jobs.strategies.jax.plain",
        "jax-sharded": "jobs.strategies.jax.sharded",
        "torch-xla": "jobs.strategies.torch.xla",
    },
)


def missing(name: str) -> str | None:
    """Why strategy `name` cannot run in this environment, or None if it can."""
    info = STRATEGIES[name]
    return absent(info.needs, info.apart or "`make setup` installs it")


def absent(modules: Sequence[str], remedy: str) -> str | None:
    """Which of `modules` is not installed here, and the `remedy`; None if all are."""
    for module in modules:
        found = importlib.util.find_spec(module)
        if found is None or getattr(found, "origin", "") is None:  # nothing, or a folder that happens to be called so
            return f"{module} is not installed here; {remedy}"
    return None


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
