"""What SLURM costs a study: the start of a packed trial, and the driver's own polls.

`make bench PART=slurm`, some two minutes on two cores: on the practice cluster, started for this and ended after it.
BENCH_LAUNCHES=3 has three times the trials.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from cluster.launcher import Launch
from cluster.local.launcher import LocalLauncher
from cluster.slurm.launcher import SlurmLauncher
from jobs.contract.files import RankExit
from jobs.contract.folder import write_trial
from jobs.contract.outcome import Outcome, conclude, now, read_outcome
from jobs.contract.parts import Steps, Telemetry
from jobs.contract.trial import Trial
from tests.benchmarks.ratios import LAUNCHES, Part, at_most
from tests.cluster.slurm.practice import absent, practice_cluster, slurm

TRIALS = 2 * LAUNCHES  # in each of two packed jobs
KNOWN, QUEUED = 2000, 200

pytestmark = [pytest.mark.bench, pytest.mark.slurm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def cluster(part: Part) -> Iterator[None]:
    if why := absent():
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, practice_cluster(Path(folder)):
        yield


def trials(count: int, hertz: float) -> list[Trial]:
    same = Trial.of(
        strategy="torch-ddp",
        workers=2,
        global_batch=64,
        steps=Steps(warmup=1, measured=5, compute_only=0),
        telemetry=Telemetry(hertz=hertz),
    )
    return [same.model_copy(update={"repeat": r}) for r in range(count)]


def launches(results: Path, made: list[Trial]) -> list[Launch]:
    for trial in made:
        write_trial(results / "trials" / trial.id, trial)
    return [Launch(trial, results / "trials" / trial.id, order) for order, trial in enumerate(made)]


def seconds_to_first_step(folder: Path) -> float:
    """From the start of srun, or of the first rank's process, to the first training step."""
    outcome = read_outcome(folder)
    assert isinstance(outcome, Outcome)
    assert outcome.status == "ok", outcome.error
    return outcome.ranks[0].train_started_unix - datetime.fromisoformat(outcome.started).timestamp()


def test_a_packed_trial_starts_almost_as_soon_as_a_local_one(tmp_path: Path, part: Part) -> None:
    """With telemetry, and so at a disadvantage: here two nodes are one machine, which starts a sampler for each."""
    hertz = Telemetry().hertz
    local = LocalLauncher({}, tmp_path / "local")
    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(2):  # local, packed, local, packed: neither has the machine at its best time
        for launch in launches(tmp_path / f"local{turn}", trials(TRIALS, hertz)):
            local.start([launch])
            while not local.wait(1.0):
                pass
            theirs.append(seconds_to_first_step(launch.folder))
        packed = SlurmLauncher({"nodes": 2, "allocation": "packed", "time": 30}, tmp_path / f"slurm{turn}")
        started = launches(tmp_path / f"slurm{turn}", trials(TRIALS, hertz))
        packed.start(started)
        while packed.running():
            packed.wait(1.0)
        ours += [seconds_to_first_step(launch.folder) for launch in started]
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    note = f"{np.median(ours):.2f} s / {np.median(theirs):.2f} s to the first step of torch-ddp on two workers"
    assert part.keep("packed trial: to first step / a local one's", ratios, at_most(1.10, 1.25), note).holds


def test_a_poll_of_a_large_study_is_cheap(tmp_path: Path, part: Part) -> None:
    launcher = SlurmLauncher({"nodes": 2, "max_queued": QUEUED, "sbatch": ["--hold"]}, tmp_path)
    everything = launches(tmp_path, trials(KNOWN, 0.0))
    for launch in everything[: KNOWN - QUEUED]:
        exits = [RankExit(rank=rank, exit_code=1) for rank in (0, 1)]
        conclude(
            launch.folder, status="failed", error="x", launcher="slurm", order=launch.order, started=now(), exits=exits
        )
    began = time.perf_counter()
    launcher.start(everything[KNOWN - QUEUED :])
    submit = time.perf_counter() - began
    polls, calls = [], []
    for _ in range(12):
        began = time.perf_counter()
        launcher._poll()
        launcher.running()
        polled = time.perf_counter()
        slurm("squeue", "--me", "--noheader", "--states=all")
        polls.append(polled - began)
        calls.append(time.perf_counter() - polled)
    ratios = [a / b for a, b in zip(polls, calls, strict=True)]
    began = time.perf_counter()
    again = SlurmLauncher({"nodes": 2}, tmp_path)
    again.resume()
    resume = time.perf_counter() - began
    assert len(again.running()) == len(launcher.running()) == QUEUED
    slurm("scancel", "--me")
    call = np.median(calls)
    more = f"one submission {submit / QUEUED / call:.1f}, resume {resume / call:.0f}"
    note = f"{KNOWN} trials known, {QUEUED} queued; {more}"
    assert part.keep("driver: one poll / one squeue", ratios, at_most(1.5, 3.0), note).holds
