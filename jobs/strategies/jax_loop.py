"""What the JAX strategies share: the CNN as a pure function, optax Adam, k steps in one jitted call.

The data are resident as uint8 and only index batches go in. Over n devices the batch is laid out over a
mesh and everything else replicated; the compiler then sums the gradients (data parallelism by sharding:
jax.sharding and `jit`, as JAX's documentation has it). On CPUs a device is a virtual one of XLA's.

Run one: `python -m jobs.worker TRIAL_DIR` with strategy jax or jax-sharded.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import model, tpu
from jobs.data import Indices
from jobs.strategies.base import Facts, Logits, Losses, Strategy
from jobs.strategies.xla_threads import intra_op_threads


def forward(weights: dict[str, Any], images: Any) -> Any:
    """The article's CNN: images [b, 28, 28, 1] in 0…1 ─▶ logits [b, 10]; weights as jobs.model lays them out."""
    import jax

    for layer in ("conv1", "conv2"):
        images = jax.lax.conv_general_dilated(
            images, weights[f"{layer}/kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        images = jax.nn.relu(images + weights[f"{layer}/bias"])
    return images.reshape(len(images), -1) @ weights["dense/kernel"] + weights["dense/bias"]


class JaxLoop(Strategy):
    """Training on one device; `jax-sharded` lays the batch over several."""

    devices = 1

    def prepare(self) -> None:
        platform = "tpu" if self.trial.tpu == "real" else "cuda" if self.trial.gpus_per_worker else "cpu"
        os.environ["JAX_PLATFORMS"] = platform
        if platform == "cpu":
            # XLA:CPU sizes its one thread pool, which its devices share, by this variable.
            os.environ["NPROC"] = str(self.trial.threads_per_worker * self.devices)
            flags = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={self.devices}".strip()
        import jax

        jax.config.update("jax_enable_x64", self.trial.precision == "float64")

    def build(self) -> None:
        import jax
        import jax.numpy as jnp
        import optax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        found = jax.devices()
        if self.devices > len(found):
            raise RuntimeError(f"{self.devices} workers on {len(found)} devices; use at most {len(found)}")
        self.mesh = Mesh(np.array(found[: self.devices]), ("data",))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.split = NamedSharding(self.mesh, PartitionSpec(None, "data"))  # of [k, b]
        self.dtype = jnp.dtype(self.trial.precision)
        data = self.context.dataset
        self.images = jax.device_put(data.train_images, self.replicated)
        self.labels = jax.device_put(data.train_labels.astype(np.int32), self.replicated)
        weights = {name: value.astype(self.dtype) for name, value in model.initial_weights(self.trial.seed).items()}
        # optax adds epsilon to the bias-corrected root, as torch.optim.Adam does, and has its epsilon.
        self.optimizer = optax.adam(self.trial.learning_rate)
        self.state = jax.device_put((weights, self.optimizer.init(weights)), self.replicated)
        self._train = jax.jit(self._steps, donate_argnums=0)

    def train(self, batches: Indices) -> Losses:
        import jax

        self.state, losses = self._train(self.state, jax.device_put(batches, self.split))
        found: Losses = np.asarray(losses)
        return found

    def copy_state(self) -> None:
        """A copy of the state for each device, side by side: [devices, …]."""
        import jax
        import jax.numpy as jnp
        from jax.sharding import NamedSharding, PartitionSpec

        apart = NamedSharding(self.mesh, PartitionSpec("data"))
        self.copy = jax.tree.map(
            lambda leaf: jax.device_put(jnp.broadcast_to(leaf, (self.devices, *leaf.shape)), apart), self.state
        )
        alone = partial(
            jax.shard_map, mesh=self.mesh, check_vma=False,
            in_specs=(PartitionSpec("data"), PartitionSpec(None, "data"), PartitionSpec(), PartitionSpec()),
            out_specs=(PartitionSpec("data"), PartitionSpec(None, "data")),
        )  # fmt: skip

        def steps(state: Any, batches: Any, images: Any, labels: Any) -> Any:
            """What one device does alone with its part of the batches."""
            mine = jax.tree.map(lambda leaf: leaf[0], state)
            mine, losses = self._scan(mine, batches, images, labels)
            return jax.tree.map(lambda leaf: leaf[None], mine), losses[:, None]

        whole = alone(steps)
        self._compute_only = jax.jit(
            lambda state, batches: whole(state, batches, self.images, self.labels), donate_argnums=0
        )

    def compute_only(self, batches: Indices) -> Losses:
        import jax

        self.copy, losses = self._compute_only(self.copy, jax.device_put(batches, self.split))
        found: Losses = np.asarray(losses).mean(axis=1)
        return found

    def _steps(self, state: Any, batches: Any) -> Any:
        return self._scan(state, batches, self.images, self.labels)

    def _scan(self, state: Any, batches: Any, images: Any, labels: Any) -> Any:
        """One step per row of `batches` [k, b] ─▶ the state after them, losses [k]."""
        import jax

        step = partial(self._step, images=images, labels=labels)
        if len(batches) == 1:  # a loop of one is compiled as a loop, which is slow on CPUs
            state, loss = step(state, batches[0])
            return state, loss[None]
        return jax.lax.scan(step, state, batches)

    def _step(self, state: Any, chosen: Any, images: Any, labels: Any) -> Any:
        import jax
        import optax

        weights, moments = state

        def loss_of(weights: Any) -> Any:
            logits = forward(weights, images[chosen][..., None].astype(self.dtype) / 255)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[chosen]).mean()

        loss, gradients = jax.value_and_grad(loss_of)(weights)
        updates, moments = self.optimizer.update(gradients, moments, weights)
        return (optax.apply_updates(weights, updates), moments), loss

    def evaluate(self) -> float:
        import jax

        data = self.context.dataset
        infer = jax.jit(lambda weights, images: forward(weights, images).argmax(axis=1))
        right = 0
        for start in range(0, len(data.test_labels), 500):
            images = data.test_images[start : start + 500, ..., np.newaxis].astype(self.dtype) / 255
            guesses = np.asarray(infer(self.state[0], images))
            right += int(np.sum(guesses == data.test_labels[start : start + 500]))
        return right / len(data.test_labels)

    def inference(self, pool: NDArray[np.floating]) -> tuple[Logits, Logits]:
        import jax

        inputs = [jax.device_put(images[..., np.newaxis].astype(self.dtype), self.replicated) for images in pool]
        compiled = jax.jit(forward)

        def call(index: int) -> NDArray[np.floating]:
            return np.asarray(compiled(self.state[0], inputs[index]))

        def eager(index: int) -> NDArray[np.floating]:
            return np.asarray(forward(self.state[0], inputs[index]))

        return (eager if self.trial.execution == "eager" else call), eager

    def close(self) -> None:
        """Leave the other ranks; nothing to do for a single process."""

    def facts(self) -> Facts:
        import jax

        kind = jax.devices()[0].device_kind
        names = {"none": f"gpu {kind}" if self.trial.gpus_per_worker else "cpu", "emulated": "cpu", "real": tpu.name()}
        return Facts(
            device=names[self.trial.tpu],
            parameters=sum(int(leaf.size) for leaf in jax.tree.leaves(self.state[0])),
            intra_op_threads=intra_op_threads(),
            inter_op_threads=1,
        )
