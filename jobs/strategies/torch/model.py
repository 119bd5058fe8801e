"""A model's description ─▶ torch.nn modules with the framework-free initial weights."""

from __future__ import annotations

from typing import Any

from jobs.models.layers import (
    BatchNorm,
    Conv,
    Dense,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Model,
    ReLU,
    Residual,
    to_torch,
)


def build(model: Model, dtype: Any, seed: int) -> Any:
    """`model` as a torch.nn.Sequential: [b, channels, side, side] ─▶ logits [b, classes].

    A weight is called `<layer>.weight` or `<layer>.bias`, inside residuals with a path before it.
    """
    import torch
    from torch import nn

    weights = model.initial_weights(seed)

    class Block(nn.Module):  # type: ignore[misc]
        """ReLU(body(x) + shortcut(x))."""

        def __init__(self, body: Any, shortcut: Any) -> None:
            super().__init__()
            self.body, self.shortcut = body, shortcut

        def forward(self, x: Any) -> Any:
            return torch.relu(self.body(x) + self.shortcut(x))

    def made(layer: Layer) -> Any:
        match layer:
            case Conv():
                return nn.Conv2d(
                    layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding, bias=layer.bias
                )
            case BatchNorm():
                return nn.BatchNorm2d(layer.channels)
            case ReLU():
                return nn.ReLU()
            case MaxPool():
                return nn.MaxPool2d(layer.kernel, layer.stride, layer.padding)
            case GlobalAveragePool():
                return nn.AdaptiveAvgPool2d(1)
            case Dense():
                return nn.Linear(weights[f"{layer.name}/kernel"].shape[0], layer.outputs)
            case Residual():
                return Block(chain(layer.body), chain(layer.shortcut))

    def chain(layers: tuple[Layer, ...]) -> Any:
        sequence = nn.Sequential()
        for index, layer in enumerate(layers):
            if isinstance(layer, Dense):
                sequence.add_module("flatten", nn.Flatten())
            module = made(layer).to(dtype)
            sequence.add_module(getattr(layer, "name", str(index)), module)
            if isinstance(layer, Conv | BatchNorm | Dense):
                with torch.no_grad():
                    for parameter, name in zip(module.parameters(), layer.weights, strict=True):
                        parameter.copy_(torch.from_numpy(to_torch(layer, weights[name])))
        return sequence

    return chain(model.layers)
