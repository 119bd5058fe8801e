"""The article's CNN: Conv(1→32, 3×3) – ReLU – Conv(32→64, 3×3) – ReLU – Flatten – Dense(36,864→10).

387,466 parameters, 95% of them in the dense layer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jobs.models.layers import Conv, Dense, Model, ReLU


def glorot_uniform(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Glorot & Bengio 2010, eq. 16; Keras' default."""
    receptive = int(np.prod(shape[:-2]))
    limit = np.sqrt(6.0 / (receptive * (shape[-2] + shape[-1])))
    return random.uniform(-limit, limit, shape)


MODEL = Model(
    "cnn",
    (Conv("conv1", 1, 32, 3), ReLU(), Conv("conv2", 32, 64, 3), ReLU(), Dense("dense", (24, 24, 64), 10)),
    glorot_uniform,
)
