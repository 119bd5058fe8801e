"""The timed loop: warm-up, measured and compute-only steps of one rank.

Nothing is written, printed or allocated between the two clock readings of a step that training does
not need: times and losses go into arrays made beforehand, and signs of life are given between steps.

On a CPU a step is over when its call returns. A GPU works behind the host's back: there the host only
puts marks into its queue of work, one after each step, and waits once for each window of steps (the
first step, the rest of the warm-up, the measured steps or each block of them).
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.data.dataset import Indices
from jobs.machine import quota
from jobs.rank.watchdog import Watched
from jobs.strategies.interface import DeviceClock, Losses


@dataclass(frozen=True)
class Recording:
    """One phase of one rank; `calls` host calls of k steps. Seconds are per call: float64 [calls].

    `losses` is float64 [calls × k]. The first `warmup` steps are not part of the result. What comes after them are
    `blocks` blocks, each of a call that is no part of it either and others that are; no blocks if 0.
    """

    phase: str
    seconds: NDArray[np.float64]
    data_seconds: NDArray[np.float64]
    losses: NDArray[np.float64]
    samples_per_step: int
    warmup: int
    blocks: int = 0

    def rows(self, done: int) -> list[dict[str, object]]:
        """The step lines of the first `done` calls, as docs/results-format.md has them."""
        k = len(self.losses) // max(1, len(self.seconds))
        per_block = (len(self.losses) - self.warmup) // max(1, self.blocks)
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
            after = step - self.warmup
            if self.blocks:
                row["block"] = 0 if after < 0 else 1 + after // per_block
            if after < 0 or (self.blocks and after % per_block < k):
                row["warmup"] = True
            rows.append(row)
        return rows


@dataclass(frozen=True)
class Block:
    """A block of a phase, the `block`th: when it began and ended, Unix time in seconds."""

    phase: str
    block: int
    begin_unix: float
    end_unix: float


class Meter:
    """Runs a phase, at once or in blocks; what was recorded up to a failure can still be had from `recording`.

    `throttled` is how a CPU quota held the process back in the measured steps, None without one. `blocks` are the times
    of the blocks that have been run.
    """

    throttled: quota.Throttled | None = None

    def __init__(self, phase: str, batches: Indices, warmup: int, steps_per_call: int, blocks: int = 0) -> None:
        """`batches` is int32 [steps, b], this process's part; steps must be a multiple of k."""
        steps, samples = batches.shape
        if steps % steps_per_call or warmup % steps_per_call:
            raise ValueError(f"{steps} steps and {warmup} of warm-up are not multiples of {steps_per_call}")
        calls = steps // steps_per_call
        self._batches = batches.reshape(calls, steps_per_call, samples)
        self._warmup_calls = warmup // steps_per_call
        self._given: Any = None
        self.done = 0
        self.blocks: list[Block] = []
        self.recording = Recording(
            phase, np.zeros(calls), np.zeros(calls), np.zeros(steps), samples, warmup=warmup, blocks=blocks
        )

    def run(
        self,
        step: Callable[[Indices], Losses],
        watchdog: Watched,
        hang_seconds: float,
        clock: DeviceClock | None = None,
    ) -> None:
        """Do all calls of `step`. The first may take as long as the watchdog already allows."""
        self.warm_up(step, watchdog, hang_seconds, clock)
        self._measure(len(self._batches), step, watchdog, hang_seconds, clock)

    def warm_up(
        self,
        step: Callable[[Indices], Losses],
        watchdog: Watched,
        hang_seconds: float,
        clock: DeviceClock | None = None,
    ) -> None:
        """Do the calls of the warm-up. The first may take as long as the watchdog already allows."""
        self._do(min(self._warmup_calls, len(self._batches)), step, watchdog, hang_seconds, clock)
        gc.collect()
        gc.freeze()  # what start-up made is not looked through again in a measured step

    def run_block(
        self,
        step: Callable[[Indices], Losses],
        watchdog: Watched,
        hang_seconds: float,
        clock: DeviceClock | None = None,
    ) -> None:
        """Do the calls of the next block."""
        number = len(self.blocks) + 1
        per_block = (len(self._batches) - self._warmup_calls) // self.recording.blocks
        begin = time.time()
        self._measure(self._warmup_calls + number * per_block, step, watchdog, hang_seconds, clock)
        self.blocks.append(Block(self.recording.phase, number, begin, time.time()))

    def _measure(
        self,
        end: int,
        step: Callable[[Any], Losses],
        watchdog: Watched,
        hang_seconds: float,
        clock: DeviceClock | None,
    ) -> None:
        before = quota.throttling()
        self._do(end, step, watchdog, hang_seconds, clock)
        self.throttled = quota.added(self.throttled, quota.throttled_since(before))

    def _do(
        self,
        end: int,
        step: Callable[[Any], Losses],
        watchdog: Watched,
        hang_seconds: float,
        clock: DeviceClock | None,
    ) -> None:
        """All calls up to `end`."""
        if clock is not None:
            self._do_on_device(end, step, watchdog, hang_seconds, clock)
            return
        batches, k = self._batches, self._batches.shape[1]
        seconds, data_seconds = self.recording.seconds, self.recording.data_seconds
        losses = self.recording.losses
        for call in range(self.done, end):
            begin = perf_counter()
            batch = batches[call]
            ready = perf_counter()
            loss = step(batch)
            ended = perf_counter()
            seconds[call] = ended - begin
            data_seconds[call] = ready - begin
            losses[call * k : (call + 1) * k] = loss
            self.done = call + 1
            if call == 0:
                watchdog.allow(hang_seconds)
            elif ended >= watchdog.due:
                watchdog.beat()

    def _do_on_device(
        self, end: int, step: Callable[[Any], Losses], watchdog: Watched, hang_seconds: float, clock: DeviceClock
    ) -> None:
        """In one window, but for the very first call, which has one of its own."""
        if self._given is None:
            self._given = clock.load(self._batches)
        for begin, until in pairwise(sorted({self.done, min(max(self.done, 1), end), end})):
            losses = []
            clock.mark()
            for call in range(begin, until):
                losses.append(step(self._given[call]))
                clock.mark()
                if perf_counter() >= watchdog.due:
                    watchdog.beat()
            self.recording.seconds[begin:until], self.recording.losses[begin:until] = clock.read(losses)
            self.done = until
            watchdog.allow(hang_seconds)

    def rows(self) -> list[dict[str, object]]:
        return self.recording.rows(self.done)
