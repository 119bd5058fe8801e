"""The interface of a launcher, and the registry through which one is found.

A launcher starts the ranks of trials with the rank environment (jobs/contract/environment.py) and sees to it
that every trial it started ends with an `outcome.json`. Order, repeats and resume are the driver's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jobs.contract.registry import Registry
from jobs.contract.trial import Trial


@dataclass(frozen=True)
class Launch:
    """One trial to be started: its folder holds `trial.json`; `order` counts launches."""

    trial: Trial
    folder: Path
    order: int


@dataclass(frozen=True)
class State:
    """Of a trial that was started and has not ended: in a word, and what the scheduler says of it."""

    text: str
    job: str = ""
    reason: str = ""
    nodes: str = ""


class OptionsError(ValueError):
    """Keys under `launcher:` are wrong; `faults` holds one line each, without the place's prefix."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = list(faults)


class Launcher(Protocol):
    """Where trials run. Made with the study's `launcher:` options; raises OptionsError.

    `stays`: whether its trials go on when this process ends.
    """

    kind: str
    stays: bool

    def __init__(self, options: dict[str, Any], results: Path) -> None: ...

    def largest(self, threads_per_worker: int, gpus_per_worker: int = 0) -> int:
        """How many workers fit at most."""

    def tpu_cores(self) -> int:
        """How many cores of a TPU there are. Raises TpuError."""

    def unavailable(self, strategy: str) -> str | None:
        """Why `strategy` cannot run here, None if it can."""

    def elsewhere(self, strategy: str) -> bool:
        """Whether the strategy's ranks have another environment than this command."""

    def on_one_host(self, trial: Trial) -> bool:
        """Whether all ranks of the trial are sure to be on one host."""

    def unfit(self, trial: Trial) -> str | None:
        """Why this point is to be left out, though its strategy can run here; None if it is not."""

    def refuse(self, points: Sequence[Trial]) -> list[str]:
        """Points that can never run here, one line each."""

    def resume(self) -> int:
        """Take up what an earlier process started. Of that, what has ended has its outcome after
        this, the rest is among `running`. Returns the highest launch number given, -1 if none."""

    def observe(self) -> dict[str, State]:
        """`running` for a reader who is not the driver: looks, and changes nothing."""

    def room(self) -> int:
        """How many more trials may be started now."""

    def start(self, launches: Sequence[Launch]) -> None:
        """Start trials, at most `room()` of them."""

    def wait(self, seconds: float) -> list[str]:
        """Ids of trials that are over since the last call, after at most `seconds`; may be none.
        One without an outcome was not begun and may be started again."""

    def running(self) -> dict[str, State]:
        """Id of each trial that was started and is not over ─▶ its state."""

    def withdraw(self, trials: Collection[str]) -> list[str]:
        """Of these trials, take back what waits and has not begun, as far as that is possible; their ids. Nothing of
        them is left; they are not among `running` any more."""

    def cancel(self) -> None:
        """End what runs or waits; returns when it has ended. Raises StudyError if it cannot."""

    def close(self) -> None:
        """Leave nothing behind that does not stay."""


LAUNCHERS: Registry[type[Launcher]] = Registry(
    "scaling.launchers",
    "LAUNCHER",
    {
        "local": "cluster.local.launcher",
        "slurm": "cluster.slurm.launcher",
        "ray": "cluster.ray.launcher",
    },
)
