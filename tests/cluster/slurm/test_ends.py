"""What becomes of trials on SLURM that end otherwise than they should: ranks, jobs, nodes, controller or driver."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from cluster.launcher import Launch
from cluster.slurm import queue
from cluster.slurm.launcher import SlurmLauncher
from cluster.study.schema import StudyError
from jobs.contract.folder import write_trial
from jobs.contract.outcome import read_outcome
from jobs.contract.parts import Steps
from tests import failing
from tests.cluster.slurm import practice
from tests.cluster.slurm.practice import slurm
from tests.cluster.slurm.runs import (
    SCALING,
    Watched,
    begin,
    drive,
    end,
    endless,
    jobs_of,
    planned,
    scaling,
    trials_of,
    workers_of,
    write_study,
)
from tests.running import Done, in_blocks, stop_in_its_turn, until

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.usefixtures("bare_ranks", "slurm_cluster", "settles_soon"),
    pytest.mark.timeout(400),
]


def test_ranks_that_cannot_be_started_are_not_tried_again(tmp_path: Path) -> None:
    options = {"kind": "slurm", "nodes": 4, "python": "/nowhere/python"}
    summary, _ = drive(tmp_path, workers=[2], launcher=options)
    (failed,) = summary.failed
    assert failed.status == "failed"
    assert failed.error.startswith("srun could not start the ranks: ")
    assert "/nowhere/python" in failed.error
    assert len(jobs_of(tmp_path)) == 1


def test_a_killed_rank_ends_the_trial_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ranks as they are: bare ones die of each other within milliseconds."""
    monkeypatch.delenv("SCALING_TEST_BARE")
    launcher, folder = begin(endless(), tmp_path)
    workers_of(folder)[1].kill()
    outcome = end(launcher, folder, within=20)
    assert (outcome.status, outcome.error.split(":")[0]) == ("failed", "rank 1 was killed by SIGKILL")
    assert len(outcome.exits) == 2


@pytest.mark.parametrize("allocation", ["per-trial", "packed"])
def test_a_stopped_rank_which_slurm_never_notices_is_named(allocation: str, tmp_path: Path) -> None:
    """One that trains by turns with the base case too, though it is stopped in each turn of that."""
    trial, beside = endless(hang=4.0), allocation == "per-trial"
    each = {"tasks_per_node": 2} if beside else {}
    launcher, folder = begin(in_blocks(trial) if beside else trial, tmp_path, allocation=allocation, time=30, **each)
    stop_in_its_turn(workers_of(folder)[1], folder)
    outcome = end(launcher, folder, within=40)
    assert (outcome.status, outcome.error) == (
        "timeout",
        "rank 1: gave no sign of life for limits.hang = 4 s",
    )


def test_a_node_that_goes_down_in_mid_trial_costs_only_that_launch(tmp_path: Path) -> None:
    done: list[str] = []

    def take_down() -> None:
        running = [line.split("|") for line in slurm("squeue", "--me", "-h", "-t", "R", "-o", "%i|%N").splitlines()]
        if not done and running and list(tmp_path.glob("trials/*/rank-00001.alive")):
            done.append(running[0][1])
            slurm("scontrol", "update", "nodename=n2", "state=down", "reason=test")

    steps = {"warmup": 1, "measured": 1500, "compute_only": 0}
    display = Watched(take_down)
    summary, folder = drive(tmp_path, display, workers=[2], steps=steps)
    assert done
    assert (summary.ok, summary.failed) == (1, [])
    assert any("was lost: job" in line and "NODE_FAIL" in line for line in folder.moved), folder.moved


def test_scancel_from_outside_is_told_as_it_was(tmp_path: Path) -> None:
    launcher, folder = begin(endless(), tmp_path)
    (state,) = launcher.running().values()
    assert (state.text, state.nodes) == ("running", "n[1-2]")
    slurm("scancel", state.job)
    outcome = end(launcher, folder, within=30)
    assert (outcome.status, outcome.error) == ("cancelled", f"job {state.job} ended as CANCELLED on n[1-2]")
    assert outcome.job == state.job


def test_a_cancelled_packed_job_keeps_what_was_done(tmp_path: Path) -> None:
    def stop() -> None:
        if list(tmp_path.glob("trials/*/outcome.json")):
            slurm("scancel", "--me")

    packed = {"kind": "slurm", "nodes": 4, "allocation": "packed", "time": 30}
    summary, _ = drive(tmp_path, Watched(stop), launcher=packed, repeats={"min": 4})
    assert summary.ok >= 1
    assert {outcome.status for outcome in summary.failed} == {"cancelled"}
    before = {d.trial.id for d in trials_of(tmp_path) if d.outcome.status == "ok"}
    again, _ = drive(tmp_path, launcher=packed, repeats={"min": 4})
    assert (again.done_before, again.ok) == (len(before), 8 - len(before))


def test_a_time_limit_that_strikes_leaves_a_clear_outcome(tmp_path: Path) -> None:
    """A packed trial is "lost", since the next allocation, which the driver asks for, can do it.

    A limit is a minute at least, so both kinds of job wait for it together.
    """
    begun = {}
    for allocation in ("per-trial", "packed"):
        launcher, folder = begin(endless(), tmp_path / allocation, allocation=allocation, time=30)
        slurm("scontrol", "update", f"jobid={launcher.running()[folder.name].job}", "timelimit=1")
        begun[allocation] = (launcher, folder)
    outcomes = {allocation: end(*started, within=100) for allocation, started in begun.items()}
    assert {allocation: outcome.status for allocation, outcome in outcomes.items()} == {
        "per-trial": "timeout",
        "packed": "lost",
    }
    for outcome in outcomes.values():
        assert "launcher.time" in outcome.error
        assert len(outcome.exits) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restarted_controller_is_waited_for(number: signal.Signals, slurm_cluster: Path, tmp_path: Path) -> None:
    done: list[str] = []

    def restart() -> None:
        if not done and list(tmp_path.glob("trials/*/rank-00000.alive")):
            practice.restart_controller(slurm_cluster, number)
            done.append("restarted")

    summary, folder = drive(tmp_path, Watched(restart), repeats={"min": 2})
    assert done == ["restarted"]
    if number == signal.SIGTERM:
        assert (summary.ok, summary.failed, folder.moved, len(jobs_of(tmp_path))) == (4, [], [], 4)
        return
    # Killed outright it forgets its last seconds: jobs that it took in them it cancels, or does not know.
    assert {outcome.status for outcome in summary.failed} <= {"cancelled"}
    practice.empty()  # until its nodes have told the new controller that they are there, it refuses all
    again, _ = drive(tmp_path, repeats={"min": 2})
    assert (again.done_before, again.ok, again.failed) == (summary.ok, 4 - summary.ok, [])


def test_a_controller_that_is_away_is_told_and_waited_for(slurm_cluster: Path, tmp_path: Path) -> None:
    made, launcher = planned(tmp_path, workers=[1])
    controller = psutil.Process(int((slurm_cluster / "slurmctld.pid").read_text()))
    controller.terminate()
    practice.gone(controller)
    (trial,) = made.grid.points
    folder = tmp_path / "trials" / trial.id
    write_trial(folder, trial)
    launcher.start([Launch(trial, folder, 0)])
    assert launcher.room() == 0
    (state,) = launcher.running().values()
    assert "Unable to contact slurm controller" in state.reason
    with pytest.raises(StudyError, match="Unable to contact"):
        launcher.cancel()
    subprocess.run(["/usr/sbin/slurmctld", "-f", slurm_cluster / "slurm.conf"], check=True)
    until(lambda: launcher.wait(0.5) == [trial.id], 60)  # it was never taken: handed back
    assert read_outcome(folder) is None


def test_a_requeued_job_does_its_trial_again_and_sets_the_first_try_aside(tmp_path: Path) -> None:
    trial = endless().model_copy(update={"steps": Steps(warmup=1, measured=2000, compute_only=0)})
    launcher, folder = begin(trial, tmp_path, requeue=True)
    job = launcher.running()[trial.id].job
    slurm("scontrol", "requeue", job)
    until(lambda: slurm("squeue", "-h", "-j", job, "-o", "%T").strip() == "PENDING", 60)
    time.sleep(1.5)  # a start in the second of the requeue is refused: "Job credential revoked"
    slurm("scontrol", "update", f"jobid={job}", "starttime=now")  # SLURM would wait for two minutes
    outcome = end(launcher, folder, within=240)
    assert (outcome.status, outcome.error) == ("ok", "")
    (aside,) = (tmp_path / "set-aside").iterdir()
    assert aside.name.startswith(trial.id)
    assert len(Done(trial, folder, outcome).rows(0, "train")) == 2001


def test_a_job_leaves_alone_what_was_given_to_another(tmp_path: Path) -> None:
    """As after a controller that was killed and has forgotten a running job: its ranks end late."""
    _, folder = begin(endless(), tmp_path)
    folder.rename(tmp_path / "aside")
    write_trial(folder, endless())
    for worker in workers_of(folder):
        worker.kill()
    (job,) = jobs_of(tmp_path)
    until((job / "end.json").exists, 30)
    assert "has been set aside meanwhile" in (job / "output.txt").read_text()
    assert read_outcome(folder) is None


def test_a_rank_that_slurm_ends_before_it_tells_the_job_is_not_blamed(slurm_cluster: Path, tmp_path: Path) -> None:
    """Where the script runs, SLURM is slow: there, rank 0 dies of the other rank's end, by itself."""
    launcher, folder = begin(endless(), tmp_path)
    (state,) = launcher.running().values()
    first = slurm("scontrol", "show", "hostnames", state.nodes).split()[0]
    daemon = psutil.Process(int((slurm_cluster / f"slurmd-{first}.pid").read_text()))
    daemon.suspend()
    try:
        slurm("scancel", state.job)
        until(lambda: not workers_of(folder), 30)
        until(lambda: (jobs_of(tmp_path)[0] / "end.json").exists(), 30)
    finally:
        daemon.resume()
    outcome = end(launcher, folder, within=30)
    assert outcome.status == "cancelled", outcome.error


def test_a_killed_driver_loses_nothing_and_nothing_is_measured_twice(tmp_path: Path) -> None:
    study, results = write_study(tmp_path, repeats={"min": 2}), tmp_path / "results"
    with subprocess.Popen([SCALING, "run", study, "--results", results], stdout=subprocess.DEVNULL) as driver:
        until(lambda: list(results.glob("trials/*/outcome.json")), 90)
        driver.send_signal(signal.SIGKILL)
    back = scaling("run", study, "--results", results, within=180)
    assert back.returncode == 0, back.stderr
    assert {d.outcome.status for d in trials_of(results)} == {"ok"}
    assert len({d.outcome.order for d in trials_of(results)}) == 4
    assert len(jobs_of(results)) == 4
    assert not (results / "set-aside").exists()


def test_control_c_leaves_the_jobs_and_cancel_ends_them(tmp_path: Path) -> None:
    steps = {"warmup": 1, "measured": 100_000, "compute_only": 0}
    study, results = write_study(tmp_path, steps=steps, limits={"trial": 500.0}), tmp_path / "results"
    with subprocess.Popen([SCALING, "run", study, "--results", results], stdout=subprocess.PIPE, text=True) as driver:
        until(lambda: list(results.glob("trials/*/rank-00000.alive")), 60)
        driver.send_signal(signal.SIGINT)
        said, _ = driver.communicate(timeout=30)
    assert (driver.returncode, "what is submitted goes on" in said) == (130, True)
    assert slurm("squeue", "--me", "--noheader")
    ended = scaling("cancel", results)
    assert (ended.returncode, ended.stdout) == (0, "2 launches cancelled\n"), ended.stderr
    assert slurm("squeue", "--me", "--noheader", "-t", "PD,R") == ""
    assert {d.outcome.status for d in trials_of(results)} == {"cancelled"}


def test_cancel_reaches_the_command_that_runs_the_study(tmp_path: Path) -> None:
    steps = {"warmup": 1, "measured": 100_000, "compute_only": 0}
    study, results = write_study(tmp_path, steps=steps, limits={"trial": 500.0}), tmp_path / "results"
    with subprocess.Popen([SCALING, "run", study, "--results", results], stdout=subprocess.PIPE, text=True) as driver:
        until(lambda: list(results.glob("trials/*/rank-00000.alive")), 60)
        ended = scaling("cancel", results)
        said, _ = driver.communicate(timeout=30)
    assert ended.returncode == 0, ended.stderr
    assert (driver.returncode, said.splitlines()[-1].split(";")[0]) == (130, "cancelled")
    assert slurm("squeue", "--me", "--noheader", "-t", "PD,R") == ""


def test_a_job_that_is_gone_without_a_word_is_recorded_as_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher, folder = begin(endless(), tmp_path)
    job = launcher.running()[folder.name].job
    commands = [(process, process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    (batch,) = [process for process, c in commands if "cluster.slurm.batch" in c and str(tmp_path) in str(c)]
    batch.kill()
    real = queue.jobs
    monkeypatch.setattr(queue, "jobs", lambda: {k: v for k, v in real().items() if k != job})
    outcome = end(launcher, folder, within=60)
    assert (outcome.status, outcome.error) == ("lost", f"job {job} is gone from the queue and left no record")


WAYS = failing.named("no such module", "an exception in C++", "a disk is full", "one fails, the other follows")


def test_the_reason_is_told_as_by_any_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failing.DOES, failing.does(tmp_path, WAYS))
    launcher = SlurmLauncher({"nodes": 4, "tasks_per_node": 2}, tmp_path)
    folders = {way.name: tmp_path / "trials" / failing.trial(way).id for way in WAYS}
    for order, way in enumerate(WAYS):
        write_trial(folders[way.name], failing.trial(way))
        launcher.start([Launch(failing.trial(way), folders[way.name], order)])
    ended: list[str] = []
    until(lambda: ended.extend(launcher.wait(0.5)) or len(ended) == len(WAYS), 60)
    for way in WAYS:
        outcome = read_outcome(folders[way.name])
        assert outcome is not None
        assert re.fullmatch(failing.pattern(way, tmp_path), outcome.error), outcome.error


@pytest.mark.parametrize("allocation", ["per-trial", "packed"])
def test_what_waits_of_a_strategy_that_fails_alike_is_taken_back(
    allocation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    does = {"0": "import time; time.sleep(1); raise ImportError('libfoo.so.1: cannot open')"}
    monkeypatch.setenv(failing.DOES, json.dumps(does))
    options = {"kind": "slurm", "nodes": 4, "allocation": allocation, "time": 10}
    summary, _ = drive(tmp_path, repeats={"min": 6}, launcher=options)
    assert summary.left_out >= 3
    assert len(summary.failed) + summary.left_out == 12
    assert {o.status for o in summary.failed} == {"failed"}
    assert len(trials_of(tmp_path)) == len(summary.failed)  # of the others nothing is left
    until(lambda: not slurm("squeue", "--me", "-h"), 20)


def test_what_waits_is_taken_back_though_another_has_ended_meanwhile(tmp_path: Path) -> None:
    launcher = SlurmLauncher({"nodes": 4, "python": "/nowhere/python", "sbatch": ["--hold"]}, tmp_path)
    trials = [endless().model_copy(update={"repeat": repeat}) for repeat in range(2)]
    for order, trial in enumerate(trials):
        folder = tmp_path / "trials" / trial.id
        write_trial(folder, trial)
        launcher.start([Launch(trial, folder, order)])
    first, second = (trial.id for trial in trials)
    slurm("scontrol", "release", launcher.running()[first].job)
    until(lambda: not slurm("squeue", "--me", "-h", "-t", "PD,R,CG", "-j", launcher.running()[first].job), 60)
    assert launcher.withdraw([first, second]) == [second]
    assert [path.name for path in (tmp_path / "trials").iterdir()] == [first]
    until(lambda: launcher.wait(0.5) == [first], 30)
    assert not slurm("squeue", "--me", "-h")
