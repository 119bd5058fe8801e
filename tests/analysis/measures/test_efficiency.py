"""Estimates: the truth comes back, base cases are named, ratios are ratios of summaries."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from analysis.load.results import load
from analysis.measures.efficiency import WITH_INTERVAL, base_words, estimate, precision
from analysis.measures.table import render
from analysis.stats import bootstrap
from analysis.verdicts.contrast import Rates
from tests.analysis import generate, simulate

WAYS = (
    generate.Way("torch", 1000.0),
    generate.Way("torch-ddp", 1000.0, strong=generate.amdahl(0.1), weak=generate.efficient(0.9)),
    generate.Way("tf", 2000.0),
    generate.Way("tf-horovod", 2000.0, strong=generate.efficient(0.8), weak=generate.gustafson(0.2)),
)


def row(estimates: pl.DataFrame, scaling: str, strategy: str, workers: int) -> dict[str, Any]:
    found = estimates.filter(scaling=scaling, strategy=strategy, workers=workers)
    assert len(found) == 1
    return found.row(0, named=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "known"
    return generate.study(folder, ways=WAYS, workers=(1, 2, 4), repeats=8, launch_cv=0.01, step_cv=0.02)


@pytest.fixture(scope="module")
def estimates(folder: Path) -> pl.DataFrame:
    return estimate(load(folder))


def test_the_known_efficiency_comes_back(estimates: pl.DataFrame) -> None:
    for way in WAYS:
        for scaling in ("strong", "weak"):
            for n in (1, 2, 4) if way.communication != "none" else (1,):
                found = row(estimates, scaling, way.strategy, n)
                truth = way.throughput(scaling, n)
                assert found["throughput"] == pytest.approx(truth, rel=0.02)
                assert found["speedup"] == pytest.approx(truth / way.rate, rel=0.02)
                assert found["efficiency"] == pytest.approx(truth / way.rate / n, rel=0.02)
                assert found["throughput_low"] < found["throughput"] < found["throughput_high"]


def test_the_base_case_is_the_plain_single_process_of_the_framework(estimates: pl.DataFrame) -> None:
    pairs = estimates.select("framework", "base_case").unique().sort("framework").rows()
    assert pairs == [("PyTorch", "torch"), ("TensorFlow", "tf")]
    for scaling in ("strong", "weak"):  # each with its own batch
        base = row(estimates, scaling, "torch", 1)
        assert (base["speedup"], base["speedup_low"], base["speedup_high"]) == (1.0, 1.0, 1.0)
        assert base["base_throughput"] == base["throughput"]
        assert row(estimates, scaling, "torch-ddp", 1)["speedup_self"] == 1.0


def test_speedup_over_oneself_hides_what_the_wrapping_costs(estimates: pl.DataFrame) -> None:
    found = row(estimates, "strong", "tf-horovod", 4)
    assert found["efficiency"] == pytest.approx(0.8, rel=0.02)
    assert found["efficiency_self"] == pytest.approx(1.0, rel=0.02)


def test_weak_efficiency_is_the_rate_per_worker_over_that_of_one(estimates: pl.DataFrame) -> None:
    found = row(estimates, "weak", "torch-ddp", 4)
    assert found["efficiency"] == pytest.approx(0.9, rel=0.02)
    assert found["global_batch"] == 4 * 64


def test_throughput_is_total_samples_over_total_time(folder: Path, estimates: pl.DataFrame) -> None:
    ok = load(folder).trials.filter("strong", strategy="torch-ddp", workers=4)
    found = row(estimates, "strong", "torch-ddp", 4)
    assert found["throughput"] == pytest.approx(sum(ok["samples"]) / sum(ok["train_seconds"]))
    assert found["throughput"] == pytest.approx(len(ok) / (1 / ok["throughput"]).sum())


def test_every_quantity_has_an_interval_around_it(estimates: pl.DataFrame) -> None:
    for name in WITH_INTERVAL:
        inside = (pl.col(name + "_low") <= pl.col(name) + 1e-12) & (pl.col(name) <= pl.col(name + "_high") + 1e-12)
        assert estimates.select(inside.all()).item(), name


def test_a_row_depends_on_no_other_strategy(folder: Path, estimates: pl.DataFrame) -> None:
    results = load(folder)
    torch_only = replace(results, trials=results.trials.filter(pl.col("framework") == "PyTorch"))
    assert estimate(torch_only).equals(estimates.filter(framework="PyTorch"))


def test_estimates_are_the_same_every_time(folder: Path, estimates: pl.DataFrame) -> None:
    assert estimate(load(folder)).equals(estimates)


def test_a_missing_base_case_is_said_and_the_ratio_left_out(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "baseless", ways=WAYS[1:2], workers=(1, 2), repeats=2)
    found = row(estimate(load(folder)), "strong", "torch-ddp", 2)
    assert found["efficiency"] is None
    assert found["base_case"] is None
    assert found["efficiency_self"] is not None
    assert "base case not measured" in found["warning"]


def test_one_launch_has_no_interval_and_a_warning(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "single", ways=WAYS[:2], workers=(1, 2), repeats=1)
    found = row(estimate(load(folder)), "strong", "torch-ddp", 2)
    assert found["throughput"] > 0
    assert found["throughput_low"] is None
    assert found["efficiency_high"] is None
    assert "fewer than 5 launches" in found["warning"]
    assert set(precision(folder).values()) == {math.inf}


def test_failed_launches_are_counted_in_the_warning(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "failing", ways=WAYS[:2], workers=(2,), scaling=("strong",), repeats=6)
    path = sorted(folder.glob("trials/torch-ddp*"))[0] / "outcome.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed"}))
    found = row(estimate(load(folder)), "strong", "torch-ddp", 2)
    assert (found["n_launches"], found["n_failed"]) == (5, 1)
    assert "1 of 6 launches did not succeed" in found["warning"]


def test_a_launch_that_may_still_run_has_not_failed(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "running", ways=WAYS[:2], workers=(2,), scaling=("strong",), repeats=6)
    (sorted(folder.glob("trials/torch-ddp*"))[0] / "outcome.json").unlink()
    found = row(estimate(load(folder)), "strong", "torch-ddp", 2)
    assert (found["n_launches"], found["n_failed"]) == (5, 0)
    assert found["warning"] == ""


def test_an_unsteady_point_is_flagged(tmp_path: Path) -> None:
    folder = generate.study(
        tmp_path / "drifting", ways=WAYS[:1], scaling=("strong",), repeats=5, measured=100, step_cv=0.02, drift=0.3
    )
    assert "not steady in 5 of 5 launches" in estimate(load(folder))["warning"][0]


def test_a_launch_that_stood_still_says_so_and_so_does_what_stands_on_it(tmp_path: Path) -> None:
    """A suspended laptop, a machine that is moved, a debugger: one step of seconds among milliseconds."""
    home = generate.study(tmp_path / "r", ways=WAYS[:2], workers=(1, 2), repeats=3, measured=20)
    clean = estimate(load(home))
    assert not clean["warning"].str.contains("stood still").any()
    launch = next(home.glob("trials/torch-n1-*-r01"))
    path = launch / "rank-00000.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    slow = [row for row in rows if row["phase"] == "train" and not row.get("warmup")][7]
    slow["seconds"] += 8.0
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = estimate(load(home))
    (trial,) = load(home).trials.filter(trial_id=launch.name).to_dicts()
    assert trial["stood_still_seconds"] == pytest.approx(8.0, rel=0.05)
    said = {(row["strategy"], row["workers"], row["scaling"]): row["warning"] for row in found.to_dicts()}
    batch = trial["global_batch"]
    of_base = [row for row in found.to_dicts() if (row["strategy"], row["global_batch"]) == ("torch", batch)]
    assert of_base
    for row in of_base:
        assert "1 of 3 launches stood still for " in row["warning"]
        over = [text for (name, _, scaling), text in said.items() if name != "torch" and scaling == row["scaling"]]
        assert over
        assert all("its base case: 1 of 3 launches stood still for " in text for text in over)


def test_values_of_a_factor_are_never_mixed(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "two", ways=WAYS[2:3], repeats=2, scaling=("strong",))
    other = generate.study(
        tmp_path / "other",
        ways=[generate.Way("tf", 500.0)],
        repeats=2,
        scaling=("strong",),
        factors={"precision": "float64"},
    )
    for trial in (other / "trials").iterdir():
        trial.rename(folder / "trials" / trial.name)
    found = estimate(load(folder)).sort("precision")
    assert found["precision"].to_list() == ["float32", "float64"]
    assert found["throughput"].to_list() == pytest.approx([2000, 500], rel=0.1)
    assert found["speedup"].to_list() == [1.0, 1.0]


def test_precision_is_the_half_width_that_the_table_shows(folder: Path, estimates: pl.DataFrame) -> None:
    widths = precision(folder)
    results = load(folder)
    assert set(widths) == set(results.trials["point"])
    point = results.trials.filter("strong", strategy="torch-ddp", workers=2)["point"][0]
    found = row(estimates, "strong", "torch-ddp", 2)
    assert widths[point] == pytest.approx(found["throughput_high"] / found["throughput"] - 1)


def test_precision_improves_with_launches() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for repeats in (2, 4, 16):
        studies = [simulate.study(WAYS[:1], workers=(1,), repeats=repeats, rng=rng) for _ in range(20)]
        widths.append(float(np.median([next(iter(precision(study).values())) for study in studies])))
    assert widths[0] > widths[1] > widths[2]


def test_a_mean_on_both_sides_of_a_ratio_cancels() -> None:
    a, b = bootstrap.resampled(np.array([[1.0, 3.0], [1.1, 2.9], [0.9, 3.3]]), 999, 0, "x")
    assert bootstrap.ratio_interval([a], [a], 0.95) == (1.0, 1.0)
    low, high = bootstrap.ratio_interval([a, b], [a], 0.95)
    assert (low, high) == b.log_interval(0.95)


@pytest.mark.parametrize("launches", [2, 3, 5])
def test_the_standard_error_of_few_launches_is_not_too_small(launches: int) -> None:
    """The bootstrap's own would be: of three launches by a fifth. Resamples draw one launch less."""
    values = np.random.default_rng(launches).normal(10.0, 1.0, launches)
    (mean,) = bootstrap.resampled(values[:, None], 9999, 0, "x")
    assert mean.draws.var() == pytest.approx(values.var(ddof=1) / launches, rel=0.06)


def test_quantities_of_a_point_share_their_resamples() -> None:
    """What goes up and down with a launch does so in its resamples: the difference of the two has no spread."""
    step = np.array([1.0, 1.4, 0.9, 1.1])
    one, other = bootstrap.resampled(np.column_stack([step, step + 0.5]), 99, 0, "x")
    assert (other.draws - one.draws).tolist() == pytest.approx([0.5] * 99)
    assert len(set(one.draws)) > 1


def test_a_missing_quantity_takes_its_mean_over_the_launches_that_have_it() -> None:
    (mean,) = bootstrap.resampled(np.array([[1.0], [math.nan], [3.0]]), 99, 0, "x")
    assert (mean.n, mean.value) == (2, 2.0)
    (none,) = bootstrap.resampled(np.array([[math.nan], [math.nan]]), 99, 0, "x")
    assert none.n == 0
    assert math.isnan(none.value)
    assert all(math.isnan(bound) for bound in none.interval(0.95))


def test_the_table_fits_in_100_columns_and_names_base_case_and_warnings(estimates: pl.DataFrame) -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(estimates))
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "…" not in text
    assert text.count("base case") == 4
    assert "Base case, strong: torch 1,0" in text or "Base case, strong: torch 99" in text
    assert "±" in text


def test_names_in_the_table_are_text_not_markup(tmp_path: Path) -> None:
    folder = generate.study(tmp_path / "x", ways=[generate.Way("torch")], repeats=2)
    named = estimate(load(folder)).with_columns(strategy=pl.lit("[red]x[/red]"), base_case=pl.lit("[b]y"))
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(named))
    text = console.export_text()
    assert "[red]x[/red]" in text
    assert "[b]y" in text


def test_launches_that_ran_beside_others_are_warned_of() -> None:
    rng = np.random.default_rng(0)
    results = simulate.study([generate.Way("torch", 1000.0)], workers=(1,), repeats=3, rng=rng)
    beside = results.trials.with_columns(concurrent=pl.col("repeat") < 2)
    (warning,) = estimate(replace(results, trials=beside))["warning"]
    assert "2 of 3 launches ran beside other trials, which disturb" in warning
    (stands_in,) = estimate(replace(results, trials=results.trials.with_columns(emulated=pl.lit(True))))["warning"]
    assert stands_in.startswith("EMULATED: CPU devices stood in")
    growing = replace(results, study=results.study | {"repeats": {"min": 3, "max": 9, "until_ci": 0.05}})
    assert "added until the interval was narrow" in estimate(growing)["warning"][0]
    fixed = replace(results, study=results.study | {"repeats": {"min": 3, "max": None, "until_ci": None}})
    assert "added until" not in estimate(fixed)["warning"][0]
    assert "beside" not in estimate(results)["warning"][0]


def test_curves_that_mix_machines_are_warned_of(tmp_path: Path) -> None:
    ways = [generate.Way("torch"), generate.Way("torch-ddp")]
    results = load(generate.study(tmp_path / "r", ways=ways, workers=(1, 2), scaling=("strong",), repeats=5))
    assert not any("hardware" in warning for warning in estimate(results)["warning"])
    of_one = pl.when((pl.col("repeat") == 0) & (pl.col("workers") == 2)).then(pl.lit("Other CPU"))
    mixed = results.trials.with_columns(device=of_one.otherwise("device"), host_cpu=of_one.otherwise("host_cpu"))
    two = estimate(replace(results, trials=mixed)).filter(workers=2)["warning"][0]
    assert "launches ran on different hardware (Example CPU 9000 / Other CPU)" in two
    assert "base case ran on other hardware (Example CPU 9000)" in two
    on_tpu = results.trials.with_columns(device=pl.when(workers=2).then(pl.lit("TPU v5e")).otherwise("device"))
    (warning,) = estimate(replace(results, trials=on_tpu)).filter(workers=2)["warning"]
    assert "launches ran on" not in warning
    assert "base case ran on other hardware" in warning


def test_a_strategy_without_a_plain_run_on_its_device_is_its_own_base_case(tmp_path: Path) -> None:
    """As an outcome says it: the rate of one core, not the plain process of the same framework beside it."""
    ways = [
        generate.Way("tf", 5000.0),
        generate.Way("tf-tpu", 1000.0, strong=generate.linear, weak=generate.efficient(0.9)),
    ]
    results = load(generate.study(tmp_path / "r", ways=ways, workers=(1, 2), repeats=4, launch_cv=0.001))
    named = pl.when(pl.col("strategy") == "tf-tpu").then(pl.lit("tf-tpu"))
    results = replace(results, trials=results.trials.with_columns(named.alias("base_case")))
    estimates = estimate(results)
    two = row(estimates, "strong", "tf-tpu", 2)
    assert two["base_case"] == "tf-tpu"
    assert two["efficiency"] == pytest.approx(1.0, rel=0.01)
    assert row(estimates, "strong", "tf", 1)["base_case"] == "tf"
    assert base_words(estimates).endswith("for tf-tpu, which has none on its device, its own run at one worker")
    (cell,) = [c for c in Rates.cells(results) if c.scaling == "strong"]
    (side,) = cell.efficiencies("TensorFlow")
    assert any("tf-tpu-n1" in record for record in side.records)
    assert not any(record.startswith("tf-n1") for record in side.records)
