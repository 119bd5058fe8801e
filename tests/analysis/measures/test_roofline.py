"""The roofline: counted by hand once, and never without peaks that were measured on that machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from analysis.figures import roofline as plot_roofline
from analysis.load.results import load
from analysis.measures.efficiency import estimate
from analysis.measures.roofline import Roofline, roofline
from analysis.measures.work import Work, counted
from analysis.report import page as report
from analysis.report import rules
from tests.analysis import generate, observed

RATE = 1000.0  # samples per second of the base case


def made(folder: Path, machine: dict[str, Any] | None, **options: Any) -> Path:
    ways = [generate.Way("torch", RATE), generate.Way("torch-ddp", RATE)]
    generate.study(folder, ways=ways, workers=(1, 2), repeats=3, batch_global=64, per_worker=64, measured=8, **options)
    if machine is not None:
        observed.machine(folder, **machine)
    return folder


def found(folder: Path) -> Roofline:
    results = load(folder)
    return roofline(results, estimate(results))


def test_operations_and_bytes_of_a_step_are_those_counted_by_hand() -> None:
    cnn = counted("cnn")
    assert cnn is not None
    # Conv(1→32, 3×3) on 26², Conv(32→64, 3×3) on 24², Dense(36,864→10): multiply-adds, two operations, three passes.
    assert cnn.flop == 6 * (26**2 * 9 * 32 + 24**2 * 9 * 32 * 64 + 36864 * 10)
    assert cnn.parameters == 9 * 32 + 32 + 9 * 32 * 64 + 64 + 36864 * 10 + 10
    assert cnn.activations == 26**2 * 32 + 24**2 * 64 + 10
    assert cnn.bytes_per_step(64) == 4 * (10 * 387_466 + 64 * (5 * 58_506 + 2 * 784))
    assert cnn.intensity(64) == pytest.approx(47.5, abs=0.5)
    assert cnn.intensity(1) < 5 < cnn.intensity(4096) < cnn.flop / (4 * 5 * 58_506)


def test_a_study_of_another_model_has_its_own_operations_and_bytes(tmp_path: Path) -> None:
    study = load(made(tmp_path / "s", {}))
    trials = study.trials.with_columns(model=pl.lit("resnet50"))
    data = {"kind": "synthetic", "side": 64}
    other = replace(
        study,
        study=study.study | {"data": data},
        trials=trials,
        factors=tuple(dict.fromkeys((*study.factors, "model"))),
    )
    row = roofline(other, estimate(other)).points.row(0, named=True)
    resnet, own = counted("resnet50", 64), counted("resnet50")
    assert resnet is not None
    assert own is not None
    assert resnet.image == 3 * 64 * 64
    assert row["flop_per_second"] == pytest.approx(RATE * resnet.flop, rel=0.05)
    assert row["intensity"] == pytest.approx(resnet.intensity(64))
    assert own.flop == pytest.approx(6 * 4.09e9, rel=0.005)  # at its own 224 pixels


def test_a_model_nobody_here_knows_stands_where_its_ranks_say(tmp_path: Path) -> None:
    folder = made(tmp_path / "s", {}, factors={"model": "mlp"})
    assert found(folder).note.startswith("No base case in float32")
    for home in observed.homes(folder):
        ranks = json.loads((home / "outcome.json").read_text())["ranks"]
        said = {"flop": 3_000_000, "parameters": 500_000, "activations": 2_000, "image": 784}
        observed.edit(home / "outcome.json", ranks=[report | {"work": said} for report in ranks])
    row = found(folder).points.row(0, named=True)
    assert row["flop_per_second"] == pytest.approx(RATE * 3e6, rel=0.05)
    assert row["intensity"] == Work(3_000_000, 500_000, 2_000, 784).intensity(64)


def test_a_base_case_stands_under_the_roof_of_its_machine(tmp_path: Path) -> None:
    points = found(made(tmp_path / "s", {})).points
    row = points.row(0, named=True)
    assert (len(points), row["strategy"], row["bound"]) == (1, "torch", "computing")
    flop = RATE * 67.2e6
    assert row["flop_per_second"] == pytest.approx(flop, rel=0.05)
    assert row["flop_per_second_low"] < row["flop_per_second"] < row["flop_per_second_high"]
    assert row["of_peak"] == row["of_roof"] == pytest.approx(flop / observed.FLOP_PER_SECOND, rel=0.05)


def test_with_slow_memory_the_roof_is_its_bandwidth(tmp_path: Path) -> None:
    slow = {"bandwidth": {"bytes_per_second": 1e9, "kernel": "a = b + c"}}
    row = found(made(tmp_path / "s", slow)).points.row(0, named=True)
    assert row["bound"] == "memory bandwidth"
    assert row["roof"] == pytest.approx(row["intensity"] * 1e9)
    assert row["of_roof"] > row["of_peak"]


@pytest.mark.parametrize(
    ("machine", "factors", "said"),
    [
        (None, {}, "Peak not measured: there is no machine.json"),
        ({"compute": {}}, {}, "Peak not measured: there is no machine.json"),
        ({"bandwidth": {"bytes_per_second": float("nan"), "kernel": ""}}, {}, "Peak not measured"),
        ({"cpu": "Another CPU"}, {}, "machine.json is of Another CPU with 1 threads"),
        ({"threads": 4}, {}, "Example CPU 9000 with 4 threads, the base cases ran on Example CPU 9000 with 1"),
        ({}, {"precision": "float64"}, "No base case in float32"),
        ({}, {"gpus_per_worker": 1}, "No base case in float32"),
    ],
)
def test_without_peaks_of_that_machine_there_is_no_roofline_and_the_report_says_why(
    tmp_path: Path, machine: dict[str, Any] | None, factors: dict[str, Any], said: str
) -> None:
    folder = made(tmp_path / "s", machine, factors=factors)
    nothing = found(folder)
    assert nothing.points.is_empty()
    assert said in nothing.note


def test_the_figure_and_the_page_show_roof_and_base_case(tmp_path: Path) -> None:
    folder = made(tmp_path / "s", {})
    results = load(folder)
    estimates = estimate(results)
    figure = plot_roofline.roofline(roofline(results, estimates), estimates, results)
    roof = list(figure.axes[0].lines[0].get_ydata())  # type: ignore[arg-type]
    assert max(roof) == pytest.approx(observed.FLOP_PER_SECOND / 1e9)
    others = pl.DataFrame(schema={"n_launches": pl.Int64})
    bounds = rules.answers(results, estimates, others, [], roofline(results, estimates))[10]
    assert (bounds.status, "measured roof" in bounds.answer) == ("met", True)
    page = report.write(folder)
    assert 'id="figure-roofline"' in page.read_text()
    assert (page.parent / "tables" / "roofline.csv").exists()
