"""Two results folders, point by point."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from analysis.compare import compare, render
from analysis.load import load
from tests.analysis import generate


def folder(place: Path, rate: float = 1000.0, seed: int = 0, workers: tuple[int, ...] = (1, 2, 4)) -> Path:
    ways = [generate.Way("torch", rate=1000.0), generate.Way("torch-ddp", rate=rate)]
    return generate.study(place, ways=ways, workers=workers, repeats=8, launch_cv=0.02, seed=seed)


def test_what_became_slower_is_found_and_what_did_not_is_left_alone(tmp_path: Path) -> None:
    found = compare(load(folder(tmp_path / "a")), load(folder(tmp_path / "b", rate=800.0, seed=1)))
    slower = {c.point for c in found.changes if c.real}
    assert slower == {c.point for c in found.changes if c.strategy == "torch-ddp"}
    assert {c.point for c in found.regressions(10)} == slower
    assert found.regressions(30) == []
    assert all(c.low < 0.8 < c.high for c in found.changes if c.real)


def test_two_runs_of_the_same_seldom_differ(tmp_path: Path) -> None:
    pairs = [(folder(tmp_path / f"a{i}", seed=2 * i), folder(tmp_path / f"b{i}", seed=2 * i + 1)) for i in range(12)]
    alarms = sum(any(c.real for c in compare(load(a), load(b)).changes) for a, b in pairs)
    assert alarms <= 3  # 5% of 12 is 0.6; more than 3 has a chance of 0.2%


def test_points_without_counterpart_are_listed(tmp_path: Path) -> None:
    found = compare(load(folder(tmp_path / "a")), load(folder(tmp_path / "b", workers=(1, 2, 8))))
    assert all("-n4-" in p for p in found.only_before)
    assert all("-n8-" in p for p in found.only_after)
    assert found.only_before
    assert found.only_after
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(found))
    assert "only in A" in console.export_text()


@pytest.mark.parametrize("percent", [5.0, 0.0])
def test_the_same_folder_has_no_regression(percent: float, tmp_path: Path) -> None:
    results = load(folder(tmp_path / "a"))
    assert compare(results, results).regressions(percent) == []
