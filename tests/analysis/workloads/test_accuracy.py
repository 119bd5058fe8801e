"""Time to accuracy: launches that give up count, nothing of it is mixed with throughput."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from matplotlib.lines import Line2D

from analysis.figures import accuracy as plot_accuracy
from analysis.load.results import load
from analysis.measures.efficiency import estimate
from analysis.measures.table import render
from analysis.report import page as report
from analysis.workloads import accuracy
from analysis.workloads.accuracy import times
from tests.analysis import generate, observed

WAYS = (generate.Way("torch"), generate.Way("torch-ddp"))


def study(folder: Path, seconds: Callable[[dict[str, Any]], float | None], **options: Any) -> Path:
    generate.study(folder, ways=WAYS, workers=(1, 4), scaling=("strong",), repeats=4, measured=6, **options)
    observed.accuracy(folder, seconds)
    return folder


def slower_with_repeats(trial: dict[str, Any]) -> float:
    """8, 10, 12, 14 s at one worker, half of it at four, though throughput there is fourfold."""
    return float((8 + 2 * trial["repeat"]) / (2 if trial["workers"] == 4 else 1))


def test_seconds_are_means_over_launches_and_the_speedup_is_one_in_time(tmp_path: Path) -> None:
    results = load(study(tmp_path / "s", slower_with_repeats))
    frame = times(results)
    several = frame.filter(workers=4).row(0, named=True)
    assert several["seconds"] == pytest.approx(5.5)
    assert several["seconds_low"] < 5.5 < several["seconds_high"]
    assert several["steps"] == pytest.approx(55)
    assert several["samples"] == pytest.approx(55 * 512)
    assert (several["speedup"], several["base_case"]) == (pytest.approx(2.0), "torch")
    assert several["speedup_low"] < 2.0 < several["speedup_high"]
    assert estimate(results).filter(workers=4)["speedup"].item() == pytest.approx(4.0, rel=0.05)
    assert "efficiency" not in " ".join(frame.columns)


def test_launches_that_gave_up_count_with_all_their_time(tmp_path: Path) -> None:
    def seconds(trial: dict[str, Any]) -> float | None:
        return None if trial["workers"] == 4 and trial["repeat"] < 2 else 5.0

    frame = times(load(study(tmp_path / "s", seconds)))
    several = frame.filter(workers=4).row(0, named=True)
    assert (several["n_reached"], several["n_launches"]) == (2, 4)
    assert several["seconds"] == pytest.approx((2 * 10.0 + 2 * 5.0) / 2)
    assert several["seconds_low"] is None
    assert several["speedup"] == pytest.approx(5.0 / 15.0)
    assert several["speedup_low"] is None
    assert several["best"] == pytest.approx(0.9)


def test_where_no_launch_reaches_it_there_is_no_time(tmp_path: Path) -> None:
    folder = study(tmp_path / "s", lambda trial: None)
    frame = times(load(folder))
    assert frame["n_reached"].sum() == 0
    assert frame["seconds"].null_count() == frame["speedup"].null_count() == len(frame)
    text = report.write(folder).read_text()
    assert "None of 12 launches reached the accuracy" in text
    assert "not reached" in text


def test_the_rule_of_the_learning_rate_makes_rows_of_its_own(tmp_path: Path) -> None:
    folder = study(tmp_path / "s", lambda trial: 8.0, factors={"learning_rate_rule": "none", "reference_batch": None})
    other = study(tmp_path / "o", lambda trial: 4.0, factors={"learning_rate_rule": "linear", "reference_batch": 64})
    for home in observed.homes(other):
        shutil.move(home, folder / "trials" / home.name)
    results = load(folder)
    frame = times(results)
    assert frame.filter(workers=4, learning_rate_rule="linear")["seconds"].item() == pytest.approx(4.0)
    assert frame.filter(workers=4, learning_rate_rule="none")["seconds"].item() == pytest.approx(8.0)
    assert set(frame["speedup"]) == {1.0}  # each over the base case with the same rule
    figure = plot_accuracy.accuracy(frame, estimate(results), results)
    assert any("learning rate rule linear" in ax.get_ylabel() for ax in figure.axes)


def test_every_launch_is_a_line_of_the_figure_and_those_that_gave_up_are_marked(tmp_path: Path) -> None:
    results = load(study(tmp_path / "s", lambda trial: None if trial["repeat"] == 0 else 3.0))
    figure = plot_accuracy.accuracy(times(results), estimate(results), results)
    lines = [line for ax in figure.axes for line in ax.lines]
    curves = [line for line in lines if len(list(line.get_xdata())) > 2]  # type: ignore[arg-type]
    assert len(curves) == 12
    assert sum(isinstance(line, Line2D) and line.get_marker() == "x" for line in lines) == 3


def test_energy_until_the_accuracy_is_per_sample_times_samples(tmp_path: Path) -> None:
    folder = study(tmp_path / "s", lambda trial: 5.0)
    observed.telemetry(folder, watts=200.0)
    results = load(folder)
    row = times(results).filter(workers=4).row(0, named=True)
    jps = results.trials.filter(workers=4)["joules_per_sample"].mean()
    assert row["joules"] == pytest.approx(jps * 50 * 512)
    assert row["joules_low"] < row["joules"] < row["joules_high"]


def test_a_study_that_did_not_ask_has_no_section(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "s", ways=WAYS[:1], workers=(1,), repeats=2, measured=5)
    assert times(load(folder)).is_empty()
    text = report.write(folder).read_text()
    assert "Time to accuracy" not in text


def test_the_report_and_the_terminal_show_it_beside_throughput(tmp_path: Path) -> None:
    from rich.console import Console

    folder = study(tmp_path / "s", slower_with_repeats)
    page = report.write(folder)
    text = page.read_text()
    assert 'id="table-accuracy"' in text
    assert 'id="figure-accuracy"' in text
    assert len(pl.read_parquet(page.parent / "tables" / "accuracy.parquet")) == 3
    console = Console(width=110, record=True)
    console.print(accuracy.render(times(load(folder))))
    said = console.export_text()
    assert "Time to accuracy, not throughput" in said
    assert "4 of 4" in said


def test_rules_of_the_learning_rate_are_told_apart_and_the_table_still_fits(tmp_path: Path) -> None:
    """A reference batch says nothing beside the rule that it goes with."""
    from rich.console import Console

    found = load(study(tmp_path / "s", slower_with_repeats))
    both = [
        found.trials.with_columns(
            learning_rate_rule=pl.lit(rule), reference_batch=pl.lit(batch, pl.Int64), learning_rate_warmup=pl.lit(10)
        )
        for rule, batch in (("none", None), ("linear", 64))
    ]
    factors = tuple(dict.fromkeys((*found.factors, "reference_batch", "learning_rate_warmup", "learning_rate_rule")))
    varied = replace(found, trials=pl.concat(both), factors=factors)
    frame = times(varied)
    assert len(frame) == 6
    assert accuracy.settings(frame) == ["learning_rate_rule"]
    console = Console(width=100, record=True)
    console.print(accuracy.render(frame))
    said = console.export_text()
    assert "linear" in said
    assert "…" not in said
    table = Console(width=110, record=True)
    table.print(render(estimate(varied)))
    said = table.export_text()
    assert "…" not in said
    assert "torch (linear)" in said
