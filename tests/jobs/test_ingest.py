"""Both input pipelines give the same batches, and a trial of either leaves what is read later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs import data, ingest
from jobs.trial import Files, Steps, Trial
from tests.running import launch

FILES = Files(count=24, side=40, resize=28)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ingest.Plan:
    return ingest.plan(FILES, tmp_path_factory.mktemp("files"), batch=8, steps=6, readers=2, seed=0)


@pytest.mark.timeout(120)
def test_both_pipelines_give_the_same_batches(plan: ingest.Plan) -> None:
    from jobs.strategies import tf_ingest, torch_ingest

    theirs = [batch.numpy() for batch in tf_ingest.batches(plan)]
    ours = [batch.permute(0, 2, 3, 1).numpy() for batch in torch_ingest.batches(plan)]
    assert [batch.shape for batch in ours] == [(8, 28, 28, 3)] * 6
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)  # round-off; a pixel is 4e-3
    assert np.ptp(ours[0]) > 0.5  # pictures, not a plain colour
    assert not np.allclose(ours[0], ours[3])  # the second epoch is in another order


def test_a_plan_reads_each_file_once_an_epoch_and_flips_half(plan: ingest.Plan) -> None:
    first, second = plan.paths[:24], plan.paths[24:]
    assert sorted(first) == sorted(second) == sorted(set(plan.paths))
    assert first != second
    assert 0 < plan.flips.sum() < len(plan.flips)


def test_a_folder_of_the_users_is_taken_as_it_is(plan: ingest.Plan, tmp_path: Path) -> None:
    folder = str(Path(plan.paths[0]).parent)
    found = ingest.plan(Files(path=folder), tmp_path, batch=4, steps=2, readers=1, seed=0)
    assert set(found.paths) <= set(plan.paths)
    assert not list(tmp_path.iterdir())
    with pytest.raises(data.DataError, match="no PNG files"):
        ingest.plan(Files(path=str(tmp_path)), tmp_path, batch=4, steps=2, readers=1, seed=0)


@pytest.mark.parametrize("strategy", ["torch", "tf"])
def test_an_ingest_trial_leaves_its_rates_cpu_and_memory(strategy: str, tmp_path: Path) -> None:
    steps = Steps(warmup=1, measured=5, compute_only=0)
    trial = Trial(strategy=strategy, workers=1, global_batch=8, workload="ingest", readers=2, files=FILES, steps=steps)
    done = launch(trial, tmp_path)
    assert done.outcome.status == "ok", (done.outcome.error, done.outcome.exits)
    (report,) = done.outcome.ranks
    assert report.cpu_seconds_per_sample is not None
    assert 0 < report.cpu_seconds_per_sample < 1
    assert report.memory_bytes is not None
    assert report.memory_bytes > 50e6
    assert report.threads == 2
    assert [row["samples"] for row in done.rows(0, "ingest")] == [8] * 6
