"""Laws: known parameters come back, too few points are said, and prediction stops where it must."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from analysis.figures import laws as plot_laws
from analysis.laws import fit as laws_fit
from analysis.laws import law as laws
from analysis.laws import words as law_words
from analysis.laws.law import LawFit, Parameter
from analysis.stats import least_squares
from tests.analysis import generate, simulate


def fitted(
    way: generate.Way, workers: Sequence[int], scaling: str, repeats: int = 5, launch_cv: float = 0.01, seed: int = 0
) -> dict[str, LawFit]:
    rng = np.random.default_rng(seed)
    results = simulate.study([way], workers=workers, repeats=repeats, rng=rng, launch_cv=launch_cv, scaling=(scaling,))
    return {fit.law: fit for fit in laws_fit.fit(results)}


def parameter(fit: LawFit, name: str) -> laws.Parameter:
    return next(p for p in fit.parameters if p.name == name)


COUNTS = (1, 2, 4, 8, 16, 32)


@pytest.mark.parametrize("serial", [0.0, 0.02, 0.2, 0.7])
def test_amdahls_serial_share_comes_back(serial: float) -> None:
    found = parameter(
        fitted(generate.Way("torch-ddp", 700.0, generate.amdahl(serial)), COUNTS, "strong")["Amdahl"], "serial share"
    )
    assert found.value == pytest.approx(serial, rel=0.1, abs=0.003)
    assert found.low <= serial <= found.high
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("serial", [0.05, 0.3])
def test_gustafsons_serial_share_comes_back(serial: float) -> None:
    fit = fitted(generate.Way("torch-ddp", weak=generate.gustafson(serial)), COUNTS, "weak")["Gustafson"]
    found = parameter(fit, "serial share")
    assert found.value == pytest.approx(serial, rel=0.15)
    assert found.low <= serial <= found.high
    assert fit.rate == pytest.approx(1000, rel=0.03)


def test_contention_coherency_and_the_peak_come_back() -> None:
    fit = fitted(generate.Way("torch-ddp", strong=generate.usl(0.03, 0.001)), COUNTS, "strong")["USL"]
    peak = math.sqrt((1 - 0.03) / 0.001)
    for name, truth in (("contention", 0.03), ("coherency", 0.001), ("peak", peak)):
        found = parameter(fit, name)
        assert found.value == pytest.approx(truth, rel=0.15)
        assert found.low <= truth <= found.high
    assert "peaks at 3" in parameter(fit, "peak").words


def test_the_peak_is_where_throughput_is_highest() -> None:
    """Much contention: without it in the formula the peak would be at 20 and not at 14."""
    way = generate.Way("torch-ddp", strong=generate.usl(0.5, 0.0025))
    found = parameter(fitted(way, COUNTS, "strong", launch_cv=0.0)["USL"], "peak")
    counts = np.arange(1, 64)
    assert found.value == pytest.approx(float(counts[np.argmax([way.strong(int(n)) for n in counts])]), abs=0.5)


def test_a_worker_count_with_more_launches_weighs_more() -> None:
    """A line through three points of which one is off: the more launches the other two have, the less it counts."""
    design, response = np.column_stack([np.ones(3), [1.0, 2.0, 4.0]]), np.array([1.0, 1.0, 1.2])
    slopes = [
        float(least_squares.solve(design, response, np.array(counts), bounded=False)[1])
        for counts in ([15.0, 15.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 15.0])
    ]
    fits = [abs(float(r)) for r in slopes]
    assert fits == sorted(fits)
    assert fits[0] < fits[2]


def test_aicc_counts_the_rate_and_the_variance_among_the_parameters() -> None:
    fit = fitted(generate.Way("torch-ddp", strong=generate.amdahl(0.1)), COUNTS, "strong")["Amdahl"]
    n, k = fit.n_launches, 3  # serial share, rate of one worker, variance
    assert fit.aicc == pytest.approx(n * math.log(fit.spread**2) + 2 * k + 2 * k * (k + 1) / (n - k - 1))


def test_aicc_prefers_the_law_that_made_the_data() -> None:
    amdahl = fitted(generate.Way("torch-ddp", strong=generate.amdahl(0.1)), COUNTS, "strong")
    assert amdahl["Amdahl"].delta_aicc == 0
    bent = fitted(generate.Way("torch-ddp", strong=generate.usl(0.02, 0.002)), COUNTS, "strong")
    assert bent["USL"].delta_aicc == 0
    assert bent["Amdahl"].delta_aicc > 10


def test_a_curve_that_beats_ideal_has_no_negative_share() -> None:
    fit = fitted(generate.Way("torch-ddp", strong=lambda n: n**1.05), COUNTS, "strong")["Amdahl"]
    assert parameter(fit, "serial share").value == 0
    assert parameter(fit, "serial share").low == 0


@pytest.mark.parametrize(("workers", "known"), [((1, 2), []), ((1, 2, 4), []), ((1, 2, 4, 8), ["Amdahl"])])
def test_too_few_points_are_said_and_not_fitted(workers: Sequence[int], known: list[str]) -> None:
    fits = fitted(generate.Way("torch-ddp", strong=generate.amdahl(0.1)), workers, "strong")
    assert [law for law, fit in fits.items() if fit.fitted] == known
    assert f"{len(workers)} worker counts measured" in fits["USL"].note
    assert "at least 5" in fits["USL"].note
    with pytest.raises(ValueError, match="not fitted"):
        fits["USL"].predict([2])


def test_a_base_case_is_no_curve() -> None:
    rng = np.random.default_rng(0)
    assert laws_fit.fit(simulate.study([generate.Way("torch")], workers=(1,), repeats=3, rng=rng)) == []


def test_predictions_say_when_they_are_extrapolated_and_stop_at_four_times() -> None:
    fit = fitted(generate.Way("torch-ddp", strong=generate.amdahl(0.1)), COUNTS, "strong")["Amdahl"]
    predicted = fit.predict([1, 32, 33, 128])
    assert [p.extrapolated for p in predicted] == [False, False, True, True]
    for p in predicted:
        assert p.low <= p.throughput <= p.high
    with pytest.raises(laws.TooFar, match="1 to 128"):
        fit.predict([129])


def test_what_lies_beyond_the_measured_is_called_extrapolated_in_words() -> None:
    fits = fitted(generate.Way("torch-ddp", strong=generate.usl(0.01, 0.0003)), COUNTS, "strong")
    assert "extrapolated" in parameter(fits["Amdahl"], "serial share").words
    assert "extrapolated" in parameter(fits["USL"], "peak").words  # sqrt(0.99 / 0.0003) = 57 > 32
    far = fitted(generate.Way("torch-ddp", strong=generate.usl(0.01, 1e-6)), COUNTS, "strong")["USL"]
    words = parameter(far, "peak").words
    assert "128" in words
    assert "extrapolated" in words
    assert "995" not in words


def test_one_launch_per_point_gives_values_without_intervals() -> None:
    fit = fitted(generate.Way("torch-ddp", strong=generate.amdahl(0.1)), COUNTS, "strong", repeats=1)["Amdahl"]
    found = parameter(fit, "serial share")
    assert found.value == pytest.approx(0.1, rel=0.1)
    assert math.isnan(found.low)
    assert math.isnan(fit.predict([8])[0].high)


def test_the_frame_has_a_row_per_parameter_and_per_law_not_fitted() -> None:
    rng = np.random.default_rng(0)
    way = generate.Way("torch-ddp", strong=generate.amdahl(0.1))
    found = laws_fit.frame(laws_fit.fit(simulate.study([way], workers=(1, 2, 4, 8), repeats=3, rng=rng)))
    assert found.select("law", "parameter").rows() == [("Amdahl", "serial share"), ("USL", None)]
    assert found["words"].str.contains("serial|does not shrink|not fitted").all()


def test_words_claim_no_peak_and_no_limit_that_the_interval_does_not_show() -> None:
    shown = law_words.of("USL", Parameter("peak", 40.0, 20.0, 60.0, ""), 16, 4)
    assert shown == "throughput peaks at 40 [20, 60] workers (extrapolated) and falls beyond"
    open_ended = law_words.of("USL", Parameter("peak", 40.0, 20.0, math.inf, ""), 16, 4)
    assert "no peak of throughput is shown" in open_ended
    assert "estimate: 40" in open_ended
    assert "at most 20 times" in law_words.of("Amdahl", Parameter("serial share", 0.05, 0.04, 0.06, ""), 16, 4)
    unsure = law_words.of("Amdahl", Parameter("serial share", 0.003, 0.0, 0.012, ""), 16, 4)
    assert "no limit is shown" in unsure
    assert "at most" not in unsure


def test_the_only_law_that_was_fitted_is_not_called_the_best() -> None:
    share = Parameter("serial share", 0.1, 0.05, 0.2, "")
    one = LawFit("Amdahl", "strong", "torch-ddp", "PyTorch", {}, COUNTS, 5, parameters=(share,), delta_aicc=0.0)
    assert "best" in plot_laws._said(one, compared=True)
    assert "best" not in plot_laws._said(one, compared=False)


def test_noise_that_the_base_case_beside_had_too_is_no_part_of_a_law() -> None:
    way = generate.Way("torch-ddp", strong=generate.amdahl(0.1))
    rng = np.random.default_rng(3)
    noisy = simulate.study([way], workers=(1, 2, 4, 8), repeats=5, rng=rng, launch_cv=0.2, beside_cv=0.01)
    (share,) = next(f for f in laws_fit.fit(noisy) if f.law == "Amdahl").parameters
    apart = replace(noisy, trials=noisy.trials.with_columns(base_whole_cost=None))
    (wide,) = next(f for f in laws_fit.fit(apart) if f.law == "Amdahl").parameters
    assert share.low <= 0.1 <= share.high
    assert share.high - share.low < (wide.high - wide.low) / 4
