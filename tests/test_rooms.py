"""The rooms: imports run one way (`make lint` holds that), and a folder is a concept with a few files."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSES = ("jobs", "cluster", "analysis")
MOST = 13  # entries of a folder beside its __init__.py
FORMER = ("slurm_batch", "slurm_rank")  # names that jobs in a queue call, of the version before
LINT = Path(sys.executable).with_name("lint-imports")


def folders(*tops: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted({(ROOT / path).parent for path in listed.stdout.split() if path.startswith(tops)})


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The product, to be broken."""
    home = tmp_path_factory.mktemp("rooms")
    for house in HOUSES:
        shutil.copytree(ROOT / house, home / house, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", home)
    return home


def lint(home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LINT, "--no-cache", "--no-logo"], cwd=home, capture_output=True, text=True)


INSIDE = "\n\ndef late() -> None:\n    import {}\n"
TYPES = "\n\nif TYPE_CHECKING:\n    import {}\n"


@pytest.mark.parametrize(
    ("file", "adds", "broken"),
    [
        ("jobs/contract/parts.py", INSIDE.format("jobs.contract.trial"), "Nothing imports in a circle"),
        ("analysis/stats/ratios.py", TYPES.format("analysis.measures.efficiency"), "Nothing imports in a circle"),
        ("jobs/rank/keeper.py", INSIDE.format("cluster.launcher"), "A rank knows neither"),
        ("cluster/local/launcher.py", INSIDE.format("analysis.load.results"), "A rank knows neither"),
        ("cluster/local/launcher.py", TYPES.format("jobs.data.load"), "Launchers take of a rank"),
        ("analysis/measures/roofline.py", INSIDE.format("jobs.contract.catalog"), "The analysis knows"),
    ],
)
def test_an_import_against_the_rules_is_found(file: str, adds: str, broken: str, copy: Path) -> None:
    path = copy / file
    text = path.read_text(encoding="utf-8")
    path.write_text(text + adds, encoding="utf-8")
    try:
        done = lint(copy)
    finally:
        path.write_text(text, encoding="utf-8")
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert re.search(rf"{broken}((?!KEPT|BROKEN).)*BROKEN", said), said


def test_without_such_an_import_nothing_is_found(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("folder", folders(*HOUSES), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_says_what_it_is_for_and_holds_a_few_files(folder: Path) -> None:
    face = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(face)
    assert len(face.body) == 1, "what stands in it is loaded by whoever needs one file of the room"
    entries = [path for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    names = [path.stem for path in entries if path.stem not in ("__init__", *FORMER)]
    assert len(names) <= MOST
    assert not [name for name in names if name.startswith(f"{folder.name}_")]
    beginnings = [name.partition("_")[0] for name in names]
    assert not {b for b in beginnings if beginnings.count(b) > 2}, "what begins alike is a room of its own"


def test_every_folder_of_tests_is_a_package() -> None:
    """Else a folder called torch or ray can stand before the real one."""
    scripts = {"tests/warm/site", "tests/benchmarks/bare"}  # which are run, and not imported from here
    without = {str(p.relative_to(ROOT)) for p in folders("tests/") if not (p / "__init__.py").exists()}
    assert without <= scripts
