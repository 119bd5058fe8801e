"""The models that are trained, found by name through `MODELS`.

A model is described without a framework (jobs/models/layers.py); jobs/strategies/torch_model.py and
tf_model.py build it. This registry is plain data so that validating a study needs not even NumPy;
`load` imports the description that is asked for.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from jobs.models.layers import Model

ModelName = Literal["cnn", "resnet50"]


@dataclass(frozen=True)
class ModelInfo:
    """What must be known of a model without its layers.

    It takes square images with `channels` and as many pixels on a side as `sides` allows, `side` if
    nothing else is said, and gives `classes` logits.
    """

    name: ModelName
    side: int
    sides: range
    channels: int
    classes: int


MODELS: dict[str, ModelInfo] = {
    info.name: info
    for info in (
        ModelInfo("cnn", side=28, sides=range(28, 29), channels=1, classes=10),
        ModelInfo("resnet50", side=224, sides=range(32, 513), channels=3, classes=1000),
    )
}


def load(name: str) -> Model:
    """The description of model `name`."""
    model: Model = importlib.import_module(f"jobs.models.{name}").MODEL
    return model
