"""The timed loop: warm-up, measured and compute-only steps of one rank.

Nothing is written, printed or allocated between the two clock readings of a step that training does
not need: times and losses go into arrays made beforehand, and signs of life are given between steps.

On a CPU a step is over when its call returns. A GPU works behind the host's back: there the host only
puts marks into its queue of work, one after each step, and waits once for each window of steps (the
first step, the rest of the warm-up, the measured steps).
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.data.dataset import Indices
from jobs.machine import quota
from jobs.rank.watchdog import Watchdog
from jobs.strategies.interface import DeviceClock, Losses


@dataclass(frozen=True)
class Recording:
    """One phase of one rank; `calls` host calls of k steps. Seconds are per call: float64 [calls].

    `losses` is float64 [calls × k]. The first `warmup` steps are not part of the result.
    """

    phase: str
    seconds: NDArray[np.float64]
    data_seconds: NDArray[np.float64]
    losses: NDArray[np.float64]
    samples_per_step: int
    warmup: int

    def rows(self, done: int) -> list[dict[str, object]]:
        """The step lines of the first `done` calls, as docs/results-format.md has them."""
        k = len(self.losses) // max(1, len(self.seconds))
        rows: list[dict[str, object]] = []
        for step in range(done * k):
            call = step // k
            loss = float(self.losses[step])
            row: dict[str, object] = {
                "phase": self.phase,
                "step": step,
                "seconds": round(float(self.seconds[call]) / k, 9),
                "data_seconds": round(float(self.data_seconds[call]) / k, 9),
                "samples": self.samples_per_step,
                "loss": loss if math.isfinite(loss) else None,
            }
            if step < self.warmup:
                row["warmup"] = True
            rows.append(row)
        return rows


class Meter:
    """Runs a phase; what was recorded up to a failure can still be had from `recording`.

    `throttled` is how a CPU quota held the process back in the measured steps, None without one.
    """

    throttled: quota.Throttled | None = None

    def __init__(self, phase: str, batches: Indices, warmup: int, steps_per_call: int) -> None:
        """`batches` is int32 [steps, b], this process's part; steps must be a multiple of k."""
        steps, samples = batches.shape
        if steps % steps_per_call or warmup % steps_per_call:
            raise ValueError(f"{steps} steps and {warmup} of warm-up are not multiples of {steps_per_call}")
        calls = steps // steps_per_call
        self._batches = batches.reshape(calls, steps_per_call, samples)
        self._warmup_calls = warmup // steps_per_call
        self.done = 0
        self.recording = Recording(
            phase, np.zeros(calls), np.zeros(calls), np.zeros(steps), samples_per_step=samples, warmup=warmup
        )

    def run(
        self,
        step: Callable[[Indices], Losses],
        watchdog: Watchdog,
        hang_seconds: float,
        clock: DeviceClock | None = None,
    ) -> None:
        """Do all calls of `step`. The first may take as long as the watchdog already allows."""
        if clock is not None:
            self._run_on_device(step, watchdog, hang_seconds, clock)
            return
        batches, k = self._batches, self._batches.shape[1]
        seconds, data_seconds = self.recording.seconds, self.recording.data_seconds
        losses = self.recording.losses
        before: dict[Path, quota.Throttled] = {}
        for call in range(len(batches)):
            if call == self._warmup_calls:
                gc.collect()
                gc.freeze()  # what start-up made is not looked through again in a measured step
                before = quota.throttling()
            begin = perf_counter()
            batch = batches[call]
            ready = perf_counter()
            loss = step(batch)
            end = perf_counter()
            seconds[call] = end - begin
            data_seconds[call] = ready - begin
            losses[call * k : (call + 1) * k] = loss
            self.done = call + 1
            if call == 0:
                watchdog.allow(hang_seconds)
            elif end >= watchdog.due:
                watchdog.beat()
        self.throttled = quota.throttled_since(before)

    def _run_on_device(
        self, step: Callable[[Any], Losses], watchdog: Watchdog, hang_seconds: float, clock: DeviceClock
    ) -> None:
        given, calls = clock.load(self._batches), len(self._batches)
        edges = sorted({0, min(1, calls), min(self._warmup_calls, calls), calls})
        before: dict[Path, quota.Throttled] = {}
        for begin, end in pairwise(edges):
            if begin == self._warmup_calls:
                gc.collect()
                gc.freeze()
                before = quota.throttling()
            losses = []
            clock.mark()
            for call in range(begin, end):
                losses.append(step(given[call]))
                clock.mark()
                if perf_counter() >= watchdog.due:
                    watchdog.beat()
            self.recording.seconds[begin:end], self.recording.losses[begin:end] = clock.read(losses)
            self.done = end
            watchdog.allow(hang_seconds)
        self.throttled = quota.throttled_since(before)

    def rows(self) -> list[dict[str, object]]:
        return self.recording.rows(self.done)
