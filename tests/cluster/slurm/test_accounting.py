"""The SLURM launcher where accounting is on, with its limits, and a partition whose jobs end others'.

A cluster of its own for this file: slurm/practice with a real slurmdbd behind it.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.slurm import launcher as launching
from cluster.slurm import queue
from cluster.slurm.launcher import SlurmLauncher
from tests.cluster.slurm import practice
from tests.cluster.slurm.practice import slurm
from tests.cluster.slurm.runs import Watched, begin, drive, end, endless, scaling, write_study
from tests.running import until

LAB = {"nodes": 4, "account": "lab"}

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.accounting,
    pytest.mark.usefixtures("bare_ranks", "_all_idle"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def _accounting() -> Iterator[None]:
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    with practice.practice_cluster(folder), practice.accounting(folder):
        yield
    shutil.rmtree(folder)


@pytest.fixture
def _all_idle(_accounting: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(launching, "SETTLE_SECONDS", 2.0)
    monkeypatch.setattr(launching, "FULL_SECONDS", 1.0)
    monkeypatch.setattr(launching, "POLL_SECONDS", 0.3)
    practice.empty()
    yield
    practice.empty()


def held(account: str = "lab") -> str:
    """A job of this user's that stays in the queue."""
    return slurm("sbatch", "--parsable", f"--account={account}", "--hold", "--wrap=true").strip()


def ended(wrap: str) -> str:
    """A job that has run `wrap` and is over, for accounting too."""
    job = slurm("sbatch", "--parsable", "--account=lab", "--output=/dev/null", f"--wrap={wrap}").strip()
    until(lambda: queue.last_word(job), 30)
    return job


def test_accounting_tells_what_became_of_jobs_that_the_queue_has_forgotten() -> None:
    states = [queue.last_word(ended(wrap)) for wrap in ("true", "exit 7")]
    assert [(s.state, s.nodes) for s in states if s] == [("COMPLETED", "n1"), ("FAILED", "n1")]
    waiting = held()
    assert queue.last_word(waiting) is None  # it goes on, whatever accounting says of it today
    slurm("scancel", waiting)
    until(lambda: queue.last_word(waiting), 30)
    state = queue.last_word(waiting)
    assert state is not None
    assert (state.state, state.nodes) == ("CANCELLED", "")


def test_a_cancelled_job_is_told_as_it_was_when_only_accounting_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher, folder = begin(endless(), tmp_path, account="lab")
    job = launcher.running()[folder.name].job
    slurm("scancel", job)
    until(lambda: queue.last_word(job), 30)
    real = queue.jobs
    monkeypatch.setattr(queue, "jobs", lambda: {k: v for k, v in real().items() if k != job})
    outcome = end(launcher, folder, within=30)
    assert (outcome.status, outcome.error) == ("cancelled", f"job {job} ended as CANCELLED on n[1-2]")


def test_a_limit_on_submitted_jobs_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account may have one job in the queue, and has it when the study begins."""
    others, spent = held(), time.process_time()
    ticks: list[float] = []

    def let_go() -> None:
        ticks.append(time.monotonic())
        if len(ticks) == 3:
            slurm("scancel", others)

    monkeypatch.setenv("SBATCH_ACCOUNT", "lab")  # as people do; the study names none
    slurm("sacctmgr", "-i", "modify", "account", "lab", "set", "maxsubmitjobs=1")
    try:
        left = scaling("run", write_study(tmp_path, workers=[1]), "--results", tmp_path / "left", "--detach")
        summary, _ = drive(tmp_path / "results", Watched(let_go), workers=[1], repeats={"min": 2})
    finally:
        slurm("sacctmgr", "-i", "modify", "account", "lab", "set", "maxsubmitjobs=-1")
    assert (left.returncode, "1 launches do not fit in the queue yet" in left.stdout) == (0, True), left.stderr
    assert (summary.ok, summary.failed) == (2, [])
    assert ticks[2] - ticks[0] > 1.0  # it waits, and does not spin
    assert time.process_time() - spent < 10


def test_a_limit_that_no_waiting_helps_is_told_in_slurms_words(tmp_path: Path) -> None:
    launcher, point = SlurmLauncher(LAB | {"time": 10}, tmp_path), endless(trial=60.0)
    slurm("sacctmgr", "-i", "modify", "qos", "normal", "set", "flags=DenyOnLimit", "maxwall=5")
    try:
        (fault,) = launcher.refuse([point])
        with pytest.raises(queue.SlurmError) as error:
            queue.submit(next((tmp_path / "slurm" / "refused").glob("*.sbatch")))
    finally:
        slurm("sacctmgr", "-i", "modify", "qos", "normal", "set", "flags=-1", "maxwall=-1")
    assert "QOSMaxWallDurationPerJobLimit" in fault
    assert error.type is queue.SlurmError  # and not QueueFull, which is tried again
    (fault,) = SlurmLauncher({"nodes": 4, "account": "nobody"}, tmp_path).refuse([point])
    assert "Invalid account or account/partition combination specified" in fault


def test_a_preempted_trial_is_done_again(tmp_path: Path) -> None:
    done: list[str] = []

    def preempt() -> None:
        if not done and list(tmp_path.glob("trials/*/rank-00001.alive")):
            wrap = ["--output=/dev/null", "--wrap=true"]
            done.append(slurm("sbatch", "--account=lab", "--partition=urgent", "--nodes=4", "--exclusive", *wrap))

    steps = {"warmup": 1, "measured": 1500, "compute_only": 0}
    launcher = LAB | {"kind": "slurm", "partition": "practice"}
    summary, folder = drive(tmp_path, Watched(preempt), workers=[2], steps=steps, launcher=launcher)
    assert done
    assert (summary.ok, summary.failed) == (1, [])
    assert any("was lost: job" in line and "PREEMPTED" in line for line in folder.moved), folder.moved
