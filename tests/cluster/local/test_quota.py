"""A study in a container that may use half a core: planned, launched and told of as what it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.load.results import load
from analysis.measures.efficiency import estimate
from cluster.driver.plan import plan
from cluster.local.launcher import LocalLauncher
from cluster.setup import hardware
from cluster.study import file
from cluster.study.schema import StudyError
from jobs.machine import cores
from tests import limited
from tests.running import until
from tests.warm import forges

ROOT = Path(__file__).parents[3]
STUDY = """
name: half
strategies: [torch, torch-ddp]
workers: %s
scaling: [strong]
batch: {global: 8}
"""


@pytest.fixture(params=[0.5, 1.0, 1.5])
def quota(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """A stand-in for a control group: what it would take to plan in a real one is a process for each quota."""
    for module in ("cluster.local.launcher", "cluster.setup.hardware", "jobs.machine.cores"):
        monkeypatch.setattr(f"{module}.cgroup_quota", lambda: request.param)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {100_000, 100_001, 100_002, 100_003})
    return float(request.param)


def test_a_quota_counts_as_cores_in_planning_and_refusing(quota: float, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY % "auto")
    made = plan(file.parse(path), LocalLauncher({}, tmp_path))
    assert {point.workers for point in made.grid.points} == {1}
    said = [line for line in made.notes() if line.startswith(f"a CPU quota of {quota:g} cores: ")]
    assert len(said) == (quota != 1.0)
    assert not any("quota" in line for line in made.grid.left_out)  # nothing is left out for it
    path.write_text(STUDY % "[1, 2]")
    with pytest.raises(StudyError) as refused:
        plan(file.parse(path), LocalLauncher({}, tmp_path))
    assert f"do not fit on the 1 physical cores there are (a CPU quota of {quota:g})" in refused.value.faults[0]


def test_the_doctor_counts_a_quota_as_cores(quota: float) -> None:
    says = hardware.cores("Cores").says
    assert says.startswith("1 physical for this process, ")
    assert f"a CPU quota of {quota:g} cores" in says


LAUNCH = """
import sys; from pathlib import Path
from jobs.contract.parts import Steps
from jobs.contract.trial import Trial
from tests.running import launch
steps = Steps(warmup=1, measured=100, compute_only=1)
print(launch(Trial.of(strategy="torch", workers=1, global_batch=8, steps=steps), Path(sys.argv[1])).outcome.status)
"""
BURN = "while :; do :; done"


@pytest.mark.quota
def test_what_a_quota_holds_back_goes_with_the_number(tmp_path: Path) -> None:
    """In a real control group, which gets its quota as soon as the rank lives: that has no framework and mostly rests,
    so two others use the quota up."""
    with limited.group(2.0) as enter:
        command = [*enter, sys.executable, "-c", LAUNCH, str(tmp_path)]
        with subprocess.Popen(command, cwd=ROOT, env=os.environ | forges.bare(), stdout=subprocess.PIPE) as launching:
            until(lambda: list(tmp_path.glob("trials/*/rank-*.alive")))
            limited.limit(Path(enter[-1]), 0.2)
            others = [subprocess.Popen([*enter, "sh", "-c", BURN]) for _ in range(2)]
            until(lambda: list(tmp_path.glob("trials/*/rank-*.jsonl")))
            limited.limit(Path(enter[-1]), 0.9)  # its steps are done
            for other in others:
                other.kill()
                other.wait()
            said, _ = launching.communicate(timeout=100)
    assert said == b"ok\n"
    (outcome,) = (json.loads(path.read_text()) for path in tmp_path.glob("trials/*/outcome.json"))
    (rank,) = outcome["ranks"]
    assert rank["cpu_quota"] == 0.9
    assert 0 < rank["throttled_periods"] <= rank["quota_periods"]
    assert rank["cores"] == [cores.core_of(cpu) for cpu in rank["cpus"]]
    warning = estimate(load(tmp_path))["warning"][0]
    held = f"in {rank['throttled_periods']} of {rank['quota_periods']} periods"
    assert f"a CPU quota held 1 of 1 launches back, {held}" in warning
    assert "a CPU quota of 0.9 cores for 1 thread of a rank in 1 of 1 launches" in warning
