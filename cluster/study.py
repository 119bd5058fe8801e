"""Study: the study file, checked, and the list of trials it stands for.

A fault is one line: the place in the file, what is wrong, what would be right.
"""

from __future__ import annotations

import difflib
import itertools
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator

from jobs.results import FORMAT
from jobs.strategies import STRATEGIES
from jobs.trial import Count, Data, Limits, Optimizer, Part, Precision, Steps, Trial

Name = Annotated[str, StringConstraints(min_length=1, max_length=80, strip_whitespace=True)]
Scaling = Literal["strong", "weak"]


class StudyError(ValueError):
    """The study cannot be used; `faults` holds one line each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = list(faults)


class Batch(Part):
    """Samples per step: `global` over all workers at strong scaling, `per_worker` at weak."""

    model_config = Part.model_config | {"populate_by_name": True}

    global_: Count | None = Field(default=None, alias="global")
    per_worker: Count | None = None


class Repeats(Part):
    """Independent launches per point: at least `min`, then more, up to `max`, for points whose
    95% interval of the throughput is wider than ± `until_ci` (a share; 0.05 is ±5%)."""

    min: Count = 5
    max: Count | None = None
    until_ci: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Repeats:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max {self.max} is below min {self.min}; raise max or lower min")
        if (self.max is None) != (self.until_ci is None):
            raise ValueError("`max` and `until_ci` go together: give both or neither")
        return self


class Resources(Part):
    """Of each worker."""

    threads_per_worker: Count = 1


class LauncherOptions(BaseModel):
    """`kind` chooses the launcher; all other keys are that launcher's own and checked by it."""

    model_config = {"frozen": True, "extra": "allow"}

    kind: str = "local"


class Study(Part):
    """One designed experiment. Fields that take a list are factors: each value multiplies the grid."""

    name: Name
    strategies: Annotated[list[str], Field(min_length=1)]
    workers: Annotated[list[Count], Field(min_length=1)] | Literal["auto"] = "auto"
    scaling: Annotated[list[Scaling], Field(min_length=1)] = ["strong", "weak"]
    batch: Batch
    data: Data = Data()
    steps: Steps = Steps()
    repeats: Repeats = Repeats()
    seed: Annotated[int, Field(ge=0)] = 0
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    precision: Precision | list[Precision] = "float32"
    optimizer: Optimizer | list[Optimizer] = "adam"
    steps_per_call: Count | list[Count] = 1
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    resources: Resources = Resources()
    limits: Limits = Limits()
    launcher: LauncherOptions = LauncherOptions()
