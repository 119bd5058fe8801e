"""Graph against eager, in training and in inference: the numbers, the verdicts, the figure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from analysis.figures import infer as plot_infer
from analysis.figures import write
from analysis.load.results import Results
from analysis.load.trial import COLUMNS
from analysis.report import captions, workloads
from analysis.report import rules as report_rules
from analysis.verdicts import claims, judges
from analysis.workloads import infer
from analysis.workloads.interface import shown

FRAMEWORKS = {"torch": "PyTorch", "tf": "TensorFlow"}


def results(
    workload: str, seconds: dict[tuple[str, str, int], float], repeats: int = 5, noise: float = 0.01
) -> Results:
    """Launches of 100 calls whose mean is given per (strategy, execution, batch)."""
    rng, rows = np.random.default_rng(0), []
    for (strategy, execution, batch), mean in seconds.items():
        for repeat in range(repeats):
            each = mean * rng.lognormal(0.0, noise)
            row: dict[str, Any] = {
                "trial_id": f"{strategy}-{execution}-{batch}-r{repeat}", "point": f"{strategy}-{execution}-{batch}",
                "strategy": strategy, "framework": FRAMEWORKS[strategy], "communication": "none", "workers": 1,
                "global_batch": batch, "repeat": repeat, "strong": False, "weak": False, "status": "ok", "error": "",
                "emulated": False, "device": "Some CPU", "launcher": "local", "samples": 100 * batch,
                "train_seconds": 100 * each, "throughput": batch / each, "step_p50": each, "step_p95": 2 * each,
                "step_p99": 3 * each, "first_step_seconds": 1.0 if execution == "default" else 11.0,
                "prepare_seconds": 0.0, "max_difference": 1e-6, "startup_seconds": 1.0,
            }  # fmt: skip
            rows.append({name: row.get(name) for name in COLUMNS} | {"execution": execution, "workload": workload})
    trials = pl.DataFrame(rows, schema=COLUMNS | {"execution": pl.String, "workload": pl.String})
    return Results(Path("made"), {"name": "made"}, trials, [], {}, ("execution", "workload"))


FASTER = {
    ("torch", "default", 1): 0.010,
    ("torch", "graph", 1): 0.005,
    ("tf", "default", 1): 0.002,
    ("tf", "eager", 1): 0.004,
}


def verdict(found: Results, claim: str) -> claims.Verdict:
    return next(v for v in claims.judge(found) if v.claim.id == claim)


def test_the_numbers_of_calls() -> None:
    frame = infer.calls(results("infer", FASTER, noise=0.0))
    graph = frame.row(by_predicate=(pl.col("strategy") == "torch") & (pl.col("execution") == "graph"), named=True)
    assert graph["throughput"] == pytest.approx(200.0)
    assert (graph["p50"], graph["p99"]) == (pytest.approx(0.005), pytest.approx(0.015))
    assert graph["over_eager"] == pytest.approx(2.0)
    assert graph["break_even_calls"] == pytest.approx(2000.0)  # ten seconds more, five milliseconds saved each
    # TensorFlow's default is its graph; eager is the reference there too.
    tf = frame.filter(strategy="tf")
    assert tf["execution"].to_list() == ["eager", "graph"]
    assert tf["over_eager"].to_list() == [None, pytest.approx(2.0)]


def test_what_else_varies_makes_rows_of_its_own(tmp_path: Path) -> None:
    single = results("infer", FASTER, noise=0.0)
    both = [
        single.trials.with_columns(precision=pl.lit(name), train_seconds=pl.col("train_seconds") * factor)
        for name, factor in (("float32", 1.0), ("bfloat16", 3.0))
    ]
    found = replace(single, trials=pl.concat(both), factors=(*single.factors, "precision"))
    frame = infer.calls(found).filter(strategy="torch", execution="graph").sort("factors")
    assert frame["factors"].to_list() == ["precision bfloat16", "precision float32"]
    assert frame["throughput"].to_list() == [pytest.approx(200.0 / 3), pytest.approx(200.0)]
    assert frame["over_eager"].to_list() == [pytest.approx(2.0)] * 2
    assert frame["n_launches"].to_list() == [5, 5]
    console = Console(width=140, record=True)
    console.print(infer.render(infer.calls(found)))
    assert "precision bfloat16" in console.export_text()
    assert "factors" in [column.name for column in infer.table(infer.calls(found)).columns]
    write.write_all(found, tmp_path)
    assert "precision bfloat16" in (tmp_path / "inference.svg").read_text()


def test_a_saving_that_is_not_shown_has_no_number_of_calls() -> None:
    close = {("torch", "default", 1): 0.0101, ("torch", "graph", 1): 0.0100}
    frame = infer.calls(results("infer", close, repeats=3, noise=0.2))
    graph = frame.row(1, named=True)
    assert graph["over_eager_low"] < 1 < graph["over_eager_high"]
    assert graph["break_even_calls"] in (None, float("inf"))
    console = Console(width=110, record=True)
    console.print(infer.render(frame.with_columns(break_even_calls=pl.lit(None, pl.Float64))))
    assert "not shown" in console.export_text()


def test_a_way_that_is_slower_never_pays() -> None:
    slower = {("torch", "default", 1): 0.005, ("torch", "graph", 1): 0.006}
    frame = infer.calls(results("infer", slower))
    assert frame["break_even_calls"].to_list() == [None, float("inf")]
    console = Console(width=110, record=True)
    console.print(infer.render(frame))
    assert "never" in console.export_text()


@pytest.mark.parametrize(("ratio", "said"), [(1.5, "supported"), (0.7, "contradicted"), (1.0, "no difference")])
def test_compiled_inference_is_judged_per_batch_size(ratio: float, said: str) -> None:
    seconds = {("torch", "default", b): 0.01 * b for b in (1, 16)} | {
        ("torch", "graph", b): 0.01 * b / ratio for b in (1, 16)
    }
    found = verdict(results("infer", seconds), "compile-speeds-inference")
    assert found.verdict == said
    assert [c.where() for c in found.comparisons] == ["batch 1", "batch 16"]
    assert verdict(results("infer", seconds), "static-graph-faster").verdict == "untested"


def test_graphs_are_judged_against_their_own_framework() -> None:
    found = verdict(results("train", FASTER), "static-graph-faster")
    assert found.verdict == "supported"
    assert {c.name for c in found.comparisons} == {"torch: torch.compile / eager", "tf: tf.function / eager"}
    assert all(c.ratio == pytest.approx(2.0, rel=0.05) for c in found.comparisons)
    opposed = FASTER | {("torch", "graph", 1): 0.020}
    assert verdict(results("train", opposed), "static-graph-faster").verdict == "inconclusive"


def test_whether_a_graph_changes_how_training_scales_is_told_beside() -> None:
    """Twice as fast on one worker, but no faster on four: half the efficiency."""
    rows = results("train", FASTER | {("torch", "graph", 4): 0.01, ("torch", "default", 4): 0.01}).trials
    four = (pl.col("strategy") == "torch") & (pl.col("global_batch") == 4)
    ddp = rows.with_columns(
        strategy=pl.when(four).then(pl.lit("torch-ddp")).otherwise("strategy"),
        communication=pl.when(four).then(pl.lit("native")).otherwise("communication"),
        workers=pl.when(four).then(4).otherwise("workers"),
        strong=pl.lit(True),
    )
    found = replace(results("train", FASTER), trials=ddp)
    (scaling,) = [c for c in judges.graph_faster(found, 0.05) if "efficiency" in c.name]
    assert scaling.name == "torch-ddp: efficiency, torch.compile / eager"
    assert (scaling.workers, scaling.verdict, scaling.primary) == (4, "contradicted", False)
    assert scaling.ratio == pytest.approx(0.5, rel=0.05)


def test_xla_is_told_beside_and_decides_nothing() -> None:
    found = verdict(results("train", FASTER | {("tf", "xla", 1): 0.1}), "static-graph-faster")
    assert found.verdict == "supported"
    assert [c.verdict for c in found.comparisons if not c.primary] == ["contradicted"]


def test_a_study_of_calls_only_has_its_figure_and_no_curves(tmp_path: Path) -> None:
    seconds = {("torch", e, b): 0.01 * b for e in ("default", "graph") for b in (1, 16)}
    written = write.write_all(results("infer", seconds), tmp_path)
    assert [path.name for path in written] == ["inference.svg", "inference.png"]
    assert all(path.stat().st_size > 10_000 for path in written)


def test_the_figure_of_calls_shows_throughput_with_its_interval_and_milliseconds_below() -> None:
    found = results("infer", {("torch", e, b): 0.01 * b for e in ("default", "graph") for b in (1, 16)})
    frame = infer.calls(found).sort("batch")
    rates, latencies = plot_infer.infer(frame, found).axes
    for ax, name, unit in ((rates, "throughput", 1.0), (latencies, "p99", 1e3)):
        curves = [list(line.get_ydata()) for line in ax.lines]
        for way in ("eager", "graph"):
            assert pytest.approx((unit * frame.filter(execution=way)[name]).to_list()) in curves
    assert (rates.get_ylabel(), latencies.get_ylabel()) == ("images per second", "99th percentile, ms")
    assert len(rates.containers) == 2


def test_the_report_of_calls_and_of_files_shows_them_and_no_empty_curves(tmp_path: Path) -> None:
    from analysis.measures.distribution import Distributions
    from analysis.measures.efficiency import estimate
    from analysis.measures.energy import energies
    from analysis.measures.roofline import roofline
    from analysis.report import figures
    from analysis.report import study as report_study
    from analysis.workloads.accuracy import times

    seconds = {("torch", e, b): 0.01 * b for e in ("default", "graph") for b in (1, 16)}
    found = results("infer", seconds)
    none = pl.DataFrame()
    lower = Distributions(pl.DataFrame(schema={"trial_id": pl.String}), none)
    study = report_study.Study(
        found, estimate(found), lower, [], claims.judge(found), shown(found), [],
        energies(found), roofline(found, estimate(found)), times(found), None, none,
    )  # fmt: skip
    assert not len(study.estimates)
    pictures = figures.draw(study, tmp_path)
    assert list(pictures) == ["inference"]
    assert "torch graph" in pictures["inference"].finding
    rules = report_rules.answers(found, study.estimates, workloads.points(study.workloads, found), [], study.roofline)
    assert [rules[n - 1].status for n in (1, 5, 11)] == ["met", "met", "not met"]
    assert "Nothing is trained here" in rules[0].answer
    few = results("infer", seconds, repeats=3)
    assert "fewer than 5 launches: all points" in captions.cautions(few, estimate(few))
