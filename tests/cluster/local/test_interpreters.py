"""Strategies that run in environments of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cluster.launcher import Launch, OptionsError
from cluster.local.launcher import LocalLauncher
from jobs.contract.folder import write_trial
from jobs.contract.outcome import read_outcome
from jobs.contract.parts import Steps
from jobs.contract.trial import Trial


def program(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_strategy_runs_with_the_interpreter_that_is_named_for_it(tmp_path: Path) -> None:
    """The other environment is this one, with a variable that results tell of."""
    other = program(tmp_path / "python", f'TORCH_OF_ITS_OWN=1 exec "{sys.executable}" "$@"')
    launcher = LocalLauncher({"python": {"torch": other}}, tmp_path)
    assert launcher.unavailable("torch") is None
    trial = Trial.of(strategy="torch", workers=1, global_batch=4, steps=Steps(warmup=1, measured=2, compute_only=0))
    folder = tmp_path / "trials" / trial.id
    write_trial(folder, trial)
    launcher.start([Launch(trial, folder, 0)])
    while not launcher.wait(5.0):
        pass
    outcome = read_outcome(folder)
    assert outcome is not None
    assert (outcome.status, outcome.error) == ("ok", "")
    assert outcome.environment["TORCH_OF_ITS_OWN"] == "1"


def test_what_an_environment_lacks_is_said(tmp_path: Path) -> None:
    bare = program(tmp_path / "bare", "echo 'ModuleNotFoundError: No module named jobs' >&2; exit 1")
    poor = program(tmp_path / "poor", "echo 'torch is not installed here'")
    launcher = LocalLauncher({"python": {"tf": bare, "torch": poor}}, tmp_path)
    assert launcher.unavailable("tf") == (
        f"{bare} does not have this project (ModuleNotFoundError: No module named jobs); install it there with pip"
    )
    assert launcher.unavailable("torch") == f"torch is not installed here (asked: {poor})"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("python3", "python: 'python3' is wrong; it is a mapping"),
        ({"tf-quantum": "python3"}, "python.tf-quantum: is not a strategy; known: "),
        ({"tf": "/nowhere/python"}, "python.tf: '/nowhere/python' is not a program"),
        ({"tf": 3}, "python.tf: 3 is not a program"),
    ],
)
def test_a_wrong_interpreter_is_one_line(given: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(OptionsError) as caught:
        LocalLauncher({"python": given}, tmp_path)
    (fault,) = caught.value.faults
    assert fault.startswith(said)
