"""Without a C++ compiler what PyTorch compiles is left out before the first launch, and the doctor says so."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from cluster.driver.plan import launcher_of, plan
from cluster.local.launcher import LocalLauncher
from cluster.setup import compiler, software
from cluster.slurm.launcher import SlurmLauncher
from cluster.study import file
from cluster.study.schema import StudyError
from jobs.contract.trial import Trial

STUDY: dict[str, Any] = {
    "name": "tiny",
    "strategies": ["torch", "torch-ddp", "tf"],
    "workers": [1, 2],
    "scaling": ["strong"],
    "batch": {"global": 4},
    "steps": {"warmup": 1, "measured": 3, "compute_only": 0},
    "execution": ["eager", "graph"],
    "repeats": {"min": 1},
    "launcher": {"kind": "local", "oversubscribe": True},
}
TORCH = ("torch", "torch-ddp", "torch-horovod")
CURE = "`sudo apt-get install g++` installs one, or name yours in CXX"


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler._include.cache_clear()
    compiler._tried.cache_clear()
    monkeypatch.delenv("CXX", raising=False)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(stat.S_IRWXU)
    return str(path)


def planned(results: Path, **change: Any) -> Any:
    study = file.check(STUDY | change)
    return plan(study, launcher_of(study, results))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("/nonexistent/g++", f"CXX is /nonexistent/g++, and there is no such program; {CURE}"),
        ("ccache g++", "CXX is ccache g++, and there is no such program, which is one name and no command line; "),
        ("", f"CXX is empty; {CURE}"),
        ("/bin/false", "CXX is /bin/false, which cannot be run (CalledProcessError: "),
        ("/etc/passwd", "CXX is /etc/passwd, which cannot be run (PermissionError: "),
        ("true", "CXX is true, which does not compile (it wrote nothing)"),
    ],
)  # fmt: skip
def test_a_compiler_that_is_named_and_is_none_is_said(
    named: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", named)
    why = compiler.why_not()
    assert why is not None
    assert why.startswith(said)


def test_one_that_fails_to_compile_is_told_by_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = "<stdin>:1:10: fatal error: Python.h: No such file"
    text = f"[ $1 = --version ] && echo g++ 12 && exit\necho '{error}' >&2\nexit 1"
    monkeypatch.setenv("CXX", script(tmp_path / "g++", text))
    assert str(compiler.why_not()).endswith(
        "which does not compile (<stdin>:1:10: fatal error: Python.h: No such file); "
        "its header comes with `sudo apt-get install python3-dev`"
    )


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
def test_one_that_is_there_is_enough() -> None:
    assert compiler.why_not() is None


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
def test_the_header_is_that_of_the_ranks_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for two others: one with a header, one without."""
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "Python.h").touch()
    there = script(tmp_path / "there", f"echo {tmp_path}/include")
    absent = script(tmp_path / "absent", f"echo {tmp_path}/nowhere")
    launcher = LocalLauncher({"python": {"torch": there, "torch-ddp": absent}}, tmp_path)
    monkeypatch.setattr(compiler.sysconfig, "get_paths", lambda: {"include": "/nowhere"})
    steps = {"warmup": 1, "measured": 1, "compute_only": 0}
    of = {name: Trial.of(strategy=name, workers=1, global_batch=4, execution="graph", steps=steps) for name in TORCH}
    assert launcher.unfit(of["torch"]) is None
    for name in ("torch-ddp", "torch-horovod"):
        assert str(launcher.unfit(of[name])).endswith("its header comes with `sudo apt-get install python3-dev`"), name


def test_the_points_that_need_one_are_left_out_and_the_others_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = planned(tmp_path / "r")
    assert {p.recipe.execution for p in found.grid.points if p.strategy != "tf"} == {"default"}
    assert any(p.strategy == "tf" for p in found.grid.points)
    (line,) = [note for note in found.notes() if note.startswith("torch at 1 workers")]
    assert line == f"torch at 1 workers: execution graph needs a C++ compiler: there is no g++; {CURE}"


def test_a_study_of_such_points_alone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    with pytest.raises(StudyError, match=r"torch at 1 workers: execution graph needs a C\+\+ compiler: CXX is /nonex"):
        planned(tmp_path / "r", strategies=["torch", "torch-ddp"], execution="graph")


def test_it_is_asked_of_the_machine_on_which_ranks_run_and_for_what_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    here = LocalLauncher({}, tmp_path)
    steps = {"warmup": 1, "measured": 1, "compute_only": 0}
    graph = Trial.of(strategy="torch", workers=1, global_batch=4, execution="graph", steps=steps)
    assert here.unfit(graph)
    assert here.unfit(graph.model_copy(update={"workload": "infer"}))
    assert here.unfit(graph.model_copy(update={"execution": "default"})) is None
    assert here.unfit(Trial.of(strategy="tf", workers=1, global_batch=4, execution="xla", steps=steps)) is None
    assert SlurmLauncher({"tasks_per_node": 2}, tmp_path).unfit(graph) is None  # its nodes may have one


def test_the_doctor_says_what_it_is_for_and_which_one_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    found = software.compiler("C++ compiler")
    assert found.ok is not True
    if found.ok is False:
        assert "for torch.compile (execution: graph): CXX is /nonexistent/g++" in found.says
    monkeypatch.setenv("PATH", "/nonexistent")
    none = software.compiler("C++ compiler")
    assert (none.ok, none.says) == (
        None,
        "not found; Horovod is built with it, and torch.compile (execution: graph) uses it",
    )
