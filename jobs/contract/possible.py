"""TODO."""

from __future__ import annotations

from jobs.contract.catalog import STRATEGIES
from jobs.contract.parts import Data, Execution, Gpus, Layout, Precision, Steps, Workload


def impossible(strategy: str, workload: Workload, precision: Precision, layout: Layout, gpus: Gpus) -> str | None:
    """Why this combination cannot be, None if it can."""
    if precision == "tf32" and not gpus:
        return "precision tf32: is a mode of NVIDIA GPUs; set resources.gpus_per_worker: 1, or take float32"
    if layout == "channels-last" and STRATEGIES[strategy].framework != "PyTorch":
        return f"layout channels-last: {strategy} has its images channels-last (NHWC) as they are; take default"
    if layout == "channels-last" and STRATEGIES[strategy].tpu != "never":
        return f"layout channels-last: {strategy} leaves the layout to XLA; take default"
    if (
        STRATEGIES[strategy].tpu != "never"
        and STRATEGIES[strategy].framework != "TensorFlow"
        and (precision == "float16" or (precision == "tf32" and not _on_gpus(strategy)))
    ):
        return f"precision {precision}: {strategy} has float32, float64 and bfloat16"
    if precision == "float16" and strategy in ("tf-mirrored", "tf-multiworker", "tf-tpu"):
        return (
            f"precision float16: under {strategy} Keras scales the loss by each replica's own gradients, and they "
            "would part; take bfloat16"
        )
    if gpus and not _on_gpus(strategy):
        return f"gpus_per_worker 1: {strategy} does not compute on GPUs; take 0"
    if gpus and workload == "ingest":
        return "gpus_per_worker 1: files are read and decoded by CPUs; take 0"
    return None


def _on_gpus(strategy: str) -> bool:
    """Whether it can: PyTorch/XLA 2.9 has no GPUs any more, and a TPU's strategies have none."""
    return STRATEGIES[strategy].tpu != "only" and "torch_xla" not in STRATEGIES[strategy].needs


def accuracy_fault(until_accuracy: float | None, steps: Steps, data: Data, workload: Workload) -> str | None:
    """Why the time to `until_accuracy` cannot be measured, None if it can or is not asked for."""
    if until_accuracy is None:
        if steps.at_most is not None or steps.evaluate_every != Steps().evaluate_every:
            return "steps.at_most and steps.evaluate_every: belong to until_accuracy; leave them out"
    elif workload != "train":
        return f"until_accuracy: workload {workload} does not train; leave it out"
    elif data.kind == "synthetic":
        return "until_accuracy: synthetic images are noise, nothing can be learnt; take digits or mnist"
    elif steps.at_most is None:
        return "steps.at_most: is missing; until_accuracy needs a number of steps to give up after"
    return None


# What "default" is called where ways to execute are compared.
PLAIN_EXECUTION = {"PyTorch": "eager", "TensorFlow": "graph", "JAX": "xla"}


def executions(strategy: str, workload: Workload = "train") -> tuple[Execution, ...]:
    """The values of `execution` that `strategy` can run with.

    "graph" for PyTorch is torch.compile; "eager" for TensorFlow is the same code without tf.function,
    and "xla" its tf.function with jit_compile, both in the plain process only: the tf.distribute
    strategies' collectives want a graph, and on CPUs are no XLA operations. A model that is only called
    can also be a traced and frozen TorchScript, an ONNX model, a SavedModel, or a TFLite model. JAX and what runs on a
    TPU is compiled by XLA by default.
    """
    info = STRATEGIES[strategy]
    if workload == "ingest" or "torch_xla" in info.needs:
        return ("default",)
    if info.framework == "JAX":
        return ("default", "eager") if workload == "infer" else ("default",)
    if info.framework == "PyTorch":
        return ("default", "graph", "torchscript", "onnxruntime") if workload == "infer" else ("default", "graph")
    if workload == "infer":
        return ("default", "eager", "xla", "savedmodel", "tflite")
    return ("default", "eager", "xla") if info.is_base_case else ("default",)


# Why a strategy has no XLA where its framework's plain process has.
NO_XLA = {
    "tf-mirrored": "its replicas meet in every step, which cannot be inside one compiled program",
    "tf-multiworker": "its replicas meet in every step, which cannot be inside one compiled program",
    "tf-horovod": "Horovod's operations for XLA are not built: TensorFlow has moved what they are made of",
}


def named_execution(strategy: str, execution: str, workload: Workload = "train") -> Execution | None:
    """The value for `strategy` of what a study calls "eager", "graph" or "xla"; None if it has none."""
    if execution == "default" or execution == PLAIN_EXECUTION[STRATEGIES[strategy].framework]:
        return "default"
    return next((e for e in executions(strategy, workload) if e == execution), None)
