"""Batch normalization for Keras with torch.nn.BatchNorm2d's semantics.

Keras' own layer differs: its running variance is the biased one; its running statistics cannot be
updated in a replica of a tf.distribute strategy, which asks for an aggregation that the layer does not
give; and it computes from basic operations, where TensorFlow has one fused kernel.
"""

from __future__ import annotations

from typing import Any

from jobs.models.layers import BatchNorm, Conv, Dense, GlobalAveragePool, Layer, MaxPool, Model, ReLU, Residual
from jobs.strategies.tf import device

EPSILON = 1e-5
UPDATE = 0.1  # torch's momentum; Keras' momentum 0.9


def batch_norm(name: str) -> Any:
    """A layer over the last axis of [b, h, w, channels]: this replica's statistics in training, the
    running ones else. Each replica keeps its own running statistics and sends them to nobody."""
    import keras
    import tensorflow as tf

    fused = tf.compat.v1.nn.fused_batch_norm

    class BatchNorm(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: tuple[int | None, ...]) -> None:
            channels = (shape[-1],)
            self.gamma = self.add_weight(shape=channels, initializer="ones", name="gamma", autocast=False)
            self.beta = self.add_weight(shape=channels, initializer="zeros", name="beta", autocast=False)

            def running(start: str, name: str) -> Any:
                return keras.Variable(
                    start, channels, self.variable_dtype, False, False, "mean", synchronization="on_read", name=name
                )

            self.mean, self.variance = running("zeros", "mean"), running("ones", "variance")

        def call(self, images: Any, training: bool = False) -> Any:
            gamma, beta = self.gamma.value, self.beta.value
            if not training:
                mean, variance = self.mean.value, self.variance.value
                if images.dtype == tf.float64:
                    return tf.nn.batch_normalization(images, mean, variance, beta, gamma, EPSILON)
                return fused(images, gamma, beta, mean, variance, EPSILON, is_training=False)[0]
            if images.dtype == tf.float64:  # there is no fused kernel for it
                mean, biased = tf.nn.moments(images, [0, 1, 2])
                count = tf.cast(tf.size(images) / tf.size(mean), images.dtype)
                variance = biased * (count / (count - 1))
                normalized = tf.nn.batch_normalization(images, mean, biased, beta, gamma, EPSILON)
            else:
                normalized, mean, variance = fused(images, gamma, beta, epsilon=EPSILON)
            self.mean.assign(self.mean + UPDATE * (mean - self.mean))
            self.variance.assign(self.variance + UPDATE * (variance - self.variance))
            return normalized

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    return BatchNorm(name=name)


def build(model: Model, side: int, precision: str, seed: int) -> Any:
    """`model` as a keras.Model: [b, side, side, channels] ─▶ logits [b, classes]."""
    import keras
    from keras import layers as kl

    device.set_types(precision)

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
