"""How much of the machine a trial gets: `make bench PART=training`, some four minutes on two cores.

A trial and another program take turns on the same cores, once for each pair: the intervals are over turns.
BENCH_LAUNCHES=3 launches each pair three times, which the figures need that are to be quoted: where a process's
memory happens to lie makes it faster or slower by some percent for all of its life.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cluster.launcher import Launch
from cluster.local.launcher import LocalLauncher
from jobs.contract.folder import write_trial
from jobs.contract.outcome import read_outcome
from jobs.contract.parts import Steps
from jobs.contract.trial import Trial
from jobs.machine.cores import allowed_cores
from jobs.models import layers
from jobs.rank.watchdog import Watchdog
from jobs.workloads.meter import Meter
from tests.benchmarks.ratios import LAUNCHES, Part, at_least, at_most
from tests.benchmarks.turns import Turn, start_rival, take_turns
from tests.running import until

BIN = Path(sys.executable).parent
BARE = Path(__file__).with_name("bare")
BATCH = 64
STEPS = 150

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]


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
    return Trial.of(strategy=strategy, workers=workers, global_batch=BATCH * workers, repeat=repeat, steps=plan)


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
def test_the_worker_is_as_fast_as_a_bare_loop(strategy: str, tmp_path: Path, part: Part) -> None:
    if len(allowed_cores()) < 2:
        pytest.skip("needs two cores")
    launches = turns(strategy, bare(strategy, STEPS), tmp_path)
    ratios = [float(np.mean(turn.rival) / np.mean(turn.ours)) for launch in launches for turn in launch]
    each = ", ".join(
        f"{np.median([np.mean(turn.rival) / np.mean(turn.ours) for turn in launch]):.3f}" for launch in launches
    )
    rate = np.median([BATCH / np.mean(turn.ours) for launch in launches for turn in launch])
    note = f"by launch {each}; {rate:.0f} samples/s per worker"
    assert part.keep(f"{strategy}: rate / bare loop's", ratios, at_least(0.99, 0.95), note).holds


@pytest.mark.parametrize(("strategy", "target"), [("torch", 0.60), ("tf", 0.68)])
def test_the_base_case_is_near_the_limit_of_the_core(strategy: str, target: float, tmp_path: Path, part: Part) -> None:
    """Over the largest matrix products of the neighbouring turn: the smaller are over before anybody interrupts."""
    command = [sys.executable, str(BARE / "peak.py"), "8"]
    found = [turn for launch in turns(strategy, command, tmp_path) for turn in launch]
    flop = BATCH * layers.load("cnn").training_flop(28)
    rates = [1e-9 * flop / np.mean(turn.ours) for turn in found]
    peaks = [1e-9 * _rate_of_largest(turn) for turn in found]
    ratios = [float(rate / peak) for rate, peak in zip(rates, peaks, strict=True)]
    note = f"{np.median(rates):.0f} of {np.median(peaks):.0f} GFLOP/s; best {max(rates):.0f} of {max(peaks):.0f}"
    assert part.keep(f"{strategy}: GFLOP/s / core's peak", ratios, at_least(target, 0.8 * target), note).holds


def _rate_of_largest(turn: Turn) -> float:
    largest = turn.rival_work == turn.rival_work.max()
    return float(turn.rival_work[largest].sum() / turn.rival[largest].sum())


def test_two_workers_train_sooner_than_with_torchrun(tmp_path: Path, part: Part) -> None:
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
    assert part.keep("torch-ddp: to first step / torchrun's", ratios, at_most(0.80, 0.95), note).holds


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


def test_the_clock_and_the_signs_of_life_are_nothing_beside_a_step(tmp_path: Path, part: Part) -> None:
    """The meter's own loop around a step that does nothing, less a bare loop around the same; over a step that
    trains the base case. A sign of life is given once a second at most, so in one step of some twenty."""
    subprocess.run([*bare("torch", 40), str(tmp_path / "bare")], check=True)
    training = float(np.median(json.loads((tmp_path / "bare.0").read_text())["seconds"]))
    indices = np.zeros((20_000, BATCH), np.int32)

    def step(batch: object) -> float:
        return 0.0

    def bare_loop() -> None:
        for batch in indices:
            step(batch)

    watchdog = Watchdog(tmp_path / "alive", 60.0)
    try:
        loops, beats = [], []
        for _ in range(9):
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
            loops.append((metered - plain) / len(indices) / training)
            beats.append(beating / 200 / training)
    finally:
        watchdog.stop()
    meters = part.keep("meter / step of the CNN", loops, at_most(0.0002, 0.001))
    signs = part.keep("sign of life / step of the CNN", beats, at_most(0.01, 0.05))
    assert meters.holds
    assert signs.holds
