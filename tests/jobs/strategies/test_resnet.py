"""ResNet-50 is the same model in both frameworks, and trains alike under every strategy.

Its batch normalization uses each worker's own part of the batch, so the losses are compared across
frameworks and strategies at one number of workers, never across numbers of workers.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.contract.catalog import STRATEGIES
from jobs.contract.environment import RankEnvironment
from jobs.contract.parts import Data, Steps
from jobs.contract.trial import Trial
from jobs.data import dataset as data_dataset
from jobs.data import load
from jobs.models import layers
from jobs.models.layers import from_torch
from jobs.rank.rendezvous import Rendezvous
from jobs.strategies.interface import Context
from tests.running import launch

SIDE, BATCH = 64, 4
MODEL = layers.load("resnet50")
SYNTHETIC = Data(kind="synthetic", side=SIDE)

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("warm_ranks")]


def trial(strategy: str, workers: int, **more: Any) -> Trial:
    steps = Steps(warmup=1, measured=2, compute_only=0)
    return Trial.of(strategy=strategy, workers=workers, global_batch=BATCH, model="resnet50",
                 data=SYNTHETIC, steps=steps, precision="float64", **more)  # fmt: skip


@lru_cache
def one_batch() -> tuple[np.ndarray, np.ndarray]:
    dataset = load.load(SYNTHETIC, 0, "resnet50")
    return dataset.train_images[:BATCH] / 255.0, dataset.train_labels[:BATCH]


def torch_pass(precision: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits and gradients, by their canonical names and in the canonical layout."""
    import torch

    from jobs.strategies.torch.model import build
    from jobs.strategies.torch.plain import channels_first

    images, labels = one_batch()
    net = build(MODEL, getattr(torch, precision), 0)
    logits = net(channels_first(images.astype(precision)))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).long()).backward()
    modules = {name.rpartition(".")[2]: module for name, module in net.named_modules()}
    gradients = {
        key: from_torch(layer, parameter.grad.numpy())
        for layer in MODEL.weighted
        for key, parameter in zip(layer.weights, modules[layer.name].parameters(), strict=True)
    }
    return logits.detach().numpy(), gradients


def tf_pass(precision: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    import tensorflow as tf

    from jobs.strategies.tf.model import build

    images, labels = one_batch()
    net = build(MODEL, SIDE, precision, 0)
    variables = {
        key: variable.value
        for layer in MODEL.weighted
        for key, variable in zip(layer.weights, net.get_layer(layer.name).trainable_variables, strict=True)
    }
    with tf.GradientTape() as tape:
        logits = net(images.astype(precision), training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    return logits.numpy(), {name: g.numpy() for name, g in tape.gradient(loss, variables).items()}


def test_what_a_forward_pass_leaves_is_counted_right() -> None:
    """For the roofline: as many numbers as PyTorch's modules give out, ReLU's own apart."""
    import torch

    from jobs.strategies.torch.model import build
    from jobs.strategies.torch.plain import channels_first

    net, sizes = build(MODEL, torch.float32, 0), []
    for module in net.modules():
        if not isinstance(module, torch.nn.ReLU | torch.nn.Flatten | torch.nn.Sequential):
            module.register_forward_hook(lambda *call: sizes.append(call[-1][0].numel()))
    net(channels_first(one_batch()[0].astype("float32")))
    assert MODEL.activations(SIDE) == sum(sizes)


@pytest.mark.parametrize(
    ("precision", "logits_apart", "gradients_apart"),
    [
        ("float64", 1e-10, 1e-9),
        # Each framework's gradients in float32 are up to 3e-2 from float64's here: 53 layers of batch
        # normalization, the last over 16 numbers.
        ("float32", 1e-3, 1e-1),
    ],
)
def test_logits_and_gradients_agree(precision: str, logits_apart: float, gradients_apart: float) -> None:
    ours, theirs = torch_pass(precision), tf_pass(precision)
    assert ours[0].shape == (BATCH, 1000)
    assert np.linalg.norm(ours[0] - theirs[0]) / np.linalg.norm(theirs[0]) < logits_apart
    assert ours[1].keys() == theirs[1].keys() == MODEL.shapes.keys()
    for name, shape in MODEL.shapes.items():
        assert ours[1][name].shape == theirs[1][name].shape == shape
        assert np.linalg.norm(ours[1][name] - theirs[1][name]) < gradients_apart * np.linalg.norm(theirs[1][name]), name


def test_training_and_running_statistics_agree_and_evaluation_uses_them() -> None:
    """Three steps in one process of each framework, TensorFlow's eagerly to trace nothing."""

    def run(name: str, **more: Any) -> Any:
        meeting = Rendezvous(RankEnvironment(), "resnet", 10.0)
        strategy: Any = STRATEGIES.constant(name, "STRATEGY")(
            Context(trial(name, 1, **more), load.load(SYNTHETIC, 0, "resnet50"), meeting)
        )
        strategy.build()
        order = data_dataset.batch_indices(256, BATCH, 3, 0)[:, np.newaxis]
        losses = [float(np.ravel(strategy.train(batch))[0]) for batch in order]
        meeting.close()
        return losses, strategy.net

    import torch

    losses, ours = run("torch")
    theirs_losses, theirs = run("tf", execution="eager")
    np.testing.assert_allclose(theirs_losses, losses, rtol=0, atol=1e-8)
    assert len(set(losses)) == 3
    modules = {name.rpartition(".")[2]: module for name, module in ours.named_modules()}
    for name in ("stem_norm", "stage2_block1_shortcut_norm", "stage4_block3_3_norm"):
        layer = theirs.get_layer(name)
        assert np.abs(layer.mean.numpy()).max() > 0
        np.testing.assert_allclose(layer.mean.numpy(), modules[name].running_mean.numpy(), rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(layer.variance.numpy(), modules[name].running_var.numpy(), rtol=1e-6, atol=1e-8)
    images = one_batch()[0]
    with torch.no_grad():
        evaluated = ours.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(theirs(images, training=False).numpy(), evaluated, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "strategy",
    ["tf-multiworker", *(pytest.param(n, marks=pytest.mark.horovod) for n in ("torch-horovod", "tf-horovod"))],
)
def test_two_workers_follow_the_same_losses_whatever_the_strategy(
    strategy: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    reference = _ddp(tmp_path_factory.getbasetemp())
    done = launch(trial(strategy, 2), tmp_path_factory.mktemp("resnet"))
    assert done.outcome.status == "ok", (done.outcome.error, done.outcome.exits)
    np.testing.assert_allclose(done.losses(), reference, rtol=0, atol=1e-8)
    assert done.outcome.ranks[0].parameters == 25_557_032


@lru_cache
def _ddp(results: Path) -> np.ndarray:
    done = launch(trial("torch-ddp", 2), results)
    assert done.outcome.status == "ok", (done.outcome.error, done.outcome.exits)
    return done.losses()


@pytest.mark.parametrize(
    ("strategy", "execution", "precision"),
    # The logits are some tens: in 16 bits a graph may differ from eager calls by more than of order one.
    [("torch", "default", "float32"), ("tf", "eager", "float32"), ("tf", "default", "bfloat16")],
)
def test_it_can_be_called_for_inference(strategy: str, execution: str, precision: str, tmp_path: Path) -> None:
    steps = Steps(warmup=1, measured=2, compute_only=0)
    done = launch(
        Trial.of(strategy=strategy, workers=1, global_batch=2, workload="infer", model="resnet50",
              data=SYNTHETIC, steps=steps, execution=execution, precision=precision),
        tmp_path,
    )  # fmt: skip
    assert done.outcome.status == "ok", (done.outcome.error, done.outcome.exits)


def test_training_goes_on_as_if_nothing_had_been_classified_in_between() -> None:
    """Batch normalization takes the batch's statistics in training, the running ones to classify."""

    def losses(classified: bool) -> list[float]:
        meeting = Rendezvous(RankEnvironment(), "resnet", 10.0)
        strategy = STRATEGIES.constant("torch", "STRATEGY")(
            Context(trial("torch", 1), load.load(SYNTHETIC, 0, "resnet50"), meeting)
        )
        strategy.build()
        found = []
        for batch in data_dataset.batch_indices(256, BATCH, 2, 0)[:, np.newaxis]:
            found.append(float(np.ravel(strategy.train(batch))[0]))
            if classified:
                strategy.evaluate()
        meeting.close()
        return found

    np.testing.assert_allclose(losses(True), losses(False), rtol=0, atol=1e-10)
