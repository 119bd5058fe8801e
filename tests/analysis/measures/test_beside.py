"""Efficiency from pairs: what is slow for both sides of a launch cancels, and what is not is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from analysis.load.results import Results, load
from analysis.measures import caveats
from analysis.measures.beside import against_alone
from analysis.measures.efficiency import estimate
from analysis.measures.table import render
from tests.analysis import blocks, generate, simulate

WAYS = (
    generate.Way("torch"),
    generate.Way("torch-ddp", strong=generate.amdahl(0.1), weak=generate.efficient(0.8)),
)
STUDIES = 200


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A noisy hour: launches and rounds differ by 15% each, the ratio within a launch by 1%."""
    folder = tmp_path_factory.mktemp("results") / "beside"
    generate.study(
        folder, ways=WAYS, workers=(1, 2), repeats=6, launch_cv=0.01, step_cv=0.02, measured=60, compute_only=60
    )
    return load(blocks.into(folder, rounds=12, rates={"torch": 1000.0}, launch_cv=0.15, round_cv=0.15, step_cv=0.02))


def row(estimates: pl.DataFrame, scaling: str, workers: int, strategy: str = "torch-ddp") -> dict[str, Any]:
    return estimates.filter(scaling=scaling, strategy=strategy, workers=workers).row(0, named=True)


@pytest.mark.parametrize("scaling", ["strong", "weak"])
def test_slow_noise_that_is_common_to_a_round_cancels(results: Results, scaling: str) -> None:
    assert not results.set_aside
    found = row(estimate(results), scaling, 2)
    truth = WAYS[1].throughput(scaling, 2) / 2000
    assert found["efficiency_from"] == "beside"
    assert found["efficiency"] == pytest.approx(truth, rel=0.02)
    assert found["efficiency_low"] <= truth <= found["efficiency_high"]
    widths = [found[f"{name}_high"] / found[f"{name}_low"] - 1 for name in ("efficiency", "efficiency_apart")]
    assert widths[0] < 0.05
    assert widths[1] > 4 * widths[0]
    assert found["speedup"] == pytest.approx(2 * found["efficiency"])
    assert found["efficiency_self_high"] / found["efficiency_self_low"] < 1.06  # of two points with pairs


def test_the_base_case_itself_has_no_pairs(results: Results) -> None:
    base = row(estimate(results), "strong", 1, "torch")
    assert (base["efficiency"], base["efficiency_from"], base["efficiency_apart"]) == (1.0, None, None)


def test_pairs_need_no_launches_of_the_base_case_itself(results: Results) -> None:
    wrapped = replace(results, trials=results.trials.filter(strategy="torch-ddp"))
    found = row(estimate(wrapped), "weak", 2)
    assert found["efficiency"] == row(estimate(results), "weak", 2)["efficiency"]
    assert (found["base_case"], found["base_throughput"], found["efficiency_apart"]) == ("torch", None, None)
    assert "base case not measured" not in found["warning"]


def test_launches_without_a_companion_are_never_in_one_estimate_with_others(results: Results) -> None:
    """As where some were measured on several hosts: by their id it is another point, of the same factors."""
    two = pl.col("workers") == 2
    bare = results.trials.filter(two, strategy="torch-ddp").with_columns(
        point=pl.col("point") + "x", base_beside=pl.lit("[]"), base_whole_cost=None, base_each_cost=None
    )
    found = estimate(replace(results, trials=pl.concat([results.trials, bare], how="vertical_relaxed")))
    rows = found.filter(scaling="strong", strategy="torch-ddp", workers=2)
    assert sorted(rows["efficiency_from"]) == ["apart", "beside"]
    assert rows["n_launches"].to_list() == [6, 6]
    curve = found.filter(scaling="strong", strategy="torch-ddp")["warning"]
    assert all("its curve has points with the base case beside, and points without" in text for text in curve)
    assert not estimate(results)["warning"].str.contains("its curve has points").any()


def test_pairs_and_separate_launches_that_contradict_each_other_are_told(results: Results) -> None:
    """A companion that is slowed by what it stands beside: half as fast as the base case alone."""
    slowed = results.trials.with_columns(pl.col("base_whole_cost", "base_each_cost") * 2)
    found = row(estimate(replace(results, trials=slowed)), "weak", 2)
    assert "efficiency from the base case beside and from separate launches differ beyond" in found["warning"]
    assert "the base case beside takes 2." in found["warning"]
    assert "of its time alone, which is not 1" in found["warning"]
    quiet = row(estimate(results), "weak", 2)["warning"]
    assert "differ beyond" not in quiet
    assert "time alone" not in quiet


def test_each_study_shows_the_base_case_beside_over_the_one_alone(results: Results) -> None:
    found = against_alone(results).sort("batch")
    assert found.select("base_case", "batch", "n_beside", "n_alone").rows() == [
        ("torch", 64, 12, 6),
        ("torch", 512, 12, 6),
    ]
    for each in found.iter_rows(named=True):
        assert each["ratio_low"] < each["ratio"] < each["ratio_high"]
        assert each["ratio_low"] <= 1.0 <= each["ratio_high"]
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(estimate(results), found))
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "apart" in text
    assert "The base case beside takes, of its time alone [99% interval]: torch, batch 64, " in " ".join(text.split())


@pytest.mark.parametrize("launches", [4, 6, 10])
def test_the_interval_from_pairs_covers_the_truth_whatever_both_sides_share(launches: int) -> None:
    """With 200 studies a true 95% interval covers in 90 to 99% of them with probability 0.998."""
    rng, hits = np.random.default_rng(launches), 0
    for seed in range(STUDIES):
        drawn = simulate.study(WAYS[1:], workers=(2,), repeats=launches, rng=rng, launch_cv=0.12, beside_cv=0.025)
        found = row(estimate(drawn, resamples=199, seed=seed), "strong", 2)
        hits += found["efficiency_low"] <= WAYS[1].throughput("strong", 2) / 2000 <= found["efficiency_high"]
    assert 0.90 <= hits / STUDIES <= 0.99


def test_rounds_that_are_not_used_and_blocks_that_are_far_off_go_with_the_number(results: Results) -> None:
    first = pl.col("repeat") == 0
    marked = results.trials.with_columns(
        rounds_unused=pl.when(first).then(2).otherwise(0),
        blocks_off=pl.when(first).then(3).otherwise(0),
        base_still_seconds=pl.when(first).then(1.5).otherwise(0.0),
    )
    warning = row(estimate(replace(results, trials=marked)), "weak", 2)["warning"]
    assert "2 of 12 rounds in 1 of 6 launches were not used: a side that was stopped used a CPU" in warning
    assert "blocks far from the others (3, counted) in 1 of 6 launches" in warning
    assert "1 of 6 launches stood still in steps of the base case beside: efficiency is too large" in warning
    kinds = {caveats.kind(text) for text in warning.split("; ")}
    assert "blocks far from the others in some launches" in kinds
    assert "some rounds in some launches were not used: a side that was stopped used a CPU" in kinds


def test_one_launch_has_a_value_and_no_interval(results: Results) -> None:
    found = row(estimate(replace(results, trials=results.trials.filter(repeat=0))), "weak", 2)
    assert found["efficiency"] is not None
    assert found["efficiency_low"] is None
