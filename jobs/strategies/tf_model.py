"""A model's description ─▶ a Keras model with the framework-free initial weights."""

from __future__ import annotations

from typing import Any

from jobs.models.layers import BatchNorm, Conv, Dense, GlobalAveragePool, Layer, MaxPool, Model, ReLU, Residual
from jobs.strategies import tf_device
from jobs.strategies.tf_batch_norm import batch_norm


def build(model: Model, side: int, precision: str, seed: int) -> Any:
    """`model` as a keras.Model: [b, side, side, channels] ─▶ logits [b, classes]."""
    import keras
    from keras import layers as kl

    tf_device.set_types(precision)

    def padded(x: Any, padding: int) -> Any:
        # Not "same", which pads less above and left than below and right where the stride is 2.
        return kl.ZeroPadding2D(padding)(x) if padding else x

    def applied(layer: Layer, x: Any) -> Any:
        match layer:
            case Conv():
                conv = kl.Conv2D(layer.outputs, layer.kernel, layer.stride, use_bias=layer.bias, name=layer.name)
                return conv(padded(x, layer.padding))
            case BatchNorm():
                return batch_norm(layer.name)(x)
            case ReLU():
                return kl.Activation("relu")(x)
            case MaxPool():
                return kl.MaxPooling2D(layer.kernel, layer.stride)(padded(x, layer.padding))
            case GlobalAveragePool():
                return kl.GlobalAveragePooling2D()(x)
            case Dense():
                return kl.Dense(layer.outputs, name=layer.name)(kl.Flatten()(x))
            case Residual():
                return kl.Activation("relu")(kl.Add()([chained(layer.body, x), chained(layer.shortcut, x)]))

    def chained(layers: tuple[Layer, ...], x: Any) -> Any:
        for layer in layers:
            x = applied(layer, x)
        return x

    images = keras.Input((side, side, model.info.channels))
    net = keras.Model(images, chained(model.layers, images))
    weights = model.initial_weights(seed)
    for layer in model.weighted:
        for variable, name in zip(net.get_layer(layer.name).trainable_variables, layer.weights, strict=True):
            variable.assign(weights[name])
    return net
