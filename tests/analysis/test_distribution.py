"""What lies under a point: the spread of steps within launches is not that between launches."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.distribution import distributions
from analysis.load import load
from tests.analysis import generate


def test_launches_that_differ_have_steady_steps_all_the_same(tmp_path: Path) -> None:
    ways = [generate.Way("torch", rate=1000.0)]
    folder = generate.study(tmp_path / "r", ways=ways, workers=(1,), repeats=6, launch_cv=0.3, step_cv=0.0)
    (row,) = distributions(load(folder)).steps.filter(scaling="strong").rows(named=True)
    assert row["p99"] / row["p50"] > 1.1
    for name in ("within_p1", "within_p50", "within_p99", "within_longest"):
        assert row[name] == pytest.approx(1.0, abs=1e-6)


def test_a_step_that_lasts_twice_as_long_shows(tmp_path: Path) -> None:
    ways = [generate.Way("torch", rate=1000.0)]
    folder = generate.study(tmp_path / "r", ways=ways, workers=(1,), repeats=3, launch_cv=0.0, step_cv=0.2)
    (row,) = distributions(load(folder)).steps.filter(scaling="strong").rows(named=True)
    assert row["within_p50"] == pytest.approx(1.0, abs=0.05)
    assert row["within_p99"] > 1.2
    assert row["within_longest"] >= row["within_p99"]
