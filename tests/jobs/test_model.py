"""The article's CNN, without a framework."""

import numpy as np
import pytest

from jobs import model


def test_the_cnn_has_the_articles_parameters() -> None:
    assert model.PARAMETERS == 387_466
    assert sum(w.size for w in model.initial_weights(0).values()) == 387_466


def test_a_training_step_costs_67_mflop_per_sample() -> None:
    assert pytest.approx(67.2e6, rel=0.01) == model.TRAINING_FLOP_PER_SAMPLE


def test_initial_weights_depend_on_the_seed_alone() -> None:
    first, again, other = model.initial_weights(3), model.initial_weights(3), model.initial_weights(4)
    for name in model.SHAPES:
        np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first["dense/kernel"], other["dense/kernel"])


def test_layout_conversion_is_undone_by_its_inverse() -> None:
    for name, value in model.initial_weights(1).items():
        np.testing.assert_array_equal(model.from_torch(name, model.to_torch(name, value)), value)


def test_the_dense_rows_follow_the_flatten_order() -> None:
    """Flattening channels-first with converted rows gives what channels-last gives as it is."""
    random = np.random.default_rng(0)
    activation = random.normal(size=(2, 24, 24, 64))
    kernel = model.initial_weights(0)["dense/kernel"]
    channels_last = activation.reshape(2, -1) @ kernel
    channels_first = activation.transpose(0, 3, 1, 2).reshape(2, -1) @ model.to_torch("dense/kernel", kernel).T
    np.testing.assert_allclose(channels_first, channels_last, rtol=1e-12)
