"""Ways to call a Keras model: tf.function, with XLA, as a SavedModel, as a TFLite model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def callable_of(net: Any, execution: str, example: Any, threads: int) -> Callable[[Any], NDArray[np.floating]]:
    """`net` made ready for inputs of the shape and type of `example` [b, h, w, c]; gives NumPy logits."""
    import tensorflow as tf

    signature = [tf.TensorSpec(example.shape, example.dtype)]

    def forward(images: Any) -> Any:
        return tf.cast(net(images, training=False), example.dtype)

    if execution == "tflite":
        return _tflite(net, example, threads)
    if execution == "savedmodel":
        with tempfile.TemporaryDirectory() as folder:
            archive = tf.Module()
            archive.net = net
            archive.call = tf.function(forward, input_signature=signature)
            tf.saved_model.save(archive, folder)
            loaded = tf.saved_model.load(folder)
        return lambda images: loaded.call(images).numpy()
    function = tf.function(forward, input_signature=signature, jit_compile=execution == "xla")
    return lambda images: function(images).numpy()


def _tflite(net: Any, example: Any, threads: int) -> Callable[[Any], NDArray[np.floating]]:
    import tensorflow as tf

    # From the Keras model: from a concrete function of Keras 3's variables the weights come out as NaN.
    model = tf.lite.TFLiteConverter.from_keras_model(net).convert()
    interpreter = tf.lite.Interpreter(model_content=model, num_threads=threads)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], example.shape)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def call(images: Any) -> NDArray[np.floating]:
        interpreter.set_tensor(taken["index"], images.numpy())
        interpreter.invoke()
        logits: NDArray[np.floating] = interpreter.get_tensor(given["index"])
        return logits

    return call
