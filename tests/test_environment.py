"""The set-up: pyproject.toml, constraints.txt and environment.yml never disagree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cluster import horovod_build

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
}
ASKED = [
    Requirement(text)
    for text in [
        *PROJECT["dependencies"],
        *(r for extra in PROJECT["optional-dependencies"].values() for r in extra),
    ]
]


@pytest.mark.parametrize("requirement", ASKED, ids=lambda r: r.name)
def test_whatever_the_project_asks_for_is_pinned_as_it_asks(requirement: Requirement) -> None:
    pin = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin), f"{requirement} but constraints.txt has {pin}"


def test_every_line_of_the_constraints_is_an_exact_public_pin() -> None:
    lines = [x for x in (ROOT / "constraints.txt").read_text().splitlines() if x and not x.startswith("#")]
    assert len(lines) == len(PINS)
    assert not any("+" in line or "@" in line for line in lines)


def test_what_is_installed_is_what_is_pinned() -> None:
    """Transitive dependencies too: nothing in the environment is left to chance."""
    ours = {"scaling", "horovod"}
    installed = {canonicalize_name(d.metadata["Name"]): d.version.split("+")[0] for d in metadata.distributions()}
    strays = {name: version for name, version in installed.items() if name not in ours and PINS.get(name) != version}
    assert strays == {}


def test_conda_installs_the_same() -> None:
    pip_lines = next(entry["pip"] for entry in CONDA if isinstance(entry, dict))
    plain = dict(entry.split("=") for entry in CONDA if isinstance(entry, str) and "=" in entry)
    assert PROJECT["requires-python"] == f">={plain.pop('python')}"
    assert plain == {name: PINS[name] for name in plain}
    assert pip_lines[0] == "-c constraints.txt"
    assert f"torch=={PINS['torch']}" in pip_lines
    assert "-e .[cpu,dev]" in pip_lines


def test_the_makefile_and_ci_install_from_the_constraints() -> None:
    makefile = (ROOT / "Makefile").read_text()
    installs = re.findall(r"\$\(PIP\) install (.*)", makefile)
    assert installs
    assert all("-c constraints.txt" in line for line in installs)


@pytest.mark.horovod
def test_the_installed_horovod_is_the_one_the_build_makes() -> None:
    assert metadata.version("horovod") == horovod_build.VERSION


@pytest.mark.horovod
def test_horovod_has_both_frameworks_and_gloo() -> None:
    run = Path(sys.executable).parent / "horovodrun"
    said = subprocess.run([run, "--check-build"], capture_output=True, text=True, check=True).stdout
    for part in ("TensorFlow", "PyTorch", "Gloo"):
        assert f"[X] {part}" in said


def stand_in(source: Path) -> None:
    """The lines of Horovod's release that the build changes, among others it must leave."""
    for name, text in {
        "CMakeLists.txt": "project(x)\nset(CMAKE_CXX_STANDARD 14)\nset(CMAKE_CXX_STANDARD_REQUIRED ON)\n",
        "horovod/torch/CMakeLists.txt": "    set(CMAKE_CXX_STANDARD 14)\n",
        "horovod/tensorflow/CMakeLists.txt": 'list(APPEND TF_SOURCES "${X}/mpi_ops.cc")\n'
        'list(APPEND TF_SOURCES "${X}/horovod/tensorflow/xla_mpi_ops.cc")\n',
    }.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)


def test_the_patch_changes_three_lines_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    stand_in(tmp_path)
    horovod_build.patch(tmp_path)
    assert "STANDARD 17)" in (tmp_path / "CMakeLists.txt").read_text()
    assert "STANDARD 17)" in (tmp_path / "horovod/torch/CMakeLists.txt").read_text()
    left = (tmp_path / "horovod/tensorflow/CMakeLists.txt").read_text()
    assert left == 'list(APPEND TF_SOURCES "${X}/mpi_ops.cc")\n'
    with pytest.raises(horovod_build.BuildError, match="0 times, not once"):
        horovod_build.patch(tmp_path)


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_without_a_compiler_set_up_goes_on_and_says_why_but_ci_fails(ci: str, code: int, tmp_path: Path) -> None:
    """Run in an environment of its own, so that what it notes down is not taken for this one's."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    environment = {"PATH": str(tmp_path), "CI": ci, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    python = tmp_path / "v/bin/python"
    done = subprocess.run(
        [python, "-m", "cluster.horovod_build"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert "no C++ compiler was found; `sudo apt-get install g++ make`" in done.stderr
    ask = "from cluster.horovod_build import why_not; print(why_not())"
    said = subprocess.run([python, "-c", ask], env=environment, capture_output=True, text=True, check=True)
    assert "no C++ compiler" in said.stdout


def test_a_skipped_test_fails_in_ci_only(tmp_path: Path) -> None:
    (tmp_path / "test_skip.py").write_text("import pytest\ndef test_x():\n    pytest.skip('no such thing')\n")
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        tmp_path,
        tmp_path,
    ]

    def code(ci: str) -> int:
        return subprocess.run(
            command, env=os.environ | {"CI": ci}, cwd=tmp_path, capture_output=True, check=False
        ).returncode

    assert (code(""), code("true")) == (0, 1)
