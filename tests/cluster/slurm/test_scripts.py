"""The scripts for SLURM and the options they are made of; nothing here needs a SLURM."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cluster.launcher import Launch, OptionsError
from cluster.slurm import ending, queue, ray
from cluster.slurm import script as slurm_script
from cluster.slurm import size as slurm_size
from cluster.slurm.job import JobFolder, Planned
from cluster.slurm.launcher import SlurmLauncher
from cluster.slurm.options import parse, seconds_of
from cluster.slurm.queue import JobState
from cluster.slurm.rank import place_of, tasks_per_node
from cluster.slurm.size import Size, size_of
from cluster.study import file
from jobs.contract.environment import RankEnvironment, RendezvousError
from jobs.contract.folder import write_trial
from jobs.contract.outcome import read_outcome
from jobs.contract.trial import Trial

GOLDEN = Path(__file__).with_name("golden")
OPTIONS: dict[str, dict[str, Any]] = {
    "trial": {"nodes": 4, "time": 20},
    "packed": {"allocation": "packed", "nodes": 4, "tasks_per_node": 8, "time": "1-12:00:00"},
    "gpus": {
        "nodes": 2,
        "tasks_per_node": 4,
        "cpus_per_task": 16,
        "time": "2:00:00",
        "partition": "gpu",
        "account": "proj42",
        "qos": "normal",
        "constraint": "a100&nvlink",
        "reservation": "bench",
        "exclude": "gpu[03,07-09]",
        "exclusive": True,
        "requeue": True,
        "module_load": ["cuda/12.4", "nccl"],
        "setup": ["source /apps/site.sh", 'export NCCL_DEBUG="WARN"'],
        "sbatch": ["--mail-type=END", "--switches=1@30:00"],
        "container_image": "docker://images.example#lab/torch:2.13",
        "container_mounts": ["/data:/data:ro"],
        "python": "/opt/venv/bin/python",
    },
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_script_is_as_it_was_agreed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change that is meant: SCALING_WRITE_GOLDEN=1 make test, and read the difference."""
    monkeypatch.setattr(slurm_script, "PROJECT", Path("/home/me/scaling"))
    monkeypatch.setattr(sys, "executable", "/home/me/scaling/.venv/bin/python")
    options = parse(OPTIONS[name])
    gpus = int(name == "gpus")  # of the study, not of the launcher
    size = size_of(trial("torch-ddp", options.most_workers, threads_per_worker=1, gpus_per_worker=gpus), options)
    job = Path("/home/me/results/a study/slurm/torch-ddp-0f0f0f0f")
    script = slurm_script.script(options, size, slurm_size.time_limit(options, [trial("torch", 1)]), job, job.name)
    compare(script, GOLDEN / f"{name}.sbatch")


def test_the_script_that_starts_ray_is_as_it_was_agreed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/home/me/scaling/.venv/bin/python")
    monkeypatch.setattr(os, "getcwd", lambda: "/home/me/scaling")
    asked = ["nodes=2", "cpus_per_node=8", "gpus_per_node=1", "time=1:00:00", "partition=gpu", "results=/home/me/out"]
    compare(ray.script(Path("/home/me/my study.yaml"), ray.parse(asked)), GOLDEN / "ray.sbatch")


def compare(script: str, golden: Path) -> None:
    if os.environ.get("SCALING_WRITE_GOLDEN"):
        golden.write_text(script)
    assert script == golden.read_text()
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


# Whatever somebody writes, the shell sees one word of it

NASTY = st.text(alphabet=st.sampled_from("ab'\"`$(){};&|<>\\!*?#~ %\té\n\r\x1b"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(folder=NASTY, image=NASTY, python=NASTY)
def test_nothing_that_is_quoted_is_ever_run(
    folder: str, image: str, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real bash runs the script; in place of this project's interpreter a program tells its arguments."""
    canary = tmp_path / "canary"
    tell = tmp_path / "tell it's $(here)"
    tell.write_text('#!/bin/bash\nprintf "%s\\0" "$@"\n')
    tell.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tell))
    attack = f"$(touch {canary})`touch {canary}`;touch {canary};'\"\\"
    for given_image in (image, attack):
        try:
            options = parse({"container_image": given_image, "python": python})
        except OptionsError:
            continue
        job = tmp_path / (folder.strip("/") + attack.replace("/", "_")) / "slurm" / "job"
        if not folder.isprintable():
            with pytest.raises(ValueError, match="is not on one line of printable text"):
                slurm_script.script(options, Size(1, 1, 1, 1, 0), 1, job, "name")
            continue
        script = slurm_script.script(options, Size(1, 1, 1, 1, 0), 1, job, "name")
        done = subprocess.run(["bash"], input=script.encode(), capture_output=True, timeout=20)
        assert done.returncode == 0, done.stderr
        words = done.stdout.decode().split("\0")[:-1]
        assert words[:6] == ["-P", "-m", "cluster.slurm.batch", str(job), python, "--"]
        assert f"--container-image={given_image}" in words
        assert not canary.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("partition", "gpu\n#SBATCH --wrap=evil"),
        ("partition", "gpu; rm -rf /"),
        ("account", "$(id)"),
        ("constraint", "a b"),
        ("exclude", "--wrap=evil"),
        ("module_load", ["cuda\nevil"]),
        ("sbatch", ["--mail-type=END\nevil"]),
        ("sbatch", ["wrap"]),
        ("sbatch", ["--array=0-3"]),
        ("sbatch", ["--mail-type=END --arr 1-2"]),
        ("sbatch", ["-W"]),
        ("sbatch", ["--comment='open"]),
        ("container_image", "image\nevil"),
        ("container_mounts", ["/a:/b c"]),
        ("interface", "eth0;id"),
    ],
)
def test_an_option_that_could_break_out_is_refused_in_one_line(key: str, value: object) -> None:
    with pytest.raises(OptionsError) as error:
        parse({key: value} | ({"container_image": "i"} if key == "container_mounts" else {}))
    (fault,) = error.value.faults
    assert fault.startswith(key)
    assert "\n" not in fault


@settings(max_examples=200)
@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"]) | st.sampled_from("\n\r\t\0\x1b\u2028"), min_size=1))
@example('a "word" and a \\')  # what is drawn holds a quote by chance only
@example("two\nlines")
def test_a_directive_has_no_character_left_that_sbatch_takes_for_more(text: str) -> None:
    if not text.isprintable():  # bash would run what comes after a line's end
        with pytest.raises(ValueError, match="is not on one line of printable text"):
            slurm_script.directive(text)
        return
    written = slurm_script.directive(text)
    if written == text:
        assert not set(text) & set(" \t\"'#\\")
        return
    assert (written[0], written[-1]) == ('"', '"')
    plain = ""
    characters = iter(written[1:-1])
    for character in characters:  # as sbatch reads what is in quotes: a backslash, then one character as it is
        assert character != '"'
        plain += next(characters) if character == "\\" else character
    assert plain == text


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"node": 4}, "node: is not an option of the slurm launcher; known: allocation, nodes"),
        ({"nodes": 0}, "nodes: 0 is wrong; input should be greater than or equal to 1"),
        ({"allocation": "packed"}, "time: is missing; it is how long the packed allocation may last"),
        ({"time": "soon"}, "time: 'soon' is not a time; write minutes, H:MM:SS or D-HH:MM:SS (in quotes)"),
        ({"time": 0}, "time: 0 is no time at all"),
        ({"container_mounts": ["/a:/b"]}, "container_image: is missing"),
        ({"gpus_per_task": 1}, "gpus_per_task: is the study's resources.gpus_per_worker; give it there"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(OptionsError) as error:
        SlurmLauncher(options, Path("unused"))
    assert [line.startswith(fault) for line in error.value.faults] == [True], error.value.faults


@pytest.mark.parametrize(
    ("time", "seconds"),
    [(90, 5400), ("90", 5400), ("1:30", 90), ("1:00:00", 3600), ("1-0", 86400), ("2-1:30", 178200), ("1-0:0:5", 86405)],
)
def test_times_are_read_as_sbatch_reads_them(time: str | int, seconds: int) -> None:
    assert seconds_of(time) == seconds


def test_a_job_has_every_second_that_it_needs_in_whole_minutes() -> None:
    assert slurm_size.time_limit(parse({"time": "1:30"}), [trial("torch", 1)]) == 2
    longest = trial("torch", 1, limits={"trial": 901.0})  # and two minutes to start and to end in
    assert slurm_size.time_limit(parse({}), [trial("torch", 1), longest]) == 18


def test_a_packed_allocation_has_what_the_widest_node_takes_and_no_more() -> None:
    """Four processes with a CPU each, and one with four: four CPUs on each node."""
    sizes = [Size(2, 8, 4, 1, 1), Size(1, 1, 1, 4, 4), Size(1, 2, 2, 1, 1)]
    assert slurm_size.largest(sizes, parse({})) == Size(2, 8, 4, 1, 1)
    assert slurm_size.largest([Size(1, 3, 3, 1, 0), Size(1, 1, 1, 4, 0)], parse({})) == Size(1, 3, 3, 2, 0)


def test_a_packed_job_runs_its_trials_in_the_order_in_which_they_were_given(tmp_path: Path) -> None:
    """It is a random one: sorted, a drift of the machine would fall on some points alone."""
    launcher = SlurmLauncher({"allocation": "packed", "nodes": 4, "time": 60}, tmp_path)
    given = [trial("torch-ddp", workers) for workers in (2, 4, 1, 3)]
    job = launcher._write([Launch(each, tmp_path / each.id, order) for order, each in enumerate(given)])
    assert [(p.trial, p.order) for p in JobFolder.read(job.path).launches] == [(t.id, i) for i, t in enumerate(given)]


def test_a_time_in_a_study_file_is_not_a_number_to_the_base_of_sixty(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: x\nstrategies: [torch]\nscaling: [strong]\nbatch: {global: 4}\nlauncher: {kind: slurm, time: 1:30:00}\n"
    )
    assert file.parse(path).launcher.options == {"time": "1:30:00"}


def test_options_that_leave_a_job_where_it_is_found_are_taken_as_they_are() -> None:
    options = ["--mail-type=END", "--switches=1@30:00", "-C 'a&b' --gres=gpu:a100:2", "--wait-all-nodes=1"]
    assert parse({"sbatch": options}).sbatch == options


def trial(strategy: str, workers: int, **changes: Any) -> Trial:
    factors = {"strategy": strategy, "workers": workers, "global_batch": workers, "threads_per_worker": 2}
    return Trial.of(**(factors | changes))


@pytest.mark.parametrize(
    ("strategy", "workers", "size"),
    [
        ("torch", 1, Size(1, 1, 1, 2, 1)),
        ("torch-ddp", 2, Size(1, 2, 2, 2, 1)),
        ("torch-ddp", 4, Size(1, 4, 4, 2, 1)),
        ("torch-ddp", 6, Size(2, 6, 4, 2, 1)),
        ("tf-mirrored", 4, Size(1, 1, 1, 8, 4)),
    ],
)
def test_nodes_are_filled_one_after_the_other(strategy: str, workers: int, size: Size) -> None:
    options = parse({"nodes": 4, "tasks_per_node": 4})
    assert size_of(trial(strategy, workers, gpus_per_worker=1), options) == size
    assert size_of(trial(strategy, workers), options) == replace(size, gpus_per_task=0)


def test_a_strategy_of_one_process_is_left_out_where_it_needs_two_nodes() -> None:
    launcher = SlurmLauncher({"nodes": 4, "tasks_per_node": 2}, Path("unused"))
    assert launcher.unfit(trial("tf-mirrored", 2)) is None
    assert (
        launcher.unfit(trial("tf-mirrored", 4))
        == "its one process needs a node for 4 workers; launcher.tasks_per_node is 2"
    )
    assert launcher.unfit(trial("torch-ddp", 8)) is None
    (fault,) = launcher.refuse([trial("torch-ddp", 16)])
    assert fault == "workers: 16 do not fit; launcher.nodes × launcher.tasks_per_node is 4 × 2"


def test_a_time_that_no_trial_fits_in_is_refused_before_anything_is_submitted() -> None:
    launcher = SlurmLauncher({"nodes": 1, "time": 10}, Path("unused"))
    (fault,) = launcher.refuse([trial("torch", 1)])
    assert (
        fault
        == "launcher.time: 10 is 600 s, and one trial may take limits.trial = 900 s; raise the one or lower the other"
    )


def test_a_task_of_a_step_knows_its_place() -> None:
    variables = {
        "SLURM_PROCID": "5",
        "SLURM_STEP_NUM_TASKS": "7",
        "SLURM_NTASKS": "99",  # of the whole allocation: not to be read
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "4711",
    }
    assert tasks_per_node("2(x3),1") == [2, 2, 2, 1]
    assert place_of(variables) == RankEnvironment(5, 7, 1, 2, 2, "10.0.0.1", 4711)
    last = {"SLURM_PROCID": "6", "SLURM_LOCALID": "0", "SLURM_NODEID": "3"}
    assert place_of(variables | last) == RankEnvironment(6, 7, 0, 1, 3, "10.0.0.1", 4711)  # alone on its node
    with pytest.raises(RendezvousError, match="SLURM_PROCID"):
        place_of({k: v for k, v in variables.items() if k != "SLURM_PROCID"})


# What the end of a job means, for ends that a practice cluster cannot be brought to


@pytest.mark.parametrize(
    ("state", "per_trial", "packed"),
    [
        ("TIMEOUT", "timeout", "lost"),
        ("DEADLINE", "timeout", "timeout"),
        ("NODE_FAIL", "lost", "lost"),
        ("BOOT_FAIL", "lost", "lost"),
        ("PREEMPTED", "lost", "lost"),
        ("OUT_OF_MEMORY", "failed", "failed"),
        ("FAILED", "failed", "failed"),
        ("CANCELLED", "cancelled", "cancelled"),
        (None, "lost", "lost"),
    ],
)
@pytest.mark.parametrize("allocation", ["per-trial", "packed"])
def test_each_end_of_a_job_has_its_meaning(
    state: str | None, per_trial: str, packed: str, allocation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trials of a job, the first begun: it gets the status, and the other too, unless it is handed back."""
    monkeypatch.setattr(queue, "exit_code", lambda job: "9:0")
    monkeypatch.setattr(queue, "last_word", lambda job: None)
    launcher = SlurmLauncher({"allocation": allocation, "time": 60}, tmp_path)
    planned = []
    for order, workers in enumerate((1, 2)):
        made = trial("torch-ddp", workers)
        write_trial(tmp_path / "trials" / made.id, made)
        planned.append(Planned(made.id, order, size_of(made, parse({}))))
    (tmp_path / "trials" / planned[0].trial / "srun.log").touch()
    folder = JobFolder(tmp_path / "slurm" / "job", "job", allocation, None, tuple(planned))
    folder.write()
    folder.output.write_text("first\nslurmstepd: error: last words\n")
    job = ending.Job(folder, "17", {p.trial: p for p in planned})
    assert launcher._settle(job, JobState("17", "job", state, "", "n[1-2]") if state else None) == [
        p.trial for p in planned
    ]
    wanted = packed if allocation == "packed" else per_trial
    first, second = (read_outcome(folder.trial(p)) for p in planned)
    assert first is not None
    assert (first.status, first.job) == (wanted, "17")
    assert (state or "left no record") in first.error
    assert ("last words" in first.error) == (wanted == "failed")
    if wanted in ("lost", "timeout"):
        assert second is None  # handed back: it was not begun
    else:
        assert second is not None
        assert second.status == wanted


def test_a_job_that_could_not_write_its_output_says_where_the_nodes_do_not_look(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "slurm" / "job", "job", "per-trial", None, ())
    state, job = JobState("17", "job", "FAILED", "JobLaunchFailure", "n1"), ending.Job(folder, "17", {})
    assert ending.fate(job, state) == (
        "failed",
        f"job 17 ended as FAILED on n1 and could not write {folder.output}; is that a folder which the nodes see?",
    )


def test_containers_are_refused_where_a_mount_could_not_be_written_down(tmp_path: Path) -> None:
    launcher = SlurmLauncher({"container_image": "i"}, tmp_path / "a:b")
    (fault,) = launcher.refuse([trial("torch", 1)])
    assert fault.startswith("launcher.container_image: ")
    assert "no colon and no comma" in fault
