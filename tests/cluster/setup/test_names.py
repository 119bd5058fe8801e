"""Which package `import NAME` means: what is not the right one is told in a line, with its cure, before a launch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cluster.setup import names
from tests.packages import install, old_pynvml
from tests.test_front_door import GOOD, scaling


def another_ray(site: Path) -> None:
    install(site, "gamma-ray", "0.3", {"ray/__init__.py": ""})


def two_tensorflows(site: Path) -> None:
    install(site, "tf-nightly", "2.22.0.dev1", {"tensorflow/__init__.py": ""})


def old_keras(site: Path) -> None:
    install(site, "keras", "2.15.0", {"keras/__init__.py": ""})


def horovod_without_metadata(site: Path) -> None:
    (site / "horovod").mkdir()
    (site / "horovod" / "__init__.py").write_text("")


def torch_as_a_folder(site: Path) -> None:
    (site / "torch").mkdir()
    (site / "torch" / "__init__.py").write_text("")


def our_own_name(site: Path) -> None:
    install(site, "analysis", "1.0", {"analysis/__init__.py": "", "analysis/load.py": ""})


def our_own_name_as_a_folder(site: Path) -> None:
    (site / "jobs").mkdir()
    (site / "jobs" / "__init__.py").write_text("")


WRONG: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "pynvml": (old_pynvml, "`import pynvml` is of pynvml 11.4.1, not of nvidia-ml-py", "`pip uninstall -y pynvml && "),
    "ray": (another_ray, "`import ray` is of gamma-ray 0.3, not of ray", "`pip uninstall -y gamma-ray && "),
    "tensorflow": (two_tensorflows, "`import tensorflow` is of tf-nightly 2.22.0.dev1 and of tensorflow-cpu",
                   "`pip uninstall -y tf-nightly tensorflow-cpu`"),
    "keras": (old_keras, "cannot use keras 2.15.0, which is installed", "`pip install 'keras>="),
    "horovod": (horovod_without_metadata, "`import horovod` finds {site}/horovod/__init__.py, before", "rename {site}"),
    "torch": (torch_as_a_folder, "`import torch` finds {site}/torch/__init__.py, before that", "rename {site}"),
    "analysis": (our_own_name, "`import analysis` is of analysis 1.0 too", "`pip uninstall -y analysis`"),
    "jobs": (our_own_name_as_a_folder, "`import jobs` finds {site}/jobs/__init__.py", "or take {site} from PYTHONPATH"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_name_that_means_something_else_is_told_with_its_cure(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, says, cure = WRONG[case]
    make(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = names.wrong()
    assert len(found) == 1, found
    assert found[0].says.startswith(says.format(site=tmp_path)) or says in found[0].says
    assert cure.format(site=tmp_path) in found[0].cure
    assert "\n" not in str(found[0])


def test_what_is_installed_here_is_right() -> None:
    assert names.wrong() == []


def test_what_names_the_same_and_brings_no_file_of_it_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pynvml since 12 brings `pynvml_utils` alone, and a folder without code stands before nothing."""
    install(tmp_path, "pynvml", "12.0.0", {"pynvml_utils/__init__.py": ""})
    install(tmp_path, "tensorflow-metadata", "1.0", {"tensorflow_metadata/__init__.py": ""})
    (tmp_path / "ray").mkdir()
    (tmp_path / "Broken-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert names.wrong() == []


def of_a_distributor(site: Path) -> None:
    install(site, "torch", "2.9.0", {"torch/__init__.py": ""})
    (site / "torch-2.9.0.dist-info" / "RECORD").unlink()


def without_a_list_as_an_egg(site: Path) -> None:
    of_a_distributor(site)
    (site / "torch-2.9.0.dist-info" / "METADATA").rename(site / "torch-2.9.0.egg-info")
    (site / "torch-2.9.0.dist-info").rmdir()


def editable(site: Path) -> None:
    """Its folder is on the path by a .pth file; its list of files has that file alone."""
    install(site, "torch", "2.9.0", {"__editable__.torch.pth": ""})
    (site / "source" / "torch").mkdir(parents=True)
    (site / "source" / "torch" / "__init__.py").write_text("")


@pytest.mark.parametrize("make", [of_a_distributor, without_a_list_as_an_egg, editable])
def test_a_package_that_does_not_list_its_files_is_taken_at_its_name(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "source")])
    assert names.wrong() == []


def test_doctor_and_dry_run_tell_it_in_a_line(tmp_path: Path) -> None:
    old_pynvml(tmp_path)
    says = "`import pynvml` is of pynvml 11.4.1, not of nvidia-ml-py"
    doctor = scaling("doctor", PYTHONPATH=str(tmp_path), COLUMNS="300")
    assert says in doctor.stdout
    assert "→ `pip uninstall -y pynvml && " in doctor.stdout
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(GOOD | {"strategies": ["torch"], "workers": [1]}))
    planned = scaling("run", study, "--results", tmp_path / "r", "--dry-run", PYTHONPATH=str(tmp_path))
    assert planned.returncode == 0
    assert " ".join(planned.stdout.split()).startswith(says)


def test_gpus_are_not_asked_of_something_else_that_is_called_pynvml(tmp_path: Path) -> None:
    install(tmp_path, "pynvml", "0.1", {"pynvml/__init__.py": "raise ImportError('built for Windows')"})
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(GOOD | {"strategies": ["torch"], "resources": {"gpus_per_worker": 1}}))
    planned = scaling("run", study, "--results", tmp_path / "r", "--dry-run", PYTHONPATH=str(tmp_path))
    assert planned.returncode == 2
    (line,) = planned.stderr.splitlines()
    assert line.startswith("resources.gpus_per_worker: the pynvml here is not nvidia-ml-py's (built for Windows)")


def test_a_study_is_told_of_what_its_own_ranks_import_alone(tmp_path: Path) -> None:
    """And of this environment: other ranks have an interpreter or an image of their own."""
    two_tensorflows(tmp_path)
    study = tmp_path / "study.yaml"
    other = {"kind": "local", "python": {"tf": sys.executable}}
    for strategies, launcher, told in ((["torch"], {}, False), (["tf"], {}, True), (["tf"], other, False)):
        change = {"strategies": strategies, "workers": [1], "launcher": {"kind": "local"} | launcher}
        study.write_text(yaml.safe_dump(GOOD | change))
        planned = scaling("run", study, "--results", tmp_path / "r", "--dry-run", PYTHONPATH=str(tmp_path))
        assert ("`import tensorflow` is of tf-nightly" in " ".join(planned.stdout.split())) == told
