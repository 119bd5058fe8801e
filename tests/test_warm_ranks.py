"""Warm and bare ranks (tests/warm) are ranks like any other, but for what they are meant to leave out."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from cluster.launcher import Launch
from cluster.local.launcher import LocalLauncher
from jobs.contract.folder import write_trial
from jobs.contract.outcome import read_outcome
from jobs.contract.parts import Limits, Steps
from jobs.contract.trial import Trial
from tests.running import launch, ranks_of, until
from tests.warm.forges import lead, warm

STEPS = Steps(warmup=1, measured=5, compute_only=2)
FIXED = ("niceness", "cpus", "threads", "intra_op_threads", "inter_op_threads", "device", "parameters", "versions",
         "host", "test_accuracy")  # fmt: skip


@pytest.fixture
def led(forge_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lead(monkeypatch, warm(forge_folder))


@pytest.mark.parametrize("strategy", ["torch-ddp", "tf-multiworker"])
def test_a_warm_rank_does_what_one_does_that_was_started(
    strategy: str, forge_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_SCHEDULE", "static")  # a launcher's own rule takes it out
    trial = Trial.of(strategy=strategy, workers=2, global_batch=8, steps=STEPS, precision="float64")
    cold = launch(trial, tmp_path / "cold")
    lead(monkeypatch, warm(forge_folder))
    other = launch(trial, tmp_path / "warm")
    assert (cold.outcome.status, other.outcome.status) == ("ok", "ok")
    assert other.losses().tolist() == cold.losses().tolist()
    for ours, theirs in zip(other.outcome.ranks, cold.outcome.ranks, strict=True):
        assert ours.import_seconds < theirs.import_seconds / 2  # else it was no fork
        assert [getattr(ours, name) for name in FIXED] == [getattr(theirs, name) for name in FIXED]
        shells = [{k: v for k, v in rank.environment.items() if k != "PYTHONPATH"} for rank in (ours, theirs)]
        assert shells[0] == shells[1]  # but for what leads to the forge
    assert {p.name for p in other.folder.iterdir()} == {p.name for p in cold.folder.iterdir()}


@pytest.mark.usefixtures("led")
def test_the_reason_for_which_a_warm_rank_fails_is_in_its_log(tmp_path: Path) -> None:
    what = {"strategy": "torch", "workers": 1, "global_batch": 4, "data": {"kind": "mnist", "path": "/nowhere"}}
    done = launch(Trial.model_validate(what), tmp_path)
    assert (done.outcome.status, done.outcome.exits[0].exit_code) == ("failed", 1)
    assert "/nowhere: no such file" in done.outcome.error


@pytest.mark.parametrize(("ranks", "processes"), [("led", 4), ("bare_ranks", 2)])
def test_a_rank_that_is_killed_leaves_nothing(
    ranks: str, processes: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A warm rank is two processes: the one that the launcher knows, and the fork that does its work."""
    request.getfixturevalue(ranks)
    steps = Steps(warmup=1, measured=100_000, compute_only=0)
    trial = Trial.of(strategy="torch-ddp", workers=2, global_batch=4, steps=steps, limits=Limits(hang=30.0))
    launcher, folder = LocalLauncher({"oversubscribe": True}, tmp_path), tmp_path / "trials" / trial.id
    write_trial(folder, trial)
    launcher.start([Launch(trial, folder, 0)])
    until(lambda: len(list(folder.glob("rank-*.alive"))) == 2)
    theirs = [p for p in psutil.Process().children(recursive=True) if _works_in(folder, p)]
    assert len(theirs) == processes
    os.kill(ranks_of(folder)[1].pid, signal.SIGKILL)
    until(lambda: launcher.wait(0.5))
    outcome = read_outcome(folder)
    assert outcome is not None
    assert "SIGKILL" in outcome.error
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in theirs), 5)


def _works_in(folder: Path, process: psutil.Process) -> bool:
    """Whether it writes to a rank's log there."""
    try:
        return any(file.path.startswith(f"{folder}/rank-") for file in process.open_files())
    except psutil.Error:
        return False
