"""The SLURM launcher on a real SLURM of four nodes (slurm/practice): what runs, waits and is refused.

Where it is asked what is trained, ranks are warm; elsewhere they are bare (tests/warm).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.launcher import Launch
from cluster.slurm import launcher as launching
from cluster.slurm import queue
from cluster.slurm.launcher import SlurmLauncher
from jobs.contract.folder import write_trial
from jobs.contract.trial import Trial
from jobs.machine import gpus
from jobs.machine.cores import allowed_cores
from tests.cluster.slurm.practice import slurm
from tests.cluster.slurm.runs import (
    Watched,
    drive,
    endless,
    jobs_of,
    planned,
    scaling,
    trials_of,
    write_study,
)
from tests.running import Done, launch, until
from tests.sampler import read
from tests.warm.forges import lead, warm

DISTRIBUTED = ["torch-ddp", "torch-horovod", "tf-multiworker", "tf-horovod"]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.usefixtures("bare_ranks", "slurm_cluster", "settles_soon"),
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def locally(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Trial], Done]:
    """Runs a trial by the local launcher, once for all who ask."""
    results = tmp_path_factory.mktemp("local")
    return cache(lambda trial: launch(trial, results))


@pytest.mark.horovod
@pytest.mark.parametrize("allocation", ["per-trial", "packed"])
def test_every_strategy_runs_over_the_nodes_as_it_does_locally(
    allocation: str,
    tmp_path: Path,
    locally: Callable[[Trial], Done],
    forge_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lead(monkeypatch, warm(forge_folder))
    summary, _ = drive(
        tmp_path,
        strategies=DISTRIBUTED,
        workers=[1, 2, 4],
        precision="float64",
        limits={"trial": 200.0},
        launcher={"kind": "slurm", "nodes": 4, "allocation": allocation, "time": 30},
    )
    assert summary.failed == []
    done = trials_of(tmp_path)
    assert len(done) == 12
    alone = locally(done[0].trial.model_copy(update={"strategy": "torch", "workers": 1}))
    ddp = locally(done[0].trial.model_copy(update={"strategy": "torch-ddp", "workers": 2}))
    for each in done:
        np.testing.assert_allclose(each.losses(), alone.losses(), rtol=1e-9, err_msg=each.trial.id)
        assert each.outcome.launcher == "slurm"
        assert not (each.outcome.concurrent and allocation == "packed")
        assert len({report.rank for report in each.outcome.ranks}) == each.trial.workers
        assert shape(each, 0) == shape(ddp, 0)
        assert {r.threads for r in each.outcome.ranks} == {1}
        starts = [read(file, "start")[0] for file in each.folder.glob("telemetry-*.jsonl")]
        assert sorted(rank["rank"] for start in starts for rank in start["ranks"]) == list(range(each.trial.processes))
        assert {r.niceness for r in each.outcome.ranks} == {r.niceness for r in ddp.outcome.ranks}
    assert len(jobs_of(tmp_path)) == (1 if allocation == "packed" else 12)


def shape(done: Done, rank: int) -> Any:
    """The form of what a trial left: its files, and the keys in them."""
    own = (".exit", "srun.log")
    files = sorted(
        p.name
        for p in done.folder.glob("*")
        if not p.name.startswith("telemetry-")  # has the name of its node
        and "0000" not in p.name.replace("00000", "")
        and not p.name.endswith(own)
    )
    outcome = json.loads((done.folder / "outcome.json").read_text())
    return files, sorted(outcome), sorted(outcome["ranks"][rank]), [sorted(r) for r in done.rows(rank, "train")]


def test_the_base_case_runs_beside_ranks_that_are_on_one_node(tmp_path: Path) -> None:
    """Whoever keeps the ranks does not take those for gone that are stopped for its turns."""
    summary, _ = drive(
        tmp_path,
        strategies=["torch", "torch-ddp"],
        workers=[2],
        steps={"warmup": 1, "measured": 400, "compute_only": 0, "blocks": 2},  # in turns of a third of a second
        limits={"trial": 60.0, "hang": 3.0},
        launcher={"kind": "slurm", "nodes": 2, "tasks_per_node": 2},
    )
    assert (summary.ok, summary.failed) == (2, [])
    (beside,) = [done for done in trials_of(tmp_path) if done.trial.strategy == "torch-ddp"]
    assert beside.outcome.base_beside == [8]
    told = json.loads((beside.folder / "base-8.json").read_text())
    assert [turn["block"] for turn in told["turns"]] == [1, 2]
    assert max(turn["ranks_cpu_seconds"] for turn in told["turns"]) < 0.002


@pytest.mark.skipif(len(allowed_cores()) < 2, reason="needs two cores")
def test_jobs_side_by_side_on_a_node_have_cores_of_their_own_and_say_so(slurm_cluster: Path, tmp_path: Path) -> None:
    """Nothing here binds a job to the CPUs that SLURM has counted for it."""
    daemon = int((slurm_cluster / "slurmd-n1.pid").read_text())
    own, both = os.sched_getaffinity(daemon), allowed_cores()[:2]

    def bind(cores: Iterable[int]) -> None:
        for thread in Path(f"/proc/{daemon}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)

    on_n1 = {"kind": "slurm", "sbatch": ["--nodelist=n1"]}
    bind(both)
    try:
        summary, _ = drive(tmp_path, workers=[1], repeats={"min": 2}, launcher=on_n1)
    finally:
        bind(own)
    assert (summary.ok, summary.failed) == (2, [])
    first, second = (done.outcome for done in trials_of(tmp_path))
    assert sorted(first.ranks[0].cpus + second.ranks[0].cpus) == both
    assert first.concurrent
    assert second.concurrent
    alone, _ = drive(tmp_path, workers=[1], repeats={"min": 3}, launcher=on_n1)
    assert alone.ok == 1
    assert [done.outcome.concurrent for done in trials_of(tmp_path)].count(True) == 2


def test_a_packed_allocation_that_runs_out_of_time_is_followed_by_another(tmp_path: Path) -> None:
    """Each allocation has a minute, less 30 s to end in; a trial that may not fit is not begun.

    SLURM's signal before the end comes up to a minute early; what was begun by then comes to its end.
    """
    packed = {"kind": "slurm", "nodes": 2, "allocation": "packed", "time": 1}
    limits, steps = {"trial": 28.0}, {"warmup": 1, "measured": 1000, "compute_only": 0}  # they take more than 2 s
    summary, folder = drive(tmp_path, launcher=packed, limits=limits, steps=steps, repeats={"min": 2})
    assert (summary.ok, summary.failed) == (4, [])
    assert folder.moved == []
    assert len(jobs_of(tmp_path)) > 1
    assert "not begun: it may take" in "".join((job / "output.txt").read_text() for job in jobs_of(tmp_path))


def test_what_slurm_would_never_start_is_refused_in_its_words(tmp_path: Path) -> None:
    made, launcher = planned(tmp_path)
    assert launcher.refuse(made.grid.points) == []
    assert list(tmp_path.iterdir()) == []  # asking leaves nothing behind
    with_bad = SlurmLauncher({"nodes": 9, "partition": "nowhere"}, tmp_path)
    (fault,) = with_bad.refuse(made.grid.points[:1])
    assert "invalid partition specified: nowhere" in fault
    script = Path(fault.removeprefix("SLURM refuses ").partition(": ")[0])
    assert "--partition=nowhere" in script.read_text()
    nine = made.grid.points[1].model_copy(update={"workers": 9, "global_batch": 9})
    (fault,) = SlurmLauncher({"nodes": 9}, tmp_path).refuse([nine])
    assert "Requested node configuration is not available" in fault


def test_nodes_that_are_down_today_are_waited_for_and_those_that_never_were_are_not(tmp_path: Path) -> None:
    """sbatch --test-only says the same of both."""
    slurm("scontrol", "update", "nodename=n[3-4]", "state=down", "reason=test")
    points = [endless(workers=n) for n in (2, 4, 8)]
    for options in ({}, {"partition": "practice"}):
        faults = SlurmLauncher({"nodes": 8} | options, tmp_path).refuse(points)
        assert ["8-nodes" in fault for fault in faults] == [True], faults
    with_too_much = SlurmLauncher({"nodes": 2, "sbatch": ["--mem=1000T"]}, tmp_path)
    assert len(with_too_much.refuse(points[:1])) == 1


def test_a_folder_that_cannot_be_written_to_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (fault,) = SlurmLauncher({"nodes": 2}, tmp_path / "file" / "results").refuse([endless()])
    assert fault.endswith("cannot be written to (Not a directory); use --results")


def test_what_waits_says_why_and_is_asked_after_less_and_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "POLL_SECONDS", 1.0)
    launcher = SlurmLauncher({"nodes": 4, "sbatch": ["--hold"]}, tmp_path)
    started = []
    for repeat in range(5):
        trial = endless().model_copy(update={"repeat": repeat})
        write_trial(tmp_path / "trials" / trial.id, trial)
        started.append(Launch(trial, tmp_path / "trials" / trial.id, repeat))
    launcher.start(started)
    asked, real = [], queue._ask
    monkeypatch.setattr(queue, "_ask", lambda command: (asked.append(command[0]), real(command))[1])
    assert launcher._poll() == []
    assert asked == ["squeue"]  # one call for all jobs
    assert {(s.text, s.reason) for s in launcher.running().values()} == {("pending", "JobHeldUser")}
    pauses = [launcher._pause for _ in range(16) if launcher._poll() == []]
    assert pauses == sorted(pauses)
    assert pauses[-1] == launching.POLL_AT_MOST
    launcher.cancel()
    assert {d.outcome.status for d in trials_of(tmp_path)} == {"cancelled"}


def test_a_limit_on_the_queue_is_kept_and_all_is_done(tmp_path: Path) -> None:
    seen: list[int] = []

    def count() -> None:
        seen.append(len(slurm("squeue", "--me", "--noheader", "-t", "PD,R").splitlines()))

    slurm_two = {"kind": "slurm", "nodes": 4, "max_queued": 2}
    summary, _ = drive(tmp_path, Watched(count), launcher=slurm_two, repeats={"min": 3}, workers=[1])
    assert (summary.ok, max(seen)) == (3, 2)


@pytest.mark.parametrize(("allocation", "tasks_per_node", "workers"), [("per-trial", 1, [2]), ("packed", 2, [1, 2, 4])])
def test_each_rank_gets_its_own_gpu(allocation: str, tasks_per_node: int, workers: list[int], tmp_path: Path) -> None:
    """The practice nodes have two stand-in GPUs each; SLURM gives them out like real ones. No framework
    can compute on them, so what the ranks are given is noted by what stands in for their interpreter."""
    python = tmp_path / "python"
    note = f'"{tmp_path}/$SLURM_STEP_NUM_TASKS-$SLURM_PROCID"'
    python.write_text(f'#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES $SLURM_LOCALID" >{note}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    options = {"kind": "slurm", "allocation": allocation, "time": 10, "nodes": 2, "python": str(python)}
    options |= {"tasks_per_node": tasks_per_node}
    results = tmp_path / "results"
    summary, _ = drive(results, workers=workers, launcher=options, resources={"gpus_per_worker": 1})
    for count in workers:
        seen = [(tmp_path / f"{count}-{rank}").read_text().split() for rank in range(count)]
        # All of the step's on its node, of which each rank takes the one of its place.
        there = min(count, tasks_per_node)
        for rank, (visible, place) in enumerate(seen):
            assert (visible, int(place)) == (",".join(map(str, range(there))), rank % tasks_per_node)
            assert gpus.share(visible.split(","), int(place), there, 1) == [str(rank % tasks_per_node)]
    assert len(summary.failed) == len(workers)
    for failed in summary.failed:  # never a CPU run under the name of a GPU run
        assert "GPU" in failed.error, failed.error


# What goes before the lines of a script or hides jobs, if somebody's shell has it.
IN_THE_SHELL = {
    "SBATCH_PARTITION": "nowhere",
    "SBATCH_JOB_NAME": "other",
    "SBATCH_ARRAY_INX": "0-2",
    "SBATCH_REQUEUE": "1",
    "SQUEUE_PARTITION": "nowhere",
    "SQUEUE_FORMAT2": "jobid",
    "SQUEUE_FORMAT": "%i",
    "SCANCEL_INTERACTIVE": "1",
    "SRUN_OUTPUT": "/dev/null",
    "SLURM_TIME_FORMAT": "relative",
    "SLURM_MULTI_PROG": "1",
    "SLURM_TASK_PROLOG": "/bin/false",
    "SLURM_STDOUTMODE": "/nowhere/out",
    "SLURM_HOSTFILE": "/nowhere",
    # And what no file of a results folder is to hold.
    "NCCL_TOPO_FILE": "https://me:hunter2@host/topo.xml",
    "DATABASE_URL": "postgres://me:hunter2@db",
}


def test_a_folder_and_options_with_any_character_arrive_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in IN_THE_SHELL.items():
        monkeypatch.setenv(name, value)
    results = tmp_path / """it's 100% "$(touch canary)` & #1; é"""
    extra = ["--comment='$(touch canary)'", "--export=NONE"]
    options = {"kind": "slurm", "nodes": 2, "partition": "practice", "exclude": "n[3-4]", "sbatch": extra}
    summary, _ = drive(results, launcher=options, workers=[2])
    for name in IN_THE_SHELL:
        monkeypatch.delenv(name)
    assert (summary.ok, summary.failed) == (1, [])
    assert not [path for path in results.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    (job,) = jobs_of(results)
    assert (job / "output.txt").read_text().endswith(": ok\n")
    said = slurm("scontrol", "show", "job", "--oneliner", trials_of(results)[0].outcome.job or "")
    assert "ExcNodeList=n[3-4]" in said
    assert f"JobName={job.name}" in said
    assert "Requeue=0" in said
    assert "Comment=$(touch canary)" in said
    assert not list(tmp_path.rglob("canary"))


# The command


def test_a_study_is_submitted_left_shown_and_come_back_to(tmp_path: Path) -> None:
    study, results = write_study(tmp_path), tmp_path / "results"
    left = scaling("run", study, "--results", results, "--detach")
    assert (left.returncode, "submitted" in left.stdout) == (0, True), left.stderr
    shown = scaling("status", results)
    assert all(job in shown.stdout for job in slurm("squeue", "--me", "-h", "-o", "%i").split())
    until(lambda: len(list(results.glob("trials/*/outcome.json"))) == 2, 90)  # with nobody watching
    back = scaling("run", study, "--results", results)
    assert (back.returncode, "2 launches are measured already" in back.stdout) == (0, True), back.stderr
    assert len(jobs_of(results)) == 2
