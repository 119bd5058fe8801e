"""Causes where the base case ran beside: what both sides of a launch share is no part of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.limits.limit import Limit, limits
from analysis.limits.words import says
from analysis.load.results import Results, load
from analysis.measures.distribution import distributions
from analysis.measures.efficiency import estimate
from tests.analysis import blocks, generate

THREAD, KEPT = 0.85, 0.8  # of the base case's rate in a rank that only computes; of that, with communication
BATCH = 256


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Horovod's thread takes 15% of the core also where nothing is exchanged; a worker's smaller batch costs nothing.
    Launches and rounds differ by 15% each. At two workers each launch is a point of both curves."""
    kept = {"strong": generate.efficient(KEPT), "weak": generate.efficient(KEPT)}
    ways = [generate.Way("torch"), generate.Way("torch-ddp"), generate.Way("torch-horovod", 1000.0 * THREAD, **kept)]
    folder = generate.study(
        tmp_path_factory.mktemp("results") / "thread", ways=ways, workers=(2,), repeats=5, batch_global=2 * BATCH,
        per_worker=BATCH, measured=60, compute_only=60, launch_cv=0.005, step_cv=0.02, rank_spread=0.0,
    )  # fmt: skip
    return load(blocks.into(folder, rounds=12, rates={"torch": 1000.0}, launch_cv=0.15, round_cv=0.15, step_cv=0.02))


def at_two(results: Results, scaling: str, strategy: str) -> Limit:
    found = limits(results, estimate(results), distributions(results).ranks)
    (limit,) = [x for x in found if (x.point["scaling"], x.point["strategy"]) == (scaling, strategy)]
    return limit


@pytest.mark.parametrize("scaling", ["weak", "strong"])
def test_a_thread_that_never_sleeps_is_a_cause_of_its_own(results: Results, scaling: str) -> None:
    limit = at_two(results, scaling, "torch-horovod")
    worker_time = 1 / (THREAD * KEPT)  # over the base case's, as are the parts
    process, communication = (1 / THREAD - 1) / worker_time, (worker_time - 1 / THREAD) / worker_time
    assert limit.named == ["communication", "process"]
    assert limit.parts["process"].share == pytest.approx(process, abs=0.02)
    assert limit.parts["communication"].share == pytest.approx(communication, abs=0.02)
    assert limit.parts["process"].high - limit.parts["process"].low < 0.06
    assert limit.loss is not None
    assert sum(part.share for part in limit.parts.values()) == pytest.approx(limit.loss.share, abs=0.002)
    assert "in a rank than in the plain process beside it (Horovod's own thread included)" in says(limit)
    assert ("batch" in limit.parts) == (scaling == "strong")
    if scaling == "strong":
        assert abs(limit.parts["batch"].share) < 0.02


def test_without_such_a_thread_none_is_named(results: Results) -> None:
    assert at_two(results, "weak", "torch-ddp").named == []
    assert abs(at_two(results, "weak", "torch-ddp").parts["process"].share) < 0.02


def test_no_other_launches_are_needed_for_it(results: Results) -> None:
    alone = replace(results, trials=results.trials.filter(strategy="torch-horovod"))
    limit = at_two(alone, "weak", "torch-horovod")
    assert limit.named == ["communication", "process"]


def test_without_a_companion_of_a_workers_batch_computing_is_one_part(results: Results, tmp_path: Path) -> None:
    """Strong scaling alone: the companion trains the whole batch."""
    whole = replace(results, trials=results.trials.with_columns(base_each_cost=None, weak=False))
    limit = at_two(whole, "strong", "torch-horovod")
    assert limit.named == ["communication", "growth"]
    assert limit.parts["growth"].high - limit.parts["growth"].low < 0.06
