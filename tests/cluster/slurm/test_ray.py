"""Ray inside a SLURM allocation: the script that is written, and a study that really runs so."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.slurm.ray import parse, script
from jobs.contract.outcome import read_outcome
from tests.cluster.slurm.practice import slurm
from tests.running import until

STUDY = {
    "name": "on both",
    "strategies": ["torch-ddp", "torch"],
    "workers": [2],
    "scaling": ["strong"],
    "batch": {"global": 4},
    "steps": {"warmup": 1, "measured": 3, "compute_only": 0},
    "repeats": {"min": 1},
    "launcher": {"kind": "ray", "placement": "spread"},
}


def of_job(number: str) -> list[str]:
    """The living processes of the job, whatever started them and whatever they call themselves."""
    job = {"SLURM_JOB_ID": number, "SLURM_CONF": os.environ["SLURM_CONF"]}  # numbers alone are another SLURM's too
    found = []
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(psutil.Error):
            if job.items() <= process.environ().items() and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


@pytest.mark.ray
@pytest.mark.slurm
def test_a_study_runs_on_ray_inside_an_allocation(slurm_cluster: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    made = subprocess.run(
        [
            sys.executable,
            "-m",
            "cluster.slurm.ray",
            study,
            "nodes=2",
            "cpus_per_node=1",
            "time=0:10:00",
            f"results={tmp_path / 'results'}",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    job = tmp_path / "ray.sbatch"
    job.write_text(made.stdout, encoding="utf-8")
    stale = set(Path("/tmp").glob("ray-*"))  # job numbers begin at 1 on every practice cluster
    number = slurm("sbatch", "--parsable", str(job)).strip()
    deadline = time.monotonic() + 150
    state, seen = "", set[str]()
    while state not in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL"):
        assert time.monotonic() < deadline, state
        time.sleep(0.5)
        seen |= set(of_job(number))
        state = slurm("squeue", "--states=all", f"--jobs={number}", "--noheader", "--format=%T").strip()
    said = (tmp_path / "ray-on-slurm-study.txt").read_text()
    assert state == "COMPLETED", said
    assert "on 2 nodes" in said
    outcomes = [read_outcome(folder) for folder in (tmp_path / "results" / "trials").iterdir()]
    assert {(o.status, o.launcher, len(o.ranks)) for o in outcomes if o} == {("ok", "ray", 1), ("ok", "ray", 2)}
    assert not (tmp_path / "ray-on-slurm-study" / "token").exists()
    assert any("raylet" in command for command in seen)
    until(lambda: not of_job(number), 10)
    assert set(Path("/tmp").glob(f"ray-{number}-*")) <= stale


def test_the_script_holds_what_was_asked_for(tmp_path: Path) -> None:
    job = parse(["nodes=3", "cpus_per_node=8", "time=1:30:00", "partition=big", "gpus_per_node=2", "module_load=[gcc]"])
    text = script(tmp_path / "my study.yaml", job)
    assert "#SBATCH --nodes=3\n" in text
    assert "#SBATCH --time=90\n" in text
    assert "#SBATCH --partition=big\n" in text
    assert "--num-gpus=2" in text
    assert f"'{tmp_path}/my study.yaml'" in text
    assert "ray stop" not in "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, env=dict(os.environ))


NASTY = st.text(alphabet=st.sampled_from("ab/'\"`$(){};&|<>\\!*?#~ %\té\n\r\x1b\u2028"), min_size=1, max_size=12)


def directives(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.startswith("#SBATCH")]


@settings(max_examples=100, deadline=None)
@given(stem=NASTY, results=NASTY)
def test_whatever_a_path_holds_no_line_of_the_script_is_another(stem: str, results: str) -> None:
    """It is refused, or is one word for the shell, and on the one line of its directive for sbatch."""
    study, options = Path("/home/me") / stem.replace("/", ""), ["cpus_per_node=1", "time=1"]
    try:
        text = script(study, parse([*options, f"results={results}"]))
    except ValueError as error:
        assert not f"{study.stem}{Path(results).resolve()}".isprintable()
        assert str(error).isprintable()
        return
    assert all(line.isprintable() for line in directives(text))
    names = [[line.partition("=")[0] for line in directives(t)] for t in (text, script(Path("s"), parse(options)))]
    assert names[0] == names[1]
    run = shlex.split(text[text.index(" -m scaling run ") :].partition(" &\nstudy=$!")[0])
    assert run == ["-m", "scaling", "run", str(study), "--on", "ray", "--results", str(Path(results).resolve())]
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_values_are_read_as_they_stand() -> None:
    words = ["constraint=[rack1|rack2]&gpu", "results=@x", "account=0123", "partition=yes", "qos=1e3", "time=1:30:00"]
    job = parse(["nodes=2", "cpus_per_node=4", "exclusive=true", "setup=['echo 1']", *words])
    assert (job.constraint, job.results, job.account, job.partition) == ("[rack1|rack2]&gpu", "@x", "0123", "yes")
    assert (job.nodes, job.exclusive, job.setup, job.qos, job.time) == (2, True, ["echo 1"], "1e3", "1:30:00")


@pytest.mark.parametrize("word", ["results=a\ntouch canary/b", "partition=a\ntouch canary", "nodes=[", "nodes"])
def test_what_is_wrong_is_said_on_one_line(word: str, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.touch()
    command = [sys.executable, "-m", "cluster.slurm.ray", study, "cpus_per_node=1", "time=1", word]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["cpus_per_node=8"], "time: Field required"),
        (["cpus_per_node=8", "time=soon"], "'soon' is not a time"),
        (["cpus_per_node=8", "time=10", "partition=a;b c"], "holds a character that no SLURM option has"),
        (["nodes"], "write key=value"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], fault: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(words)
    assert fault in str(caught.value)
