"""The models, without a framework."""

import numpy as np
import pytest

from jobs.contract.catalog import MODELS
from jobs.models import layers
from jobs.models.layers import from_torch, to_torch

CNN = layers.load("cnn")


@pytest.mark.parametrize(("name", "parameters"), [("cnn", 387_466), ("resnet50", 25_557_032)])
def test_a_model_has_the_parameters_of_the_original(name: str, parameters: int) -> None:
    model = layers.load(name)
    assert model.parameters == parameters
    assert sum(w.size for w in model.initial_weights(0).values()) == parameters


@pytest.mark.parametrize(("name", "flop"), [("cnn", 67.2e6), ("resnet50", 6 * 4.09e9)])
def test_a_training_step_costs_what_the_literature_says(name: str, flop: float) -> None:
    """4.09 G multiply-adds per image of 224 × 224 is the figure of ResNet-50 v1.5."""
    assert layers.load(name).training_flop(MODELS[name].side) == pytest.approx(flop, rel=0.005)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    first, again, other = CNN.initial_weights(3), CNN.initial_weights(3), CNN.initial_weights(4)
    for name in CNN.shapes:
        np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first["dense/kernel"], other["dense/kernel"])


@pytest.mark.parametrize("name", MODELS)
def test_layout_conversion_is_undone_by_its_inverse(name: str) -> None:
    model = layers.load(name)
    weights = model.initial_weights(1)
    for layer in model.weighted:
        for key in layer.weights:
            np.testing.assert_array_equal(from_torch(layer, to_torch(layer, weights[key])), weights[key])


def test_the_dense_rows_follow_the_flatten_order() -> None:
    """Flattening channels-first with converted rows gives what channels-last gives as it is."""
    random = np.random.default_rng(0)
    activation = random.normal(size=(2, 24, 24, 64))
    kernel = CNN.initial_weights(0)["dense/kernel"]
    channels_last = activation.reshape(2, -1) @ kernel
    channels_first = activation.transpose(0, 3, 1, 2).reshape(2, -1) @ to_torch(CNN.weighted[-1], kernel).T
    np.testing.assert_allclose(channels_first, channels_last, rtol=1e-12)
