"""Study: the study file, checked, and the points it stands for.

A fault is one line: the place in the file, what is wrong, what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, create_model, field_validator, model_validator
from pydantic_core import PydanticCustomError

from jobs.contract.catalog import STRATEGIES, ModelName
from jobs.contract.parts import TPU, Count, Data, Gpus, Limits, Part, Telemetry
from jobs.contract.parts import Steps as TrialSteps
from jobs.contract.possible import accuracy_fault
from jobs.contract.recipe import (
    Execution,
    Files,
    Layout,
    LearningRateRule,
    Optimizer,
    Precision,
    Recipe,
    Source,
)
from jobs.contract.registry import RegistryError
from jobs.contract.trial import WORKLOADS, Trial, foreign

Name = Annotated[str, StringConstraints(min_length=1, max_length=80, strip_whitespace=True)]
Scaling = Literal["strong", "weak"]
WarmUp = Annotated[int, Field(ge=0)]


def listed(value: Any) -> list[Any]:
    """What a study gives for a factor, each value once."""
    return list(dict.fromkeys(value)) if isinstance(value, list) else [value]


class Steps(TrialSteps):
    """Those of a trial, and whether the base case runs beside the ranks, by turns, where phases are in blocks: `auto`,
    where all ranks are on CPUs of one host and its turns take at most half of a launch."""

    base_beside: Literal["auto", "never"] = "auto"


class Batch(Part):
    """Samples per step: `global` over all workers at strong scaling, `per_worker` at weak. For
    infer and ingest instead `sizes`, images per call or batch. `reference` is the global batch that
    `learning_rate` is meant for where a `learning_rate_rule` adapts it: by default one worker's at weak
    scaling."""

    model_config = Part.model_config | {"populate_by_name": True}

    global_: Count | None = Field(default=None, alias="global")
    per_worker: Count | None = None
    sizes: Annotated[list[Count], Field(min_length=1)] | None = None
    reference: Count | None = None


class Repeats(Part):
    """Independent launches per point: at least `min`, then more, up to `max`, for points whose
    95% interval of the throughput is wider than ± `until_ci` (a share: 0.05 is ±5%)."""

    min: Count = 5
    max: Count | None = None
    until_ci: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Repeats:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max {self.max} is below min {self.min}; raise max or lower min")
        if (self.max is None) != (self.until_ci is None):
            raise ValueError("`max` and `until_ci` go together; give both or neither")
        return self


class Resources(Part):
    """Of each worker. With a GPU, each worker has one of its own. `tpu`: "real", a core of a TPU;
    "emulated", a CPU device that stands in for one."""

    threads_per_worker: Count = 1
    gpus_per_worker: Gpus | Annotated[list[Gpus], Field(min_length=1)] = 0
    tpu: TPU = "none"

    @property
    def most_gpus(self) -> int:
        """Of one worker, over all trials."""
        return max(self.gpus_per_worker) if isinstance(self.gpus_per_worker, list) else self.gpus_per_worker


class LauncherOptions(BaseModel):
    """`kind` chooses the launcher; all other keys are that launcher's own and checked by it."""

    model_config = {"frozen": True, "extra": "allow"}

    kind: str = "local"

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Study(Part):
    """One designed experiment. A factor may be a list: each value multiplies the grid."""

    name: Name
    workload: str = "train"
    strategies: Annotated[list[str], Field(min_length=1)]
    workers: Annotated[list[Count], Field(min_length=1)] | Literal["auto"] = "auto"
    scaling: Annotated[list[Scaling], Field(min_length=1)] = ["strong", "weak"]
    batch: Batch
    model: ModelName | Annotated[list[ModelName], Field(min_length=1)] = "cnn"
    data: Data = Data()
    steps: Steps = Steps()
    repeats: Repeats = Repeats()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    precision: Precision | Annotated[list[Precision], Field(min_length=1)] = "float32"
    layout: Layout | Annotated[list[Layout], Field(min_length=1)] = "default"
    optimizer: Optimizer | Annotated[list[Optimizer], Field(min_length=1)] = "adam"
    steps_per_call: Count | Annotated[list[Count], Field(min_length=1)] = 1
    execution: Execution | Annotated[list[Execution], Field(min_length=1)] = "default"
    readers: Count | Annotated[list[Count], Field(min_length=1)] = 1
    source: Source | Annotated[list[Source], Field(min_length=1)] = "png"
    files: Files = Files()
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    learning_rate_rule: LearningRateRule | Annotated[list[LearningRateRule], Field(min_length=1)] = "none"
    learning_rate_warmup: WarmUp | Annotated[list[WarmUp], Field(min_length=1)] = 0
    until_accuracy: Annotated[float, Field(gt=0, lt=1)] | None = None
    resources: Resources = Resources()
    limits: Limits = Limits()
    telemetry: Telemetry = Telemetry()
    launcher: LauncherOptions = LauncherOptions()

    @field_validator("workload")
    @classmethod
    def _workload_known(cls, name: str) -> str:
        if name not in WORKLOADS:
            *others, last = map(repr, WORKLOADS)
            raise PydanticCustomError("literal_error", f"Input should be {', '.join(others)} or {last}")
        WORKLOADS[name]  # another package's may be broken
        return name

    @model_validator(mode="after")
    def _batch_for_scaling(self) -> Study:
        for key in self.not_of_its_workload():
            if any(key in kind.own for kind in WORKLOADS.ours.values()) or key == "until_accuracy":
                raise ValueError(foreign(self.workload, key))
        if why := accuracy_fault(self.until_accuracy, self.steps, self.data):
            raise ValueError(why)
        if not self.kind.scales:
            if self.batch.sizes is None or self.batch.global_ or self.batch.per_worker:
                raise ValueError(f"batch: {self.workload} has no scaling; give batch.sizes, and nothing else")
            if self.workers not in ("auto", [1]):
                raise ValueError(f"workers: {self.workload} trials are single processes; leave it out")
            return self
        if self.batch.sizes is not None:
            others = " and ".join(name for name, kind in WORKLOADS.ours.items() if not kind.scales)
            raise ValueError(f"batch.sizes: belongs to {others}; training has batch.global and batch.per_worker")
        if "strong" in self.scaling and self.batch.global_ is None:
            raise ValueError("batch.global: is missing; strong scaling needs it")
        if "weak" in self.scaling and self.batch.per_worker is None:
            raise ValueError("batch.per_worker: is missing; weak scaling needs it")
        if listed(self.learning_rate_rule) != ["none"] and self.reference_batch is None:
            raise ValueError(
                "batch.reference: is missing; without weak scaling, learning_rate_rule needs the batch that "
                "learning_rate is meant for"
            )
        return self

    @property
    def kind(self) -> type[Trial]:
        """What its trials are."""
        return WORKLOADS[self.workload]

    def not_of_its_workload(self) -> list[str]:
        """The keys that are given, are fields of some workload's trials, and not of its own's."""
        known = {key for kind in WORKLOADS.ours.values() for key in kind.model_fields} - self.kind.model_fields.keys()
        own = type(self).model_fields
        return [key for key in own if key in known and getattr(self, key) != own[key].default]

    @property
    def format(self) -> int:
        """The oldest results format that can hold it."""
        return 1 if self.steps.blocks is None else 2

    @property
    def reference_batch(self) -> int | None:
        """The global batch that `learning_rate` is meant for."""
        return self.batch.reference or (self.batch.per_worker if "weak" in self.scaling else None)

    @property
    def slug(self) -> str:
        """The name as a folder's: letters, digits, dot, dash and underscore only."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip(".-") or "study"


def study_of(workload: object) -> type[Study]:
    """The keys of a study of `workload`: those of `Study`, and the fields that another package's workload adds.

    One that is among its `factors` may be a list.
    """
    try:
        kind = WORKLOADS[workload] if isinstance(workload, str) and workload in WORKLOADS else Trial
    except RegistryError:
        return Study  # which says so
    added: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        if name not in Study.model_fields and name not in Trial.model_fields and name not in Recipe.model_fields:
            one: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            many: Any = one | Annotated[list[one], Field(min_length=1)] if name in kind.factors else one
            added[name] = (many, Field(default=field.default))
    return create_model("Study", __base__=Study, **added) if added else Study


class StudyError(ValueError):
    """The study cannot be used as it is; `faults` holds one line each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = list(faults)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a study file, for editors."""
    schema = Study.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "A study of the scaling project"
    schema["properties"]["strategies"]["items"]["enum"] = list(STRATEGIES)
    schema["properties"]["workload"]["enum"] = list(WORKLOADS)
    return schema


def resolved(study: Study) -> dict[str, Any]:
    """The study with every default filled in, as `study.yaml` in the results folder holds it."""
    content = study.model_dump(mode="json", by_alias=True)
    content["launcher"] = {"kind": study.launcher.kind, **study.launcher.options}
    if study.steps.blocks is None:
        del content["steps"]["blocks"], content["steps"]["base_beside"]
    return content
