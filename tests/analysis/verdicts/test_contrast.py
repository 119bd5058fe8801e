"""Rates, ratios and the verdict on one of them: the numbers by hand, and which side is named first does not matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats

from analysis.stats.ratios import LogRate, holm, log_ratio
from analysis.verdicts import unlike
from analysis.verdicts.contrast import Comparison, Rates, Side, compared, decided, word_for
from tests.analysis import generate, simulate

CELL = Rates("strong", 2, {}, pl.DataFrame(), pl.DataFrame())


def side(name: str, *rates: float) -> Side:
    return Side(name, "native", 1, (LogRate.of(rates),), (), (), len(rates))


def comparison(above: Sequence[Side], below: Sequence[Side]) -> Comparison:
    return compared("of", CELL, above, below)


def test_a_rate_of_several_launches_is_work_over_time() -> None:
    """Two launches of the same work at 100 and at 50 samples/s: 2 samples took 0.01 + 0.02 s."""
    rate = LogRate.of([100.0, 50.0])
    assert math.exp(rate.log) == pytest.approx(2 / 0.03)
    assert math.exp(LogRate.of([80.0]).log) == pytest.approx(80.0)
    assert (rate.variance, rate.freedom) == (pytest.approx(1 / 9), 1)  # of a mean, relative: (0.00707 / 0.015)² / 2


def test_degrees_of_freedom_are_those_of_welchs_test() -> None:
    steady, noisy = [100.0, 101.0, 99.0, 100.5, 99.5], [100.0, 140.0, 70.0]
    found = log_ratio([LogRate.of(steady)], [LogRate.of(noisy)])
    # Welch's test of the costs, each over its own mean: nearly two degrees of freedom, not six.
    costs = [[1 / rate for rate in rates] for rates in (steady, noisy)]
    relative = [[cost / (sum(each) / len(each)) for cost in each] for each in costs]
    welch = stats.ttest_ind(*relative, equal_var=False)
    assert found.freedom == pytest.approx(welch.df)
    assert found.freedom == pytest.approx(2.0, abs=0.05)


def test_after_the_first_that_is_not_rejected_no_interval_excludes_equality() -> None:
    levels = [corrected.level for corrected in holm([0.01, 0.03, 0.04], 0.05)]
    assert levels == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2])


@pytest.mark.parametrize("ratio", [1.2, 1.051, 1.0515, 1.049, 1.02])
def test_the_verdict_is_mirrored_where_the_sides_are_named_the_other_way_round(ratio: float) -> None:
    mirror = {"supported": "contradicted", "inconclusive": "inconclusive", "no difference": "no difference"}
    narrow, wide = (ratio / 1.001, ratio * 1.001), (1.001, 2 * ratio)
    for low, high in (narrow, wide):
        said = word_for(ratio, low, high, 0.001, 0.05)
        assert word_for(1 / ratio, 1 / high, 1 / low, 0.001, 0.05) == mirror[said]


def test_a_difference_within_the_margin_is_not_supported_however_significant() -> None:
    assert word_for(1.04, 1.01, 1.07, 1e-6, 0.05) == "inconclusive"
    assert word_for(1.06, 1.01, 1.11, 1e-6, 0.05) == "supported"
    assert word_for(1.06, 1.01, 1.11, 0.06, 0.05) == "inconclusive"


def test_the_verdict_is_of_the_corrected_p_value() -> None:
    """Significant by itself, and one of five: not any more."""
    one = comparison([side("a", 100.0, 110.0, 105.0)], [side("b", 90.0, 95.0, 85.0)])
    equal = comparison([side("a", 100.0, 110.0)], [side("b", 100.0, 110.0)])
    assert 0.01 < one.p < 0.05
    assert decided([one], 0.05, primary=True)[0].verdict == "supported"
    first, *_ = decided([one, *[equal] * 4], 0.05, primary=True)
    assert (first.p_holm, first.verdict) == (pytest.approx(5 * one.p), "inconclusive")
    assert first.low < 1 < first.high


def test_of_several_strategies_the_p_value_is_larger_as_the_best_of_them_was_looked_for() -> None:
    a, b = (120.0, 124.0, 122.0, 118.0), (100.0, 103.0, 99.0, 101.0)
    alone = comparison([side("a", *a)], [side("b", *b)])
    three = comparison([side(name, *a) for name in ("a", "b", "c")], [side("b", *b)])
    assert 0 < three.p == pytest.approx(3 * alone.p)
    mirrored = comparison([side("b", *b)], [side(name, *a) for name in ("a", "b", "c")])
    assert mirrored.p == pytest.approx(three.p)
    # To beat each of several is as hard as to beat the best of them: no correction.
    assert comparison([side("a", *a)], [side(name, *b) for name in ("b", "c")]).p == pytest.approx(alone.p)


def test_frameworks_interact_with_their_communication_where_each_has_a_process_for_each_worker() -> None:
    ways = ("torch-ddp", "torch-horovod", "tf-mirrored", "tf-multiworker", "tf-horovod")
    rows = [
        {"trial_id": f"{way}-r{repeat}", "strategy": way, "throughput": 100.0 + repeat, "framework": way[:2]}
        | {"communication": "horovod" if way.endswith("-horovod") else "native"}
        for way in ways
        for repeat in range(2)
    ]
    found = Rates("strong", 2, {}, pl.DataFrame(rows), pl.DataFrame()).interaction()
    assert found is not None
    ((native,), (horovod,)) = found
    assert (native.name, horovod.name) == ("tf-multiworker / torch-ddp", "tf-horovod / torch-horovod")
    assert Rates("strong", 2, {}, pl.DataFrame(rows[2:]), pl.DataFrame()).interaction() is None


def test_of_several_strategies_the_interval_is_wider_as_the_best_of_them_was_looked_for() -> None:
    a, b = (100.0, 104.0, 102.0, 98.0), (100.0, 103.0, 99.0, 101.0)
    alone = comparison([side("a", *a)], [side("b", *b)])
    three = comparison([side(name, *a) for name in ("a", "b", "c")], [side("b", *b)])
    assert three.ratio == alone.ratio
    assert three.low == alone.sides[0][0].over(alone.sides[1][0]).low(0.05 / 2 / 3) < alone.low
    assert three.high == alone.high
    assert comparison([side("a", *a)], [side(name, *b) for name in ("b", "c", "d")]).high > alone.high


def test_a_rate_over_what_ran_beside_is_the_mean_of_the_launches_logarithms() -> None:
    logs = [0.5, 0.6, 0.7, 0.4]
    rate = LogRate.of_logs(logs)
    assert rate.log == pytest.approx(0.55)
    assert (rate.variance, rate.freedom) == (pytest.approx(stats.tvar(logs) / 4), 3)
    assert math.isnan(LogRate.of_logs([0.5]).variance)


def test_efficiencies_are_from_pairs_where_the_base_case_ran_beside() -> None:
    """What both sides of a launch share is no part of them, and the base case's own launches are not asked."""
    ways = [generate.Way(name, 1000.0, generate.efficient(e)) for name, e in (("torch", 1.0), ("torch-ddp", 0.9))]
    ways += [generate.Way(name, 1150.0, generate.efficient(e)) for name, e in (("tf", 1.0), ("tf-multiworker", 0.72))]
    rng = np.random.default_rng(0)
    noisy = simulate.study(ways, workers=(2,), repeats=6, rng=rng, launch_cv=0.2, beside_cv=0.01)
    (cell,) = Rates.cells(noisy)
    found = compared("E", cell, cell.efficiencies("TensorFlow"), cell.efficiencies("PyTorch"))
    assert found.ratio == pytest.approx(0.8, rel=0.02)
    assert found.high / found.low < 1.05
    assert not any(record.startswith(("tf-n1", "torch-n1")) for record in found.records)
    assert found.launches == (6, 6)
    apart = noisy.trials.with_columns(base_whole_cost=None, base_each_cost=None)
    (bare,) = Rates.cells(replace(noisy, trials=apart))
    one_side = compared("E", cell, cell.efficiencies("TensorFlow"), bare.efficiencies("PyTorch"))
    assert one_side.high / one_side.low > 1.2
    assert "one side is over the base case beside its launches" in unlike.warnings(noisy.trials, one_side)[0]
    assert unlike.warnings(noisy.trials, found) == ()
    both = pl.concat([noisy.trials, apart.with_columns(base_beside=pl.lit("[]"))], how="vertical_relaxed")
    (cell,) = Rates.cells(replace(noisy, trials=both))
    again = compared("E", cell, cell.efficiencies("TensorFlow"), cell.efficiencies("PyTorch"))
    assert (again.ratio, again.high) == (found.ratio, found.high)


def test_the_interaction_is_from_pairs_if_all_four_strategies_have_them() -> None:
    truth = {"torch-ddp": 0.9, "torch-horovod": 0.8, "tf-multiworker": 0.85, "tf-horovod": 0.68}
    ways = [generate.Way(name, 1000.0, generate.efficient(e)) for name, e in truth.items()]
    rng = np.random.default_rng(1)
    (cell,) = Rates.cells(simulate.study(ways, workers=(2,), repeats=6, rng=rng, launch_cv=0.2, beside_cv=0.01))
    sides = cell.interaction()
    assert sides is not None
    found = compared("interaction", cell, *sides)
    assert found.ratio == pytest.approx((0.85 / 0.9) / (0.68 / 0.8), rel=0.03)
    assert found.high / found.low < 1.1
