"""What the TensorFlow strategies share: one custom loop for every tf.distribute strategy.

The data are resident as uint8, only index batches go in, and k steps run per host call inside one
tf.function (`steps_per_call`). Keras 3's `fit` does not work with multi-worker strategies, hence the
custom loop. A subclass gives the tf.distribute strategy; Horovod overrides the gradient.

Run one: `python -m jobs.worker TRIAL_DIR` with strategy tf, tf-mirrored or tf-multiworker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.contract.catalog import StrategyInfo
from jobs.data.dataset import Indices
from jobs.models import layers
from jobs.strategies import learning_rate
from jobs.strategies.interface import Facts, Logits, Losses, Strategy, held_out
from jobs.strategies.tf import device

if TYPE_CHECKING:
    from jobs.data.reading import Plan

# "default" is tf.function, "eager" the same code without it, "xla" tf.function with jit_compile.
EXECUTIONS = ("default", "eager", "xla")
CALLED = (*EXECUTIONS, "savedmodel", "tflite")  # how a model can be executed that is only called
CHANNELS_LAST = "{strategy} has its images channels-last (NHWC) as they are; take default"
FLOAT16 = "under {strategy} Keras scales the loss by each replica's own gradients, and they would part; take bfloat16"
# Why there is no XLA under tf.distribute: its collectives want a graph, and on CPUs are no XLA operations.
XLA = "its replicas meet in every step, which cannot be inside one compiled program"
INFO = StrategyInfo(
    "TensorFlow",
    "none",
    base_case="tf",
    needs=("tensorflow",),
    several_steps_per_call=True,
    executions={"train": EXECUTIONS, "infer": CALLED},
    lacks={"channels-last": CHANNELS_LAST},
)


class TensorFlowLoop(Strategy):
    """Plain single-process training; the others override where variables live and who sums."""

    replicas = 1  # in this process
    data_in_scope = True

    def prepare(self) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
        tf = device.tensorflow()
        threads = self.trial.threads_per_worker * self.replicas
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(max(2, self.replicas))

    def build(self) -> None:
        import tensorflow as tf

        self.gpus = device.settle(self.trial)
        self.dtype = tf.as_dtype(device.variable_type(self.recipe.precision))
        self.distribution = self.distribute()
        with self.distribution.scope():
            if self.data_in_scope:
                self._place_data()
            self.net = self.new_net()
            self.optimizer = self.new_optimizer(local=False)
            self.optimizer.build(self.net.trainable_variables)
        if not self.data_in_scope:
            self._place_data()
        self._train = self._compiled(self.net, self.optimizer, synchronous=True)
        self._infer = tf.function(self._guesses)

    def distribute(self) -> Any:
        """The tf.distribute strategy; the default one does nothing."""
        import tensorflow as tf

        return tf.distribute.get_strategy()

    def new_net(self) -> Any:
        """The model with its initial weights."""
        from jobs.strategies.tf.model import build

        side = self.context.dataset.train_images.shape[1]
        return build(layers.load(self.recipe.model), side, self.recipe.precision, self.trial.seed)

    def gradients(self, tape: Any, loss: Any, variables: list[Any], synchronous: bool) -> Any:
        """Gradients of `loss`; where `synchronous`, the Keras optimizer sums them over the replicas of a
        tf.distribute strategy."""
        return tape.gradient(loss, variables)

    def new_optimizer(self, local: bool) -> Any:
        """The optimizer; `local` keeps it from summing gradients over replicas."""
        import keras

        from jobs.strategies.tf.adam import keep_local, rising, torch_adam

        peak, warmup = learning_rate.peak(self.recipe, self.trial.global_batch), self.recipe.learning_rate_warmup
        if self.recipe.optimizer == "framework-default":
            made = keras.optimizers.Adam(rising(peak, warmup) if warmup else peak)
        else:
            made = torch_adam(peak, warmup)
        if local:
            keep_local(made)
        return keras.optimizers.LossScaleOptimizer(made) if self.recipe.precision == "float16" else made

    def train(self, batches: Indices) -> Losses:
        losses: Losses = self._train(batches).numpy()
        return losses

    def compute_only(self, batches: Indices) -> Losses:
        losses: Losses = self._compute_only(batches).numpy()
        return losses

    def _place_data(self) -> None:
        import tensorflow as tf

        data = self.context.dataset
        self.images = tf.Variable(data.train_images, trainable=False)
        # Integers of 32 bits are TensorFlow's for shapes: it keeps them on the host.
        self.labels = tf.Variable(data.train_labels.astype(np.int64), trainable=False)

    def _compiled(self, net: Any, optimizer: Any, synchronous: bool) -> Any:
        """The tf.function of k steps: int32 [k, b] ─▶ losses [k], mean over this process's samples."""
        import tensorflow as tf

        dtype, scaled = self.dtype, self.recipe.precision == "float16"
        part = self.context.process_batch // self.replicas
        # Summed over all replicas or, on the copy, kept local: the gradient is that of a mean.
        divisor = self.trial.global_batch if synchronous else part
        to_mean = divisor / self.context.process_batch
        variables, image_shape = net.trainable_variables, [part, *self.context.dataset.train_images.shape[1:]]

        @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]  # Horovod's code would take seconds
        def replica_step(indices: Any) -> Any:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            start = (replica % self.replicas) * part if self.replicas > 1 else 0
            mine = tf.reshape(tf.slice(indices, [start], [part]), [part])
            images = tf.cast(tf.gather(self.images, mine), dtype) / 255.0
            labels = tf.gather(self.labels, mine)
            with tf.GradientTape() as tape:
                logits = net(tf.reshape(images, image_shape), training=True)
                each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, dtype))
                loss = tf.reduce_sum(each) / divisor
                target = optimizer.scale_loss(loss) if scaled else loss
            values = [v.value for v in variables]
            optimizer.apply_gradients(zip(self.gradients(tape, target, values, synchronous), variables, strict=True))
            return loss * to_mean

        if self.recipe.execution == "xla":
            replica_step = tf.function(replica_step, jit_compile=True)

        def steps(batches: Any) -> Any:
            k = self.recipe.steps_per_call
            losses = tf.TensorArray(dtype, k)
            for step in tf.range(k):  # outside strategy.run: inside it, mirrored strategies cannot merge
                local = self.distribution.run(replica_step, args=(batches[step],))
                # The local losses only: to reduce them over all ranks is a second collective.
                here = self.distribution.experimental_local_results(local)
                losses = losses.write(step, tf.add_n(list(here)))
            return losses.stack()

        if self.recipe.execution == "eager":
            return lambda batches: steps(tf.constant(batches))
        # One fixed k: a shorter last call would be a second trace inside a timed step.
        shape = [self.recipe.steps_per_call, self.context.process_batch]
        return tf.function(steps, input_signature=[tf.TensorSpec(shape, tf.int32)])

    def copy_state(self) -> None:
        with self.distribution.scope():
            self.copy = self.new_net()
            optimizer = self.new_optimizer(local=True)
            optimizer.build(self.copy.trainable_variables)
            self.copy.set_weights(self.net.get_weights())
            for target, source in zip(optimizer.variables, self.optimizer.variables, strict=True):
                target.assign(source)
        self._compute_only = self._compiled(self.copy, optimizer, synchronous=False)

    def start_over(self) -> None:
        with self.distribution.scope():
            self.net.set_weights(self.new_net().get_weights())
            new = self.new_optimizer(local=False)
            new.build(self.net.trainable_variables)
            for target, source in zip(self.optimizer.variables, new.variables, strict=True):
                target.assign(source)

    def evaluate(self) -> float:
        import tensorflow as tf

        right = 0
        for images, labels in held_out(self.context.dataset):
            guesses = self._infer(tf.constant(images / 255.0, self.dtype)).numpy()
            right += int(np.sum(guesses == labels))
        return right / len(self.context.dataset.test_labels)

    def _guesses(self, images: Any) -> Any:
        """The class of each image. In a replica, where what it has of its own is read without the others."""
        import tensorflow as tf

        logits = self.distribution.run(lambda: self.net(images, training=False))
        return tf.argmax(self.distribution.experimental_local_results(logits)[0], axis=1)

    def inference(self, pool: NDArray[np.floating]) -> tuple[Logits, Logits]:
        import tensorflow as tf

        from jobs.strategies.tf.inference import callable_of

        inputs = [tf.constant(images, self.dtype) for images in pool]

        def eager(index: int) -> NDArray[np.floating]:
            logits: NDArray[np.floating] = tf.cast(self.net(inputs[index], training=False), self.dtype).numpy()
            return logits

        if self.recipe.execution == "eager":
            return eager, eager
        model = callable_of(self.net, self.recipe.execution, inputs[0], self.trial.threads_per_worker)
        return lambda index: model(inputs[index]), eager

    def ingest(self, plan: Plan) -> Iterator[Any]:
        from jobs.strategies.tf.ingest import batches

        return batches(plan)

    def close(self) -> None:
        """Leave the other ranks; nothing to do for a single process."""

    def facts(self) -> Facts:
        import tensorflow as tf

        return Facts(
            device=device.describe(self.gpus),
            parameters=int(sum(np.prod(v.shape) for v in self.net.trainable_variables)),
            intra_op_threads=tf.config.threading.get_intra_op_parallelism_threads(),
            inter_op_threads=tf.config.threading.get_inter_op_parallelism_threads(),
            versions=device.versions(self.gpus),
        )


STRATEGY = TensorFlowLoop
