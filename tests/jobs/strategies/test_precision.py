"""Lower precision, and PyTorch's other memory layout, on CPUs: near float32, and nearer to each other.

How fast these are only a GPU can show (tests/jobs/strategies/test_on_gpu.py); that they are what they are called,
a CPU can.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jobs.contract.catalog import STRATEGIES
from jobs.contract.environment import RankEnvironment
from jobs.contract.parts import Steps
from jobs.contract.trial import Trial
from jobs.data import dataset, load
from jobs.rank.rendezvous import Rendezvous
from jobs.strategies.interface import Context
from tests.running import Done, launch

STEPS = Steps(warmup=1, measured=2, compute_only=0)  # of 16 images a CPU takes seconds for each in float16
Train = Callable[..., Done]

pytestmark = pytest.mark.usefixtures("warm_ranks")


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Launch a trial of 3 steps with 16 images each, each configuration once."""
    results, found = tmp_path_factory.mktemp("precision"), {}

    def once(strategy: str, workers: int = 1, **factors: Any) -> Done:
        trial = Trial.of(strategy=strategy, workers=workers, global_batch=16, steps=STEPS, **factors)
        if trial.id not in found:
            found[trial.id] = launch(trial, results)
        assert found[trial.id].outcome.status == "ok", found[trial.id].outcome.exits
        return found[trial.id]

    return once


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_is_another_arithmetic_and_the_same_training(precision: str, train: Train) -> None:
    full = train("torch").losses()
    torch, tf = (train(name, precision=precision).losses() for name in ("torch", "tf"))
    for losses in (torch, tf):
        assert np.abs(losses - full).max() > 1e-5  # rounded: float32 would be nearer
        np.testing.assert_allclose(losses, full, rtol=0, atol=1e-2)
    np.testing.assert_allclose(torch, tf, rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("strategy", "precision"),
    [
        ("torch-ddp", "float16"),
        pytest.param("torch-horovod", "float16", marks=pytest.mark.horovod),
        ("tf-mirrored", "bfloat16"),
        pytest.param("tf-horovod", "float16", marks=pytest.mark.horovod),
    ],
)
def test_ranks_in_mixed_precision_do_what_one_process_does(strategy: str, precision: str, train: Train) -> None:
    alone = train(strategy.split("-")[0], precision=precision)
    np.testing.assert_allclose(train(strategy, 2, precision=precision).losses(), alone.losses(), rtol=0, atol=1e-2)


@pytest.mark.parametrize("name", ["torch", "tf"])
def test_a_copy_is_trained_in_float16_as_the_model_is(name: str) -> None:
    trial = Trial.of(strategy=name, workers=1, global_batch=1, precision="float16")
    meeting = Rendezvous(RankEnvironment(), trial.id, 10.0)
    strategy = STRATEGIES.constant(name, "STRATEGY")(Context(trial, load.load(trial.data, 0), meeting))
    strategy.build()
    first, second = dataset.batch_indices(1437, 1, 2, 0)[:, np.newaxis]
    strategy.train(first)
    strategy.copy_state()
    losses = [float(np.ravel(step(second))[0]) for step in (strategy.compute_only, strategy.train)]
    strategy.close()
    meeting.close()
    np.testing.assert_allclose(losses[0], losses[1], rtol=0, atol=1e-2)


@pytest.mark.parametrize(("strategy", "workers"), [("torch", 1), ("torch-ddp", 2)])
def test_channels_last_is_the_same_training(strategy: str, workers: int, train: Train) -> None:
    plain = train("torch", precision="float64")
    other = train(strategy, workers, precision="float64", layout="channels-last")
    np.testing.assert_allclose(other.losses(), plain.losses(), rtol=0, atol=1e-10)


def test_channels_last_is_the_layout_of_weights_and_images() -> None:
    import torch

    trial = Trial.of(strategy="torch", workers=1, global_batch=8, layout="channels-last")
    meeting = Rendezvous(RankEnvironment(), trial.id, 10.0)
    strategy: Any = STRATEGIES.constant("torch", "STRATEGY")(Context(trial, load.load(trial.data, 0), meeting))
    strategy.build()
    first, second = strategy.net[0], strategy.net[2]
    given: list[Any] = []
    seen: list[Any] = []
    first.register_forward_hook(lambda module, inputs, output: given.extend(inputs))
    second.register_forward_hook(lambda module, inputs, output: seen.extend([*inputs, output, module.weight]))
    strategy.train(dataset.batch_indices(1437, 8, 1, 0))
    assert given[0].stride(1) == 1  # an image of one channel is contiguous in either layout
    assert len(seen) == 3
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen)
    meeting.close()
