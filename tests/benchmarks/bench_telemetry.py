"""What the telemetry costs a training: `make bench PART=telemetry`, a minute and a half. BENCH_TURNS=60 is more exact.

The sampler is stopped (SIGSTOP) and let go by turns while one trial trains, so that neighbouring turns
differ in nothing else. On a machine that is not quiet that is not enough to see 0.5 %: so also what a sample
adds to the step that it falls into, and the next, over the steps around them, of the same tenth of a second.
"""

from __future__ import annotations

import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from cluster.launcher import Launch
from cluster.local.launcher import LocalLauncher
from jobs.contract.folder import write_trial
from jobs.contract.outcome import Outcome, read_outcome
from jobs.contract.parts import Steps, Telemetry
from jobs.contract.trial import Trial
from tests.benchmarks.ratios import Part, at_least, at_most
from tests.benchmarks.turns import FEWEST_STEPS, TURN_SECONDS, let_work, trains
from tests.running import Done, ranks_of, until
from tests.sampler import read

TURNS = int(os.environ.get("BENCH_TURNS", "20"))
STEPS = 34 * TURNS  # more than the turns last: one takes some 45 ms on a core of 2026
AROUND = 3  # steps on either side of the one that a sample falls into
HERTZ = 2.0

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]


@pytest.mark.parametrize(("strategy", "workers"), [("torch-ddp", 2), ("torch", 1)])
def test_training_does_not_notice_the_sampler(strategy: str, workers: int, tmp_path: Path, part: Part) -> None:
    plan = Steps(warmup=10, measured=STEPS - 10, compute_only=0)
    trial = Trial.of(
        strategy=strategy, workers=workers, global_batch=64 * workers, steps=plan, telemetry=Telemetry(hertz=HERTZ)
    )
    done, turns = run_by_turns(trial, tmp_path)
    (file,) = done.folder.glob("telemetry-*.jsonl")
    (start,), (end,) = read(file, "start"), read(file, "end")
    assert end["samples"] >= TURNS * TURN_SECONDS / 2 * HERTZ / 2, "the sampler did not sample in its turns"
    where = "on the workers' cores" if start["shares_cores"] else "on a core of its own"
    found = [
        part.keep(f"{strategy}: rate with the sampler / without", ratios(done, turns), at_least(0.995, 0.98), where)
    ]
    added = np.array(added_seconds(done, [row["unix"] for row in read(file, "sample")]))
    chunks = [float(1 - HERTZ * chunk.mean()) for chunk in np.array_split(added, 8)]
    note = f"a sample adds {1000 * added.mean():.2f} ms (median {1000 * np.median(added):.2f}) to its steps"
    found.append(part.keep(f"{strategy}: the same, by the steps hit", chunks, at_least(0.995, 0.97), note))
    share = end["cpu_seconds"] / end["samples"] * HERTZ
    note = f"{1000 * end['start_cpu_seconds']:.0f} ms of CPU to start"
    found.append(part.keep(f"{strategy}: sampler's CPU time / time", [share], at_most(0.01, 0.03), note))
    for figure in found:
        assert figure.holds


def run_by_turns(trial: Trial, results: Path) -> tuple[Done, list[tuple[float, bool]]]:
    """Run `trial`, and stop its sampler by turns: from when (Unix time) it was let run, or not."""
    launcher, folder = LocalLauncher({}, results), results / "trials" / trial.id
    write_trial(folder, trial)
    launcher.start([Launch(trial, folder, 0)])
    turns: list[tuple[float, bool]] = []
    try:
        sampler = until(lambda: sampler_of(folder), 120)
        until(lambda: list(folder.glob("telemetry-*.jsonl")), 120)  # it has begun
        until(lambda: launcher.wait(0.0) or trains(folder, trial), 120)
        ranks = ranks_of(folder)
        for turn in range(TURNS):
            (sampler.suspend if turn % 2 else sampler.resume)()
            turns.append((time.time(), turn % 2 == 0))
            let_work(ranks)
            assert not launcher.wait(0.0), "the trial ended before the turns did"
        sampler.resume()
        turns.append((time.time(), True))
        while not launcher.wait(1.0):
            pass
    finally:
        launcher.close()
    outcome = read_outcome(folder)
    assert isinstance(outcome, Outcome)
    assert outcome.status == "ok", outcome.error
    return Done(trial, folder, outcome), turns


def sampler_of(folder: Path) -> psutil.Process | None:
    children = [child for rank in ranks_of(folder) for child in rank.children()]
    return next((child for child in children if "jobs.telemetry.sampler" in child.cmdline()), None)


def steps_of(done: Done) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each training step: seconds, of its slowest rank, and when it ended (Unix time)."""
    ranks = [[row["seconds"] for row in done.rows(rank, "train")] for rank in range(done.trial.processes)]
    seconds = np.asarray(np.max(ranks, axis=0), np.float64)
    return seconds, done.outcome.ranks[0].train_started_unix + np.cumsum(seconds)


def added_seconds(done: Done, times: list[float]) -> list[float]:
    """What each sample added to two steps, over the mean of the steps around them."""
    seconds, ends = steps_of(done)
    found = []
    for hit in np.searchsorted(ends, times):
        before, after = seconds[hit - AROUND : hit], seconds[hit + 2 : hit + 2 + AROUND]
        if hit - AROUND >= done.trial.steps.warmup and len(after) == AROUND:
            found.append(float(seconds[hit : hit + 2].sum() - 2 * np.mean([*before, *after])))
    return found


def ratios(done: Done, turns: list[tuple[float, bool]]) -> list[float]:
    """The rate of each turn with the sampler over the mean one of the turns without it on either side."""
    seconds, ends = steps_of(done)
    rates = []
    for (begin, running), (end, _) in pairwise(turns):
        whole = (ends - seconds >= begin) & (ends <= end)
        whole[: done.trial.steps.warmup] = False
        rates.append((running, 1 / seconds[whole].mean() if whole.sum() >= FEWEST_STEPS else np.nan))
    both = [
        2 * on / (before + after)
        for (_, before), (running, on), (_, after) in zip(rates, rates[1:], rates[2:], strict=False)
        if running
    ]
    return [ratio for ratio in both if np.isfinite(ratio)]
