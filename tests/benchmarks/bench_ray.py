"""Our Ray launcher beside Ray Train on the same running cluster: `make bench PART=ray`, some two minutes on two cores.

BENCH_LAUNCHES=3 has three times the launches, and gives figures that can be quoted.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.launcher import Launch
from cluster.ray.launcher import RayLauncher
from jobs.contract.folder import write_trial
from jobs.contract.outcome import read_outcome
from jobs.contract.parts import Steps
from jobs.contract.trial import Trial
from jobs.machine.cores import allowed_cores
from tests.benchmarks.ratios import LAUNCHES, Part, at_least, at_most
from tests.benchmarks.turns import start_rival, take_turns
from tests.cluster.ray.nodes import Cluster, short_folder, started
from tests.running import until

RAY_TRAIN = [sys.executable, str(Path(__file__).with_name("bare") / "bare_ray_train.py")]
BATCH = 64
STEPS = 150
PAIRS = 2 * LAUNCHES

pytestmark = [pytest.mark.bench, pytest.mark.ray, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def launcher(part: Part) -> Iterator[RayLauncher]:
    """A launcher that is connected to a cluster of one node, with room for both sides at once."""
    if len(allowed_cores()) < 2:
        pytest.skip("needs two cores")
    with short_folder() as folder, pytest.MonkeyPatch.context() as patch:
        for variable in [v for v in os.environ if v.startswith("RAY_")]:
            patch.delenv(variable)
        cluster: Cluster = started(Path(folder), 1, cpus=6)
        try:
            for name, value in cluster.environment().items():
                patch.setenv(name, value)
            patch.setenv("RAY_ADDRESS", cluster.address)
            patch.setenv("PYTHONWARNINGS", "ignore")
            made = RayLauncher({}, Path(folder))
            assert made.refuse([trial(0, 20)]) == []
            yield made
            made.close()
        finally:
            cluster.close()


def trial(repeat: int, steps: int) -> Trial:
    plan = Steps(warmup=10, measured=steps - 10, compute_only=0)
    return Trial.of(strategy="torch-ddp", workers=2, global_batch=2 * BATCH, repeat=repeat, steps=plan)


def test_two_workers_train_as_fast_as_under_ray_train(launcher: RayLauncher, tmp_path: Path, part: Part) -> None:
    ratios, rates = [], []
    for repeat in range(LAUNCHES):
        results = tmp_path / str(repeat)
        results.mkdir()
        for turn in take_turns(trial(repeat, STEPS), [*RAY_TRAIN, str(STEPS)], results, ranks=2, launcher=launcher):
            ratios.append(float(np.mean(turn.rival) / np.mean(turn.ours)))
            rates.append(BATCH / np.mean(turn.ours))
    note = f"{np.median(rates):.0f} samples/s per worker"
    assert part.keep("torch-ddp: rate / Ray Train's", ratios, at_least(0.99, 0.95), note).holds


def test_two_workers_train_sooner_than_under_ray_train(launcher: RayLauncher, tmp_path: Path, part: Part) -> None:
    ours, theirs = [], []
    for repeat in range(PAIRS):
        for side in (0, 1) if repeat % 2 else (1, 0):  # neither is always first
            if side:
                ours.append(_seconds_to_first_step(launcher, tmp_path, repeat))
            else:
                theirs.append(_seconds_of_ray_train(tmp_path / f"train{repeat}"))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    note = f"{np.median(ours):.2f} s / {np.median(theirs):.2f} s"
    assert part.keep("torch-ddp: to first step / Ray Train's", ratios, at_most(0.40, 0.60), note).holds


def _seconds_to_first_step(launcher: RayLauncher, results: Path, repeat: int) -> float:
    job = trial(repeat, 20)
    folder = results / "trials" / job.id
    write_trial(folder, job)
    began = time.time()
    launcher.start([Launch(job, folder, repeat)])
    until(lambda: launcher.wait(0.5))
    outcome = read_outcome(folder)
    assert outcome is not None
    assert outcome.status == "ok", outcome.error
    return max(rank.train_started_unix + rank.first_step_seconds for rank in outcome.ranks) - began


def _seconds_of_ray_train(out: Path) -> float:
    rival = start_rival([*RAY_TRAIN, "20"], out, ranks=2)
    assert rival.process.wait(180) == 0, out.with_suffix(".log").read_text()[-2000:]
    began = float(json.loads(Path(f"{out}.began").read_text())["unix"])
    return max(float(rival.first(rank)["unix"]) for rank in range(2)) - began
