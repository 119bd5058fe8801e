"""What can be known before the first launch is refused by the dry run: one line each, exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.driver import plan as planning
from cluster.driver.plan import launcher_of, plan
from cluster.results.folder import ResultsFolder
from cluster.setup import importable
from cluster.study import file
from cluster.study.schema import StudyError
from tests.cluster.driver.test_run import STUDY

ROOT = Path(__file__).parents[3]


def dry_run(folder: Path, environment: dict[str, str], **change: Any) -> subprocess.CompletedProcess[str]:
    study = folder / "study.yaml"
    study.write_text(yaml.safe_dump(STUDY | change))
    command = [sys.executable, "-m", "scaling", "run", "--dry-run", str(study), "--results", str(folder / "results")]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=100)


def broken(folder: Path, module: str, text: str) -> dict[str, str]:
    """An environment in which `module` is there and does not import."""
    (folder / "site" / module).mkdir(parents=True)
    (folder / "site" / module / "__init__.py").write_text(text)
    there = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder / "site"), *there]))}


def test_a_package_that_is_installed_and_does_not_import_is_named(tmp_path: Path) -> None:
    environment = broken(tmp_path, "torch", "raise ImportError('libtorch_cpu.so: undefined symbol: f')")
    done = dry_run(tmp_path, environment, strategies=["torch"], workers=[1])
    assert done.returncode == 2
    assert done.stderr == (
        "torch: torch cannot be imported, though installed (ImportError: libtorch_cpu.so: undefined symbol: f); "
        "`make setup` in a fresh environment mends it\n"
    )
    assert not (tmp_path / "results").exists()


def test_one_that_dies_while_it_is_imported_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = broken(tmp_path, "jax", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    (line,) = importable.broken({"jax": sys.executable})
    assert line.startswith("jax: jax and optax cannot be imported, though installed (it was killed by SIGILL)")
    (line,) = importable.broken({"jax": "/nonexistent/python"})
    assert "cannot be imported by /nonexistent/python (FileNotFoundError" in line


def test_it_is_asked_as_a_rank_imports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("KERAS_BACKEND", "PYTHONWARNINGS", "JAX_PLATFORMS")
    environment = broken(tmp_path, "torch", f"import os; assert not {set(names)} & os.environ.keys()")
    for name in names:
        monkeypatch.setenv(name, "error")
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    assert importable.broken({"torch": sys.executable}) == []


@pytest.mark.parametrize("strategies", [["torch"], ["torch", "torch-ddp"]])
def test_a_study_of_which_nothing_can_run_is_refused_with_the_reasons(strategies: list[str], tmp_path: Path) -> None:
    done = dry_run(tmp_path, {}, strategies=strategies, execution="xla")
    assert done.returncode == 2
    assert {f"{name} with execution xla: it has" for name in strategies} <= {
        line.partition(" default")[0] for line in done.stderr.splitlines()
    }, done.stderr


def test_a_quota_is_no_reason_to_refuse_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "quota_note", lambda: "a CPU quota of 2.5 cores")
    study = file.check(STUDY | {"strategies": ["torch"], "execution": "xla", "workers": [1]})
    with pytest.raises(StudyError) as refused:
        plan(study, launcher_of(study, tmp_path))
    (fault,) = refused.value.faults
    assert fault.startswith("torch with execution xla")


def test_of_horovod_that_part_is_asked_which_the_framework_uses() -> None:
    assert importable._modules("torch-horovod") == ("torch", "horovod.torch")
    assert importable._modules("tf-horovod") == ("tensorflow", "horovod.tensorflow")


def test_results_that_cannot_be_written_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = file.check(STUDY)
    planned = plan(study, launcher_of(study, tmp_path))
    folder = ResultsFolder(tmp_path / "a" / "b")
    folder.check(study, planned.least_bytes(folder))
    assert 10_000 < planned.least_bytes(folder) < 1_000_000
    with pytest.raises(
        StudyError, match=r"MiB are free on its disk, the study writes 1099511627776.0 MiB and a file for"
    ):
        folder.check(study, 1 << 60)
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match=f"{tmp_path}/file: cannot be written to; use --results"):
        ResultsFolder(tmp_path / "file" / "b").check(study)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StudyError, match=f"{tmp_path}: cannot be written to; use --results"):
        folder.check(study)
    assert not (tmp_path / "a").exists()


def test_a_folder_of_another_study_is_refused(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path / "results")
    folder.open(file.check(STUDY))
    folder.write_study(file.check(STUDY | {"seed": 5}))
    folder.close()
    done = dry_run(tmp_path, {}, strategies=["torch"], workers=[1])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "holds another study (seed: 5 there, 0 here)" in done.stderr


def test_data_that_are_not_there_are_refused(tmp_path: Path) -> None:
    done = dry_run(tmp_path, {}, strategies=["torch"], data={"kind": "mnist", "path": str(tmp_path / "absent")})
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{tmp_path}/absent: no such file or folder" in done.stderr
