"""Batch normalization for Keras with torch.nn.BatchNorm2d's semantics.

Keras' own layer differs: its running variance is the biased one; its running statistics cannot be
updated in a replica of a tf.distribute strategy, which asks for an aggregation that the layer does not
give; and it computes from basic operations, where TensorFlow has one fused kernel.
"""

from __future__ import annotations

from typing import Any

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
