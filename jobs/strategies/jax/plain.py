"""What the JAX strategies share: the CNN as a pure function, Adam, k steps per host call.

The data are resident as uint8 and only index batches go in. Over n devices the batch is laid out over a
mesh and everything else replicated; the compiler then sums the gradients (data parallelism by sharding:
jax.sharding and `jit`, as JAX's documentation has it). On CPUs a device is a virtual one of XLA's.

Run one: `python -m jobs.worker TRIAL_DIR` with strategy jax or jax-sharded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.contract.catalog import StrategyInfo
from jobs.data.dataset import Indices
from jobs.machine import tpu
from jobs.machine.gpus import VISIBLE, GpuError
from jobs.models import layers
from jobs.strategies import learning_rate
from jobs.strategies.interface import Facts, Logits, Losses, Strategy
from jobs.strategies.jax.adam import torch_adam

EXECUTIONS = {"infer": ("default", "eager")}  # "default" is compiled by XLA
LACKS = {
    "channels-last": "{strategy} has its images channels-last (NHWC) as they are; take default",
    "float16": "{strategy} has float32, float64 and bfloat16",
    "ingest": "{strategy} has no input pipeline of its own; use torch and tf",
    "resnet50": "{strategy} trains the CNN only",
}
INFO = StrategyInfo(
    "JAX",
    "none",
    base_case="jax",
    needs=("jax", "optax"),
    gpu_needs=("jax_cuda13_plugin",),
    tpu="can",
    several_steps_per_call=True,
    executions=EXECUTIONS,
    lacks=LACKS,
)


def forward(weights: dict[str, Any], images: Any) -> Any:
    """The article's CNN: images [b, 28, 28, 1] in 0…1 ─▶ logits [b, 10]; weights as jobs.models lays them out.

    The arithmetic is of the images' type, whatever that of the weights.
    """
    import jax

    weights = {name: value.astype(images.dtype) for name, value in weights.items()}
    for layer in ("conv1", "conv2"):
        images = jax.lax.conv_general_dilated(
            images, weights[f"{layer}/kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        images = jax.nn.relu(images + weights[f"{layer}/bias"])
    return images.reshape(len(images), -1) @ weights["dense/kernel"] + weights["dense/bias"]


class JaxLoop(Strategy):
    """Training on one device; `jax-sharded` lays the batch over several."""

    devices = 1

    @property
    def platform(self) -> str:
        """What computes, as JAX calls it; it takes no other in its place."""
        return "tpu" if self.trial.tpu == "real" else "cuda" if self.trial.gpus_per_worker else "cpu"

    def prepare(self) -> None:
        os.environ["JAX_PLATFORMS"] = self.platform
        if self.platform == "cpu":
            # XLA:CPU sizes its one thread pool, which its devices share, by this variable.
            os.environ["NPROC"] = str(self.trial.threads_per_worker * self.devices)
            flags = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={self.devices}".strip()
        if self.platform == "cuda":  # a GPU's memory grows as it is needed instead of being taken whole
            os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        import jax

        jax.config.update("jax_enable_x64", self.recipe.precision == "float64")
        if self.platform == "cuda":  # where it is said; JAX's own choice for float32 there is TF32
            tf32 = self.recipe.precision == "tf32"
            jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "float32")

    def build(self) -> None:
        import jax
        import jax.numpy as jnp
        import optax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        found = self._found()
        if self.devices > len(found):
            raise RuntimeError(f"{self.devices} workers on {len(found)} devices; use at most {len(found)}")
        self.mesh = Mesh(np.array(found[: self.devices]), ("data",))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.split = NamedSharding(self.mesh, PartitionSpec("data"))  # of the first dimension
        precision = self.recipe.precision
        self.dtype = jnp.dtype("float64" if precision == "float64" else "float32")
        self.arithmetic = jnp.dtype("bfloat16") if precision == "bfloat16" else self.dtype
        data = self.context.dataset
        self.images = jax.device_put(data.train_images, self.replicated)
        self.labels = jax.device_put(data.train_labels.astype(np.int32), self.replicated)
        shipped = self.recipe.optimizer == "framework-default"
        self.optimizer = optax.adam(self.rate) if shipped else torch_adam(self.rate)
        self.start_over()
        self._train = self._compiled(self._step)

    def _found(self) -> list[Any]:
        """The devices of the platform. Raises GpuError where there is no GPU, for which JAX has no words."""
        import jax

        try:
            found: list[Any] = jax.devices()
        except (RuntimeError, AssertionError) as error:
            if self.platform != "cuda":
                raise
            shown = os.environ.get(VISIBLE)
            raise GpuError(f"JAX {jax.__version__} finds no GPU ({VISIBLE}={shown}) {error}".strip()) from error
        return found

    def _compiled(self, step: Callable[[Any, Any, Any, Any], Any]) -> Callable[[Any, Indices], Any]:
        """`step`(state, indices [b], images, labels) as a call of k: state, batches [k, b] ─▶ state, losses [k].

        On a TPU or a GPU the loop over k is part of the program. XLA:CPU computes convolutions within a loop
        many times slower, so there the k steps are told one after the other, and waited for once.
        """
        import jax

        if self.platform != "cpu" and self.recipe.steps_per_call > 1:
            return self._looped(step)
        one = jax.jit(step, donate_argnums=0)

        def steps(state: Any, batches: Indices) -> Any:
            losses = []
            for batch in batches:
                state, loss = one(state, jax.device_put(batch, self.split), self.images, self.labels)
                losses.append(loss)
            return state, np.stack([np.asarray(loss) for loss in losses])

        return steps

    def _looped(self, step: Callable[[Any, Any, Any, Any], Any]) -> Callable[[Any, Indices], Any]:
        import jax
        from jax.sharding import NamedSharding, PartitionSpec

        def steps(state: Any, batches: Any, images: Any, labels: Any) -> Any:
            return jax.lax.scan(lambda state, batch: step(state, batch, images, labels), state, batches)

        program, split = jax.jit(steps, donate_argnums=0), NamedSharding(self.mesh, PartitionSpec(None, "data"))

        def call(state: Any, batches: Indices) -> Any:
            state, losses = program(state, jax.device_put(batches, split), self.images, self.labels)
            return state, np.asarray(losses)

        return call

    def start_over(self) -> None:
        """Put weights and moments to where training begins."""
        import jax

        weights = {
            name: value.astype(self.dtype)
            for name, value in layers.load("cnn").initial_weights(self.trial.seed).items()
        }
        self.state = jax.device_put((weights, self.optimizer.init(weights)), self.replicated)

    def rate(self, step: Any) -> Any:
        """jobs.strategies.learning_rate.at, of a step that is known on the device only."""
        import jax.numpy as jnp

        warmup, peak = self.recipe.learning_rate_warmup, learning_rate.peak(self.recipe, self.trial.global_batch)
        return peak * jnp.minimum((step + 1).astype(self.dtype) / warmup, 1.0) if warmup else peak

    def train(self, batches: Indices) -> Losses:
        losses: Losses
        self.state, losses = self._train(self.state, batches)
        return losses

    def copy_state(self) -> None:
        """A copy of the state for each device, side by side: [devices, …]."""
        import jax
        import jax.numpy as jnp
        from jax.sharding import PartitionSpec

        self.copy = jax.tree.map(
            lambda leaf: jax.device_put(jnp.broadcast_to(leaf, (self.devices, *leaf.shape)), self.split), self.state
        )
        apart, same = PartitionSpec("data"), PartitionSpec()

        def alone(state: Any, chosen: Any, images: Any, labels: Any) -> Any:
            """What one device does with its part of the batch, asking no other."""
            mine, loss = self._step(jax.tree.map(lambda leaf: leaf[0], state), chosen, images, labels)
            return jax.tree.map(lambda leaf: leaf[None], mine), loss[None]

        mapped = jax.shard_map(
            alone, mesh=self.mesh, in_specs=(apart, apart, same, same), out_specs=(apart, apart), check_vma=False
        )
        self._compute_only = self._compiled(mapped)

    def compute_only(self, batches: Indices) -> Losses:
        self.copy, losses = self._compute_only(self.copy, batches)
        found: Losses = losses.mean(axis=1)  # [k, devices]
        return found

    def _step(self, state: Any, chosen: Any, images: Any, labels: Any) -> Any:
        import jax
        import optax

        weights, moments = state

        def loss_of(weights: Any) -> Any:
            logits = forward(weights, images[chosen].astype(self.arithmetic) / 255).astype(self.dtype)
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
            images = data.test_images[start : start + 500].astype(self.arithmetic) / 255
            guesses = np.asarray(infer(self.state[0], images))
            right += int(np.sum(guesses == data.test_labels[start : start + 500]))
        return right / len(data.test_labels)

    def inference(self, pool: NDArray[np.floating]) -> tuple[Logits, Logits]:
        import jax

        inputs = [jax.device_put(images.astype(self.arithmetic), self.replicated) for images in pool]
        compiled = jax.jit(forward)

        def call(index: int) -> NDArray[np.floating]:
            return np.asarray(compiled(self.state[0], inputs[index]), self.dtype)

        def eager(index: int) -> NDArray[np.floating]:
            return np.asarray(forward(self.state[0], inputs[index]), self.dtype)

        return (eager if self.recipe.execution == "eager" else call), eager

    def close(self) -> None:
        """Leave the other ranks; nothing to do for a single process."""

    def facts(self) -> Facts:
        import jax

        on_gpu, first = self.platform == "cuda", jax.devices()[0]
        return Facts(
            device=tpu.name() if self.platform == "tpu" else f"gpu {first.device_kind}" if on_gpu else "cpu",
            parameters=sum(int(leaf.size) for leaf in jax.tree.leaves(self.state[0])),
            intra_op_threads=intra_op_threads(),
            inter_op_threads=1,
            versions={"cuda (jax)": str(first.client.platform_version)} if on_gpu else {},
        )


STRATEGY = JaxLoop
POOLS = ("tf_XLAEigen", "XLAEigen")  # the pool that operations are spread over, which all CPU devices share


def intra_op_threads(tasks: Path = Path("/proc/self/task")) -> int:
    """Threads of this process in XLA's pool; the kernel keeps 15 characters of a thread's name."""
    names = [path.read_text().strip() for path in tasks.glob("*/comm")]
    return sum(name.startswith(POOLS) for name in names)
