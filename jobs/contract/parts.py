"""What a trial and a study file are both made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Gpus = Annotated[int, Field(ge=0, le=1)]
TPU = Literal["none", "real", "emulated"]


class Part(BaseModel):
    """A frozen piece of a trial or a study; an unknown key, or a text for a number, is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Data(Part):
    """Which images: `digits` are real and ship with scikit-learn, `mnist` are read from `path`
    (a folder with the four IDX files, or mnist.npz; fetched from OpenML if no path is given),
    `synthetic` are noise, `images` are the PNG and JPEG files in `path`, a folder with a sub-folder for each
    class; both with `side` pixels on a side (the model's own size if not given)."""

    kind: Literal["digits", "mnist", "synthetic", "images"] = "digits"
    path: str | None = None
    side: Count | None = None

    @model_validator(mode="after")
    def _options_belong_to_kind(self) -> Data:
        if self.path is not None and self.kind not in ("mnist", "images"):
            raise ValueError(f"`path` goes with kind mnist or images only, not with {self.kind}; remove it")
        if self.path is None and self.kind == "images":
            raise ValueError("`path` is missing; kind images needs the folder that holds a sub-folder for each class")
        if self.side is not None and self.kind not in ("synthetic", "images"):
            raise ValueError(f"`side` goes with kind synthetic or images only, not with {self.kind}; remove it")
        return self


class Steps(Part):
    """How many steps of each phase: `warmup` before the clock counts, `measured` for the
    result, `compute_only` on a copy of the state without communication. With `blocks` the phases alternate in so many
    rounds, a block of each per round, and both counts are over all rounds (docs/methodology.md). For `until_accuracy`:
    training is given up after `at_most` steps, and the held-out images are classified after every
    `evaluate_every`."""

    warmup: Count = 10
    measured: Count = 50
    compute_only: Annotated[int, Field(ge=0)] = 20
    at_most: Count | None = None
    evaluate_every: Count = 10
    blocks: Count | None = None


class Limits(Part):
    """When a trial is given up, in seconds: `startup` until the first step is done, `hang`
    between two steps, `trial` for the whole. They do not define the measurement, so they are not
    part of a trial's id."""

    startup: Seconds = 180.0
    hang: Seconds = 30.0
    trial: Seconds = 900.0


class Telemetry(Part):
    """How often each node's sampler (jobs/telemetry/sampler.py) looks, in samples per second; 0, or `telemetry: off`,
    starts none. Like `limits` no part of a trial's id: what is measured does not depend on it."""

    hertz: Annotated[float, Field(ge=0, le=20, allow_inf_nan=False)] = 2.0

    @model_validator(mode="before")
    @classmethod
    def _off(cls, given: object) -> object:
        return {"hertz": 0.0} if given is False else given  # YAML reads `off` as false
