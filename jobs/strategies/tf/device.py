"""Where and in what precision TensorFlow computes: its GPUs and their memory, types, TF32."""

from __future__ import annotations

import os
import sys
from typing import Any

from jobs.contract.trial import Trial
from jobs.machine.gpus import VISIBLE, GpuError

MIXED = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def settle(trial: Trial) -> list[Any]:
    """The GPUs of this process, none in a run on CPUs. Raises GpuError.

    Of the GPUs of the node, jobs/worker.py has left only this process's to be seen. TensorFlow would
    take all their memory at once, which NCCL and a second process then lack: it is told to let it grow.
    """
    import tensorflow as tf

    wanted = trial.gpus_per_process
    if not wanted:
        return []
    found: list[Any] = tf.config.list_physical_devices("GPU")
    if len(found) != wanted:
        shown = os.environ.get(VISIBLE)
        raise GpuError(f"TensorFlow {tf.__version__} finds {len(found)} of {wanted} GPUs ({VISIBLE}={shown})")
    for gpu in found:
        tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.experimental.enable_tensor_float_32_execution(trial.recipe.precision == "tf32")
    return found


def variable_type(precision: str) -> str:
    """The type of weights, losses and updates."""
    return "float64" if precision == "float64" else "float32"


def set_types(precision: str) -> None:
    """Make `precision` Keras' own: 16 bits are its mixed policies, float32 weights and 16-bit layers."""
    import keras

    keras.config.set_floatx(variable_type(precision))
    keras.config.set_dtype_policy(MIXED.get(precision, variable_type(precision)))


def describe(gpus: list[Any]) -> str:
    """`cpu`, or `gpu` and the device's name as TensorFlow has it."""
    import tensorflow as tf

    if not gpus:
        return "cpu"
    return f"gpu {tf.config.experimental.get_device_details(gpus[0]).get('device_name', 'unknown')}"


def versions(gpus: list[Any]) -> dict[str, str]:
    """CUDA and cuDNN that TensorFlow was built with, as it reports them; empty on CPUs. It does not tell
    its NCCL."""
    import tensorflow as tf

    built = tf.sysconfig.get_build_info() if gpus else {}
    return {f"{name} (tensorflow)": str(built.get(f"{name}_version")) for name in ("cuda", "cudnn") if gpus}


# Keras and TensorFlow Lite import these where they are installed, for wrappers and plots that no rank
# has a use for; together they take longer than TensorFlow itself.
BESIDES = ("jax", "matplotlib", "pandas", "sklearn")


def tensorflow() -> Any:
    """The module, imported as where nothing of BESIDES is installed. They can be imported after it."""
    absent = [name for name in BESIDES if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: an import of it fails
    try:
        import tensorflow
    finally:
        for name in absent:
            del sys.modules[name]
    return tensorflow
