"""Reading results: what is right is read right, what is wrong is named, and nothing crashes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.load.results import NotResults, Results, load
from analysis.load.steps import Steps, measure
from analysis.load.trial import COLUMNS
from tests.analysis import generate
from tests.analysis.load import broken

PAIR = (generate.Way("torch"), generate.Way("torch-ddp", strong=generate.amdahl(0.1)))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "pair"
    return generate.study(folder, ways=PAIR, workers=(1, 2), repeats=2)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(original, tmp_path / "pair"))


def spoilt_trial(folder: Path) -> Path:
    return sorted(folder.glob("trials/torch-ddp-n2-b512-*-r00"))[0]


def status_of(results: Results, trial: Path) -> str:
    return str(results.trials.filter(trial_id=trial.name)["status"].item())


def test_every_launch_is_a_row_with_the_promised_columns(original: Path) -> None:
    results = load(original)
    assert len(results.trials) == len(list((original / "trials").iterdir())) == 12
    assert results.trials.columns[: len(COLUMNS)] == list(COLUMNS)
    assert set(results.factors) >= {"precision", "optimizer", "steps_per_call", "data_kind", "learning_rate"}
    assert results.trials["status"].unique().to_list() == ["ok"]
    assert results.set_aside == []
    assert results.study["name"] == "generated"
    assert len(results.plan["trials"]) == 12


def test_throughput_is_samples_over_the_slowest_rank_step_by_step(folder: Path) -> None:
    trial = spoilt_trial(folder)
    rows = [
        [json.loads(line) for line in (trial / f"rank-{rank:05d}.jsonl").read_text().splitlines()] for rank in (0, 1)
    ]
    measured = [[r for r in rank if r["phase"] == "train" and not r.get("warmup")] for rank in rows]
    slowest = [max(a["seconds"], b["seconds"]) for a, b in zip(*measured, strict=True)]
    found = load(folder).trials.filter(trial_id=trial.name).row(0, named=True)
    assert found["samples"] == 512 * 20
    assert found["train_seconds"] == pytest.approx(sum(slowest))
    assert found["throughput"] == pytest.approx(512 * 20 / sum(slowest))
    assert found["step_p95"] == pytest.approx(np.percentile(slowest, 95))
    alone = [r["seconds"] for rank in rows for r in rank if r["phase"] == "compute_only"]
    assert found["compute_only_seconds"] == pytest.approx(np.mean(alone))
    assert found["exposed_seconds"] == pytest.approx(np.mean(slowest) - np.mean(alone))
    medians = [np.median([a["seconds"], b["seconds"]]) for a, b in zip(*measured, strict=True)]
    assert found["straggler_seconds"] == pytest.approx(np.mean(slowest) - np.mean(medians))


def test_waits_are_the_slowest_ranks_and_a_straggler_is_behind_the_median_rank(tmp_path: Path) -> None:
    way = generate.Way("torch-ddp", input_share=0.5)
    folder = generate.study(tmp_path / "r", ways=[way], workers=(4,), repeats=1, scaling=("strong",), rank_spread=0.9)
    results = load(folder)
    lines = results.steps().filter(pl.col("phase") == "train", ~pl.col("warmup"))
    by_step = lines.group_by("step").agg(
        longest=pl.col("seconds").max(),
        middle=pl.col("seconds").median(),
        waited=pl.col("data_seconds").sort_by("seconds").last(),
    )
    found = results.trials.row(0, named=True)
    assert found["data_seconds"] == pytest.approx(by_step["waited"].mean())
    assert found["straggler_seconds"] == pytest.approx((by_step["longest"] - by_step["middle"]).mean())


def test_strong_and_weak_follow_from_the_study(original: Path) -> None:
    trials = load(original).trials
    assert trials.filter("strong")["global_batch"].unique().to_list() == [512]
    assert trials.filter("weak").select(pl.col("global_batch") / pl.col("workers")).to_series().unique().to_list() == [
        64
    ]


def test_strong_and_weak_are_inferred_without_a_study_file(folder: Path) -> None:
    with_study = load(folder).trials
    (folder / "study.yaml").unlink()
    assert (
        load(folder).trials.select("trial_id", "strong", "weak").equals(with_study.select("trial_id", "strong", "weak"))
    )


def test_a_mode_that_the_study_does_not_name_is_no_mode(folder: Path) -> None:
    content = yaml.safe_load((folder / "study.yaml").read_text())
    (folder / "study.yaml").write_text(yaml.safe_dump(content | {"scaling": ["strong"]}))
    assert not load(folder).trials["weak"].any()


def test_replicas_in_one_process_have_one_rank_file(tmp_path: Path) -> None:
    ways = [generate.Way("tf"), generate.Way("tf-mirrored")]
    results = load(generate.study(tmp_path / "mirrored", ways=ways, workers=(1, 4), repeats=1))
    assert results.trials["status"].unique().to_list() == ["ok"]
    found = results.trials.filter(strategy="tf-mirrored", workers=4)["throughput"].to_list()
    assert all(rate == pytest.approx(4000, rel=0.2) for rate in found)


def test_step_lines_come_back_complete(original: Path) -> None:
    results = load(original)
    steps = results.steps()
    lines = sum(len(f.read_text().splitlines()) for f in original.glob("trials/*/rank-*.jsonl"))
    assert len(steps) == lines
    assert steps.columns == [
        *("trial_id", "rank", "phase", "step", "seconds", "data_seconds", "samples", "loss", "warmup", "block"),
    ]
    assert steps["warmup"].sum() == 3 * len(list(original.glob("trials/*/rank-*.jsonl")))
    assert steps["rank"].max() == 1


@pytest.mark.parametrize("case", broken.BROKEN, ids=lambda case: case.name)
def test_a_broken_trial_is_named_and_not_used(folder: Path, case: broken.Broken) -> None:
    trial = spoilt_trial(folder)
    case.spoil(trial)
    results = load(folder)
    reasons = [item.reason for item in results.set_aside if item.path == trial]
    assert len(reasons) == 1
    assert case.said in reasons[0]
    assert "\n" not in reasons[0]
    used = results.trials.filter(status="ok")
    assert len(used) == 11
    assert trial.name not in used["trial_id"]
    assert results.steps().height > 0


def test_a_trial_that_did_not_succeed_is_a_row_without_measurements(folder: Path) -> None:
    trials = sorted(folder.glob("trials/torch-ddp-n2-*"))
    for trial, status in zip(trials, ("failed", "timeout", "cancelled", "lost"), strict=True):
        path = trial / "outcome.json"
        content = json.loads(path.read_text()) | {"status": status, "error": "rank 1 died"}
        path.write_text(json.dumps(content))
    results = load(folder)
    assert results.set_aside == []
    bad = results.trials.filter(pl.col("status") != "ok").sort("trial_id")
    assert bad["status"].to_list() == ["failed", "timeout", "cancelled", "lost"]
    assert bad["throughput"].null_count() == 4
    assert set(bad["error"]) == {"rank 1 died"}


def test_a_trial_without_outcome_is_unfinished_and_keeps_its_framework(folder: Path) -> None:
    trial = spoilt_trial(folder)
    (trial / "outcome.json").unlink()
    row = load(folder).trials.filter(trial_id=trial.name).row(0, named=True)
    assert (row["status"], row["framework"], row["communication"]) == ("unfinished", "PyTorch", "native")


def test_a_diverged_loss_spoils_no_time(folder: Path) -> None:
    path = spoilt_trial(folder) / "rank-00000.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | {"loss": float("nan")}), *rest]) + "\n")
    assert status_of(load(folder), spoilt_trial(folder)) == "ok"


def test_strangers_among_the_trials_are_named(folder: Path) -> None:
    (folder / "trials" / "notes.txt").write_text("hello")
    (folder / "trials" / "wandb").mkdir()
    (folder / "set-aside" / "torch-n1-b64-killed").mkdir(parents=True)
    named = {item.path.name: item.reason for item in load(folder).set_aside}
    assert set(named) == {"notes.txt", "wandb", "torch-n1-b64-killed"}
    assert "killed" in named["torch-n1-b64-killed"]


def test_a_trial_copied_to_another_name_does_not_count_twice(folder: Path) -> None:
    trial = spoilt_trial(folder)
    copy = trial.with_name(trial.name.replace("-r00", "-r07"))
    shutil.copytree(trial, copy)
    assert status_of(load(folder), copy) == "broken"


@pytest.mark.parametrize("content", ["- a list\n", "name: [", "\x00", ""])
def test_an_unreadable_study_file_is_named_and_the_trials_still_count(folder: Path, content: str) -> None:
    (folder / "study.yaml").write_text(content)
    results = load(folder)
    assert [item.path.name for item in results.set_aside] == ["study.yaml"]
    assert results.trials["strong"].any()


def test_what_is_no_results_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign" / "lightning_logs").mkdir(parents=True)
    for name in ("a file", "empty", "foreign", "absent"):
        with pytest.raises(NotResults) as caught:
            load(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["study.yaml", "plan.json"])
def test_a_folder_of_a_newer_format_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text('{"format": 3}')
    with pytest.raises(NotResults, match="format 3"):
        load(folder)


def test_a_study_without_trials_is_empty_not_an_error(folder: Path) -> None:
    shutil.rmtree(folder / "trials")
    results = load(folder)
    assert len(results.trials) == 0
    assert len(results.steps()) == 0


def test_a_trial_of_a_thousand_ranks_is_read(tmp_path: Path) -> None:
    ways = [generate.Way("torch-ddp")]
    folder = generate.study(
        tmp_path / "big", ways=ways, workers=(1000,), scaling=("weak",), repeats=1, measured=2, compute_only=1
    )
    results = load(folder)
    assert results.trials["status"].to_list() == ["ok"]
    assert results.steps().height == 1000 * 6
    (folder / "trials" / results.trials["trial_id"][0] / "rank-00731.jsonl").unlink()
    assert "rank 731" in load(folder).set_aside[0].reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [*("strategy", "workers", "global_batch", "repeat", "data", "steps", "status", "format", "trial_id"),
     *("started", "ended", "hosts", "ranks", "hardware", "framework", "order", "error", "startup_seconds")]
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["trial.json", "outcome.json"]), changes=st.dictionaries(FIELDS, JSON, min_size=1))
def test_no_content_of_a_trial_crashes_the_reader(original: Path, tmp_path: Path, name: str, changes: dict) -> None:  # type: ignore[type-arg]
    source = spoilt_trial(original)
    folder = tmp_path / "fuzzed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder / "trials" / source.name)
    path = folder / "trials" / source.name / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    results = load(folder)
    assert len(results.trials) + len(results.set_aside) >= 1
    for row in results.trials.iter_rows(named=True):
        assert (row["status"] == "ok") == (row["throughput"] is not None)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1), rubbish=st.binary(max_size=40), name=st.sampled_from(["rank-00001.jsonl", "trial.json"]))
def test_no_bytes_in_a_file_crash_the_reader(
    original: Path, tmp_path: Path, where: float, rubbish: bytes, name: str
) -> None:
    source = spoilt_trial(original)
    folder = tmp_path / "fuzzed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder / "trials" / source.name)
    path = folder / "trials" / source.name / name
    content = path.read_bytes()
    at = int(where * len(content))
    path.write_bytes(content[:at] + rubbish + content[at + len(rubbish) :])
    results = load(folder)
    ok = results.trials.filter(status="ok")
    assert len(ok) + len(results.set_aside) >= 1
    assert (ok["throughput"] > 0).all()


def test_what_jobs_writes_is_what_analysis_reads(tmp_path: Path) -> None:
    """The results format is the only tie between the two; this holds it."""
    from jobs.contract import folder as contract_folder
    from jobs.contract import outcome
    from jobs.contract import report as contract_report
    from jobs.contract.parts import Steps
    from jobs.contract.trial import Trial

    trial = Trial.of(strategy="torch-ddp", workers=2, global_batch=8, steps=Steps(warmup=1, measured=2, compute_only=1))
    home = tmp_path / "study" / "trials" / trial.id
    contract_folder.write_trial(home, trial)
    for rank in (0, 1):
        lines = [
            {"phase": "train", "step": i, "seconds": 0.5, "data_seconds": 0.0, "samples": 4, "loss": None}
            | ({"warmup": True} if i == 0 else {})
            for i in range(3)
        ]
        alone = {"phase": "compute_only", "step": 0, "seconds": 0.4, "data_seconds": 0.0, "samples": 4, "loss": 1.0}
        contract_folder.append_steps(home, rank, [*lines, alone])
        plain = {int: 1, float: 1.0, str: "x", list[int]: [0]}
        fields = contract_report.RankReport.model_fields.items()
        required = {name: plain[field.annotation] for name, field in fields if field.is_required()}  # type: ignore[index]
        report = contract_report.RankReport.model_validate(required | {"rank": rank, "hardware": {"cpu": "Some CPU"}})
        contract_report.write_rank_report(home, report)
    outcome.conclude(home, status="ok", error="", launcher="local", order=0, started=outcome.now(), exits=[])
    row = load(tmp_path / "study").trials.row(0, named=True)
    assert (row["status"], row["error"]) == ("ok", "")
    assert row["throughput"] == pytest.approx(16.0)
    assert row["exposed_seconds"] == pytest.approx(0.1)
    assert row["device"] == "Some CPU"
    assert row["point"] == trial.point


def test_analysis_needs_no_framework_and_no_other_part_of_the_project() -> None:
    """Whatever of it is imported."""
    code = (
        "import importlib, pkgutil, sys, analysis\n"
        "for found in pkgutil.walk_packages(analysis.__path__, 'analysis.'): importlib.import_module(found.name)\n"
        "assert 'analysis.report.page' in sys.modules\n"
        "print([m for m in ('torch', 'tensorflow', 'ray', 'horovod', 'jobs', 'cluster') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "[]"


def test_a_plain_process_exposes_no_communication(folder: Path) -> None:
    trials = load(folder).trials
    plain = trials.filter(pl.col("communication") == "none", status="ok")
    assert plain.height
    assert plain["compute_only_seconds"].null_count() == 0
    assert plain["exposed_seconds"].to_list() == [0.0] * plain.height
    assert (trials.filter(pl.col("communication") != "none", status="ok")["exposed_seconds"] != 0.0).all()


def with_stops(steps: int, each: float, spread: float, stops: tuple[float, ...] = (), seed: int = 0) -> float | None:
    """Seconds that a launch stood still whose steps take `each` seconds, `spread` apart, but for the stops."""
    seconds = each * np.random.default_rng(seed).lognormal(0, spread, steps)
    seconds[: len(stops)] += stops
    found = {"train": Steps(seconds[None, :], np.zeros((1, steps)), np.full((1, steps), 8))}
    return measure(found, 8, steps)["stood_still_seconds"]


@pytest.mark.parametrize(
    ("steps", "each", "spread", "stops"),
    [
        (20, 6.0, 0.03, (50.0,)),
        (60, 1.0, 0.03, (4.0,)),
        (4, 1.0, 0.03, (4.0,)),
        (20, 1.0, 0.1, (4.0, 9.0)),
        (30, 60.0, 0.02, (300.0,)),
        (60, 0.02, 0.3, (1.0,)),
    ],
)
def test_a_stop_is_told_whether_steps_are_short_or_long(
    steps: int, each: float, spread: float, stops: tuple[float, ...]
) -> None:
    assert with_stops(steps, each, spread, stops) == pytest.approx(sum(stops), rel=0.15)


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("each", [0.01, 1.0, 20.0])
def test_steps_that_only_vary_did_not_stand_still(each: float, spread: float) -> None:
    assert all(with_stops(steps, each, spread, (), seed) == 0 for steps in (10, 20, 200) for seed in range(20))
