"""The timed loop."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jobs.contract.folder import write_trial
from jobs.contract.parts import Steps
from jobs.contract.trial import Trial
from jobs.data.dataset import Indices
from jobs.rank.watchdog import Watchdog
from jobs.workloads.meter import Meter


@pytest.fixture
def watchdog(tmp_path: Path) -> Watchdog:
    dog = Watchdog(tmp_path / "alive", 60.0)
    yield dog
    dog.stop()


def test_each_step_is_timed_and_the_warm_up_is_marked(watchdog: Watchdog) -> None:
    order = np.arange(5 * 4, dtype=np.int32).reshape(5, 4)
    seen: list[Indices] = []

    def step(batch: Indices) -> float:
        seen.append(batch.copy())
        time.sleep(0.5 if len(seen) == 4 else 0.001)  # on a busy machine a step may be late by much
        return float(len(seen))

    meter = Meter("train", order, warmup=2, steps_per_call=1)
    meter.run(step, watchdog, 60.0)
    rows = meter.rows()
    np.testing.assert_array_equal(np.concatenate(seen), order)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row.get("warmup", False) for row in rows] == [True, True, False, False, False]
    assert [row["loss"] for row in rows] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert {row["samples"] for row in rows} == {4}
    assert max(rows, key=lambda row: row["seconds"])["step"] == 3
    assert all(0 <= row["data_seconds"] <= row["seconds"] for row in rows)


def test_k_steps_per_call_share_the_calls_time(watchdog: Watchdog) -> None:
    meter = Meter("train", np.zeros((6, 2), np.int32), warmup=3, steps_per_call=3)
    meter.run(lambda batch: np.arange(len(batch), dtype=float), watchdog, 60.0)
    rows = meter.rows()
    assert [row["loss"] for row in rows] == [0, 1, 2] * 2
    assert len({row["seconds"] for row in rows[:3]}) == 1
    assert [row.get("warmup", False) for row in rows] == [True] * 3 + [False] * 3
    with pytest.raises(ValueError, match="multiples of 4"):
        Meter("train", np.zeros((6, 2), np.int32), warmup=2, steps_per_call=4)


def test_what_was_done_before_a_failure_is_kept(watchdog: Watchdog) -> None:
    def step(batch: Indices) -> float:
        if batch[0, 0] == 3:
            raise RuntimeError("gone")
        return float("nan")

    meter = Meter("train", np.arange(5, dtype=np.int32)[:, np.newaxis], warmup=0, steps_per_call=1)
    with pytest.raises(RuntimeError, match="gone"):
        meter.run(step, watchdog, 60.0)
    assert [row["loss"] for row in meter.rows()] == [None, None, None]


def test_garbage_is_looked_for_once_all_is_imported(tmp_path: Path) -> None:
    """The worker's process, from imports without a collector to steps with one."""
    trial = Trial.of(strategy="torch", workers=1, global_batch=2, steps=Steps(warmup=1, measured=1, compute_only=0))
    write_trial(tmp_path / "trial", trial)
    watched = f"""
import gc, jobs.worker, jobs.workloads.meter
train = jobs.workloads.meter.Meter.run
def run(*arguments):
    print(gc.isenabled(), gc.get_freeze_count() > 100_000, flush=True)
    train(*arguments)
jobs.workloads.meter.Meter.run = run
jobs.worker.main([{str(tmp_path / "trial")!r}])
"""
    done = subprocess.run([sys.executable, "-c", watched], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"


class SlowDevice:
    """A device that takes `seconds[i]` for step i, long after the host has told it to; a DeviceClock."""

    def __init__(self, seconds: list[float]) -> None:
        self._seconds = seconds
        self._begun = 0
        self._marks: list[float] = []
        self._now = 0.0
        self.waits = 0

    def load(self, batches: Indices) -> list[Indices]:
        return list(batches)

    def step(self, batch: Indices) -> int:
        self._now += self._seconds[self._begun]
        self._begun += 1
        return self._begun

    def mark(self) -> None:
        self._marks.append(self._now)

    def read(self, losses: list[int]) -> tuple[np.ndarray, np.ndarray]:
        self.waits += 1
        self._now += 100.0  # what passes between two windows is in none of them
        marks, self._marks = self._marks, []
        return np.diff(marks), np.array(losses, float)


def test_on_a_device_each_step_has_its_own_time_though_the_host_waits_once_a_window(watchdog: Watchdog) -> None:
    seconds = [3.0, 0.5, 0.2, 0.1, 0.4, 0.1]
    device = SlowDevice(seconds)
    meter = Meter("train", np.zeros((6, 2), np.int32), warmup=2, steps_per_call=1)
    meter.run(device.step, watchdog, 60.0, device)
    rows = meter.rows()
    np.testing.assert_allclose([row["seconds"] for row in rows], seconds)
    assert [row["loss"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row.get("warmup", False) for row in rows] == [True, True, False, False, False, False]
    assert {row["data_seconds"] for row in rows} == {0.0}
    assert device.waits == 3  # the first step, the other warm-up, all measured steps


@pytest.mark.parametrize(("steps", "warmup", "waits"), [(1, 1, 1), (4, 1, 2), (4, 0, 2)])
def test_a_window_is_never_empty(steps: int, warmup: int, waits: int, watchdog: Watchdog) -> None:
    device = SlowDevice([1.0] * steps)
    meter = Meter("train", np.zeros((steps, 2), np.int32), warmup=warmup, steps_per_call=1)
    meter.run(device.step, watchdog, 60.0, device)
    assert [row["seconds"] for row in meter.rows()] == [1.0] * steps
    assert device.waits == waits


class Event:
    """A torch.cuda.Event: `record` puts it in the queue, its times can be had after `synchronize`."""

    made: list["Event"] = []

    def __init__(self) -> None:
        self.at, self.known = 0.0, False
        self.made.append(self)

    def record(self) -> None:
        self.at = 2.5 * len(self.made)

    def synchronize(self) -> None:
        for event in self.made[: self.made.index(self) + 1]:
            event.known = True

    def elapsed_time(self, end: "Event") -> float:
        assert self.known
        assert end.known
        return end.at - self.at


def test_the_clock_of_a_gpu_reads_events_in_milliseconds_and_losses_together() -> None:
    import torch

    from jobs.strategies.torch.device import CudaClock

    clock = CudaClock(torch.device("cpu"), Event)
    first, second = clock.load(np.arange(4, dtype=np.int32).reshape(2, 1, 2))
    assert (first.tolist(), second.tolist()) == ([[0, 1]], [[2, 3]])
    for _ in range(2):
        for _ in range(3):
            clock.mark()
        seconds, losses = clock.read([torch.tensor(0.5), torch.tensor(0.25)])
        np.testing.assert_allclose(seconds, [0.0025, 0.0025])
        np.testing.assert_array_equal(losses, [0.5, 0.25])


def test_after_the_first_step_a_rank_may_be_silent_for_the_hang_limit_only(tmp_path: Path, watchdog: Watchdog) -> None:
    """The fixture's watchdog allows a minute, as for a start-up."""
    allowed = []

    def step(batch: Indices) -> float:
        allowed.append((tmp_path / "alive").stat().st_mtime - time.time())
        return 0.0

    Meter("train", np.zeros((3, 2), np.int32), warmup=1, steps_per_call=1).run(step, watchdog, 500.0)
    assert allowed == pytest.approx([60, 500, 500], abs=20)
