"""Files ─▶ batches with tf.data: `readers` threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jobs.ingest import Plan


def batches(plan: Plan) -> Iterator[Any]:
    """Batches float32 [b, resize, resize, 3], in the plan's order."""
    import tensorflow as tf

    def sample(path: Any, flip: Any) -> Any:
        pixels = tf.io.decode_png(tf.io.read_file(path), channels=3)
        image = tf.image.resize(tf.cast(pixels, tf.float32) / 255.0, [plan.resize, plan.resize], antialias=False)
        return tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)

    options = tf.data.Options()
    options.threading.private_threadpool_size = plan.readers
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False
    samples = tf.data.Dataset.from_tensor_slices((plan.paths, plan.flips))
    made = samples.map(sample, num_parallel_calls=plan.readers, deterministic=True)
    # As many batches ahead as the other loader has: two per reader.
    made = made.batch(plan.batch, drop_remainder=True).prefetch(2 * plan.readers)
    return iter(made.with_options(options))
