"""What can be combined: asked by a trial of itself, and by a study of each point of its grid."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.contract.catalog import MODELS, STRATEGIES
from jobs.contract.parts import Data, Gpus, Steps
from jobs.contract.recipe import Execution, Layout, Precision, Recipe
from jobs.contract.trial import Trial


def lacks(strategy: str, value: str) -> str | None:
    """Why `strategy` does not have this value of a factor, this workload or this model; None if it does not say."""
    why = STRATEGIES[strategy].lacks.get(value)
    return why.format(strategy=strategy) if why else None


def impossible(strategy: str, precision: Precision, layout: Layout, gpus: Gpus, no_gpus: str = "") -> str | None:
    """Why this combination cannot be, None if it can. `no_gpus` is why the workload takes none."""
    if precision == "tf32" and not gpus:
        return "precision tf32: is a mode of NVIDIA GPUs; set resources.gpus_per_worker: 1, or take float32"
    if why := lacks(strategy, layout):
        return f"layout {layout}: {why}"
    if why := lacks(strategy, precision):
        return f"precision {precision}: {why}"
    if gpus and not STRATEGIES[strategy].gpus:
        return f"gpus_per_worker 1: {strategy} does not compute on GPUs; take 0"
    if gpus and no_gpus:
        return f"gpus_per_worker 1: {no_gpus}; take 0"
    return None


def model_faults(trial: Trial, recipe: Recipe) -> Iterator[str]:
    """Why the trial's strategy cannot have the model, or execute it, as `recipe` says."""
    info, side = MODELS[recipe.model], trial.data.side
    if why := lacks(trial.strategy, recipe.model):
        yield f"model {recipe.model}: {why}"
    if recipe.model != "cnn" and trial.data.kind in ("digits", "mnist"):
        yield f"model {recipe.model}: {trial.data.kind} are the CNN's; use data.kind synthetic or images"
    if side is not None and side not in info.sides:
        sides = f"{info.sides[0]} to {info.sides[-1]}" if len(info.sides) > 1 else f"{info.side}"
        yield f"data.side: {recipe.model} takes {sides} pixels, not {side}"
    ways = executions(trial.strategy, trial.workload)
    if recipe.execution not in ways:
        yield f"execution {recipe.execution}: {trial.strategy} has {', '.join(ways)}"
    if recipe.execution in ("onnxruntime", "tflite") and (recipe.precision != "float32" or trial.gpus_per_worker):
        yield f"execution {recipe.execution}: runs in float32 on CPUs; use that precision and no GPU"
    if recipe.execution == "torchscript" and recipe.precision in ("bfloat16", "float16"):
        yield f"execution torchscript: a trace in {recipe.precision} holds no autocast; use float32"


def single_process_faults(trial: Trial) -> Iterator[str]:
    """Why a workload of a single process, in which nothing is exchanged, cannot run like this."""
    if not STRATEGIES[trial.strategy].is_base_case:
        yield f"workload {trial.workload}: {trial.strategy} adds nothing to it; use a base case"
    if why := lacks(trial.strategy, trial.workload):
        yield f"workload {trial.workload}: {why}"
    if trial.steps.compute_only:
        yield f"workload {trial.workload}: has no compute-only steps and one step per call"
    if trial.steps.at_most is not None or trial.steps.evaluate_every != Steps().evaluate_every:
        yield "steps.at_most and steps.evaluate_every: belong to until_accuracy; leave them out"


def accuracy_fault(until_accuracy: float | None, steps: Steps, data: Data) -> str | None:
    """Why the time to `until_accuracy` cannot be measured, None if it can or is not asked for."""
    if until_accuracy is None:
        if steps.at_most is not None or steps.evaluate_every != Steps().evaluate_every:
            return "steps.at_most and steps.evaluate_every: belong to until_accuracy; leave them out"
    elif data.kind == "synthetic":
        return "until_accuracy: synthetic images are noise, nothing can be learnt; take digits or mnist"
    elif steps.at_most is None:
        return "steps.at_most: is missing; until_accuracy needs a number of steps to give up after"
    return None


# What "default" is called where ways to execute are compared.
PLAIN_EXECUTION = {"PyTorch": "eager", "TensorFlow": "graph", "JAX": "xla"}


def executions(strategy: str, workload: str = "train") -> tuple[str, ...]:
    """The values of `execution` that `strategy` can run `workload` with; the strategy's file says what they are."""
    return tuple(STRATEGIES[strategy].executions.get(workload, ("default",)))


def named_execution(strategy: str, execution: Execution, workload: str = "train") -> Execution | None:
    """The value for `strategy` of what a study calls "eager", "graph" or "xla"; None if it has none."""
    if execution == "default" or execution == PLAIN_EXECUTION.get(STRATEGIES[strategy].framework):
        return "default"
    return execution if execution in executions(strategy, workload) else None
