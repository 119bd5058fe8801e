"""The article's CNN, framework-free: shapes, and initial weights as NumPy arrays.

Conv(1→32, 3×3) – ReLU – Conv(32→64, 3×3) – ReLU – Flatten – Dense(36,864→10): 387,466 parameters.
The canonical layout is TensorFlow's: convolutions [height, width, in, out], the dense layer
[36864, 10] with its rows in (height, width, channel) order. `to_torch` and `from_torch` convert.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

SHAPES: dict[str, tuple[int, ...]] = {
    "conv1/kernel": (3, 3, 1, 32),
    "conv1/bias": (32,),
    "conv2/kernel": (3, 3, 32, 64),
    "conv2/bias": (64,),
    "dense/kernel": (24 * 24 * 64, 10),
    "dense/bias": (10,),
}
PARAMETERS = sum(int(np.prod(shape)) for shape in SHAPES.values())

# Multiply-adds of one forward pass: 26·26·9·32 + 24·24·9·32·64 + 36864·10; two operations each,
# and a training step costs three forward passes (forward, gradient of inputs, gradient of weights).
FORWARD_MACS = 26 * 26 * 9 * 1 * 32 + 24 * 24 * 9 * 32 * 64 + 24 * 24 * 64 * 10
TRAINING_FLOP_PER_SAMPLE = 3 * 2 * FORWARD_MACS


def initial_weights(seed: int) -> dict[str, NDArray[np.float64]]:
    """Glorot-uniform kernels and zero biases (Glorot & Bengio 2010), drawn in float64.

    Both frameworks round these same numbers to their precision.
    """
    random = np.random.default_rng((seed, 387466))
    weights: dict[str, NDArray[np.float64]] = {}
    for name, shape in SHAPES.items():
        if name.endswith("bias"):
            weights[name] = np.zeros(shape)
        else:
            receptive = int(np.prod(shape[:-2]))
            limit = np.sqrt(6.0 / (receptive * (shape[-2] + shape[-1])))
            weights[name] = random.uniform(-limit, limit, shape)
    return weights


def to_torch(name: str, value: Array) -> Array:
    """From the canonical layout to PyTorch's: [out, in, h, w], and [10, c·h·w] for the dense layer."""
    if name == "dense/kernel":
        return np.ascontiguousarray(value.reshape(24, 24, 64, 10).transpose(3, 2, 0, 1).reshape(10, -1))
    if value.ndim == 4:
        return np.ascontiguousarray(value.transpose(3, 2, 0, 1))
    return np.ascontiguousarray(value)


def from_torch(name: str, value: Array) -> Array:
    """The inverse of `to_torch`."""
    if name == "dense/kernel":
        return np.ascontiguousarray(value.reshape(10, 64, 24, 24).transpose(2, 3, 1, 0).reshape(-1, 10))
    if value.ndim == 4:
        return np.ascontiguousarray(value.transpose(2, 3, 1, 0))
    return np.ascontiguousarray(value)
