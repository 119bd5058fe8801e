"""Both input pipelines give the same batches, and a trial of either leaves what is read later."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.contract.parts import Steps
from jobs.contract.recipe import Files, Source
from jobs.contract.trial import Trial
from jobs.data import dataset, reading
from jobs.data.records import FEATURE
from jobs.workloads.ingest import Ingest
from tests.running import launch

FILES = Files(count=24, side=40, resize=28)


def trial(source: Source = "png", batch: int = 8, warmup: int = 3, measured: int = 5, **factors: Any) -> Trial:
    steps = Steps(warmup=warmup, measured=measured, compute_only=0)
    content = {"strategy": "torch", "readers": 2, "files": FILES} | factors
    return Trial.of(workers=1, global_batch=batch, workload="ingest", source=source, steps=steps, **content)


def planned(what: Trial, folder: Path) -> reading.Plan:
    assert isinstance(what, Ingest)
    return reading.plan(what, what.steps, what.global_batch, what.seed, folder)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> reading.Plan:
    return planned(trial(), tmp_path_factory.mktemp("files"))


def as_planned(plan: reading.Plan) -> NDArray[np.float32]:
    """What batches [n, b, h, w, c] hold, by the plan alone: each file by itself, flipped where it says so."""
    from jobs.strategies.torch.ingest import image

    samples = [image(path, plan.resize).numpy().transpose(1, 2, 0) for path in plan.paths]
    flipped = [sample[:, ::-1] if flip else sample for sample, flip in zip(samples, plan.flips, strict=True)]
    return np.stack(flipped).reshape(-1, plan.batch, plan.resize, plan.resize, 3)


def batches(plan: reading.Plan, pipeline: str, folder: Path) -> NDArray[np.float32]:
    """All batches of a pipeline, [n, b, …], from a process of its own, as a trial has one."""
    (folder / "plan").write_bytes(pickle.dumps(plan))
    code = f"""
import pickle, numpy
from jobs.strategies.{pipeline}.ingest import batches
with open("plan", "rb") as file:
    plan = pickle.load(file)
numpy.save("{pipeline}.npy", numpy.stack([batch.numpy() for batch in batches(plan)]))
"""
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, timeout=100)
    found: NDArray[np.float32] = np.load(folder / f"{pipeline}.npy")
    return found


@pytest.mark.timeout(200)
@pytest.mark.parametrize("source", ["png", "tfrecord", "cached"])
def test_both_pipelines_give_the_same_batches(source: Source, tmp_path: Path) -> None:
    plan = planned(trial(source), tmp_path)
    wanted = as_planned(plan)
    assert wanted.shape == (8, 8, 28, 28, 3)
    loaded = batches(plan, "torch", tmp_path).transpose(0, 1, 3, 4, 2)
    np.testing.assert_array_equal(loaded, wanted)
    np.testing.assert_allclose(batches(plan, "tf", tmp_path), wanted, rtol=0, atol=1e-6)  # a pixel is 4e-3
    assert np.ptp(wanted[0]) > 0.5  # pictures, not a plain colour


def test_a_plan_reads_each_file_once_an_epoch_and_flips_half(plan: reading.Plan) -> None:
    first, second = plan.paths[:24], plan.paths[24:48]
    assert sorted(first) == sorted(second) == sorted(set(plan.paths))
    assert first != second
    assert 0 < plan.flips.sum() < len(plan.flips)


@pytest.mark.parametrize("source", ["tfrecord", "cached"])
def test_what_is_kept_is_read_in_the_order_of_the_first_epoch(source: Source, tmp_path: Path) -> None:
    plan = planned(trial(source, batch=4, warmup=6, measured=6), tmp_path)
    assert sorted(plan.paths[:24]) == sorted(set(plan.paths))
    assert len(set(plan.paths)) == 24
    assert plan.paths[:24] == plan.paths[24:]
    assert len(plan.records) == (2 if source == "tfrecord" else 0)


def test_a_record_file_holds_the_files_as_they_are(tmp_path: Path) -> None:
    import tensorflow as tf

    plan = planned(trial("tfrecord"), tmp_path)
    mine = [path for start in range(0, 24, 16) for path in plan.paths[start : start + 8]]
    records = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(plan.records[0])]
    held = [record.features.feature[FEATURE].bytes_list.value[0] for record in records]
    assert held == [Path(path).read_bytes() for path in mine]


def test_a_folder_of_the_users_is_taken_as_it_is(plan: reading.Plan, tmp_path: Path) -> None:
    theirs = Files(path=str(Path(plan.paths[0]).parent))
    found = planned(trial(files=theirs, batch=4), tmp_path)
    assert set(found.paths) <= set(plan.paths)
    assert not list(tmp_path.iterdir())


def test_of_a_large_folder_only_what_is_read_becomes_records(plan: reading.Plan, tmp_path: Path) -> None:
    theirs = Files(path=str(Path(plan.paths[0]).parent), resize=28)
    few = planned(trial("tfrecord", batch=4, warmup=1, measured=2, files=theirs), tmp_path)
    assert len(few.paths) == len(set(few.paths)) == 12
    held = sum(Path(record).stat().st_size for record in few.records)
    assert held < 1.1 * sum(Path(path).stat().st_size for path in few.paths) + 12 * 100


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"files": Files(path="/dev/null")}, "no PNG files in /dev/null"),
        ({"source": "cached", "warmup": 2}, "steps.warmup: 2 batches of 8 do not fill the cache with 24 files"),
        ({"source": "tfrecord", "batch": 16}, "readers: 24 files make fewer batches of 16 than the 2 readers"),
    ],
)
def test_what_cannot_be_read_is_said(change: dict[str, Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(dataset.DataError, match=fault):
        planned(trial(**change), tmp_path)


@pytest.mark.parametrize(("strategy", "source"), [("torch", "tfrecord"), ("tf", "cached")])
def test_an_ingest_trial_leaves_its_rates_cpu_and_memory(strategy: str, source: Source, tmp_path: Path) -> None:
    done = launch(trial(source, strategy=strategy), tmp_path)
    assert done.outcome.status == "ok", (done.outcome.error, done.outcome.exits)
    (report,) = done.outcome.ranks
    assert report.cpu_seconds_per_sample is not None
    assert 0 < report.cpu_seconds_per_sample < 1
    assert report.memory_bytes is not None
    assert report.memory_bytes > 50e6
    assert report.threads == 2
    assert [row["samples"] for row in done.rows(0, "ingest")] == [8] * 8
