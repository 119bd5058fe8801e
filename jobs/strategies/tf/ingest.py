"""Files ─▶ batches with tf.data: `readers` threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from jobs.data.reading import Plan
from jobs.data.records import FEATURE


def batches(plan: Plan) -> Iterator[Any]:
    """Batches float32 [b, resize, resize, 3], in the plan's order."""
    import tensorflow as tf

    def image(png: Any) -> Any:
        pixels = tf.io.decode_png(png, channels=3)
        return tf.image.resize(tf.cast(pixels, tf.float32) / 255.0, [plan.resize, plan.resize], antialias=False)

    def read(path: Any) -> Any:
        return image(tf.io.read_file(path))

    def unpack(record: Any) -> Any:
        return image(tf.io.parse_single_example(record, {FEATURE: tf.io.FixedLenFeature([], tf.string)})[FEATURE])

    def flipped(image: Any, flip: Any) -> Any:
        return tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)

    def together(samples: Any, make: Any) -> Any:
        """`make` of each of `samples`, flipped, by all readers."""
        flips = tf.data.Dataset.from_tensor_slices(plan.flips)
        return tf.data.Dataset.zip(samples, flips).map(
            lambda sample, flip: flipped(make(sample), flip), num_parallel_calls=plan.readers, deterministic=True
        )

    slices = tf.data.Dataset.from_tensor_slices
    paths = [os.fsencode(path) for path in plan.paths]  # a name need not be UTF-8
    if plan.source == "tfrecord":
        records = slices(list(plan.records)).interleave(
            lambda path: tf.data.TFRecordDataset(path).repeat(),
            cycle_length=plan.readers,
            block_length=plan.batch,
            num_parallel_calls=plan.readers,
            deterministic=True,
        )
        samples = together(records, unpack)
    elif plan.source == "cached":
        images = slices(paths[: plan.epoch]).map(read, num_parallel_calls=plan.readers, deterministic=True)
        samples = together(images.cache().repeat(), lambda image: image)
    else:
        samples = together(slices(paths), read)
    options = tf.data.Options()
    options.threading.private_threadpool_size = plan.readers
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False
    # As many batches ahead as the other loader has: two per reader.
    made = samples.batch(plan.batch, drop_remainder=True).prefetch(2 * plan.readers)
    return iter(made.with_options(options))
