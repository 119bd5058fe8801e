"""The interface of a launcher, and the registry through which one is found.

A launcher starts the ranks of trials with the rank environment (jobs/rendezvous.py) and sees to it
that every trial it started ends with an `outcome.json`. Order, repeats and resume are the driver's.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jobs.trial import Trial

LAUNCHERS: dict[str, str] = {"local": "cluster.local:LocalLauncher"}


@dataclass(frozen=True)
class Launch:
    """One trial to be started: its folder holds `trial.json`; `order` counts launches."""

    trial: Trial
    folder: Path
    order: int


class OptionsError(ValueError):
    """Keys under `launcher:` are wrong; `faults` holds one line each, without the place's prefix."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = list(faults)


class Launcher(Protocol):
    """Where trials run. Made with the study's `launcher:` options; raises OptionsError."""

    kind: str

    def __init__(self, options: dict[str, Any], results: Path) -> None: ...

    def largest(self, threads_per_worker: int) -> int:
        """How many workers fit at most."""

    def unavailable(self, strategy: str) -> str | None:
        """Why `strategy` cannot run here, None if it can."""

    def refuse(self, points: Sequence[Trial]) -> list[str]:
        """Points that can never run here, one line each."""

    def room(self) -> int:
        """How many more trials may be started now."""

    def start(self, launches: Sequence[Launch]) -> None:
        """Start trials, at most `room()` of them."""

    def wait(self, seconds: float) -> list[str]:
        """Ids of trials that have ended since the last call, after at most `seconds`. Each has its
        outcome written. May return none."""

    def running(self) -> dict[str, str]:
        """Id of each trial that was started and has not ended ─▶ its state in a few words."""

    def close(self) -> None:
        """End what still runs and leave nothing behind."""


def load(kind: str) -> type[Launcher]:
    """The launcher class of that kind. Raises KeyError."""
    module, name = LAUNCHERS[kind].split(":")
    found: type[Launcher] = getattr(importlib.import_module(module), name)
    return found
