"""The article's CNN in TensorFlow as one would write it without this project: a loop and a clock.

    bare_tf.py none|horovod STEPS OUT

Each rank writes OUT.<rank>.first after its first step, and at the end OUT.<rank>: the seconds between
the ends of its steps, so that nothing in the loop goes uncounted.
"""

import itertools
import json
import os
import sys
import time

how, steps, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rank = int(os.environ.get("HOROVOD_RANK", "0"))
os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(2)
keras.utils.set_random_seed(0)
random = np.random.default_rng(rank)
images = tf.constant(random.random((1437, 28, 28, 1), np.float32))
labels = tf.constant(random.integers(0, 10, 1437))
net = keras.Sequential(
    [
        keras.Input((28, 28, 1)),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Conv2D(64, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ]
)
optimizer = keras.optimizers.Adam(1e-3)
optimizer.build(net.trainable_variables)
if how == "horovod":
    import horovod.tensorflow as hvd

    hvd.init()


@tf.function
def step(batch):
    with tf.GradientTape() as tape:
        logits = net(tf.gather(images, batch), training=True)
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(labels, batch), logits)
        loss = tf.reduce_mean(each)
    if how == "horovod":
        tape = hvd.DistributedGradientTape(tape)
    gradients = tape.gradient(loss, [v.value for v in net.trainable_variables])
    optimizer.apply_gradients(zip(gradients, net.trainable_variables, strict=True))
    return loss


def train(steps, clock=None):
    for _ in range(steps):
        step(tf.constant(random.integers(0, 1437, 64, np.int32))).numpy()
        if clock:
            clock.append(time.perf_counter())


train(1)
with open(f"{out}.{rank}.first", "w") as file:
    json.dump({"unix": time.time(), "pid": os.getpid()}, file)
clock = [time.perf_counter()]
train(steps, clock)
with open(f"{out}.{rank}", "w") as file:
    json.dump({"seconds": [end - begin for begin, end in itertools.pairwise(clock)]}, file)
