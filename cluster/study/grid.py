"""TODO."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from cluster.study.schema import Study, StudyError, listed
from jobs.contract.catalog import STRATEGIES, base_case
from jobs.contract.possible import NO_XLA, executions, impossible, named_execution
from jobs.contract.trial import Trial


@dataclass(frozen=True)
class Grid:
    """What a study amounts to on a launcher: its points (trials with repeat 0), and what was left
    out of the full grid and why, one line each."""

    points: list[Trial]
    left_out: list[str]


def worker_counts(study: Study, largest: int) -> list[int]:
    """The numbers of workers; "auto" is 1, 2, 4, … and `largest`, as far as they divide the batch."""
    if study.workload != "train":
        return [1]
    if study.workers != "auto":
        return sorted(set(study.workers))
    counts = {1, largest} | {2**i for i in range(largest.bit_length()) if 2**i <= largest}
    batch = study.batch.global_ if "strong" in study.scaling else None
    return sorted(n for n in counts if batch is None or batch % n == 0)


def grid(study: Study, largest: int) -> Grid:
    """The points of `study` where at most `largest` workers fit. Raises StudyError.

    Base cases run at one worker whatever `workers` says. A point that strong and weak scaling share
    is one point.
    """
    faults, left_out = [], []
    counts = worker_counts(study, largest)
    if study.workload == "train" and "strong" in study.scaling and study.batch.global_ is not None:
        for n in counts:
            if study.batch.global_ % n:
                faults.append(f"batch.global: {study.batch.global_} is not divisible by {n} workers")
    if faults:
        raise StudyError(faults)
    named = dict.fromkeys(study.strategies)
    for name in named:
        base = base_case(name)
        if base not in named:
            left_out.append(f"{name}: no speedup over plain {base}, which is not among the strategies; add {base}")
        elif STRATEGIES[name].own_base and 1 not in counts:
            left_out.append(f"{name}: no speedup over itself at 1 worker, its base case; add 1 to workers")
    if max(counts) > 1 and any(STRATEGIES[name].is_base_case for name in named):
        bases = " and ".join(name for name in named if STRATEGIES[name].is_base_case)
        left_out.append(f"{bases} at more than 1 worker: a base case is a single process")
    for name in named:
        lacking = [e for e in listed(study.execution) if named_execution(name, e, study.workload) is None]
        if lacking:
            ways = ", ".join(executions(name, study.workload))
            why = f" ({NO_XLA[name]})" if "xla" in lacking and name in NO_XLA else ""
            left_out.append(f"{name} with execution {', '.join(lacking)}: it has {ways}{why}")
    points: dict[str, Trial] = {}
    for name in named:
        whys = _impossible(study, name)
        # Where there are other values beside them it is a part of the grid that is not there.
        (left_out if any(_factors(study, name)) else faults).extend(f"{name} with {why}" for why in whys)
        for n in [1] if STRATEGIES[name].is_base_case else counts:
            for batch in _batches(study, n):
                for factors in _factors(study, name):
                    try:
                        trial = _trial(study, name, n, batch, factors)
                    except ValidationError as error:
                        faults += [f"{name} at {n} workers: {_said(e)}" for e in error.errors()]
                        continue
                    points.setdefault(trial.point, trial)
    if faults:
        raise StudyError(list(dict.fromkeys(faults)))
    return Grid(list(points.values()), left_out)


def _batches(study: Study, n: int) -> list[int]:
    batches = list(study.batch.sizes or [])
    if study.workload != "train":
        return list(dict.fromkeys(batches))
    if "strong" in study.scaling and study.batch.global_ is not None:
        batches.append(study.batch.global_)
    if "weak" in study.scaling and study.batch.per_worker is not None:
        batches.append(study.batch.per_worker * n)
    return list(dict.fromkeys(batches))


FACTORS = (
    "model", "precision", "layout", "optimizer", "learning_rate_rule", "learning_rate_warmup", "readers", "source",
)  # fmt: skip


def _factors(study: Study, name: str) -> Iterator[dict[str, Any]]:
    """Each combination of the factors that can be. Eager PyTorch has one step per call. A way to
    execute that the strategy does not have is no combination of it."""
    values = {field: listed(getattr(study, field)) for field in FACTORS}
    values["gpus_per_worker"] = listed(study.resources.gpus_per_worker)
    values["steps_per_call"] = listed(study.steps_per_call) if STRATEGIES[name].has_steps_per_call else [1]
    ways = [named_execution(name, e, study.workload) for e in listed(study.execution)]
    values["execution"] = list(dict.fromkeys(way for way in ways if way))
    for combination in itertools.product(*values.values()):
        found = dict(zip(values, combination, strict=True))
        if not impossible(name, study.workload, found["precision"], found["layout"], found["gpus_per_worker"]):
            yield found


def _impossible(study: Study, name: str) -> list[str]:
    """Why combinations of the factors cannot be, each reason once."""
    asked = itertools.product(listed(study.precision), listed(study.layout), listed(study.resources.gpus_per_worker))
    whys = (impossible(name, study.workload, *each) for each in asked)
    return list(dict.fromkeys(why for why in whys if why))


def _trial(study: Study, name: str, workers: int, batch: int, factors: dict[str, Any]) -> Trial:
    return Trial(
        workload=study.workload,
        strategy=name,
        workers=workers,
        global_batch=batch,
        seed=study.seed,
        data=study.data,
        steps=study.steps.model_copy(update={"compute_only": 0}) if study.workload != "train" else study.steps,
        files=study.files,
        learning_rate=study.learning_rate,
        reference_batch=study.reference_batch if factors["learning_rate_rule"] != "none" else None,
        until_accuracy=study.until_accuracy,
        threads_per_worker=study.resources.threads_per_worker,
        tpu=study.resources.tpu,
        limits=study.limits,
        telemetry=study.telemetry,
        **factors,
    )


def _said(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ")
