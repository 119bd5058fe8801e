"""A wrong study file is told by the same lines, and nothing is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kept import wrong_studies
from tests.kept.test_words import ADVICE

KEPT = wrong_studies.kept()
# One for each place where a fault may be found: the file, its YAML, its keys and values, and the launcher's options.
BY_COMMAND = ("empty", "twice", "five-faults", "slurm-time")


def test_a_wrong_study_keeps_its_message() -> None:
    """Where, what, what instead: each line as it was."""
    found = {study.name: wrong_studies.said(study) for study in wrong_studies.studies()}
    lines = [f"{name}:\n  kept  {KEPT.get(name)}\n  found {found.get(name)}"
             for name in KEPT | found if KEPT.get(name) != found.get(name)]  # fmt: skip
    assert not lines, "\n".join([ADVICE, *lines])


def test_many_wrong_studies_are_kept_and_each_is_told() -> None:
    assert len(KEPT) >= 40
    assert not [name for name, lines in KEPT.items() if not lines or not all(lines)]


@pytest.mark.parametrize("name", BY_COMMAND)
def test_the_command_says_the_same_and_ends_with_2(name: str, tmp_path: Path) -> None:
    """On stderr, and nothing is on stdout or on the disk."""
    study = wrong_studies.files.WRONG / f"{name}.yaml"
    command = [sys.executable, "-m", "scaling", "run", study, "--results", tmp_path / "results"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=wrong_studies.files.ROOT)
    assert done.stderr.replace(str(study), study.name).splitlines() == KEPT[study.name]
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (2, "", [])
