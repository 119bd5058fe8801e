"""The same model, weights, batches and optimizer in both frameworks and under every strategy.

In float64 the losses of 50 Adam steps agree to 1e-10 over frameworks, strategies and numbers of
workers: that proves identical semantics (20 steps with JAX, whose convolutions in float64 take a CPU half a second
each). In float32 Adam amplifies round-off (its m/√v on gradients
near zero is chaotic), so agreement is asked for a while only, and beyond that of the accuracy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from jobs.contract.catalog import STRATEGIES
from jobs.contract.environment import RankEnvironment
from jobs.contract.files import base_file
from jobs.contract.parts import Data, Steps
from jobs.contract.trial import Trial
from jobs.data import dataset, load
from jobs.models import layers as models_layers
from jobs.models.layers import from_torch
from jobs.rank.rendezvous import Rendezvous
from jobs.strategies.interface import Context
from tests.running import DISTRIBUTED, Done, launch

BATCH = 16
CNN = models_layers.load("cnn")
Train = Callable[[Trial], Done]

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("warm_ranks")]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Launch a trial, each configuration once for all tests of this file."""
    done: dict[str, Done] = {}
    results = tmp_path_factory.mktemp("parity")

    def once(trial: Trial) -> Done:
        if trial.id not in done:
            done[trial.id] = launch(trial, results)
        outcome = done[trial.id].outcome
        assert outcome.status == "ok", (outcome.error, outcome.exits)
        return done[trial.id]

    return once


def exact(strategy: str, workers: int) -> Trial:
    steps = Steps(warmup=10, measured=10 if strategy.startswith("jax") else 40, compute_only=5)
    return Trial.of(strategy=strategy, workers=workers, global_batch=BATCH, steps=steps, precision="float64")


def single(strategy: str, workers: int, batch: int, steps: int) -> Trial:
    plan = Steps(warmup=10, measured=steps - 10, compute_only=0)
    return Trial.of(strategy=strategy, workers=workers, global_batch=batch, steps=plan)


def horovod(names: list[str]) -> list[Any]:
    """Mark what needs Horovod."""
    return [pytest.param(n, marks=pytest.mark.horovod) if "horovod" in STRATEGIES[n].needs else n for n in names]


@pytest.fixture(scope="module")
def one_batch() -> tuple[np.ndarray, np.ndarray]:
    digits = load.load(Data(), 0)
    chosen = dataset.batch_indices(1437, BATCH, 1, 0)[0]
    return digits.train_images[chosen] / np.float32(255), digits.train_labels[chosen]


@pytest.fixture(scope="module")
def torch_pass(one_batch: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    import torch

    from jobs.strategies.torch.model import build
    from jobs.strategies.torch.plain import channels_first

    images, labels = one_batch
    net = build(CNN, torch.float32, 0)
    logits = net(channels_first(images))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).long()).backward()
    layers = {name: layer for layer in CNN.weighted for name in layer.weights}
    gradients = {
        name: from_torch(layers[name], p.grad.numpy()) for name, p in zip(layers, net.parameters(), strict=True)
    }
    return logits.detach().numpy(), gradients


@pytest.fixture(scope="module")
def tf_pass(one_batch: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    import tensorflow as tf

    from jobs.strategies.tf.model import build

    images, labels = one_batch
    net = build(CNN, 28, "float32", 0)
    with tf.GradientTape() as tape:
        logits = net(images, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    values = tape.gradient(loss, [v.value for v in net.trainable_variables])
    return logits.numpy(), {n: g.numpy() for n, g in zip(CNN.shapes, values, strict=True)}


def test_logits_agree(torch_pass: Any, tf_pass: Any) -> None:
    np.testing.assert_allclose(torch_pass[0], tf_pass[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CNN.shapes)
def test_gradients_agree(name: str, torch_pass: Any, tf_pass: Any) -> None:
    ours, theirs = torch_pass[1][name], tf_pass[1][name]
    assert ours.shape == theirs.shape == CNN.shapes[name]
    assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < 1e-5


@pytest.mark.parametrize("strategy", horovod(["tf", *DISTRIBUTED]))
def test_float64_losses_are_the_same_whatever_the_strategy_and_the_workers(strategy: str, train: Train) -> None:
    reference = train(exact("torch", 1)).losses()
    assert len(reference) == 50
    assert reference[-1] < reference[0] / 2  # it learns: equal constants would prove nothing
    for workers in [1] if strategy == "tf" else [1, 2, 4]:
        losses = train(exact(strategy, workers)).losses()
        assert len(losses) >= 20
        np.testing.assert_allclose(losses, reference[: len(losses)], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("strategy", "workers"), [("tf", 1), ("tf-multiworker", 2), ("torch-ddp", 2)])
def test_a_rule_and_a_warm_up_of_the_learning_rate_are_the_same_in_both_frameworks(
    strategy: str, workers: int, train: Train
) -> None:
    update = {"learning_rate_rule": "sqrt", "reference_batch": 16, "learning_rate_warmup": 30}
    plain, warming = train(exact("torch", 1)), train(exact("torch", 1).model_copy(update=update))
    assert np.abs(plain.losses() - warming.losses()).max() > 0.01
    done = train(exact(strategy, workers).model_copy(update=update))
    np.testing.assert_allclose(done.losses(), warming.losses(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("strategy", horovod(["tf", *DISTRIBUTED]))
def test_float32_losses_stay_together_for_50_steps(strategy: str, train: Train) -> None:
    """Of batches of 64: the fewer samples, the sooner round-off drives them apart."""
    reference = train(single("torch", 1, 64, 50)).losses()
    losses = train(single(strategy, 1 if strategy == "tf" else 2, 64, 50)).losses()
    np.testing.assert_allclose(losses[:10], reference[:10], rtol=0, atol=1e-5)
    np.testing.assert_allclose(losses, reference, rtol=0, atol=2e-3)


@pytest.mark.parametrize("strategy", horovod(["torch", "tf", *DISTRIBUTED]))
def test_200_steps_reach_96_percent(strategy: str, train: Train) -> None:
    done = train(single(strategy, 1 if STRATEGIES[strategy].is_base_case else 2, BATCH, 200))
    assert done.outcome.test_accuracy is not None
    assert done.outcome.test_accuracy >= 0.96
    assert done.outcome.ranks[0].parameters == CNN.parameters


@pytest.mark.parametrize("name", ["torch", "tf"])
def test_the_compute_only_phase_leaves_training_untouched(name: str) -> None:
    """Training goes on after it as if it had not been."""
    trial = exact(name, 1)
    order = dataset.batch_indices(1437, BATCH, 8, 0)[:, np.newaxis]

    def losses(with_compute_only: bool) -> list[float]:
        meeting = Rendezvous(RankEnvironment(), trial.id, 10.0)
        strategy = STRATEGIES.constant(name, "STRATEGY")(Context(trial, load.load(Data(), 0), meeting))
        strategy.build()
        found = [float(np.ravel(strategy.train(batch))[0]) for batch in order[:4]]
        if with_compute_only:
            strategy.copy_state()
            for batch in order[:3]:
                strategy.compute_only(batch)
        found += [float(np.ravel(strategy.train(batch))[0]) for batch in order[4:]]
        strategy.close()
        meeting.close()
        return found

    with_it, without = losses(True), losses(False)
    assert len(set(without)) == 8
    np.testing.assert_allclose(with_it, without, rtol=0, atol=1e-13)


@pytest.mark.parametrize("strategy", horovod(DISTRIBUTED))
def test_compute_only_steps_do_not_communicate(strategy: str, train: Train) -> None:
    """Each replica goes its own way: it does what one process does with that replica's images."""
    done = train(exact(strategy, 2))
    alone = np.array([_alone(replica, len(done.losses())) for replica in (0, 1)])
    assert np.abs(alone[0] - alone[1]).min() > 1e-6
    if done.trial.processes == 2:
        found = np.array([[row["loss"] for row in done.rows(rank, "compute_only")] for rank in (0, 1)])
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-9)
    else:
        np.testing.assert_allclose(done.losses("compute_only"), alone.mean(axis=0), rtol=0, atol=1e-9)


@lru_cache
def _alone(replica: int, steps: int) -> list[float]:
    """Losses of `replica` of two after training ended, redone by hand: its steps on whole batches,
    then 3 + 5 on its half only."""
    import torch

    from jobs.strategies.torch.model import build
    from jobs.strategies.torch.plain import channels_first

    digits = load.load(Data(), 0)
    order = dataset.batch_indices(1437, BATCH, steps + 8, 0)
    net = build(CNN, torch.float64, 0)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for step, chosen in enumerate(order):
        mine = chosen if step < steps else chosen[replica * BATCH // 2 :][: BATCH // 2]
        optimizer.zero_grad()
        logits = net(channels_first(digits.train_images[mine] / 255.0))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(digits.train_labels[mine]).long())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[steps:]


@pytest.mark.parametrize(
    ("strategy", "beside"),
    [
        ("torch-ddp", True),
        ("tf-multiworker", True),
        pytest.param("torch-horovod", False, marks=pytest.mark.horovod),
    ],
)
def test_in_blocks_the_training_is_the_same_and_beside_it_that_of_the_base_case(
    strategy: str, beside: bool, train: Train
) -> None:
    """Steps of compute-only, and turns of another process, leave no trace in it."""
    reference = train(exact("torch", 1)).losses()
    steps = Steps(warmup=10, measured=32, compute_only=16, blocks=8)  # and a step more for each block
    in_blocks = {"steps": steps, "base_batches": (BATCH,) if beside else ()}
    done = train(exact(strategy, 2).model_copy(update=in_blocks))
    np.testing.assert_allclose(done.losses(), reference, rtol=0, atol=1e-10)
    assert len(done.losses("compute_only")) == 3 + 16 + 8
    if beside:
        lines = base_file(done.folder, BATCH, "jsonl").read_text().splitlines()
        losses = [row["loss"] for row in map(json.loads, lines)]
        assert len(losses) == 10 + 8 * 3
        np.testing.assert_allclose(losses, reference[: len(losses)], rtol=0, atol=1e-10)


def test_framework_default_optimizers_differ_systematically(train: Train) -> None:
    """Keras and PyTorch place epsilon differently, which is why a study shares one Adam."""
    steps = Steps(warmup=1, measured=9, compute_only=0)
    losses = {
        (s, o): train(
            Trial.of(strategy=s, workers=1, global_batch=BATCH, steps=steps, precision="float64", optimizer=o)
        ).losses()
        for s in ("torch", "tf")
        for o in ("adam", "framework-default")
    }
    assert np.abs(losses["torch", "adam"] - losses["tf", "adam"]).max() < 1e-10
    default = np.abs(losses["torch", "framework-default"] - losses["tf", "framework-default"]).max()
    assert default > 1e-4


@pytest.mark.parametrize("strategy", ["tf", "tf-mirrored", "tf-multiworker"])
def test_steps_per_call_changes_the_clock_but_not_the_training(strategy: str, train: Train) -> None:
    workers = 1 if strategy == "tf" else 2
    trial = exact(strategy, workers).model_copy(update={"steps_per_call": 5})
    done = train(trial)
    np.testing.assert_allclose(done.losses(), train(exact("torch", 1)).losses(), rtol=0, atol=1e-10)
    seconds = [row["seconds"] for row in done.rows(0, "train")]
    assert len(set(seconds[:5])) == 1
    assert len(set(seconds)) > 2
