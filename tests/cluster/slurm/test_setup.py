"""A user's lines in a job's script: a real bash runs the script; a program stands in for srun, and one for what the
script ends in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.launcher import OptionsError
from cluster.slurm import ending, queue
from cluster.slurm import script as slurm_script
from cluster.slurm.job import JobFolder
from cluster.slurm.options import parse
from cluster.slurm.queue import JobState
from cluster.slurm.ray import parse as parse_ray
from cluster.slurm.size import Size

# A site's script, in whose middle things fail that it does not mind.
SITE = """
false
grep -q nothing /dev/null
[ -n "$UNSET" ] && echo never
prepared() { false; grep -q x /dev/null; true; }
prepared
export SITE=$(false)
export SITE=there
"""
# As a configure and a make, and as a `module` that cannot load.
MAKE = """
echo "checking for strerror... yes"
echo "gcc -Wno-error -c x.c"
echo "x.c:1:10: fatal error: y.h: No such file or directory" >&2
echo "make: *** [Makefile:2: x.o] Error 1" >&2
exit 2
"""
LMOD = """
echo 'Lmod has detected the following error: These module(s) are unknown: "x"
Please check the spelling or version number. Also try "module spider ..."
Also make sure that all modulefiles written in TCL start with the string
#%Module'
exit 1
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobFolder:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, lines in {"srun": "true", "goes-on": "echo measured; env | grep -E '^(SITE|LATER)='"}.items():
        (programs / name).write_text(f"#!/bin/bash\n{lines}\n")
        (programs / name).chmod(0o755)
    for name, text in {"site": SITE, "make": MAKE, "lmod": LMOD}.items():
        (tmp_path / f"{name}.sh").write_text(text)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(programs / "goes-on"))
    monkeypatch.setattr(queue, "exit_code", lambda job_id: "1:0")
    (tmp_path / "slurm" / "job").mkdir(parents=True)
    return JobFolder(tmp_path / "slurm" / "job", "job", "per-trial", None, ())


def run(job: JobFolder, **options: list[str]) -> str:
    """What the script of a job with these options prints, run as SLURM's daemon runs it."""
    job.script.write_text(slurm_script.script(parse(dict(options)), Size(1, 1, 1, 1, 0), 1, job.path, job.name))
    with job.output.open("w") as output:
        done = subprocess.run(["bash", job.script], stdout=output, stderr=output, cwd=job.path.parents[1], timeout=20)
    said = job.output.read_text()
    assert (done.returncode == 0) == ("measured" in said), said
    return said


def ended(job: JobFolder, state: str = "FAILED") -> tuple[str, str]:
    return ending.fate(ending.Job(job, "17", {}), JobState("17", "job", state, "", "n1"))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("source /no/such/site.sh", "ended with exit code 1: /no/such/site.sh: No such file or directory"),
        ("conda activate x", "ended with exit code 127: conda: command not found"),
        ("export NCCL_X=$(false)", "a substitution in it ended with exit code 1"),
        ("declare -x A=`nosuch`", "a substitution in it ended with exit code 127: nosuch: command not found"),
        ('eval "$(conda shell.bash hook)"', "a substitution in it ended with exit code 127: conda: command not found"),
        ("source <(nosuch hook)", "a substitution in it ended with exit code 127: nosuch: command not found"),
        ("cd /nowhere", "ended with exit code 1: cd: /nowhere: No such file or directory"),
        ("cat /nowhere | sort", "a command of its pipe ended with exit code 1: cat: /nowhere: No such file"),
        ("m() { echo 'unknown: x' >&2; ls /nowhere; }; m load", "ended with exit code 2: unknown: x"),
        ("source ./site.sh; cat /nowhere", "ended with exit code 1: cat: /nowhere: No such file"),
        ("exit 3", "it has ended the shell of the job with exit code 3"),
        ("set -e -u; echo $UNSET_X", "it has ended the shell of the job with exit code 1: UNSET_X: unbound variable"),
        ("export PATH=/nowhere", "after it there is no srun on PATH: /nowhere"),
        ("kill -KILL $$", "had not ended"),
        ("if true; then\n  true\n  false\nfi", "'false' ended with exit code 1"),
        ("python3 -c 'import nosuch'", "ended with exit code 1: ModuleNotFoundError: No module named 'nosuch'"),
        ("bash ./make.sh", "ended with exit code 2: x.c:1:10: fatal error: y.h: No such file or directory"),
        (
            "bash ./lmod.sh",
            "ended with exit code 1: Lmod has detected the following error: These module(s) are unknown",
        ),
    ],
)
def test_a_step_that_fails_ends_the_job_and_is_told(entry: str, words: str, job: JobFolder) -> None:
    said = run(job, setup=["# first of all", "export A=1", entry, "export LATER=1"])
    assert "measured" not in said
    status, why = ended(job)
    assert status == "failed"
    label = entry if "\n" not in entry else f"{entry.splitlines()[0]} …"
    assert why.startswith(f"job 17 ended as FAILED on n1 with exit code 1:0: launcher.setup[2]: {label}: {words}"), why
    assert "\n" not in why


def test_what_does_not_fail_by_the_rules_of_bash_goes_on(job: JobFolder) -> None:
    setup = [
        "source ./site.sh",
        "[ -d /nowhere ] && export LATER=no",
        "if ! nosuch 2>/dev/null; then export A=1; fi",
        "ulimit -n 999999999 2>/dev/null || true",
        "export A=$(grep -q x /dev/null; echo some)",
        "yes | head -n 1 >/dev/null",
        "cat /nowhere 2>&1 | grep -q nothing && export LATER=no",
        "if cat /nowhere 2>&1 | grep -q nothing; then export LATER=no; fi",
        "module() { false; true; }; module load x",
        "if test -d /; then",
        "  source ./site.sh",
        "fi",
        "cat <<END >/dev/null\n$(hostname)\n\nEND",
        "nosuch 2>&1 | head -3 >/dev/null || true",
        "! nosuch 2>/dev/null | true",
        "set -u",
        "export LATER=\\",
        "yes",
        "sleep 0 &",
    ]
    said = run(job, setup=setup).splitlines()
    assert {"measured", "LATER=yes", "SITE=there"} <= set(said), said
    assert [line for line in said if line.startswith("set-up begins")][-3:] == [
        "set-up begins: launcher.setup[15]: set -u",
        "set-up begins: launcher.setup[16]: export LATER=\\ …",
        "set-up begins: launcher.setup[18]: sleep 0 &",
    ]


def test_a_module_that_is_not_there_is_named(job: JobFolder) -> None:
    run(job, module_load=["cuda/12.4"])
    assert ended(job)[1].endswith(
        "launcher.module_load[0]: module load cuda/12.4: ended with exit code 127: module: command not found"
    )


def test_a_line_within_an_entry_is_a_step_and_a_secret_is_not_told(job: JobFolder) -> None:
    said = run(job, setup=["export WANDB_API_KEY=hunter2\nwget https://me:hunter2@example/x -O - | false\n"])
    _, why = ended(job)
    assert "launcher.setup[0]: wget https://***@example/x -O - | false: " in why, why
    assert "hunter2" not in why + said.replace(job.script.read_text(), "")


@pytest.mark.parametrize(
    "before",
    [
        "set-up begins: launcher.setup[0]: python probe.py || true\nTraceback (most recent call last):\n"
        '  File "probe.py", line 1\nImportError: libcuda.so.1\nset-up is done\n',
        'Traceback (most recent call last):\n  File "x", line 1\nImportError: libcuda.so.1\n'
        "slurmstepd: error: *** JOB 17 ON n1 CANCELLED AT 2026-11-28T02:00:00 DUE TO JOB REQUEUE ***\n",
    ],
)
def test_what_the_set_up_or_an_earlier_start_has_said_is_not_why_the_job_failed(before: str, job: JobFolder) -> None:
    job.output.write_text(f"{before}https://me:hunter2@example/ is away\n")
    assert ended(job)[1] == "job 17 ended as FAILED on n1 with exit code 1:0: https://***@example/ is away"
    job.output.write_text(before)
    assert ended(job)[1] == "job 17 ended as FAILED on n1 with exit code 1:0"


@pytest.mark.parametrize("allocation", ["per-trial", "packed"])
def test_a_step_that_hangs_is_named_and_not_tried_in_the_next_allocation(allocation: str, job: JobFolder) -> None:
    job.output.write_text("set-up begins: launcher.setup[0]: sleep 9999\n")
    packed = JobFolder(job.path, job.name, allocation, None, ())
    status, why = ended(packed, "TIMEOUT")
    assert (status, why) == (
        "timeout",
        "job 17 ended as TIMEOUT on n1 (launcher.time): launcher.setup[0]: sleep 9999: had not ended",
    )


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        (["true", "fi"], "entry 1, 'fi': syntax error near unexpected token `fi'"),
        (["if true; then", "true"], "entry 0, 'if true; then\\ntrue': syntax error: unexpected end of file"),
        (["echo \\"], "entry 0, 'echo \\\\': ends with a backslash, which takes in the next line"),
        (["cat <<END", "x"], "entry 0, 'cat <<END\\nx': warning: here-document at line 1 delimited by end-of-file"),
    ],
)
def test_what_bash_cannot_read_is_refused_before_it_is_submitted(setup: list[str], words: str) -> None:
    with pytest.raises(OptionsError) as error:
        parse({"setup": setup})
    (fault,) = error.value.faults
    assert fault.startswith(f"setup: bash cannot run {words}"), fault
    with pytest.raises(ValueError, match=r"^setup: .*bash cannot run"):
        parse_ray(["cpus_per_node=1", "time=1", f"setup={json.dumps(setup)}"])


@pytest.mark.parametrize(
    ("name", "value"),
    [("LC_ALL", "nosuch.UTF-8"), ("BASH_XTRACEFD", "99"), ("SHELLOPTS", "verbose"), ("LD_PRELOAD", "/no/such.so")],
)
def test_what_bash_says_at_its_start_is_not_of_the_lines(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    line = f"source /apps/ä/{name}.sh"
    assert parse({"setup": [line]}).setup == [line]
    with pytest.raises(OptionsError, match=r"setup: bash cannot run entry 0, .*: syntax error near"):
        parse({"setup": [f"{line}; fi"]})
