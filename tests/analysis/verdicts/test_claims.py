"""The verdicts: right on known truths, and seldom wrong where there is nothing to find."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from analysis.load.results import Results, load
from analysis.stats.ratios import holm
from analysis.verdicts import claims, judges
from analysis.verdicts.contrast import overall
from tests.analysis import generate

WAYS = {
    "torch": ("PyTorch", "none"),
    "torch-ddp": ("PyTorch", "native"),
    "torch-horovod": ("PyTorch", "horovod"),
    "tf": ("TensorFlow", "none"),
    "tf-mirrored": ("TensorFlow", "native"),
    "tf-multiworker": ("TensorFlow", "native"),
    "tf-horovod": ("TensorFlow", "horovod"),
}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Results:
    ways = [generate.Way("torch", rate=1000.0), generate.Way("tf", rate=1000.0)]
    return load(generate.study(tmp_path_factory.mktemp("one") / "r", ways=ways, workers=(1,), repeats=2))


def drawn(
    empty: Results, launches: int, cv: float, seed: int, tf: float = 1.0, workers: Sequence[int] = (2, 4)
) -> Results:
    """Results whose launches are drawn around a common truth; TensorFlow's efficiency is `tf` times as high."""
    rng = np.random.default_rng(seed)
    rows = []
    for strategy, (framework, communication) in WAYS.items():
        plain = communication == "none"
        # The batches of both modes are equal at one worker only.
        for n, modes in ((n, modes) for n in ((1,) if plain else workers) for modes in (["sw"] if plain else "sw")):
            factor = tf if framework == "TensorFlow" and communication != "none" else 1.0
            for repeat in range(launches):
                seconds = rng.lognormal(0.0, cv) / (1000 * n * factor)
                rows.append(
                    {
                        "trial_id": f"{strategy}-n{n}-{modes}-r{repeat}",
                        "strategy": strategy,
                        "framework": framework,
                        "communication": communication,
                        "workers": n,
                        "status": "ok",
                        "throughput": 1 / seconds,
                        "strong": "s" in modes,
                        "weak": "w" in modes,
                        "emulated": False,
                    }
                )
    return replace(empty, trials=pl.DataFrame(rows), factors=())


def verdict(results: Results) -> str:
    return overall([c.verdict for c in judges.scales_better(results, 0.05) if c.primary])


@pytest.mark.parametrize(("launches", "cv"), [(3, 0.05), (5, 0.10), (10, 0.05), (10, 0.10)])
def test_a_null_study_seldom_gets_a_verdict(launches: int, cv: float, empty: Results) -> None:
    """Both frameworks drawn alike, 120 times: if 0.4% are judged wrongly, more than 2 have a chance of 1%; if 6%
    are, as many as 2 or fewer have one of 3%."""
    wrong = sum(verdict(drawn(empty, launches, cv, seed)) in ("supported", "contradicted") for seed in range(120))
    assert wrong <= 2


def test_a_true_difference_of_15_percent_is_found(empty: Results) -> None:
    found = [verdict(drawn(empty, 10, 0.05, seed, tf=1.15, workers=(2,))) for seed in range(100)]
    assert found.count("supported") >= 80
    assert "contradicted" not in found
    mirrored = [verdict(drawn(empty, 10, 0.05, seed, tf=1 / 1.15, workers=(2,))) for seed in range(50)]
    assert mirrored.count("contradicted") >= 40


def test_more_strategies_do_not_help_a_framework(empty: Results) -> None:
    """TensorFlow has three to choose from, PyTorch two: the best of three is no evidence."""
    found = [verdict(drawn(empty, 3, 0.10, seed)) for seed in range(120)]
    assert found.count("supported") <= 2


def test_equal_frameworks_measured_well_show_no_difference(empty: Results) -> None:
    assert verdict(drawn(empty, 15, 0.005, 1)) == "no difference"


def test_one_launch_each_is_inconclusive(empty: Results) -> None:
    assert verdict(drawn(empty, 1, 0.05, 1, tf=2.0)) == "inconclusive"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PyTorch scales ideally; TensorFlow loses a fifth, under every way of communicating."""
    lossy = generate.amdahl(0.2)
    ways = [
        generate.Way(
            name, rate=1000.0, **({"strong": lossy, "weak": lossy} if f == "TensorFlow" and c != "none" else {})
        )
        for name, (f, c) in WAYS.items()
    ]
    place = tmp_path_factory.mktemp("known") / "r"
    return generate.study(place, ways=ways, workers=(1, 2, 4), repeats=6, launch_cv=0.01)


def test_a_known_truth_is_found_and_says_what_it_stands_on(study: Path) -> None:
    results = load(study)
    verdicts = {v.claim.id: v for v in claims.judge(results)}
    scales = verdicts["tf-scales-better"]
    assert scales.verdict == "contradicted"
    horovod = [c for c in scales.comparisons if c.name == "Horovod on both" and c.workers == 4]
    assert {c.scaling for c in horovod} == {"strong", "weak"}
    truth = generate.amdahl(0.2)(4) / 4
    for c in horovod:
        assert c.low < truth < c.high
        assert c.launches == (6, 6)
        assert set(c.records) <= set(results.trials["trial_id"])
        assert len(c.records) == 4 * 6
    interaction = [c for c in scales.comparisons if "framework × communication" in c.name]
    assert all(c.low < 1 < c.high for c in interaction)
    assert "4" in scales.summary


def test_what_no_trial_can_judge_is_untested_and_says_how_to_test_it(study: Path) -> None:
    verdicts = {v.claim.id: v for v in claims.judge(load(study))}
    assert list(verdicts) == [claim.id for claim in claims.CLAIMS]
    for name in ("tf-data-pipeline", "compile-speeds-inference", "static-graph-faster", "tf-suits-tpu"):
        assert verdicts[name].verdict == "untested"
        assert verdicts[name].summary.startswith("To test it: ")


def test_published_evidence_stands_beside_and_is_not_pooled(study: Path) -> None:
    verdicts = {v.claim.id: v for v in claims.judge(load(study))}
    tpu = verdicts["tf-suits-tpu"]
    assert (tpu.verdict, tpu.comparisons) == ("untested", ())
    assert tpu.published is not None
    assert tpu.published.verdict == "contradicted"
    assert len(tpu.published.comparisons) == 2 * 3  # two readings of three benchmarks
    assert "Google tuned and ran both sides" in tpu.published.summary
    scaling = verdicts["tf-scales-better"].published
    assert scaling is not None
    assert scaling.verdict == "inconclusive"


def test_tpu_trials_are_judged_on_their_throughput(empty: Results) -> None:
    results = drawn(empty, 8, 0.01, 0)
    faster = results.trials.with_columns(
        device=pl.lit("TPU v5e"),
        throughput=pl.when(framework="TensorFlow").then(2 * pl.col("throughput")).otherwise("throughput"),
    )
    found = judges.suits_tpu(replace(results, trials=faster), 0.05)
    # Twice as fast at any number of cores: better throughput, the same efficiency.
    said = {(c.name.partition(" ")[0], c.verdict) for c in found}
    assert said == {("throughput", "supported"), ("efficiency", "no difference")}
    assert {c.workers for c in found if c.name.startswith("efficiency")} == {2, 4}
    assert judges.suits_tpu(replace(results, trials=faster.with_columns(device=pl.lit("cpu"))), 0.05) == []


def test_no_verdict_rests_on_stand_ins(empty: Results) -> None:
    results = drawn(empty, 8, 0.01, 0, tf=2.0)
    emulated = replace(results, trials=results.trials.with_columns(emulated=pl.lit(True), device=pl.lit("TPU v5e")))
    assert judges.scales_better(emulated, 0.05) == []
    assert judges.suits_tpu(emulated, 0.05) == []


def test_json_and_terminal_say_the_same(study: Path) -> None:
    verdicts = claims.judge(load(study))
    content = json.loads(claims.to_json(verdicts))
    assert [c["verdict"] for c in content["claims"]] == [v.verdict for v in verdicts]
    assert content["claims"][0]["comparisons"][0]["records"]
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(claims.render(verdicts))
    text = console.export_text()
    assert all(v.claim.id in text for v in verdicts)
    assert claims.frame(verdicts).filter(claim="tf-scales-better").height == len(verdicts[0].comparisons)


def test_the_margin_is_the_studys(study: Path) -> None:
    results = load(study)
    wide = replace(results, study=results.study | {"margin": 0.9})
    assert claims.judge(wide)[0].verdict == "no difference"
    assert claims.judge(replace(results, study={"margin": "x"}))[0].margin == 0.05


def test_holm_is_the_textbooks() -> None:
    found = [round(c.p, 12) for c in holm([0.01, 0.04, 0.03, 0.005])]
    assert found == [0.03, 0.06, 0.06, 0.02]


def test_a_claim_is_as_its_comparisons_say() -> None:
    assert overall([]) == "untested"
    assert overall(["supported", "supported"]) == "supported"
    # The hypotheses speak of each: one that is not confirmed leaves it open, one counterexample ends it.
    assert overall(["supported", "no difference", "inconclusive"]) == "inconclusive"
    assert overall(["contradicted", "no difference", "inconclusive"]) == "contradicted"
    assert overall(["supported", "contradicted"]) == "inconclusive"
    assert overall(["no difference", "no difference"]) == "no difference"
    assert overall(["no difference", "inconclusive"]) == "inconclusive"
