"""Does TensorFlow drive the TPU of this machine?  `python -m cluster.setup.probe`

Initializes it and multiplies two matrices on every core; prints what came out as one line of JSON.
"""

from __future__ import annotations

import json
from typing import Any

SIZE = 128
EXPECTED = float(SIZE**3)  # the sum over a product of matrices of ones, exact in bfloat16 and float32


def products(strategy: Any) -> list[float]:
    """The sum of a product of two matrices of ones, from each replica of a tf.distribute strategy."""
    import tensorflow as tf

    def product() -> Any:
        ones = tf.ones([SIZE, SIZE])
        return tf.reduce_sum(tf.matmul(ones, ones))

    run = tf.function(lambda: strategy.run(product))
    return [float(value) for value in strategy.experimental_local_results(run())]


def main() -> None:
    import tensorflow as tf

    from jobs.machine.tpu import address

    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address())
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    print(json.dumps({"tensorflow": tf.__version__, "products": products(tf.distribute.TPUStrategy(resolver))}))


if __name__ == "__main__":
    main()
