"""ResNet-50 v1.5 (He et al. 2016, arXiv:1512.03385), 25,557,032 parameters with its 1,000 classes.

v1.5 halves the image in a stage's first 3×3 convolution, as torchvision's and MLPerf's do; the paper's
v1 does it in the 1×1 before. Keras' own ResNet50 is a v1, with biases in its convolutions, another
epsilon and another padding, so it is not this model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from jobs.models.layers import BatchNorm, Conv, Dense, GlobalAveragePool, Layer, MaxPool, Model, ReLU, Residual

STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # width and number of blocks
EXPANSION = 4


def he_normal(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """He et al. 2015 by fan-out, as torchvision's; the classifier N(0, 0.01²), as Goyal et al. 2017."""
    deviation = 0.01 if len(shape) == 2 else np.sqrt(2.0 / (shape[0] * shape[1] * shape[3]))
    return random.normal(0.0, deviation, shape)


def _normalized(name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[Layer, ...]:
    """A convolution that keeps the side (or divides it by `stride`), and its normalization."""
    conv = Conv(f"{name}_conv", inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return conv, BatchNorm(f"{name}_norm", outputs)


def _bottleneck(name: str, inputs: int, width: int, stride: int) -> Residual:
    outputs = EXPANSION * width
    body = (
        *_normalized(f"{name}_1", inputs, width, 1),
        ReLU(),
        *_normalized(f"{name}_2", width, width, 3, stride),
        ReLU(),
        *_normalized(f"{name}_3", width, outputs, 1),
    )
    changes = inputs != outputs or stride > 1
    return Residual(body, _normalized(f"{name}_shortcut", inputs, outputs, 1, stride) if changes else ())


def _layers() -> tuple[Layer, ...]:
    layers: list[Layer] = [*_normalized("stem", 3, 64, 7, stride=2), ReLU(), MaxPool(3, stride=2, padding=1)]
    channels = 64
    for stage, (width, blocks) in enumerate(STAGES):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(_bottleneck(f"stage{stage + 1}_block{block + 1}", channels, width, stride))
            channels = EXPANSION * width
    return (*layers, GlobalAveragePool(), Dense("classifier", (channels,), 1000))


MODEL = Model("resnet50", _layers(), he_normal)
