"""How much of the machine a trial gets, as ratios within one run: `make bench`, some ten minutes.

Fails only on what cannot be noise; the figures and their targets are in the table.
BENCH_LAUNCHES=1 makes it short.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cluster.launcher import Launch
from cluster.local import LocalLauncher
from jobs import models
from jobs.cores import allowed_cores
from jobs.meter import Meter
from jobs.results import read_outcome, write_trial
from jobs.trial import Steps, Trial
from jobs.watchdog import Watchdog
from tests.benchmarks.ratios import Measured, publish, summarize
from tests.benchmarks.turns import Turn, start_rival, take_turns
from tests.running import until

BIN = Path(sys.executable).parent
BARE = Path(__file__).with_name("bare")
BATCH = 64
LAUNCHES = int(os.environ.get("BENCH_LAUNCHES", "3"))
STEPS = 300

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def measured() -> Iterator[list[Measured]]:
    """What the tests have measured; shown in one table at the end, even if one of them failed."""
    found: list[Measured] = []
    yield found
    publish("training", found)


def bare(strategy: str, steps: int) -> list[str]:
    """The command of the bare loop that does what `strategy` does."""
    framework, _, how = strategy.partition("-")
    script = [str(BARE / f"bare_{framework}.py"), how or "none", str(steps)]
    if how == "ddp":
        return [str(BIN / "torchrun"), "--nproc_per_node", "2", *script]
    if how == "horovod":
        run = [str(BIN / "horovodrun"), "-np", "2", "--gloo", "--network-interfaces", "lo"]
        return [*run, sys.executable, *script]
    return [sys.executable, *script]


def trial(strategy: str, repeat: int, steps: int = STEPS) -> Trial:
    workers = 2 if "-" in strategy else 1
    plan = Steps(warmup=10, measured=steps - 10, compute_only=0)
    return Trial(strategy=strategy, workers=workers, global_batch=BATCH * workers, repeat=repeat, steps=plan)


def turns(strategy: str, command: list[str], folder: Path) -> list[list[Turn]]:
    """One list for each launch. The other program has as many ranks as the trial."""
    ranks = trial(strategy, 0).processes
    made = []
    for repeat in range(LAUNCHES):
        results = folder / str(repeat)
        results.mkdir()
        made.append(take_turns(trial(strategy, repeat), command, results, ranks))
    return made


@pytest.mark.parametrize(
    "strategy",
    [
        "torch",
        "tf",
        "torch-ddp",
        pytest.param("torch-horovod", marks=pytest.mark.horovod),
        pytest.param("tf-horovod", marks=pytest.mark.horovod),
    ],
)
def test_the_worker_is_as_fast_as_a_bare_loop(strategy: str, tmp_path: Path, measured: list[Measured]) -> None:
    if len(allowed_cores()) < 2:
        pytest.skip("needs two cores")
    launches = turns(strategy, bare(strategy, STEPS), tmp_path)
    ratios = [float(np.mean(turn.rival) / np.mean(turn.ours)) for launch in launches for turn in launch]
    each = ", ".join(
        f"{np.median([np.mean(turn.rival) / np.mean(turn.ours) for turn in launch]):.3f}" for launch in launches
    )
    rate = np.median([BATCH / np.mean(turn.ours) for launch in launches for turn in launch])
    note = f"by launch {each}; {rate:.0f} samples/s per worker"
    measured.append(summarize(f"{strategy}: rate / bare loop's", ratios, "≥ 0.99", note))
    assert measured[-1].median > 0.9


@pytest.mark.parametrize(("strategy", "target"), [("torch", 0.60), ("tf", 0.68)])
def test_the_base_case_is_near_the_limit_of_the_core(
    strategy: str, target: float, tmp_path: Path, measured: list[Measured]
) -> None:
    command = [sys.executable, str(BARE / "peak.py"), "14"]
    found = [turn for launch in turns(strategy, command, tmp_path) for turn in launch]
    flop = BATCH * models.load("cnn").training_flop(28)
    rates = [1e-9 * flop / np.median(turn.ours) for turn in found]
    peaks = [float(np.max(1e-9 * turn.rival_work / turn.rival)) for turn in found]
    ratios = [float(rate / peak) for rate, peak in zip(rates, peaks, strict=True)]
    note = f"{np.median(rates):.0f} of {np.median(peaks):.0f} GFLOP/s; best {max(rates):.0f} of {max(peaks):.0f}"
    measured.append(summarize(f"{strategy}: GFLOP/s / core's peak", ratios, f"≥ {target:.2f}", note))
    assert measured[-1].median > 0.4


def test_two_workers_train_sooner_than_with_torchrun(tmp_path: Path, measured: list[Measured]) -> None:
    pairs = 3 * LAUNCHES
    ours, theirs = [], []
    for repeat in range(pairs):
        for side in (0, 1) if repeat % 2 else (1, 0):  # neither is always first
            if side:
                ours.append(_seconds_to_first_step(tmp_path, repeat))
            else:
                theirs.append(_seconds_of_torchrun(tmp_path / f"torchrun{repeat}"))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    note = f"{np.median(ours):.2f} s / {np.median(theirs):.2f} s"
    measured.append(summarize("torch-ddp: to first step / torchrun's", ratios, "≤ 0.80", note))
    assert measured[-1].median < 1.0


def _seconds_to_first_step(results: Path, repeat: int) -> float:
    launcher, job = LocalLauncher({}, results), trial("torch-ddp", repeat, steps=20)
    folder = results / "trials" / job.id
    write_trial(folder, job)
    began = time.time()
    launcher.start([Launch(job, folder, repeat)])
    try:
        until(lambda: launcher.wait(0.5))
    finally:
        launcher.close()
    outcome = read_outcome(folder)
    assert outcome is not None
    assert outcome.status == "ok", outcome.error
    return max(rank.train_started_unix + rank.first_step_seconds for rank in outcome.ranks) - began


def _seconds_of_torchrun(out: Path) -> float:
    began = time.time()
    rival = start_rival(bare("torch-ddp", 20), out, ranks=2)
    assert rival.process.wait(120) == 0
    return max(float(rival.first(rank)["unix"]) for rank in range(2)) - began


def test_the_clock_and_the_signs_of_life_cost_microseconds(tmp_path: Path, measured: list[Measured]) -> None:
    """The meter's own loop around a step that does nothing, less a bare loop around the same."""
    indices = np.zeros((20_000, BATCH), np.int32)

    def step(batch: object) -> float:
        return 0.0

    def bare_loop() -> None:
        for batch in indices:
            step(batch)

    watchdog = Watchdog(tmp_path / "alive", 60.0)
    try:
        loops, beats = [], []
        for _ in range(5):
            meter = Meter("train", indices, 10, 1)
            clock = [time.perf_counter()]
            meter.run(step, watchdog, 60.0)
            clock.append(time.perf_counter())
            bare_loop()
            clock.append(time.perf_counter())
            for _ in range(200):
                watchdog.beat()
            clock.append(time.perf_counter())
            metered, plain, beating = (b - a for a, b in pairwise(clock))
            loops.append(1e6 * (metered - plain) / len(indices))
            beats.append(1e6 * beating / 200)
    finally:
        watchdog.stop()
    # Far from what a step takes, some 45,000 µs here; a sign of life is given once a second at most.
    measured.append(summarize("meter: µs per step", loops, "< 50"))
    measured.append(summarize("sign of life: µs per second", beats, "< 1000"))
    assert measured[-2].median < 200
    assert measured[-1].median < 5000
