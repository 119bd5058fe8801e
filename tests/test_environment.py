"""The set-up: pyproject.toml, constraints.txt and environment.yml never disagree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path, PurePath

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cluster.horovod import source

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
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
    # Where pip installs to, and nowhere else: Ray puts a folder of its own onto the path once it is imported.
    there = metadata.distributions(path=sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    installed = {canonicalize_name(d.metadata["Name"]): d.version.split("+")[0] for d in there}
    assert {"torch", "ray", "numpy"} <= installed.keys()
    strays = {name: version for name, version in installed.items() if name not in ours and PINS.get(name) != version}
    assert strays == {}


def test_data_that_lies_beside_the_code_is_installed_with_it() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    packages = PYPROJECT["tool"]["setuptools"]["package-data"]
    for name in tracked:
        if name.startswith(("jobs/", "cluster/", "analysis/")) and not name.endswith(".py"):
            # The package is the nearest folder that is one: templates/ and the like are a part of it.
            package = next(folder for folder in PurePath(name).parents if Path(ROOT, folder, "__init__.py").exists())
            patterns = packages.get(".".join(package.parts), [])
            assert any(PurePath(name).relative_to(package).match(pattern) for pattern in patterns), name


@pytest.mark.horovod
@pytest.mark.parametrize("extra", ["cpu", "gpu"])
def test_what_horovod_asks_for_is_installed_with_the_frameworks(extra: str) -> None:
    """Its wheel is installed without dependencies, so that pip cannot move a pin for it."""
    wanted = map(Requirement, metadata.requires("horovod") or [])
    asked = {r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})}
    given = {Requirement(text).name for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"][extra]}
    assert asked <= given


def test_the_horovod_that_is_named_is_the_one_that_is_built() -> None:
    for file in ("pyproject.toml", "cluster/horovod/build.py", "cluster/horovod/source.py"):
        named = set(re.findall(r"\b0\.28\.\d+\b", (ROOT / file).read_text()))
        assert named == {source.VERSION}


def test_conda_installs_the_same() -> None:
    pip_lines = next(entry["pip"] for entry in CONDA if isinstance(entry, dict))
    plain = dict(entry.split("=") for entry in CONDA if isinstance(entry, str) and "=" in entry)
    assert PROJECT["requires-python"] == f">={plain.pop('python')}"
    assert plain == {name: PINS[name] for name in plain}
    # conda hands these lines to pip as a requirements file: no other options are known there.
    assert pip_lines == ["-c constraints.txt", f"torch=={PINS['torch']}", "-e .[cpu,dev]"]


def make(environment: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make as by hand: nothing of a make that runs these tests is passed on."""
    ours = {name: value for name, value in os.environ.items() if not re.match("MAKE|MFLAGS|EXTRA|PYTHON$", name)}
    command = ["make", *arguments, f"VENV={environment}"]
    return subprocess.run(command, cwd=ROOT, env=ours, capture_output=True, text=True, check=False)


def test_make_installs_from_the_constraints_and_torch_first(tmp_path: Path) -> None:
    said = make(tmp_path / "v", "--dry-run", "setup").stdout
    installs = re.findall(r"-m pip .*install (.*)", said)
    assert all("-c constraints.txt" in line for line in installs)
    assert [line.split()[-1] for line in installs] == ["wheel", "torch", '".[cpu,dev]"']
    assert said.splitlines()[-1].endswith("-m cluster.horovod.build")


def test_make_does_nothing_twice_but_again_when_a_pin_or_the_extra_changes(tmp_path: Path) -> None:
    environment = tmp_path / "v"
    environment.mkdir()
    stamp = re.search(r"^touch (\S+)$", make(environment, "--dry-run", "setup").stdout, re.M)
    assert stamp
    Path(stamp[1]).touch()
    assert "install" not in make(environment, "--dry-run", "setup").stdout
    assert "install" in make(environment, "--dry-run", "setup", "EXTRA=gpu").stdout
    Path(stamp[1]).rename(environment / ".ready-cpu-of-other-pins")
    assert "install" in make(environment, "--dry-run", "setup").stdout


def test_make_keeps_up_the_extra_that_was_chosen(tmp_path: Path) -> None:
    (tmp_path / ".extra").write_text("gpu\n")
    assert '".[gpu,dev]"' in make(tmp_path, "--dry-run", "setup").stdout


def test_make_says_in_one_line_that_python_is_missing(tmp_path: Path) -> None:
    done = make(tmp_path / "v", "--silent", "setup", "PYTHON=no-such-python")
    assert done.returncode
    assert done.stderr.splitlines()[0].startswith("no-such-python is not a Python 3.11: install it")
    assert not (tmp_path / "v").exists()


def test_make_leaves_an_environment_alone_that_another_set_up_is_at_work_on(tmp_path: Path) -> None:
    (tmp_path / ".installing").write_text(f"{os.getpid()}\n")
    done = make(tmp_path, "--silent", "setup", f"PYTHON={sys.executable}")
    assert done.returncode
    assert f"another set-up of {tmp_path} is running (process {os.getpid()})" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / ".installing"]


@pytest.mark.parametrize(
    ("part", "files"),
    [
        ("", ""),
        ("kept", "tests/kept tests/jobs/data/test_kept.py"),
        ("cluster/local", "tests/cluster/local"),
        ("local", "tests/cluster/local"),
        ("laws lanes", "tests/analysis/laws tests/test_lanes.py"),
        ("ray", "tests/cluster/ray tests/cluster/slurm/test_ray.py"),
        ("efficiency", "tests/analysis/measures/test_efficiency.py"),
    ],
)
def test_make_runs_the_tests_that_are_called_as_the_part(part: str, files: str, tmp_path: Path) -> None:
    (command,) = [
        line for line in make(tmp_path, "--dry-run", "test", f"PART={part}").stdout.splitlines() if "-m pytest" in line
    ]
    asked = command.partition("--durations=20")[2].removesuffix("\\").split()
    assert asked == files.split()
    assert all((ROOT / path).exists() for path in asked)


@pytest.mark.parametrize("part", ["nowhere", "cluster/laws", "slurm nowhere", "golden", "benchmarks"])
def test_make_says_which_parts_there_are_where_one_is_not_there(part: str, tmp_path: Path) -> None:
    said = make(tmp_path, "--dry-run", "test", f"PART={part}").stdout
    (refused,) = [line for line in said.splitlines() if line.endswith("exit 2")]
    there = refused.partition("there are ")[2].partition('"')[0].split()
    assert refused.startswith(f'echo "PART={part}: ')
    assert {"analysis", "cluster/slurm", "slurm", "launcher", "notebook"} <= set(there)
    assert not {"nowhere", "tests", "golden", "faults"} & set(there)


@pytest.mark.parametrize(
    ("text", "in_ci"),
    [
        ("def test_x():\n    pytest.skip('no such thing')", "failed"),
        ("pytest.skip('no such thing', allow_module_level=True)", "failed"),
        ("pytest.importorskip('no_such_module')", "failed"),
        ("@pytest.mark.gpu\ndef test_x():\n    pytest.skip('no GPU here')", "passed"),
        ("@pytest.mark.xfail\ndef test_x():\n    assert False", "passed"),
    ],
)
def test_a_skip_is_a_failure_in_ci_only_but_for_want_of_an_accelerator(text: str, in_ci: str, tmp_path: Path) -> None:
    (tmp_path / "test_skip.py").write_text(f"import pytest\n{text}\ndef test_y():\n    pass\n")
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path]
    said = {}
    for ci in ("", "true"):
        environment = os.environ | {"CI": ci, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        said[ci] = "failed" if done.returncode not in (0, 5) else "passed"  # 5: no test, all were skipped
        assert ("CI takes for a failure" in done.stdout) == (said[ci] == "failed")
    assert said == {"": "passed", "true": in_ci}
