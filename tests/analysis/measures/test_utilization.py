"""Utilization over time: the lines are the samples, and power is drawn only where it is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from matplotlib.text import Text

from analysis.figures import accuracy, distribution, utilization
from analysis.load.results import load
from analysis.measures import utilization as measures_utilization
from analysis.measures.efficiency import estimate, some
from analysis.workloads.accuracy import times
from tests.analysis import generate, observed


def study(folder: Path, **options: Any) -> Path:
    ways = [generate.Way("torch"), generate.Way("torch-ddp"), generate.Way("tf-mirrored")]
    return generate.study(folder, ways=ways, workers=(1, 4), repeats=3, measured=8, **options)


def test_a_panel_for_each_strategy_and_worker_count_with_power_below_where_it_is_known(tmp_path: Path) -> None:
    folder = study(tmp_path / "s")
    for watts, rows in ((None, 3), (300.0, 6)):
        observed.telemetry(folder, watts=watts, others=0.2)
        results = load(folder)
        drawn = measures_utilization.series(results)
        assert drawn is not None
        assert drawn.has_power == (watts is not None)
        figure = utilization.utilization(drawn, estimate(results), results)
        assert len(figure.axes) == rows * 2
        shown = [ax for ax in figure.axes if ax.axison]
        assert len(shown) == (5 if watts is None else 10)  # a base case has one worker only
        assert all(len(ax.patches) == 3 for ax in shown)  # warm-up, measured and what comes after
        words = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
        assert ("power (CPU)" in words) == (watts is not None)


def test_figures_that_shorten_their_notes_still_say_emulated(tmp_path: Path) -> None:
    folder = study(tmp_path / "s", hardware={"cpu": "x", "emulated": True})
    observed.telemetry(folder)
    observed.accuracy(folder, lambda trial: 2.0)
    results = load(folder)
    estimates, drawn = estimate(results), measures_utilization.series(results)
    assert drawn is not None
    for figure in (
        utilization.utilization(drawn, estimates, results),
        accuracy.accuracy(times(results), estimates, results),
        distribution.launch_order(estimates, results),
    ):
        assert any("EMULATED" in text.get_text() for text in figure.texts)


def test_percent_are_of_the_workers_own_cores(tmp_path: Path) -> None:
    folder = study(tmp_path / "s")
    observed.telemetry(folder, others=0.2, busy=90.0, watts=120.0)
    drawn = measures_utilization.series(load(folder))
    assert drawn is not None
    assert drawn.mode == "strong"
    lines = drawn.lines.join(drawn.points.select("trial_id", "strategy", "workers"), on="trial_id")
    ddp, mirrored = (lines.filter(strategy=name, workers=4) for name in ("torch-ddp", "tf-mirrored"))
    assert set(ddp.filter(line="cpu_percent")["value"]) == {90.0}
    assert set(mirrored.filter(line="cpu_percent")["value"]) == {22.5}  # one process on four cores
    assert ddp.filter(line="taken_percent")["value"].unique().to_list() == pytest.approx([5.0])  # 0.2 of 4 cores
    assert ddp.filter(line="watts")["value"].to_list() == pytest.approx(
        [120.0] * len(ddp.filter(line="watts")), rel=1e-3
    )


def test_the_launch_in_full_is_the_one_with_the_median_throughput() -> None:
    launches = pl.DataFrame({"trial_id": ["a", "b", "c", "d"], "throughput": [5.0, 1.0, 3.0, 4.0]})
    assert measures_utilization.representative(launches) == "c"
    assert measures_utilization.representative(launches.head(3)) == "c"
    assert measures_utilization.representative(launches.head(1)) == "a"


def test_of_many_worker_counts_the_ends_and_two_between_are_drawn() -> None:
    assert some([1, 2, 4]) == [1, 2, 4]
    assert some([1, 2, 4, 8, 16, 32, 64]) == [1, 4, 16, 64]


def test_without_telemetry_there_is_no_figure(tmp_path: Path) -> None:
    assert measures_utilization.series(load(study(tmp_path / "s"))) is None
