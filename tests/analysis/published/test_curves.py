"""Published numbers: carried whole, computed as their sources do."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import mean

import numpy as np
import pytest

from analysis.published import curves as published
from analysis.published import runs
from analysis.verdicts.evidence import published_tpu

FOLDER = Path(published.__file__).parent


def test_the_olympic_mean_drops_the_fastest_and_the_slowest() -> None:
    assert runs.olympic_mean(np.array([5.0, 1.0, 3.0, 100.0, 4.0])) == pytest.approx(4.0)
    assert runs.olympic_mean(np.array([1.0, 2.0, 3.0, np.inf])) == pytest.approx(2.5)


def test_the_tpu_ratio_is_what_the_raw_minutes_give() -> None:
    """Recomputed from the file with the standard library alone."""
    with (FOLDER / "mlperf_runs.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["round"] == "v0.7" and r["benchmark"] == "resnet"]
    sides = []
    for framework in ("research-tf", "JAX"):
        minutes = sorted(
            float(r["minutes"])
            for r in rows
            if r["framework"] == framework and r["accelerators"] == "4096" and r["minutes"]
        )
        assert len(minutes) == 5
        sides.append(mean(minutes[1:-1]))
    found = next(
        c for c in runs.compare(published.mlperf_runs(), "TPU") if c.benchmark == "resnet" and c.reading == runs.TARGET
    )
    assert found.ratio == pytest.approx(sides[1] / sides[0])
    assert found.low < found.ratio < found.high


def test_every_pair_has_confounders_and_enough_runs() -> None:
    for found in runs.compare(published.mlperf_runs()):
        assert found.confounders
        assert min(found.runs, found.runs_reference) >= 5
        assert 0 < found.p <= found.p_holm <= 1


def test_efficiency_is_against_the_base_that_is_named() -> None:
    curves = published.curves(["pytorch_ddp_readme"])
    assert curves["base_workers"].unique().to_list() == [1]
    assert 0.8 < curves["efficiency"].min() <= curves["efficiency"].max() <= 1.1
    mlperf = published.curves(["mlperf_v2.1"])
    assert (mlperf["base_workers"] > 1).any()
    assert mlperf.filter(base_workers=4)["label"].str.contains("against 4").all()


def test_sources_carry_citation_licence_and_warnings() -> None:
    sources = published.sources()
    assert {"tf_benchmarks_2017", "pytorch_ddp_readme", "ray_train_parity"} <= {s.id for s in sources}
    for source in sources:
        assert source.citation
        assert source.licence
        assert source.warnings


@pytest.mark.parametrize("wanted", ["tf_benchmark_2017", "tf_benchmarks_2017:resnet5O", "ray_train_parity"])
def test_what_is_not_there_is_refused_by_name(wanted: str) -> None:
    with pytest.raises(ValueError, match=r"did you mean|no curves|has no"):
        published.curves([wanted])


def test_the_figures_in_the_tpu_page_are_those_that_claims_prints() -> None:
    page = (FOLDER.parents[1] / "docs" / "tpu.md").read_text()
    found = [c for c in published_tpu(0.05).comparisons if c["reading"] == runs.WORK]
    assert len(found) == 3
    for c in found:
        row = f"| {c['benchmark']} | {c['ratio']:.3f} | {c['low']:.3f} to {c['high']:.3f} | {c['runs']} and "
        assert f"{row}{c['runs_reference']} | {c['verdict']}" in page
