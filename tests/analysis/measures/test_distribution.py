"""What lies under a point: the spread of steps within launches is not that between launches."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from analysis.load.results import load
from analysis.measures.distribution import distributions
from tests.analysis import generate


def test_launches_that_differ_have_steady_steps_all_the_same(tmp_path: Path) -> None:
    ways = [generate.Way("torch", rate=1000.0)]
    folder = generate.study(tmp_path / "r", ways=ways, workers=(1,), repeats=6, launch_cv=0.3, step_cv=0.0)
    (row,) = distributions(load(folder)).steps.filter(scaling="strong").rows(named=True)
    assert row["p99"] / row["p50"] > 1.1
    for name in ("within_p1", "within_p50", "within_p99", "within_longest"):
        assert row[name] == pytest.approx(1.0, abs=1e-6)


def test_a_step_lasts_as_long_as_its_slowest_rank_and_that_rank_is_counted(tmp_path: Path) -> None:
    ways = [generate.Way("torch-ddp", rate=1000.0)]
    folder = generate.study(tmp_path / "r", ways=ways, workers=(4,), repeats=2, scaling=("strong",), rank_spread=0.5)
    results = load(folder)
    found = distributions(results)
    step_lines = results.steps().filter(pl.col("phase") == "train", ~pl.col("warmup"))
    slowest = step_lines.group_by("trial_id", "step").agg(
        pl.col("seconds").max(), pl.col("rank").sort_by("seconds").last()
    )
    (row,) = found.steps.rows(named=True)
    assert row["longest"] == slowest["seconds"].max()
    assert row["p50"] == pytest.approx(slowest["seconds"].median())
    for rank in found.ranks.iter_rows(named=True):
        mine = slowest.filter(pl.col("trial_id") == rank["trial_id"])["rank"] == rank["rank"]
        assert rank["slowest_share"] == pytest.approx(mine.mean())


def test_a_step_that_lasts_twice_as_long_shows(tmp_path: Path) -> None:
    ways = [generate.Way("torch", rate=1000.0)]
    folder = generate.study(tmp_path / "r", ways=ways, workers=(1,), repeats=3, launch_cv=0.0, step_cv=0.2)
    (row,) = distributions(load(folder)).steps.filter(scaling="strong").rows(named=True)
    assert row["within_p50"] == pytest.approx(1.0, abs=0.05)
    assert row["within_p99"] > 1.2
    assert row["within_longest"] >= row["within_p99"]
