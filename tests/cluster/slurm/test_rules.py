"""What the SLURM launcher makes of jobs and of their ends; SLURM's commands are stood in for, as much of
this a practice cluster cannot be brought to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.slurm import batch, ending
from cluster.slurm import job as jobs
from cluster.slurm import launcher as slurm_cluster
from cluster.slurm import queue as slurm_queue
from cluster.slurm.ending import step_verdict, without_an_end
from cluster.slurm.job import JobFolder, Planned, beside_another, withdrawn
from cluster.slurm.launcher import SlurmLauncher
from cluster.slurm.options import parse
from cluster.slurm.queue import JobState
from cluster.slurm.size import size_of
from jobs.contract.files import RankExit, rank_file
from jobs.contract.folder import write_trial
from jobs.contract.outcome import Outcome, conclude, read_outcome
from jobs.contract.parts import Limits
from jobs.contract.trial import Trial
from jobs.machine import cores

KEPT = Path(__file__).parents[2] / "kept" / "results" / "slurm" / "slurm"
TRIAL = Trial.of(strategy="torch-ddp", workers=2, global_batch=2)
NODE_FAILED = "slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-11-26T10:00:00 DUE TO NODE FAILURE, SEE LOG ***"


def submitted(results: Path, name: str, trial: Trial = TRIAL, order: int = 0) -> JobFolder:
    """A per-trial job's folder, with that of its trial, as after sbatch."""
    write_trial(results / "trials" / trial.id, trial)
    planned = Planned(trial.id, order, size_of(trial, parse({})))
    folder = JobFolder(results / "slurm" / name, name, "per-trial", None, (planned,))
    folder.write()
    folder.submitted("17")
    return folder


def outcome_of(job: JobFolder) -> Outcome:
    outcome = read_outcome(job.trial(job.launches[0]))
    assert outcome is not None
    return outcome


# Cores

KEEPER = """
import os, sys, time
from cluster.slurm import rank
rank.keeper.main = lambda folder, variables: (print(*os.sched_getaffinity(0), flush=True), time.sleep(600))
rank.main(sys.argv[1:])
"""


def rank(folder: Path, local_rank: int, ranks: int, ends: ExitStack) -> set[int]:
    """The cores of a rank's keeper, which lives until `ends` is left. All are on one node."""
    place = {"SLURM_PROCID": local_rank, "SLURM_LOCALID": local_rank, "SLURM_NODEID": 0, "SLURM_STEP_NUM_TASKS": ranks}
    meeting = {"SLURM_STEP_TASKS_PER_NODE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 4711}
    variables = os.environ | {name: str(value) for name, value in (place | meeting).items()}
    process = subprocess.Popen(
        [sys.executable, "-c", KEEPER, str(folder)], env=variables, stdout=subprocess.PIPE, text=True
    )
    ends.enter_context(process)
    ends.callback(process.kill)
    assert process.stdout is not None
    return set(map(int, process.stdout.readline().split()))


@pytest.mark.skipif(len(cores.allowed_cores()) < 2, reason="needs two cores")
def test_ranks_on_a_node_have_cores_of_their_own_whichever_job_they_are_of(tmp_path: Path) -> None:
    """No cgroup and no affinity of SLURM's keeps the jobs apart here."""
    one, pair = tmp_path / "one", tmp_path / "pair"
    write_trial(one, Trial.of(strategy="torch", workers=1, global_batch=2))
    write_trial(pair, TRIAL)
    with ExitStack() as ends:
        jobs = [rank(one, 0, 1, ends) for _ in range(2)]
    with ExitStack() as ends:
        ranks = [rank(pair, local_rank, 2, ends) for local_rank in (1, 0)]
    for first, second in (jobs, ranks):
        assert (len(first), len(second)) == (1, 1)
        assert first != second
    everything = os.sched_getaffinity(0)
    with ExitStack() as ends:
        crowd = [rank(one, 0, 1, ends) for _ in range(len(cores.allowed_cores()) + 1)]
    assert crowd[-1] == everything  # too few are free: it is left as it was, and shares


@pytest.mark.parametrize("local_rank", [0, 1, 3])
def test_a_rank_in_a_mask_that_was_narrowed_takes_all_of_it(local_rank: int) -> None:
    assert cores.share([6, 7], local_rank, 4, 2) == [6, 7]
    assert cores.share([6, 7], 0, 1, 2) == [6, 7]


# Beside another


def test_a_job_has_another_beside_it_if_they_shared_a_node_at_a_time(tmp_path: Path) -> None:
    def job(name: str, nodes: list[str], began: float, ended: float | None, alive: float | None = None) -> JobFolder:
        made = submitted(tmp_path, name, TRIAL.model_copy(update={"repeat": len(list(tmp_path.glob("slurm/*")))}))
        made.began(nodes)
        os.utime(made.path / "began.json", (began, began))
        if ended is not None:
            made.ended("done")
            os.utime(made.path / "end.json", (ended, ended))
        if alive is not None:
            file = rank_file(made.trial(made.launches[0]), 0, "alive")
            file.touch()
            os.utime(file, (alive, alive))
        return made

    ours = job("ours", ["n1", "n2"], 1000.0, None)
    job("before", ["n1"], 500.0, 990.0)
    job("after", ["n1"], 1210.0, None)
    job("elsewhere", ["n3"], 900.0, 1300.0)
    job("killed", ["n1"], 500.0, None, alive=800.0)
    submitted(tmp_path, "pending", TRIAL.model_copy(update={"seed": 7}))
    (tmp_path / "slurm" / "refused").mkdir()
    assert not beside_another(ours, 1000.0, 1200.0)
    assert not beside_another(submitted(tmp_path, "not begun", TRIAL.model_copy(update={"seed": 8})), 0.0, 2e9)
    during = job("during", ["n2", "n3"], 1050.0, 1100.0)
    assert beside_another(ours, 1000.0, 1200.0)
    assert not beside_another(ours, 1110.0, 1200.0)  # the trial, not the job, counts
    assert beside_another(during, 1050.0, 1100.0)
    starts = job("starts", ["n1"], 1105.0, None)
    assert beside_another(ours, 1110.0, 1200.0)  # it has not given a sign of life yet
    starts.ended("done")
    os.utime(starts.path / "end.json", (1106.0, 1106.0))
    job("runs", ["n1"], 1150.0, None, alive=1230.0)
    assert beside_another(ours, 1110.0, 1200.0)


def test_a_job_that_slurm_has_started_again_has_not_ended(tmp_path: Path) -> None:
    """And so another one that runs on its node has it beside itself."""
    ours = submitted(tmp_path, "ours")
    other = submitted(tmp_path, "other", TRIAL.model_copy(update={"repeat": 1}))
    other.began(["n1"])
    ours.began(["n1"])
    ours.ended("signal")
    os.utime(ours.path / "end.json", (1000.0, 1000.0))
    now = (ours.path / "began.json").stat().st_mtime
    assert not beside_another(other, now - 5.0, now + 5.0)
    ours.began(["n1"])
    assert ours.end is None
    assert beside_another(other, now - 5.0, now + 5.0)


# How a step has ended


@pytest.mark.parametrize(
    ("said", "codes", "status", "words"),
    [
        (["slurmstepd: error: execve(): /no/python: No such file or directory",
          "srun: error: n1: task 0: Exited with exit code 2"], [], "failed", "the ranks: slurmstepd: error: execve"),
        (["srun: unrecognized option '--container-image=x'", "Try \"srun --help\" for more information"],
         [], "failed", "unrecognized option '--container-image=x'"),
        (["srun: error: Unable to create step for job 7: More processors requested than permitted"],
         [], "failed", "More processors requested"),
        (["slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM Killed.",
          "srun: error: n2: task 1: Out Of Memory", "srun: Terminating StepId=7.0"],
         [1, None], "failed", "srun: error: n2: task 1: Out Of Memory"),
        (["slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0 cgroup."], [], "failed", "oom-kill event"),
        (["slurmstepd: error: StepId=7.0 exceeded memory limit (2049 > 2048), being killed"],
         [-9, 1], "failed", "exceeded memory limit"),
        (["srun: error: Task launch for StepId=7.0 failed on node n2: Communication connection failure",
          "srun: error: Application launch failed: Communication connection failure"], [], "lost", "launch failed"),
        (["srun: error: Unable to confirm allocation for job 7: Unable to contact slurm controller (connect failure)"],
         [], "lost", "Unable to contact"),
        (["srun: error: Timed out waiting for job step to complete"], [], "lost", "Timed out"),
        ([NODE_FAILED], [], "lost", "NODE FAILURE"),
        ([NODE_FAILED], ["log"], "lost", "NODE FAILURE"),
        (["srun: error: n1: task 0: Killed", "srun: launch/slurm: _step_signal: Terminating StepId=7.0",
          "srun: Force Terminated StepId=7.0"], ["log"], "lost", "task 0: Killed"),  # its keeper, by somebody
        (["srun: cluster configuration lacks support for cpu binding", "Traceback (most recent call last):",
          "slurmstepd-n1: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-11-26T10:54:56 ***",
          "ModuleNotFoundError: No module named 'jobs'", "srun: error: n1: task 0: Terminated"],
         [], "failed", "srun could not start the ranks: ModuleNotFoundError"),
        (["srun: cluster configuration lacks support for cpu binding"], [], "lost", "without an end of every rank"),
        ([], [], "lost", "it said nothing"),
        ([], [-9, 0], "failed", "rank 0 was killed by SIGKILL"),
    ],
)  # fmt: skip
def test_what_srun_says_tells_whose_fault_an_end_was(
    said: list[str], codes: list[int | str | None], status: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "srun.log").write_text("".join(f"{line}\n" for line in said))
    exits = []
    for rank, code in enumerate(codes):
        rank_file(tmp_path, rank, "log").touch()
        if isinstance(code, int):
            exits.append(RankExit(rank=rank, exit_code=code, asked=code == 1, ended_unix=float(rank)))
    ended = step_verdict(tmp_path, exits, 2) or without_an_end(tmp_path, exits)
    assert (ended[0], words in ended[1]) == (status, True), ended


def test_a_rank_that_failed_by_itself_is_believed_whatever_srun_says_of_memory(tmp_path: Path) -> None:
    (tmp_path / "srun.log").write_text("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.\n")
    rank_file(tmp_path, 0, "log").write_text("ValueError: wrong\n")
    exits = [RankExit(rank=0, exit_code=1, ended_unix=1.0), RankExit(rank=1, exit_code=-15, asked=True)]
    assert step_verdict(tmp_path, exits, 2) == ("failed", "rank 0 ended with exit code 1: ValueError: wrong")


# A job's script, with programs in place of SLURM's

BATCH = """
import sys
from cluster.slurm import batch
batch.AWAY_SECONDS, batch.ASK_AGAIN_SECONDS = float(sys.argv[1]), 0.05
batch.main(sys.argv[2:])
"""
AWAY = "echo 'slurm_load_node error: Unable to contact slurm controller (connect failure)' >&2; exit 1"


def run_batch(job: JobFolder, programs: Path, patience: float, **commands: str) -> subprocess.CompletedProcess[str]:
    """Run the script's program, and `commands`, each some lines of shell, as what it calls."""
    command = [sys.executable, "-c", BATCH, str(patience), str(job.path), sys.executable, "--", "srun"]
    return run_in_a_job(command, programs, **commands)


def run_in_a_job(command: list[str], programs: Path, **commands: str) -> subprocess.CompletedProcess[str]:
    programs.mkdir()
    for name, lines in ({"scontrol": "echo n1 NodeAddr=127.0.0.1", "squeue": "echo 10:00"} | commands).items():
        (programs / name).write_text(f"#!/bin/sh\n{lines}\n")
        (programs / name).chmod(0o755)
    variables = {"SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "n1", "SLURMD_NODENAME": "n1"}
    return subprocess.run(
        command,
        env=os.environ | variables | {"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_job_that_begins_asks_a_controller_that_is_away_again(tmp_path: Path) -> None:
    job, programs = submitted(tmp_path, "job"), tmp_path / "programs"
    twice = f'echo >>{tmp_path}/$(basename "$0"); test $(wc -l <{tmp_path}/$(basename "$0")) -gt 2 || {{ {AWAY}; }}'
    refuse = "echo 'srun: error: Unable to create step for job 17: Invalid generic resource (gres)' >&2; exit 1"
    done = run_batch(
        job,
        programs,
        30.0,
        scontrol=f'test "$2" = node || {{ echo n1; exit; }}\n{twice}\necho NodeAddr=127.0.0.1',
        squeue=f"{twice}\necho RUNNING",
        srun=refuse,
    )
    assert (done.returncode, done.stderr) == (1, "")
    outcome = outcome_of(job)
    assert (outcome.status, outcome.job, job.end, job.nodes) == ("failed", "17", "done", {"n1"})
    assert outcome.error.startswith("srun could not start the ranks: srun: error: Unable to create step for job 17")


def test_a_script_that_waits_since_the_version_before_runs(tmp_path: Path) -> None:
    """Its last line as it was written then, but for the folder and the interpreter."""
    job, (kept,) = submitted(tmp_path, "job"), KEPT.glob("*/job.sbatch")
    line = kept.read_text(encoding="utf-8").splitlines()[-1]
    assert " -m cluster.slurm_batch /home/user/study/slurm/" in line
    line = line.replace(f"/home/user/study/slurm/{kept.parent.name}", str(job.path))
    line = line.replace("/home/user/scaling/.venv/bin/python", sys.executable)
    srun = f'echo "$@" >{tmp_path}/asked; echo "srun: error: Invalid partition" >&2; exit 1'
    command = ["bash", "-c", f"flags=(--mpi=none)\n{line}"]
    done = run_in_a_job(command, tmp_path / "programs", squeue="echo RUNNING", srun=srun)
    assert (done.returncode, done.stderr, job.end) == (1, "", "done")
    assert outcome_of(job).error == "srun could not start the ranks: srun: error: Invalid partition"
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("--mpi=none --nodes=")
    assert asked.endswith(f" {sys.executable} -P -m cluster.slurm.rank {job.trial(job.launches[0])}\n")


def test_a_job_that_the_version_before_began_finds_what_starts_the_ranks_of_its_next_trial() -> None:
    done = subprocess.run([sys.executable, "-P", "-m", "cluster.slurm_rank"], capture_output=True, text=True)
    assert done.stderr.startswith("usage: srun … python -m cluster.slurm.rank TRIAL_DIR")


@pytest.mark.parametrize("limit", [20.0, 90.0, 900.0])
def test_slurms_limit_on_a_step_comes_after_the_trials_own(
    limit: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranks' keepers hold the exact one, and write down what it has struck."""
    asked: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: (asked.append(command), Ended())[1])
    job = submitted(tmp_path, "job", TRIAL.model_copy(update={"limits": Limits(trial=limit)}))
    batch._start(job.trial(job.launches[0]), "127.0.0.1", ["srun"], ["python"])
    (minutes,) = [int(word.removeprefix("--time=")) for word in asked[0] if word.startswith("--time=")]
    assert 60 * minutes >= limit + 30


class Ended:
    """An srun that has ended well at once."""

    def wait(self) -> int:
        return 0


@pytest.mark.parametrize("moment", ["begins", "is written down"])
def test_a_trial_that_is_set_aside_as_it_ends_is_told_so_and_the_others_can_be_stopped(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: Ended())
    job = submitted(tmp_path, "job")
    folder, aside = job.trial(job.launches[0]), lambda *_: job.trial(job.launches[0]).rename(tmp_path / "aside")
    step = batch._start(folder, "127.0.0.1", ["srun"], ["python"])
    if moment == "begins":
        aside()
    else:
        monkeypatch.setattr(batch, "beside_another", aside)
    batch._finish(job, job.launches[0], "17", step)
    assert capsys.readouterr().out == f"{TRIAL.id}: has been set aside meanwhile; its end is not written down\n"
    assert not set(batch.SIGNALS) & signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_what_a_killed_driver_took_back_is_in_nobodys_way(tmp_path: Path) -> None:
    job = submitted(tmp_path, "job")
    left = tmp_path / f".withdrawn-{TRIAL.id}"
    left.mkdir()
    (left / "trial.json").touch()
    assert withdrawn(job.trial(job.launches[0]))
    assert not job.trial(job.launches[0]).exists()


def test_a_trial_that_begins_as_it_is_taken_back_keeps_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in: a step that writes its first file after the first look."""
    job = submitted(tmp_path, "job")
    folder, begun = job.trial(job.launches[0]), jobs.begun

    def looked(at: Path) -> bool:
        found = begun(at)
        if at == folder:
            (at / ending.SRUN_LOG).touch()
        return found

    monkeypatch.setattr(jobs, "begun", looked)
    assert not withdrawn(folder)
    assert begun(folder)
    assert (folder / "trial.json").exists()


def test_what_a_trial_may_take_is_told_by_the_longest_launch_of_its_point(tmp_path: Path) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    for repeat, (seconds, status) in enumerate([(10.0, "ok"), (40.0, "ok"), (300.0, "lost")]):
        job = submitted(tmp_path, f"job{repeat}", TRIAL.model_copy(update={"repeat": repeat}))
        folder, ended = job.trial(job.launches[0]), began + timedelta(seconds=seconds)
        times = {"started": began.isoformat(), "ended": ended.isoformat()}
        conclude(folder, status="lost", error="", launcher="slurm", order=repeat, exits=[], **times)
        outcome = folder / "outcome.json"
        outcome.write_text(outcome.read_text().replace('"lost"', f'"{status}"'))
    next_one = submitted(tmp_path, "next", TRIAL.model_copy(update={"repeat": 3}))
    wanted = batch.seconds_wanted(next_one.trial(next_one.launches[0]))
    assert wanted == batch.LONGER * 40.0 + batch.MORE_SECONDS
    other = submitted(tmp_path, "other", TRIAL.model_copy(update={"workers": 1}))
    assert batch.seconds_wanted(other.trial(other.launches[0])) == TRIAL.limits.trial


@pytest.mark.parametrize("command", ["scontrol", "squeue"])
def test_a_job_to_which_slurm_does_not_answer_costs_no_trial(command: str, tmp_path: Path) -> None:
    job = submitted(tmp_path, "job")
    done = run_batch(job, tmp_path / "programs", 0.2, srun="exit 0", **{command: AWAY})
    assert (done.returncode, job.end) == (1, "away")
    assert done.stderr == "slurm_load_node error: Unable to contact slurm controller (connect failure)\n"
    assert read_outcome(job.trial(job.launches[0])) is None
    job.output.write_text(done.stderr)
    watched = ending.Job(job, "17", {})
    status, why = ending.fate(watched, JobState("17", "job", "FAILED", "NonZeroExitCode", "n1"))
    assert (status, "Unable to contact slurm controller" in why) == ("lost", True)


# Jobs by their ids, and by their names


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> dict[str, JobState]:
    """What squeue shows; what is cancelled is then shown as such."""
    shown: dict[str, JobState] = {}

    def cancel(ids: list[str]) -> None:
        shown.update({i: JobState(i, shown[i].name, "CANCELLED") for i in ids})

    monkeypatch.setattr(slurm_queue, "jobs", lambda: dict(shown))
    monkeypatch.setattr(slurm_queue, "cancel", cancel)
    monkeypatch.setattr(slurm_queue, "last_word", lambda job_id: JobState(job_id, "another", "COMPLETED"))
    monkeypatch.setattr(slurm_cluster, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(slurm_cluster, "POLL_SECONDS", 0.01)
    return shown


def test_a_job_that_has_our_id_and_another_name_is_not_ours(queue: dict[str, JobState], tmp_path: Path) -> None:
    """As after a controller that has lost its memory: the id was given to another job of this user."""
    job = submitted(tmp_path, "job")
    queue["17"] = JobState("17", "another", "RUNNING", "", "n1")
    launcher = SlurmLauncher({}, tmp_path)
    launcher._load()
    launcher.cancel()
    assert queue["17"].state == "RUNNING"
    outcome = outcome_of(job)
    assert (outcome.status, outcome.error) == ("lost", "job 17 is gone from the queue and left no record")
    assert job.end == "gone"


def test_a_job_is_found_by_its_name_where_its_id_has_become_anothers(
    queue: dict[str, JobState], tmp_path: Path
) -> None:
    job = submitted(tmp_path, "job")
    queue |= {"17": JobState("17", "another", "RUNNING"), "3": JobState("3", "job", "RUNNING", "", "n1")}
    launcher = SlurmLauncher({}, tmp_path)
    (state,) = launcher.observe().values()
    assert (state.job, state.text, state.nodes) == ("3", "running", "n1")
    launcher.cancel()
    assert (queue["17"].state, queue["3"].state) == ("RUNNING", "CANCELLED")
    assert outcome_of(job).status == "cancelled"


def test_a_reader_is_told_of_a_job_that_is_gone(queue: dict[str, JobState], tmp_path: Path) -> None:
    job = submitted(tmp_path, "job")
    (state,) = SlurmLauncher({}, tmp_path).observe().values()
    assert (state.text, state.job) == ("gone", "17")
    assert state.reason == "not in the queue any more; `scaling run` finds out"
    assert read_outcome(job.trial(job.launches[0])) is None  # it changes nothing
    assert job.end is None


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("CANCELLED by 1000|n[1-2]|job\n", JobState("17", "job", "CANCELLED", "", "n[1-2]")),
        ("TIMEOUT|n1|a|name\n", JobState("17", "a|name", "TIMEOUT", "", "n1")),
        ("CANCELLED+|None assigned|job\n", JobState("17", "job", "CANCELLED")),
        ("RUNNING|n1|job\n", None),
        ("", None),
    ],
)
def test_accounting_is_read_as_it_is_written(
    said: str, state: JobState | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says who cancelled a job, and may be late to know that it has ended."""
    monkeypatch.setattr(slurm_queue, "_ask", lambda command: said)
    assert slurm_queue.last_word("17") == state


# What the driver writes down


@pytest.mark.parametrize("ended", [None, 1_700_000_060.0])
def test_a_trial_that_the_driver_concludes_took_the_time_that_its_files_tell(
    ended: float | None, queue: dict[str, JobState], tmp_path: Path
) -> None:
    job = submitted(tmp_path, "job")
    queue["17"] = JobState("17", "job", "NODE_FAIL", "", "n[1-2]")
    folder, began = job.trial(job.launches[0]), 1_700_000_000.0
    if ended:
        RankExit(rank=1, exit_code=-9, asked=True, ended_unix=ended).write(folder)
    times = {"trial.json": -500, "srun.log": 70, "rank-00000.log": 2, "rank-00001.log": 1}
    for name, after in (times | {"telemetry-n1.jsonl": 65, "rank-00000.alive": 120}).items():
        (folder / name).touch()
        os.utime(folder / name, (began + after, began + after))
    if ended:
        os.utime(rank_file(folder, 1, "exit"), (began + 61, began + 61))
    launcher = SlurmLauncher({}, tmp_path)
    launcher._load()
    until_over(launcher)
    outcome = outcome_of(job)
    assert outcome.status == "lost"
    assert datetime.fromisoformat(outcome.started).timestamp() == began + 1
    assert outcome.seconds == (59.0 if ended else 69.0)


def test_a_trial_that_never_began_took_no_time(queue: dict[str, JobState], tmp_path: Path) -> None:
    job = submitted(tmp_path, "job")
    queue["17"] = JobState("17", "job", "CANCELLED")
    launcher = SlurmLauncher({}, tmp_path)
    launcher._load()
    until_over(launcher)
    assert (outcome_of(job).status, outcome_of(job).seconds) == ("cancelled", 0.0)


def until_over(launcher: SlurmLauncher) -> None:
    for _ in range(3):
        launcher._poll()
    assert not launcher.running()


# What a script names itself


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (["--partition=gpu"], {"partition"}),
        (["-A lab"], {"account"}),
        (["-Alab -pgpu"], {"account", "partition"}),
        (["--mail-type=END --qos high"], {"qos"}),
        (["--mem=8G -q high"], {"qos"}),
        (["--part=gpu"], {"partition"}),
        (["--comment='--qos=no' # -A no"], set()),
        (["--parsable", "--quiet", "-J p"], set()),
    ],
)
def test_what_a_script_names_itself_is_not_taken_from_the_shell(
    lines: list[str], named: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str] = {}
    monkeypatch.setattr(slurm_queue, "_ask", lambda command, **defaults: seen.update(defaults) or "17\n")
    for key in ("ACCOUNT", "PARTITION", "QOS"):
        monkeypatch.setenv(f"SBATCH_{key}", "shell's")
    script = tmp_path / "job.sbatch"
    script.write_text("#!/bin/bash\n# -A is none here\n" + "".join(f"#SBATCH {line}\n" for line in lines))
    assert slurm_queue.submit(script) == "17"
    assert {name.removeprefix("SBATCH_").lower() for name in seen} == {"account", "partition", "qos"} - named
