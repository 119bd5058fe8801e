"""What SLURM does with jobs that take too much memory or are too late, on a SLURM of its own that counts memory."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.launcher import Launch
from cluster.slurm import launcher as launching
from cluster.slurm.launcher import SlurmLauncher
from jobs.contract.folder import write_trial
from tests.cluster.slurm import practice
from tests.cluster.slurm.practice import slurm
from tests.cluster.slurm.runs import end, endless
from tests.running import until
from tests.warm.forges import SITE

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("bare_ranks", "_all_idle"), pytest.mark.timeout(300)]

COUNTED = {
    "JobAcctGatherType": "jobacct_gather/linux",
    "JobAcctGatherFrequency": "task=1",
    "JobAcctGatherParams": "OverMemoryKill",
    "SelectTypeParameters": "CR_CPU_Memory",
    "DefMemPerCPU": "200",
}


@pytest.fixture(scope="module")
def _counts_memory() -> Iterator[None]:
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    with practice.practice_cluster(folder, **COUNTED):
        yield
    shutil.rmtree(folder)


@pytest.fixture
def _all_idle(_counts_memory: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(launching, "SETTLE_SECONDS", 2.0)
    monkeypatch.setattr(launching, "POLL_SECONDS", 0.3)
    practice.empty()
    yield
    practice.empty()


HUNGRY = f"""
import os, sys, threading
exec(open({str(SITE / "sitecustomize.py")!r}).read())
def eat():
    globals()["eaten"] = b"x" * (400 << 20)
if "jobs.worker" in sys.orig_argv and os.environ["RANK"] == "1":
    threading.Timer(3.0, eat).start()
"""


def test_ranks_that_slurm_ends_for_want_of_memory_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this SLURM the job's state is FAILED, its reason NonZeroExitCode: OUT_OF_MEMORY comes with cgroups alone."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(HUNGRY)
    monkeypatch.setenv("PYTHONPATH", f"{site}:{os.environ['PYTHONPATH']}")
    outcome = end(*submitted(tmp_path, sbatch=["--mem=250M"]), within=30)
    assert outcome.status == "failed"
    assert re.search(r"StepId=\d+\.0 exceeded memory limit \(\d+ > 262144000\), being killed$", outcome.error)


def test_a_set_up_that_slurm_ends_for_want_of_memory_is_named(tmp_path: Path) -> None:
    eats = f"{sys.executable} -c \"import time; eaten = b'x' * (400 << 20); time.sleep(60)\""
    outcome = end(*submitted(tmp_path, sbatch=["--mem=250M"], setup=[eats]), within=30)
    assert outcome.status == "failed"
    assert re.search(r"ended as \w+ on n\[1-2\] with exit code 0:9: launcher\.setup\[0\]: ", outcome.error)
    assert "exceeded memory limit" in outcome.error


def test_a_job_that_could_not_be_done_any_more_is_told(tmp_path: Path) -> None:
    """It waits for another one. Of a job that runs, SLURM cuts the time limit to what is left until then."""
    slurm("sbatch", "--nodes=4", "--exclusive", "--mem=0", "--output=/dev/null", "--wrap=sleep 60")
    until(lambda: slurm("squeue", "--me", "--noheader", "--states=R"), 20)
    outcome = end(*submitted(tmp_path, sbatch=["--deadline=now+62", "--time-min=1"], time=1), within=30)
    assert outcome.status == "timeout"
    assert re.fullmatch(r"job \d+ ended as DEADLINE \(--deadline in launcher\.sbatch\)", outcome.error)


def submitted(results: Path, **options: Any) -> tuple[SlurmLauncher, Path]:
    trial = endless(trial=20.0)
    launcher, folder = SlurmLauncher({"nodes": 4} | options, results), results / "trials" / trial.id
    write_trial(folder, trial)
    launcher.start([Launch(trial, folder, 0)])
    return launcher, folder
