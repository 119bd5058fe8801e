"""What can be told of a study's data before anything is launched: faults, counts, and how long decoding will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from jobs.contract.catalog import MODELS
from jobs.contract.parts import Data
from jobs.contract.recipe import Reading
from jobs.contract.trial import Trial
from jobs.data import folder, load, reading
from jobs.data.decoding import decoded
from jobs.data.listing import words

SAMPLE_SECONDS = 2.0
FEW = 6  # classes that are named one by one


@dataclass
class Survey:
    """`told` are the user's folders, as plan.json has them, and `undecoded` those whose images are not kept yet;
    `lines` say what there is, `warnings` what is not as it may be believed to be."""

    told: list[dict[str, Any]] = field(default_factory=list)
    undecoded: list[folder.Found] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def take(self, told: dict[str, Any]) -> None:
        if told in self.told:
            return
        self.told.append(told)
        self.lines.append(_described(told))
        if told["left_out"]:
            self.warnings.append(f"{told['path']}: left out: {words(told['left_out'])}")


def survey(points: Sequence[Trial], seed: int, here: bool) -> Survey:
    """Of the data that `points` want; what is read at once is read, for its faults. Raises DataError.

    `here` is whether ranks run on this machine: on others there may be folders that this one does not have.
    """
    found = Survey()
    for data, model in dict.fromkeys((point.data, point.recipe.model) for point in points):
        if not here and _elsewhere(data.path, "data.path", found):
            continue
        if data.kind == "images":
            _images(data, model, found)
        else:
            load.load(data, seed, model)
    asked = [point for point in points if isinstance(point, Reading)]
    for path in dict.fromkeys(point.files.path for point in asked):
        if not here and _elsewhere(path, "files.path", found):
            continue
        files: list[str] = []
        if path is not None:
            files, told = reading.find(path)
            found.take(told)
        read: set[int] = set()
        for point in asked:
            if point.files.path == path:
                count = len(files) or point.files.count
                read |= reading.read_of(point, point.steps, point.global_batch, point.seed, count)
        if files:
            reading.examine(files[i] for i in sorted(read))
    return found


def _described(told: dict[str, Any]) -> str:
    if "classes" not in told:
        return f"{told['path']}: {told['files']:,} PNG files"
    counts = told["classes"]
    each = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    spread = each if len(counts) <= FEW else f"{min(counts.values()):,} to {max(counts.values()):,} each"
    held_out = f"{told['held_out']:,} held out ({told['held_out_from']})"
    return f"{told['path']}: {told['images']:,} images of {len(counts):,} classes ({spread}), {held_out}"


def _elsewhere(path: str | None, key: str, found: Survey) -> bool:
    if path is None or Path(path).expanduser().exists():
        return False
    found.warnings.append(f"{key}: {path} is not on this machine; each node will look for it, and fail where it is not")
    return True


def _images(data: Data, model: str, found: Survey) -> None:
    images = folder.find(data, MODELS[model])
    found.take(images.told())
    if images.doubt and images.doubt not in found.warnings:
        found.warnings.append(images.doubt)
    place = images.place
    if place.exists():
        found.lines.append(f"{images.folder}: decoded already, kept in {place}")
    else:
        count = len(images.files)
        seconds = _per_image(images) * count
        size = count * images.side * images.side * images.channels / 2**20
        once = f"about {seconds:.0f} s" if seconds >= 1 else "less than a second"
        found.lines.append(f"{images.folder}: decoded once, in {once}, and kept in {place.parent} ({size:.1f} MiB)")
        found.undecoded.append(images)


def _per_image(images: folder.Found) -> float:
    """Seconds that one takes, by those from all over the folder that can be decoded within SAMPLE_SECONDS."""
    order, done, began = np.random.default_rng(0).permutation(len(images.files)), 0, perf_counter()
    while done < len(order) and perf_counter() < began + SAMPLE_SECONDS:
        decoded(images.files[order[done]].path, images.side, images.channels)
        done += 1
    return (perf_counter() - began) / done
