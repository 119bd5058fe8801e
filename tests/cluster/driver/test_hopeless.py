"""What can only be known by launching costs two launches: the rest of a strategy that fails alike is left out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.driver.hopeless import Hopeless
from cluster.launcher import State
from jobs.contract.exits import Status
from jobs.contract.outcome import Outcome, now
from jobs.contract.trial import Trial
from tests import failing
from tests.cluster.driver.test_run import STUDY, Instant, drive

ROOT = Path(__file__).parents[3]
FAILED = "rank 0 ended with exit code 1: ImportError: libfoo.so.1: cannot open shared object file"


def ended(error: str = FAILED, status: Status = "failed", strategy: str = "torch-ddp", **fields: Any) -> Any:
    """A trial and how it ended."""
    trial = Trial.of(strategy=strategy, **({"workers": 2, "global_batch": 4} | fields))
    outcome = Outcome(
        trial_id=trial.id, status=status, error=error, framework="PyTorch", communication="native", launcher="local",
        order=0, started=now(), ended=now(), workers=trial.workers,
    )  # fmt: skip
    return trial, outcome


TWO = {"workers": 1}, {"workers": 2}


def noted(*ends: Any) -> Hopeless:
    found = Hopeless()
    for end in ends:
        found.note(*end)
    return found


def test_two_different_points_that_fail_alike_are_enough() -> None:
    found = noted(*[ended(**each) for each in TWO])
    assert found.covers(ended(workers=4)[0])
    assert not found.covers(ended(strategy="torch", workers=1)[0])
    assert found.words(("torch-ddp", ""), 7) == (
        "torch-ddp: 7 launches, as two of different points ended alike and none was ok: "
        "ImportError: libfoo.so.1: cannot open shared object file; running the study again tries once more"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ValueError: 12 of 34", "ValueError: 5 of 6"),
        (
            "OSError: bad: /a/trials/torch-ddp-n1-b4-0a1b2c3d-r00/x",
            "OSError: bad: /a/trials/torch-ddp-n2-b4-99999999-r00/x",
        ),
        ("OSError: bad: /tmp/tmpab12/0.png", "OSError: bad: /tmp/tmpzz77/0.png"),
        ("RuntimeError: at 0x7f3a", "RuntimeError: at 0x11bc"),
        ("OSError: /scratch/me/scaling-1000/ab12cd34/x", "OSError: /scratch/me/scaling-1000/ff9e0a11/y/x"),
    ],
)
def test_what_differs_between_launches_makes_no_other_reason(one: str, other: str) -> None:
    ends = [f"rank {rank} ended with exit code 1: {line}" for rank, line in enumerate((one, other))]
    found = noted(*[ended(error, **each) for error, each in zip(ends, TWO, strict=True)])
    assert found.covers(ended(workers=4)[0])


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        (
            "job 7 ended as FAILED on n1 with exit code 1:0: launcher.setup[0]: x: ended with exit code 1",
            "job 8 ended as FAILED on n[1-2] with exit code 1:0: launcher.setup[0]: x: ended with exit code 1",
            "launcher.setup[0]: x: ended with exit code 1",
        ),
        (
            "job 7 ended as FAILED on node-a with exit code 1:0",
            "job 9 ended as FAILED on node-[b,d] with exit code 1:0",
            "job 9 ended as FAILED on node-[b,d] with exit code 1:0",
        ),
        (
            "job 7 ended as FAILED on a and could not write /r/slurm/torch-n1-b4-c-r00-12ab34cd/output.txt; is that",
            "job 9 ended as FAILED on b and could not write /r/slurm/torch-n2-b4-d-r00-cdef0123/output.txt; is that",
            "and could not write /r/slurm/torch-n2-b4-d-r00-cdef0123/output.txt; is that",
        ),
        (
            "sbatch refused /r/slurm/torch-n1-b4-abcd-r00-12ab34cd/job.sbatch: Invalid account",
            "sbatch refused /r/slurm/torch-n2-b4-beef-r00-cdef0123/job.sbatch: Invalid account",
            "sbatch refused /r/slurm/torch-n2-b4-beef-r00-cdef0123/job.sbatch: Invalid account",
        ),
    ],
)
def test_of_slurm_neither_job_nor_nodes_make_another_reason(one: str, other: str, why: str) -> None:
    found = noted(*[ended(error, **each) for error, each in zip((one, other), TWO, strict=True)])
    assert found.lines == {("torch-ddp", ""): why}


@pytest.mark.parametrize(
    "ends",
    [
        [ended(workers=2, repeat=0), ended(workers=2, repeat=1)],  # one point, which may be the only one
        [ended(workers=1), ended("rank 0 ended with exit code 1: ValueError: another", workers=2)],
        [ended("", "ok", workers=4), *[ended(**each) for each in TWO]],
        [ended("rank 0: not done after limits.trial = 9 s", "timeout", **each) for each in TWO],
        [ended("job 7 ended as NODE_FAIL", "lost", **each) for each in TWO],
        [ended("job 7 ended as CANCELLED", "cancelled", **each) for each in TWO],
        [ended("rank 0 was killed by SIGKILL: it left no message", **each) for each in TWO],
        [ended("rank 0 ended with exit code 137: Killed", **each) for each in TWO],
        [ended("rank 0 ended with exit code 1: MemoryError", **each) for each in TWO],
        [ended("rank 0 ended with exit code 1: OutOfMemoryError: CUDA out of memory. Tried", **each) for each in TWO],
        [ended("rank 0 ended with exit code 1: ResourceExhaustedError: OOM when allocating", **each) for each in TWO],
        [ended("rank 0 ended with exit code 1: OSError: [Errno 12] Cannot allocate", **each) for each in TWO],
        [ended(workers=1), ended(strategy="torch-horovod", workers=2)],
    ],
)  # fmt: skip
def test_no_other_end_counts(ends: list[Any]) -> None:
    found = noted(*ends)
    assert not found.lines
    assert not found.covers(ended(workers=4)[0])


def test_a_way_to_execute_that_fails_alike_is_left_out_where_the_other_is_ok() -> None:
    found = noted(ended("", "ok", workers=1), *[ended(execution="graph", **each) for each in TWO])
    assert found.covers(ended(execution="graph", workers=4)[0])
    assert not found.covers(ended(workers=4)[0])
    assert found.words(("torch-ddp", "graph"), 1).startswith("torch-ddp with execution graph: 1 launches")


def test_the_rest_of_the_strategy_is_left_out_the_study_goes_on_and_the_next_run_tries_again(tmp_path: Path) -> None:
    change = {"repeats": {"min": 4}}
    points = drive(tmp_path / "plan", change)[2].grid.points
    broken = frozenset(f"{p.point}-r{r:02d}" for p in points if p.strategy == "torch-ddp" for r in range(4))
    summary, _, _, ids = drive(tmp_path / "r", change, failing=broken)
    assert (summary.ok, len(summary.failed), summary.left_out) == (4, 2, 6)
    assert sum(i.startswith("torch-n1") for i in ids) == 4
    (line,) = json.loads((tmp_path / "r" / "plan.json").read_text())["given_up"]
    assert line.startswith("torch-ddp: 6 launches")
    assert len(list((tmp_path / "r" / "trials").iterdir())) == 6
    again = drive(tmp_path / "r", change, failing=broken)[0]
    assert (again.done_before, len(again.failed), again.left_out) == (4, 2, 6)
    mended = drive(tmp_path / "r", change)[0]
    assert (mended.done_before, mended.ok, mended.left_out) == (4, 8, 0)
    assert "given_up" not in json.loads((tmp_path / "r" / "plan.json").read_text())


class Wide(Instant):
    """Has all launches at once, as a scheduler has; those in `handed_back` end as if the time of their job were up, the
    folders of those in `gone` somebody has taken away. What has failed is told first."""

    handed_back: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()

    def room(self) -> int:
        return 100

    def start(self, launches: Any) -> None:
        super().start([launch for launch in launches if launch.trial.id not in self.handed_back])
        self._under_way = sorted((x.trial.id for x in launches), key=lambda name: name not in self.failing)
        for launch in launches:
            if launch.trial.id in self.gone:
                shutil.rmtree(launch.folder)

    def running(self) -> dict[str, State]:
        return {trial_id: State("running") for trial_id in getattr(self, "_under_way", [])}

    def wait(self, seconds: float) -> list[str]:
        return [self._under_way.pop(0)] if self._under_way else []


def test_what_comes_back_of_it_is_not_launched_again(tmp_path: Path) -> None:
    change = {"strategies": ["torch-ddp"], "repeats": {"min": 4}}
    points = [point.point for point in drive(tmp_path / "plan", change)[2].grid.points]
    failing = frozenset(f"{point}-r00" for point in points)
    lost, back, gone = (frozenset(f"{point}-r{r:02d}" for point in points) for r in (1, 2, 3))
    summary, folder, _, _ = drive(
        tmp_path / "r", change, failing=failing, ends={name: ["lost"] * 9 for name in lost},
        kind=type("Some", (Wide,), {"handed_back": back, "gone": gone}),
    )  # fmt: skip
    assert ({o.trial_id for o in summary.failed}, summary.left_out, summary.ok) == (failing, 6, 0)
    assert {path.name for path in folder.trials.iterdir()} == failing
    (line,) = json.loads((tmp_path / "r" / "plan.json").read_text())["given_up"]
    assert line.startswith("torch-ddp: 6 launches")


def test_nothing_is_said_where_nothing_is_left_out(tmp_path: Path) -> None:
    change = {"strategies": ["torch-ddp"], "repeats": {"min": 1}}
    points = drive(tmp_path / "plan", change)[2].grid.points
    summary = drive(tmp_path / "r", change, failing=frozenset(point.id for point in points))[0]
    assert (len(summary.failed), summary.left_out) == (2, 0)
    assert "given_up" not in json.loads((tmp_path / "r" / "plan.json").read_text())


@pytest.mark.usefixtures("bare_ranks")
def test_it_is_said_at_once_and_by_status_and_by_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    does = {"0": "if trial.strategy == 'torch-ddp': raise ImportError('libfoo.so.1: cannot open')"}
    monkeypatch.setenv(failing.DOES, json.dumps(does))
    monkeypatch.setenv("COLUMNS", "200")
    study, results = tmp_path / "study.yaml", tmp_path / "r"
    results.mkdir()
    (results / "machine.json").write_text("{}")  # or it would be measured
    study.write_text(yaml.safe_dump(STUDY | {"strategies": ["torch-ddp"], "repeats": {"min": 3}}))

    def scaling(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "scaling", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)

    done = scaling("run", str(study), "--results", str(results))
    assert done.returncode == 1, done.stderr
    said = " ".join(done.stdout.split())
    why = (
        "left out: torch-ddp: 4 launches, as two of different points ended alike and none was ok: "
        "ImportError: libfoo.so.1: cannot open; running the study again tries once more"
    )
    assert why in said
    assert "2 launches failed and 4 were left out" in said
    assert why in " ".join(scaling("status", str(results)).stdout.split())
    from analysis.load.results import load
    from analysis.report.facts import not_measured

    assert ("left out in the last run", why.removeprefix("left out: ")) in not_measured(load(results))
