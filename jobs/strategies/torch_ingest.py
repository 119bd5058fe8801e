"""Files ─▶ batches with PyTorch's DataLoader: `readers` worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jobs.ingest import Plan


class Samples:
    """A map-style dataset over the samples of a plan: float32 [3, resize, resize]."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __len__(self) -> int:
        return len(self._plan.paths)

    def __getitem__(self, index: int) -> Any:
        import torch
        from PIL import Image

        with Image.open(self._plan.paths[index]) as file:
            pixels = np.array(file.convert("RGB"))
        image = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).float().div_(255.0)
        size = (self._plan.resize, self._plan.resize)
        image = torch.nn.functional.interpolate(image, size, mode="bilinear", align_corners=False)[0]
        return image.flip(-1) if self._plan.flips[index] else image


def batches(plan: Plan) -> Iterator[Any]:
    """Batches float32 [b, 3, resize, resize], in the plan's order."""
    from torch.utils.data import DataLoader

    # The plan's order is shuffled already. Workers are processes: Python threads would wait for each other.
    loader: Any = DataLoader(Samples(plan), plan.batch, num_workers=plan.readers, prefetch_factor=2)
    return iter(loader)
