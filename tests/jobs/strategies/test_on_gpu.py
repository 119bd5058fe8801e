"""What only a GPU can show: `make test-gpu` on a machine that has one. Elsewhere each test says why it is skipped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.load import trial as trial_folder
from cluster.horovod import nccl
from cluster.setup.lacking import lacking
from jobs.contract.catalog import STRATEGIES
from jobs.contract.parts import Steps
from jobs.contract.trial import Trial
from jobs.machine import gpus
from tests.running import Done, launch

VISIBLE = gpus.visible(os.environ)
STEPS = Steps(warmup=10, measured=40, compute_only=5)
FRAMEWORKS_WITHOUT = [] if nccl.torch_has_cuda() else ["PyTorch is built for CPUs (make setup EXTRA=gpu)"]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not VISIBLE, reason="no NVIDIA GPU can be seen here"),
    pytest.mark.skipif(bool(FRAMEWORKS_WITHOUT), reason="; ".join(FRAMEWORKS_WITHOUT)),
]


def trial(strategy: str, workers: int = 1, **factors: Any) -> Trial:
    content = {"strategy": strategy, "workers": workers, "global_batch": 64, "steps": STEPS, "gpus_per_worker": 1}
    return Trial.model_validate(content | factors)


def done(what: Trial, results: Path) -> Done:
    if what.workers > len(VISIBLE):
        pytest.skip(f"needs {what.workers} GPUs, {len(VISIBLE)} can be seen")
    if why := lacking(what):
        pytest.skip(why)
    found = launch(what, results)
    assert found.outcome.status == "ok", (found.outcome.error, found.outcome.exits)
    return found


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The same training in float64 where its losses are known to be right."""
    return launch(trial("torch", gpus_per_worker=0, precision="float64"), tmp_path_factory.mktemp("cpu"))


PAIRS = [(name, n) for name, info in STRATEGIES.items() for n in ((1,) if info.is_base_case else (1, 2)) if info.gpus]


@pytest.mark.parametrize(("strategy", "workers"), PAIRS)
def test_float64_losses_are_those_of_the_cpu(strategy: str, workers: int, on_cpu: Done, tmp_path: Path) -> None:
    found = done(trial(strategy, workers, precision="float64"), tmp_path)
    np.testing.assert_allclose(found.losses(), on_cpu.losses(), rtol=0, atol=1e-8)
    for report in found.outcome.ranks:
        assert report.device.startswith("gpu ")
        assert report.hardware["gpu"] in [gpu["name"] for gpu in report.hardware["gpus_present"]]
    assert {report.timing for report in found.outcome.ranks} == {"events" if "torch" in strategy else "host"}


@pytest.mark.parametrize("strategy", ["torch", "tf", "jax", "torch-ddp", "tf-mirrored"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("tf32", 2e-2), ("bfloat16", 5e-2)])
def test_lower_precision_stays_near(
    strategy: str, precision: str, tolerance: float, on_cpu: Done, tmp_path: Path
) -> None:
    found = done(trial(strategy, precision=precision), tmp_path)
    np.testing.assert_allclose(found.losses()[:10], on_cpu.losses()[:10], rtol=0, atol=tolerance)
    assert (found.outcome.test_accuracy or 0) > 0.9


@pytest.mark.parametrize("strategy", ["torch", "tf", "torch-ddp"])
def test_float16_learns_with_its_loss_scaled(strategy: str, on_cpu: Done, tmp_path: Path) -> None:
    found = done(trial(strategy, precision="float16"), tmp_path)
    np.testing.assert_allclose(found.losses()[:5], on_cpu.losses()[:5], rtol=0, atol=5e-2)
    assert (found.outcome.test_accuracy or 0) > 0.9


@pytest.mark.parametrize(
    "factors",
    [
        {"strategy": "torch", "layout": "channels-last"},
        {"strategy": "torch", "execution": "graph"},
        {"strategy": "torch-ddp", "execution": "graph"},
        {"strategy": "tf", "execution": "xla"},
        {"strategy": "tf", "steps_per_call": 5},
        {"strategy": "jax", "steps_per_call": 5},
    ],
)
def test_layout_and_execution_change_the_speed_alone(factors: dict[str, Any], on_cpu: Done, tmp_path: Path) -> None:
    found = done(trial(**factors), tmp_path)
    np.testing.assert_allclose(found.losses()[:10], on_cpu.losses()[:10], rtol=0, atol=1e-4)


def test_the_steps_of_events_sum_to_what_the_host_waited(tmp_path: Path) -> None:
    """200 steps: the window that the events span is training's own time, as the host's clock sees it."""
    steps = Steps(warmup=20, measured=200, compute_only=0)
    found = done(trial("torch", global_batch=1024, steps=steps), tmp_path)
    rows = found.rows(0, "train")
    (report,) = found.outcome.ranks
    whole = report.train_ended_unix - report.train_started_unix
    assert 0.7 * whole < sum(row["seconds"] for row in rows) <= 1.02 * whole
    assert len({row["seconds"] for row in rows[20:]}) > 20


@pytest.mark.parametrize(
    ("strategy", "execution"),
    [("torch", "default"), ("torch", "graph"), ("tf", "default"), ("tf", "xla"), ("jax", "default")],
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_calls_of_the_model_give_the_logits_of_eager_execution(
    strategy: str, execution: str, precision: str, tmp_path: Path
) -> None:
    steps = Steps(warmup=5, measured=50, compute_only=0)
    found = done(trial(strategy, workload="infer", execution=execution, precision=precision, steps=steps), tmp_path)
    (report,) = found.outcome.ranks
    assert report.device.startswith("gpu ")
    assert report.max_difference is not None
    assert report.max_difference < {"float32": 1e-3, "bfloat16": 0.1}[precision]


@pytest.mark.parametrize("strategy", ["torch", "tf"])
def test_resnet50_trains_and_the_energy_of_its_samples_is_known(strategy: str, tmp_path: Path) -> None:
    steps = Steps(warmup=5, measured=60, compute_only=0)
    what = trial(strategy, model="resnet50", data={"kind": "synthetic"}, steps=steps, telemetry={"hertz": 5})
    found = done(what, tmp_path)
    losses = found.losses()
    assert np.isfinite(losses).all()
    row: dict[str, Any] = trial_folder.read(found.folder, [], True) or {}
    assert row["gpu_sm_percent"] > 5
    assert row["joules_per_sample"] > 0
    assert row["energy_source"].startswith("GPU")


@pytest.mark.parametrize(("strategy", "precision"), [("torch", "float32"), ("torch", "float16"), ("tf", "float32")])
def test_training_until_an_accuracy_starts_over_on_the_gpu(strategy: str, precision: str, tmp_path: Path) -> None:
    steps = Steps(warmup=2, measured=8, compute_only=0, at_most=300)
    found = done(trial(strategy, precision=precision, until_accuracy=0.9, steps=steps), tmp_path)
    assert found.outcome.accuracy_reached is not None
    assert found.outcome.accuracy_reached.step > 0


def test_tensorflow_holds_the_images_on_the_gpu_and_lets_its_memory_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(gpus.VISIBLE, VISIBLE[0])  # as a worker does, before TensorFlow is imported
    import tensorflow as tf

    from jobs.contract.environment import RankEnvironment
    from jobs.data import dataset, load
    from jobs.rank.rendezvous import Rendezvous
    from jobs.strategies.interface import Context

    what = trial("tf", steps=Steps(warmup=1, measured=1, compute_only=0))
    meeting = Rendezvous(RankEnvironment(), what.id, 10.0)
    strategy: Any = STRATEGIES.constant("tf", "STRATEGY")(Context(what, load.load(what.data, 0), meeting))
    strategy.build()
    strategy.train(dataset.batch_indices(1437, 64, 1, 0))
    assert "GPU" in strategy.images.device
    assert tf.config.experimental.get_memory_info("GPU:0")["current"] < 2**30
    meeting.close()
