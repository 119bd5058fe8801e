"""Files ─▶ batches with PyTorch's DataLoader: `readers` worker processes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from jobs.data.reading import Plan
from jobs.data.records import FEATURE, read_records


def image(png: Any, resize: int) -> Any:
    """float32 [3, resize, resize] of a PNG file, by its path or open."""
    import torch
    from PIL import Image

    with Image.open(png) as file:
        pixels = np.array(file.convert("RGB"))
    scaled = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).float().div_(255.0)
    return torch.nn.functional.interpolate(scaled, (resize, resize), mode="bilinear", align_corners=False)[0]


class Samples:
    """A map-style dataset over the samples of a plan: float32 [3, resize, resize].

    Of a cached one each image is made once, by whichever worker comes to it, in memory that all share.
    """

    def __init__(self, plan: Plan) -> None:
        import torch

        self._plan = plan
        kept = plan.epoch if plan.source == "cached" else 0
        self._images = torch.empty(kept, 3, plan.resize, plan.resize).share_memory_()
        self._made = torch.zeros(kept, dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self._plan.paths)

    def __getitem__(self, index: int) -> Any:
        made = self._image(index)
        return made.flip(-1) if self._plan.flips[index] else made

    def _image(self, index: int) -> Any:
        path, place = self._plan.paths[index], index % self._plan.epoch
        if self._plan.source != "cached":
            return image(path, self._plan.resize)
        if not self._made[place]:
            self._images[place] = image(path, self._plan.resize)
            self._made[place] = True
        return self._images[place]


def records(plan: Plan) -> Any:
    """An iterable dataset over the plan's TFRecord files, one for each worker, in batches of its own."""
    from torch.utils.data import IterableDataset, get_worker_info

    class Records(IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            from tfrecord.example_pb2 import Example

            worker = get_worker_info().id
            # Of batch i, which is worker i % readers', the flips are those of samples i × b and on.
            flips = plan.flips.reshape(-1, plan.batch)[worker :: plan.readers].ravel()
            at = 0
            while at < len(flips):
                for record in read_records(plan.records[worker]):
                    if at == len(flips):
                        return
                    (png,) = Example.FromString(record).features.feature[FEATURE].bytes_list.value
                    made = image(io.BytesIO(png), plan.resize)
                    yield made.flip(-1) if flips[at] else made
                    at += 1

    return Records()


def batches(plan: Plan) -> Iterator[Any]:
    """Batches float32 [b, 3, resize, resize], in the plan's order."""
    from torch.utils.data import DataLoader

    samples: Any = records(plan) if plan.source == "tfrecord" else Samples(plan)
    # The plan's order is shuffled already. Workers are processes: Python threads would wait for each other.
    return iter(DataLoader(samples, plan.batch, num_workers=plan.readers, prefetch_factor=2))
