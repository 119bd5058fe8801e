"""Energy per sample: what the counters say, named; and no number at all where none says anything."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from analysis.load.results import load
from analysis.measures import energy
from analysis.measures.energy import energies
from analysis.report import page as report
from analysis.report import why
from tests.analysis import generate, observed

WATTS = 250.0
WAYS = (generate.Way("torch"), generate.Way("torch-ddp", strong=generate.amdahl(0.2)))


def study(folder: Path, **options: object) -> Path:
    return generate.study(folder, ways=WAYS, workers=(1, 4), scaling=("strong",), repeats=4, measured=10, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("gpu", "source"), [(False, "CPU package counters"), (True, "GPU energy counters")])
def test_energy_per_sample_is_power_over_throughput(tmp_path: Path, gpu: bool, source: str) -> None:
    folder = study(tmp_path / "s")
    observed.telemetry(folder, watts=WATTS, gpu=gpu)
    results = load(folder)
    frame = energies(results)
    assert len(frame) == 3
    assert set(frame["source"]) == {source}
    for row in frame.iter_rows(named=True):
        of = results.trials.filter(strategy=row["strategy"], workers=row["workers"])
        truth = WATTS * of["train_seconds"].sum() / of["samples"].sum()
        assert row["joules_per_sample"] == pytest.approx(truth, rel=1e-4)
        assert row["joules_per_sample_low"] < truth < row["joules_per_sample_high"]
        assert row["watts"] == pytest.approx(WATTS, rel=1e-4)
    base, several = frame.row(0, named=True), frame.row(2, named=True)
    assert (base["over_base"], base["base_case"], several["base_case"]) == (1.0, "torch", "torch")
    # The same power for 1 / speedup of the time.
    assert several["over_base"] == pytest.approx(0.2 + 0.8 / 4, rel=0.05)
    assert several["over_base_low"] < several["over_base"] < several["over_base_high"]
    table = why.energy(frame, results)
    at = [column.name for column in table.columns].index("mJ per sample")
    shown = [float(row[at].text.replace(",", "")) for row in table.rows]
    assert shown == pytest.approx((1e3 * frame["joules_per_sample"]).to_list(), rel=0.01)


def test_launches_without_a_counter_are_counted_and_change_no_mean(tmp_path: Path) -> None:
    folder = study(tmp_path / "s", launch_cv=0.0, step_cv=0.0)
    observed.telemetry(folder, watts=WATTS)
    every = energies(load(folder))
    (observed.homes(folder)[0] / "telemetry-node-0.jsonl").unlink()
    some = energies(load(folder))
    assert sorted(some["n_launches"]) == [3, 4, 4]
    assert set(some["n_ok"]) == {4}
    assert some["joules_per_sample"].to_list() == pytest.approx(every["joules_per_sample"].to_list(), rel=1e-4)


def test_joules_of_gpus_are_not_set_over_those_of_the_packages(tmp_path: Path) -> None:
    """As where the base case ran on a node whose GPU did not tell: the counters count different things."""
    folder = study(tmp_path / "s")
    observed.telemetry(folder, watts=WATTS, gpu=True)
    results = load(folder)
    of_base = pl.when(communication="none").then(pl.lit("CPU package counters")).otherwise("energy_source")
    frame = energies(replace(results, trials=results.trials.with_columns(of_base.alias("energy_source"))))
    rows = frame.select("strategy", "over_base", "base_case").rows()
    assert {strategy: (over, base) for strategy, over, base in rows} == {
        "torch": (1.0, "torch"),
        "torch-ddp": (None, None),
    }


def test_without_a_counter_the_report_says_so_once_and_no_zero(tmp_path: Path) -> None:
    folder = study(tmp_path / "s")
    observed.telemetry(folder)
    note = {"kind": "note", "unix": 0, "what": "cpu_energy_joules", "why": "no package's counter <here>"}
    for home in observed.homes(folder):
        with (home / "telemetry-node-0.jsonl").open("a") as file:
            file.write(json.dumps(note) + "\n")
    assert energies(load(folder)).is_empty()
    page = report.write(folder)
    assert page.read_text().count(energy.ABSENT) == 1
    assert "cpu_energy_joules: no package&#39;s counter &lt;here&gt;" in page.read_text()
    assert not (page.parent / "tables" / "energy.csv").exists()
    assert "table-energy" not in page.read_text()
    assert (page.parent / "figures" / "utilization.png").exists()


def test_the_report_names_the_counter(tmp_path: Path) -> None:
    folder = study(tmp_path / "s")
    observed.telemetry(folder, watts=WATTS)
    page = report.write(folder)
    assert "CPU package counters" in page.read_text()
    assert energy.ABSENT not in page.read_text()
    assert len(pl.read_csv(page.parent / "tables" / "energy.csv")) == 3
