"""`scaling doctor`: what it says of this machine, and that it holds on a broken one."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from rich.console import Console

from cluster.setup import doctor, software
from cluster.setup import finding as setup_finding
from jobs.contract.catalog import STRATEGIES
from tests.running import until

ROOT = Path(__file__).parents[3]
SLURM = ("sinfo", "sbatch", "srun", "scontrol")


def examined() -> dict[str, setup_finding.Finding]:
    return {finding.name: finding for finding in doctor.examine()}


def programs(folder: Path, **scripts: str) -> None:
    """Executables of that name in `folder`."""
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(stat.S_IRWXU)


def said(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scaling", "doctor"],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "100"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_versions_are_those_of_the_installed_packages() -> None:
    found = examined()
    assert metadata.version("torch") in found["PyTorch"].says
    assert metadata.version("tensorflow-cpu") in found["TensorFlow"].says
    assert metadata.version("keras") in found["TensorFlow"].says
    assert found["Ray"].says == metadata.version("ray")
    assert found["seaborn"].says == metadata.version("seaborn")


def test_examining_imports_no_framework() -> None:
    code = (
        "import sys; from cluster.setup.doctor import examine; examine()\n"
        "heavy = {'torch', 'tensorflow', 'keras', 'ray', 'horovod', 'seaborn', 'pandas', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.horovod
def test_horovods_facts_are_those_of_its_own_check() -> None:
    checked = subprocess.run(
        [Path(sys.executable).with_name("horovodrun"), "--check-build"], capture_output=True, text=True, check=True
    ).stdout
    facts = software.built_by_libraries()
    assert facts == {part: f"[X] {part}" in checked for part in facts}
    assert all(facts[part] for part in ("TensorFlow", "PyTorch", "Gloo"))


@pytest.mark.horovod
def test_every_strategy_is_said_to_run_where_all_is_installed() -> None:
    strategies = examined()["Strategies"]
    assert strategies.ok
    assert all(name in strategies.says for name in STRATEGIES)


def test_with_an_empty_path_all_is_said_and_each_lack_has_its_command(tmp_path: Path) -> None:
    done = said(PATH=str(tmp_path))
    assert done.returncode == 0
    assert "Traceback" not in done.stdout + done.stderr
    for command in ("slurm-wlm", "g++ make", "chromium"):
        assert f"→ sudo apt-get install {command}" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_a_controller_that_does_not_answer_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not exec'ed: the sleep is a grandchild that holds the pipe open after the script is killed.
    programs(tmp_path, **dict.fromkeys(SLURM, "true"))
    programs(tmp_path, sinfo='[ "$1" = --version ] && echo slurm 22.05.8 && exit\n/bin/sleep 47\necho never')
    monkeypatch.setenv("PATH", str(tmp_path))
    began = time.monotonic()
    slurm = examined()["SLURM"]
    assert time.monotonic() - began < 30
    assert slurm.ok is False
    assert slurm.says == "slurm 22.05.8, but its controller does not answer within 3 s"
    assert slurm.mend == "scontrol ping"
    listed = ["/bin/ps", "-eo", "args"]
    until(lambda: "sleep 47" not in subprocess.run(listed, capture_output=True, text=True, check=True).stdout, 20)


def test_slurms_partitions_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, **dict.fromkeys(SLURM, "true"))
    programs(tmp_path, sinfo='[ "$1" = --version ] && echo slurm 22.05.8 && exit\necho "debug*  4×2 cores  up"')
    monkeypatch.setenv("PATH", str(tmp_path))
    slurm = examined()["SLURM"]
    assert slurm.ok
    assert slurm.says == "slurm 22.05.8: debug* 4×2 cores up"


def test_programs_that_are_broken_are_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, **dict.fromkeys((*SLURM, "g++", "chromium"), "echo oh no >&2; exit 1"))
    (tmp_path / "c++").write_bytes(b"\x7fELF not really")
    (tmp_path / "c++").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = examined()
    assert found["SLURM"].ok is False
    assert found["C++ compiler"].ok is False
    assert found["Browser"].ok is False
    assert not [f for f in found.values() if "could not be examined" in f.says]


def test_one_part_that_fails_is_one_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> setup_finding.Finding:
        raise RuntimeError("no /proc here")

    monkeypatch.setitem(doctor.EXAMINERS, "Memory", fail)
    found = examined()
    assert found["Memory"] == setup_finding.Finding(
        "Memory", False, "could not be examined: RuntimeError: no /proc here"
    )
    assert found["Python"].ok


def test_an_environment_without_frameworks_says_make_setup(tmp_path: Path) -> None:
    """The real thing: an interpreter that sees only what doctor itself needs."""
    site = Path(str(metadata.distribution("rich").locate_file("")))
    for package in ("rich", "psutil", "pygments", "markdown_it", "mdurl"):
        (tmp_path / package).symlink_to(site / package)
    code = (
        "from rich.console import Console; from cluster.setup import doctor\n"
        "Console(width=100).print(doctor.render(doctor.examine()))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for package in ("PyTorch", "TensorFlow", "seaborn"):
        at = lines.index(f"✗ {package} not installed")
        assert lines[at + 1] == "→ make setup"
    assert "could not be examined: No module named 'pynvml'" in done.stdout


def test_the_table_is_readable_on_eighty_columns() -> None:
    text = io.StringIO()
    Console(file=text, width=80).print(doctor.render(doctor.examine()))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert all(any(line[3:].startswith(name) for line in lines) for name in doctor.EXAMINERS)


def test_what_the_shell_has_set_is_listed_with_what_is_done_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = {"GOMP_CPU_AFFINITY": "0", "MASTER_PORT": "1", "NCCL_ALGO": "Ring", "LC_ALL": "C", "DATABASE_URL": "x"}
    for name in list(os.environ):
        monkeypatch.delenv(name)
    assert doctor.variables("Variables") == setup_finding.Finding("Variables", True, "none that libraries read")
    for name, value in (shell | {"XLA_FLAGS": "/a/file"}).items():
        monkeypatch.setenv(name, value)
    found = doctor.variables("Variables")
    assert found.ok is False
    refused, *done = found.says.splitlines()
    assert refused.startswith("refused: XLA_FLAGS: names a file")
    assert done == [
        "neutralized: GOMP_CPU_AFFINITY, MASTER_PORT",
        "kept and recorded: NCCL_ALGO",
        "kept, not recorded: LC_ALL",
    ]
