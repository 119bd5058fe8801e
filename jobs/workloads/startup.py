"""How a rank starts, whatever it runs: data, the other ranks, the sampler, the strategy; and how it leaves."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Generic, TypeVar

from jobs.contract.catalog import STRATEGIES
from jobs.contract.trial import Trial

if TYPE_CHECKING:
    from jobs.contract.environment import RankEnvironment
    from jobs.data.dataset import Dataset
    from jobs.rank.rendezvous import Rendezvous
    from jobs.rank.watchdog import Watchdog
    from jobs.strategies.interface import Strategy

T = TypeVar("T", bound=Trial)


class Laps:
    """How long each part of the start-up took, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.seconds[name] = now - self._last
        self._last = now


@dataclass
class Rank(Generic[T]):
    """A rank that has settled on its cores and has done nothing else.

    `mask` are the cores and `visible_devices` is CUDA_VISIBLE_DEVICES as the launcher gave them. `ends` is left
    after all is done. `rendezvous` is there once it has met the others.
    """

    folder: Path
    trial: T
    place: RankEnvironment
    watchdog: Watchdog
    mask: set[int]
    visible_devices: str | None
    ends: ExitStack
    laps: Laps = field(default_factory=Laps)

    def load(self) -> Dataset:
        """The trial's images, in the size that its model takes."""
        from jobs.data import load

        return load.load(self.trial.data, self.trial.seed, self.trial.recipe.model)

    def meet(self) -> Rendezvous:
        """Meet the other ranks; the first of each node starts its sampler."""
        from jobs.machine.network import interface_of
        from jobs.rank.rendezvous import Rendezvous
        from jobs.telemetry import start

        self.laps.lap("data_load")
        trial = self.trial
        self.rendezvous = rendezvous = Rendezvous(self.place, trial.id, trial.limits.startup)
        if trial.gpus_per_worker:  # where NCCL's ranks meet, under every strategy; on no other interface does it listen
            os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface_of(rendezvous.address)}")
        self.ends.enter_context(start.sampling(self.folder, trial.telemetry.hertz, self.mask, rendezvous))
        self.laps.lap("rendezvous")
        return rendezvous

    def build(self, dataset: Dataset) -> Strategy:
        """The trial's strategy, its model and data resident."""
        from jobs.strategies.interface import Context

        trial = self.trial
        strategy: Strategy = STRATEGIES.constant(trial.strategy, "STRATEGY")(Context(trial, dataset, self.rendezvous))
        strategy.prepare()
        gc.freeze()  # what imports have made stays
        gc.enable()
        self.laps.lap("import")
        strategy.build()
        self.laps.lap("build")
        if trial.gpus_per_worker and not (device := strategy.facts().device).startswith("gpu "):
            raise RuntimeError(f"{trial.strategy} computes on {device}, and the trial asks for a GPU for each worker")
        return strategy

    def leave(self, strategy: Strategy) -> None:
        """Part from the others, all of whom have written their reports."""
        self.rendezvous.barrier()
        strategy.close()
        self.rendezvous.close()
        self.watchdog.stop()
