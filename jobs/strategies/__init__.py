"""The ways to train, one file each, found by name through `STRATEGIES`.

A strategy = a framework + a way of communicating gradients. This registry is plain data so that
validating a study or reading results imports no framework; `load` imports the one that is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from jobs.strategies.base import Strategy

Framework = Literal["PyTorch", "TensorFlow"]
Communication = Literal["none", "native", "horovod"]


@dataclass(frozen=True)
class StrategyInfo:
    """What must be known of a strategy without importing its framework.

    `communication` "none" marks the framework's base case: the plain single-process run.
    `one_process` is true where all workers are replicas inside a single process.
    `needs` are the modules without which it cannot run.
    """

    name: str
    framework: Framework
    communication: Communication
    needs: tuple[str, ...]
    one_process: bool = False

    @property
    def is_base_case(self) -> bool:
        return self.communication == "none"

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
    )
}


def missing(name: str) -> str | None:
    """Why strategy `name` cannot run in this environment, or None if it can."""
    for module in STRATEGIES[name].needs:
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed here; `make setup` installs it"
    return None


def load(name: str) -> type[Strategy]:
    """Import the file of strategy `name` and return its class."""
    module = importlib.import_module("jobs.strategies." + name.replace("-", "_"))
    strategy: type[Strategy] = module.STRATEGY
    return strategy
