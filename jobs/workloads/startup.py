"""How a rank starts, whatever it runs: data, the other ranks, the sampler, the strategy; and how it leaves."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from jobs.contract.catalog import STRATEGIES
from jobs.contract.trial import Trial

if TYPE_CHECKING:
    from jobs.contract.environment import RankEnvironment
    from jobs.data.dataset import Dataset
    from jobs.rank.rendezvous import Rendezvous
    from jobs.rank.watchdog import Watchdog
    from jobs.strategies.interface import Strategy

T = TypeVar("T", bound=Trial)
ROUND_SECONDS = 1.0  # between two signs of life while images are decoded


class Laps:
    """How long each part of the start-up took, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        """What has passed since the last one belongs to the part `name`."""
        now = perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


@dataclass
class Rank(Generic[T]):
    """A rank that has settled on its cores and has done nothing else.

    `mask` are the cores and `visible_devices` is CUDA_VISIBLE_DEVICES as the launcher gave them. `ends` is left
    after all is done. `told` is what it found in a folder of the user's, if it read one.
    """

    folder: Path
    trial: T
    place: RankEnvironment
    watchdog: Watchdog
    mask: set[int]
    visible_devices: str | None
    ends: ExitStack
    laps: Laps = field(default_factory=Laps)
    told: dict[str, Any] | None = None

    def load(self) -> Dataset:
        """The trial's images, in the size that its model takes."""
        trial = self.trial
        if trial.data.kind == "images":
            return self._images()
        from jobs.data import load

        return load.load(trial.data, trial.seed, trial.recipe.model)

    def _images(self) -> Dataset:
        """Those of a folder. Where they are not decoded yet, one rank of each node does it.

        Meanwhile all ranks of all nodes go round in step, so that none of them is taken for one that stands still.
        """
        from jobs.contract.catalog import MODELS
        from jobs.data import folder

        model = MODELS[self.trial.recipe.model]
        found = folder.find(self.trial.data, model, self.watchdog.work)  # its faults, before others wait
        self.told = found.told()
        rendezvous, work = self.meet(), found.decode()
        self.laps.lap("data_load")
        over = False
        while not over:
            self.watchdog.beat()
            until = perf_counter() + ROUND_SECONDS
            mine = all(perf_counter() < until for _ in work)
            over = all(rendezvous.gather(mine))
        self.laps.lap("decode")  # once on a machine, and no part of a launch's start-up
        dataset = found.load()
        self.laps.lap("data_load")
        return dataset

    def meet(self) -> Rendezvous:
        """The meeting with the other ranks."""
        return self.rendezvous

    @cached_property
    def rendezvous(self) -> Rendezvous:
        """Meets the other ranks when it is first asked for; the first of each node starts its sampler."""
        from jobs.machine.network import interface_of
        from jobs.rank.rendezvous import Rendezvous
        from jobs.telemetry import start

        self.laps.lap("data_load")
        trial = self.trial
        rendezvous = Rendezvous(self.place, trial.id, trial.limits.startup)
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
