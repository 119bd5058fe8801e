"""Do the intervals hold what they promise? Hundreds of studies with a known truth, through the whole
of `estimate` and `fit`; and equal strategies must look equal.

With 500 studies the coverage of a true 95% interval lies between 92 and 98% with probability 0.998;
seeds are fixed, so a failure is a change of the method and not bad luck.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from analysis.laws import fit as laws_fit
from analysis.measures.efficiency import estimate
from analysis.stats import bootstrap
from tests.analysis import generate, simulate

STUDIES = 500
WAYS = (generate.Way("torch"), generate.Way("torch-ddp", strong=generate.amdahl(0.1)))


def covered(repeats: int, noise: generate.Noise, launch_cv: float) -> dict[str, float]:
    """How often the interval of each quantity, at 4 workers, holds the truth."""
    rng = np.random.default_rng(repeats)
    truth = {"throughput": WAYS[1].throughput("strong", 4)}
    truth["speedup"] = truth["throughput"] / 1000
    truth["efficiency"] = truth["speedup"] / 4
    truth["efficiency_self"] = truth["efficiency"]
    hits: Counter[str] = Counter()
    for seed in range(STUDIES):
        results = simulate.study(WAYS, workers=(1, 4), repeats=repeats, rng=rng, launch_cv=launch_cv, noise=noise)
        row = estimate(results, resamples=399, seed=seed).filter(strategy="torch-ddp", workers=4).row(0, named=True)
        for name, value in truth.items():
            hits[name] += row[f"{name}_low"] <= value <= row[f"{name}_high"]
    return {name: hits[name] / STUDIES for name in truth}


@pytest.mark.parametrize("repeats", [3, 5, 10, 15])
@pytest.mark.parametrize(("noise", "launch_cv"), [("normal", 0.05), ("lognormal", 0.2)])
def test_the_95_percent_interval_covers_the_truth_in_92_to_98_percent_of_studies(
    repeats: int, noise: generate.Noise, launch_cv: float
) -> None:
    found = covered(repeats, noise, launch_cv)
    print(repeats, noise, launch_cv, found)
    for name, share in found.items():
        assert 0.92 <= share <= 0.98, (name, share)


@pytest.mark.parametrize("repeats", [3, 5])
def test_intervals_of_law_parameters_cover_the_truth(repeats: int) -> None:
    rng = np.random.default_rng(repeats)
    truth = {"Amdahl": {"serial share": 0.05}, "USL": {"contention": 0.03, "coherency": 0.001, "peak": 31.14}}
    ways = {"Amdahl": generate.amdahl(0.05), "USL": generate.usl(0.03, 0.001)}
    for law, known in truth.items():
        hits: Counter[str] = Counter()
        for seed in range(STUDIES):
            way = generate.Way("torch-ddp", strong=ways[law])
            results = simulate.study([way], workers=(1, 2, 4, 8, 16, 32), repeats=repeats, rng=rng)
            fit = next(f for f in laws_fit.fit(results, resamples=299, seed=seed) if f.law == law)
            hits.update(p.name for p in fit.parameters if p.name in known and p.low <= known[p.name] <= p.high)
        for name in known:
            assert 0.92 <= hits[name] / STUDIES <= 0.985, (law, name, hits[name] / STUDIES)


@pytest.mark.parametrize("repeats", [3, 5, 10])
def test_equal_strategies_differ_significantly_in_at_most_seven_percent_of_studies(repeats: int) -> None:
    """A null study: the wrapped run is as fast as the base case, so the speedup at one worker is 1."""
    rng = np.random.default_rng(repeats)
    ways = (generate.Way("torch"), generate.Way("torch-ddp"))
    wrong = 0
    for seed in range(STUDIES):
        results = simulate.study(ways, workers=(1,), repeats=repeats, rng=rng)
        row = estimate(results, resamples=399, seed=seed).filter(strategy="torch-ddp").row(0, named=True)
        wrong += not row["speedup_low"] <= 1.0 <= row["speedup_high"]
    assert wrong / STUDIES <= 0.07


@pytest.mark.parametrize("cv", [0.05, 0.10])
def test_launches_that_are_added_until_the_interval_is_narrow_cost_little_coverage(cv: float) -> None:
    """The driver's rule, `repeats: {min: 5, max: 15, until_ci: 0.05}`: docs/methodology.md has the rates."""
    rng = np.random.default_rng(0)
    covers = []
    for seed in range(1000):
        costs = rng.normal(1.0, cv, 5).tolist()
        while True:
            (mean,) = bootstrap.resampled(np.array(costs)[:, None], 399, seed, "point")
            low, high = mean.log_interval(0.95)
            if high / mean.value - 1 <= 0.05 or len(costs) == 15:
                break
            costs.append(rng.normal(1.0, cv))
        covers.append(low <= 1.0 <= high)
    assert 0.915 <= np.mean(covers) <= 0.965
