"""What models are made of, framework-free: layers, shapes, initial weights as NumPy arrays, cost.

The canonical layout is TensorFlow's: convolutions [height, width, in, out], a dense layer [in, out] with
its rows in (height, width, channel) order. `to_torch` and `from_torch` convert.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.contract.catalog import MODELS, ModelInfo


def load(name: str) -> Model:
    """The description of model `name`."""
    model: Model = importlib.import_module(f"jobs.models.{name}").MODEL
    return model


Array = NDArray[np.floating]
Initializer = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]


@dataclass(frozen=True)
class Conv:
    """`kernel` × `kernel` convolution, zeros on all four sides as wide as `padding`."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 0
    bias: bool = True

    @property
    def weights(self) -> dict[str, tuple[int, ...]]:
        kernel = {f"{self.name}/kernel": (self.kernel, self.kernel, self.inputs, self.outputs)}
        return kernel | ({f"{self.name}/bias": (self.outputs,)} if self.bias else {})


@dataclass(frozen=True)
class BatchNorm:
    """Normalization by this worker's batch (Ioffe & Szegedy 2015), epsilon 1e-5; the running mean starts
    at 0 and the unbiased running variance at 1, and each step brings a tenth of its own."""

    name: str
    channels: int

    @property
    def weights(self) -> dict[str, tuple[int, ...]]:
        return {f"{self.name}/gamma": (self.channels,), f"{self.name}/beta": (self.channels,)}


@dataclass(frozen=True)
class ReLU:
    pass


@dataclass(frozen=True)
class MaxPool:
    """Of what is not negative: padding with zeros is padding with nothing."""

    kernel: int
    stride: int
    padding: int


@dataclass(frozen=True)
class GlobalAveragePool:
    pass


@dataclass(frozen=True)
class Dense:
    """Flattens `inputs`, (height, width, channels) or (channels,), and multiplies."""

    name: str
    inputs: tuple[int, ...]
    outputs: int

    @property
    def weights(self) -> dict[str, tuple[int, ...]]:
        size = int(np.prod(self.inputs))
        return {f"{self.name}/kernel": (size, self.outputs), f"{self.name}/bias": (self.outputs,)}


@dataclass(frozen=True)
class Residual:
    """ReLU(body(x) + shortcut(x)); an empty shortcut is x itself."""

    body: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()


Layer = Conv | BatchNorm | ReLU | MaxPool | GlobalAveragePool | Dense | Residual


@dataclass(frozen=True)
class Model:
    """A chain of layers. `initializer` draws a kernel of a canonical shape."""

    name: str
    layers: tuple[Layer, ...]
    initializer: Initializer

    @property
    def info(self) -> ModelInfo:
        return MODELS[self.name]

    @property
    def weighted(self) -> list[Conv | BatchNorm | Dense]:
        """The layers that have weights, in order, a residual's body before its shortcut."""
        return list(_weighted(self.layers))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The trainable weights by name, in the canonical layout."""
        return {name: shape for layer in self.weighted for name, shape in layer.weights.items()}

    @property
    def parameters(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    def initial_weights(self, seed: int) -> dict[str, NDArray[np.float64]]:
        """Kernels by the model's initializer, biases and beta 0, gamma 1, in float64.

        Every framework rounds these same numbers to its precision.
        """
        random = np.random.default_rng((seed, self.parameters))
        weights: dict[str, NDArray[np.float64]] = {}
        for name, shape in self.shapes.items():
            if name.endswith("/kernel"):
                weights[name] = self.initializer(random, shape)
            else:
                weights[name] = np.full(shape, float(name.endswith("/gamma")))
        return weights

    def forward_macs(self, side: int) -> int:
        """Multiply-adds of convolutions and dense layers in one forward pass of one image."""
        total = 0
        for layer, after, _ in _walk(self.layers, side, self.info.channels):
            match layer:
                case Conv():
                    total += after**2 * layer.kernel**2 * layer.inputs * layer.outputs
                case Dense():
                    total += int(np.prod(layer.inputs)) * layer.outputs
        return total

    def activations(self, side: int) -> int:
        """Numbers that a forward pass of one image leaves: the outputs of all layers but ReLU, which is
        done in place."""
        outputs = _walk(self.layers, side, self.info.channels)
        return sum(after**2 * channels for layer, after, channels in outputs if not isinstance(layer, ReLU))

    def training_flop(self, side: int) -> int:
        """Operations of a training step per sample: a multiply-add is two, and a step costs three
        forward passes (forward, gradient of inputs, gradient of weights)."""
        return 3 * 2 * self.forward_macs(side)


@dataclass(frozen=True)
class Work:
    """Of one training step per sample: operations; and elements of parameters, activations and the image."""

    flop: int
    parameters: int
    activations: int
    image: int


def work(model: str, side: int | None = None) -> Work:
    """What a training step of `model` does on images with `side` pixels on a side, by default its own.
    Raises KeyError."""
    info = MODELS[model]
    made, side = load(model), side or info.side
    return Work(made.training_flop(side), made.parameters, made.activations(side), side**2 * info.channels)


def _weighted(layers: tuple[Layer, ...]) -> Iterator[Conv | BatchNorm | Dense]:
    for layer in layers:
        match layer:
            case Residual():
                yield from _weighted(layer.body)
                yield from _weighted(layer.shortcut)
            case Conv() | BatchNorm() | Dense():
                yield layer


def _walk(layers: tuple[Layer, ...], side: int, channels: int) -> Iterator[tuple[Layer, int, int]]:
    """Each layer with the side and the channels of what comes out of it; a residual after its parts."""
    for layer in layers:
        match layer:
            case Conv() | MaxPool():
                side = (side + 2 * layer.padding - layer.kernel) // layer.stride + 1
                channels = layer.outputs if isinstance(layer, Conv) else channels
            case GlobalAveragePool():
                side = 1
            case Dense():
                side, channels = 1, layer.outputs
            case Residual():
                body = list(_walk(layer.body, side, channels))
                yield from body
                yield from _walk(layer.shortcut, side, channels)
                _, side, channels = body[-1]
        yield layer, side, channels


def to_torch(layer: Conv | BatchNorm | Dense, value: Array) -> Array:
    """A weight of `layer` from the canonical layout to PyTorch's: [out, in, h, w]; dense [out, c·h·w]."""
    if isinstance(layer, Dense) and value.ndim == 2:
        value = value.reshape(*layer.inputs, layer.outputs)
        return np.ascontiguousarray(np.moveaxis(value, (-1, -2), (0, 1)).reshape(layer.outputs, -1))
    return np.ascontiguousarray(value.transpose(3, 2, 0, 1) if value.ndim == 4 else value)


def from_torch(layer: Conv | BatchNorm | Dense, value: Array) -> Array:
    """The inverse of `to_torch`."""
    if isinstance(layer, Dense) and value.ndim == 2:
        value = value.reshape(layer.outputs, layer.inputs[-1], *layer.inputs[:-1])
        return np.ascontiguousarray(np.moveaxis(value, (0, 1), (-1, -2)).reshape(-1, layer.outputs))
    return np.ascontiguousarray(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value)
