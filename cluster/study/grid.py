"""A study ─▶ the points of its grid, and what of the grid cannot be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from cluster.study.schema import Study, StudyError, listed
from jobs.contract.catalog import STRATEGIES
from jobs.contract.parts import Steps
from jobs.contract.possible import executions, impossible, lacks, named_execution
from jobs.contract.trial import Trial, foreign


@dataclass(frozen=True)
class Grid:
    """What a study amounts to on a launcher: its points (trials with repeat 0), and what was left
    out of the full grid and why, one line each."""

    points: list[Trial]
    left_out: list[str]


def worker_counts(study: Study, largest: int) -> list[int]:
    """The numbers of workers; "auto" is 1, 2, 4, … and `largest`."""
    if not study.kind.scales:
        return [1]
    if study.workers != "auto":
        return sorted(set(study.workers))
    return sorted({1, largest} | {2**i for i in range(largest.bit_length()) if 2**i <= largest})


def grid(study: Study, largest: int) -> Grid:
    """The points of `study` where at most `largest` workers fit. Raises StudyError.

    Base cases run at one worker whatever `workers` says. A point that strong and weak scaling share
    is one point.
    """
    faults, left_out = [], []
    counts = worker_counts(study, largest)
    if study.kind.scales and "strong" in study.scaling and study.batch.global_ is not None:
        batch = study.batch.global_
        odd = [n for n in counts if batch % n]
        if study.workers == "auto" and odd:
            every = math.lcm(*counts)
            whole = f"{max(1, round(batch / every)) * every} is by all of {', '.join(map(str, counts))}"
            left_out.append(
                f"strong scaling at {', '.join(map(str, odd))} workers: batch.global {batch} is not divisible; {whole}"
            )
        elif odd:
            faults += [f"batch.global: {batch} is not divisible by {n} workers" for n in odd]
    if faults:
        raise StudyError(faults)
    named = dict.fromkeys(study.strategies)
    for name in named:
        base = STRATEGIES[name].base_case
        if base not in named:
            left_out.append(f"{name}: no speedup over plain {base}, which is not among the strategies; add {base}")
        elif base == name and not STRATEGIES[name].is_base_case and 1 not in counts:
            left_out.append(f"{name}: no speedup over itself at 1 worker, its base case; add 1 to workers")
    if max(counts) > 1 and any(STRATEGIES[name].is_base_case for name in named):
        bases = " and ".join(name for name in named if STRATEGIES[name].is_base_case)
        left_out.append(f"{bases} at more than 1 worker: a base case is a single process")
    for name in named:
        asked = listed(study.execution) if "execution" in study.kind.factors else []
        lacking = [e for e in asked if named_execution(name, e, study.workload) is None]
        if lacking:
            ways = ", ".join(executions(name, study.workload))
            said = lacks(name, "xla") if "xla" in lacking else None
            why = f" ({said})" if said else ""
            left_out.append(f"{name} with execution {', '.join(lacking)}: it has {ways}{why}")
    points: dict[str, Trial] = {}
    for name in named:
        faults += [f"{name} at 1 workers: {foreign(study.workload, key)}" for key in study.not_of_its_workload()]
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
    if not study.kind.scales:
        return list(dict.fromkeys(batches))
    if "strong" in study.scaling and study.batch.global_ is not None and study.batch.global_ % n == 0:
        batches.append(study.batch.global_)
    if "weak" in study.scaling and study.batch.per_worker is not None:
        batches.append(study.batch.per_worker * n)
    return list(dict.fromkeys(batches))


def _factors(study: Study, name: str) -> Iterator[dict[str, Any]]:
    """Each combination of the factors that can be. Eager PyTorch has one step per call. A way to
    execute that the strategy does not have is no combination of it."""
    values = {field: listed(getattr(study, field)) for field in study.kind.factors}
    values["gpus_per_worker"] = listed(study.resources.gpus_per_worker)
    if "steps_per_call" in values and not STRATEGIES[name].several_steps_per_call:
        values["steps_per_call"] = [1]
    if "execution" in values:
        ways = [named_execution(name, e, study.workload) for e in values["execution"]]
        values["execution"] = list(dict.fromkeys(way for way in ways if way))
    for combination in itertools.product(*values.values()):
        found = dict(zip(values, combination, strict=True))
        plain = found.get("precision", "float32"), found.get("layout", "default"), found["gpus_per_worker"]
        if not impossible(name, *plain, study.kind.no_gpus):
            yield found


def _impossible(study: Study, name: str) -> list[str]:
    """Why combinations of the factors cannot be, each reason once."""
    factors = study.kind.factors
    precisions = listed(study.precision) if "precision" in factors else ["float32"]
    layouts = listed(study.layout) if "layout" in factors else ["default"]
    asked = itertools.product(precisions, layouts, listed(study.resources.gpus_per_worker))
    whys = (impossible(name, *each, study.kind.no_gpus) for each in asked)
    return list(dict.fromkeys(why for why in whys if why))


def _trial(study: Study, name: str, workers: int, batch: int, factors: dict[str, Any]) -> Trial:
    kind = study.kind
    own = {key: getattr(study, key) for key in kind.model_fields if key in type(study).model_fields}
    if factors.get("learning_rate_rule", "none") != "none":
        own["reference_batch"] = study.reference_batch
    steps = study.steps.model_dump(exclude={"base_beside"}) | ({} if kind.scales else {"compute_only": 0})
    own["steps"] = Steps(**steps)
    place = {
        "strategy": name,
        "workers": workers,
        "global_batch": batch,
        "threads_per_worker": study.resources.threads_per_worker,
        "tpu": study.resources.tpu,
    }
    return kind.model_validate(own | place | factors)


def _said(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ")
