"""Ingest: image files ─▶ batches of tensors, and nothing else; what a framework's input pipeline can do.

Both pipelines read the same PNG files in the same order and do the same to each: decode, scale to 0…1,
resize bilinearly (half-pixel centres, no antialiasing), flip where the shared random numbers say so,
batch. PNG because it decodes to the same pixels in every library, as JPEG does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs import data
from jobs.trial import Data, Files


@dataclass(frozen=True)
class Plan:
    """What is read: `paths[k]` is the file of sample k, flipped where `flips[k]`; all epochs in a row."""

    paths: list[str]
    flips: NDArray[np.bool_]
    batch: int
    resize: int
    readers: int


def plan(files: Files, folder: Path, batch: int, steps: int, readers: int, seed: int) -> Plan:
    """The samples of `steps` batches; the files are those in `files.path`, else made in `folder`."""
    if files.path is None:
        there = write_files(folder, files, seed)
    else:
        there = sorted(str(path) for path in Path(files.path).expanduser().rglob("*.png"))
        if not there:
            raise data.DataError(f"files.path: no PNG files in {files.path}")
    order = data.batch_indices(len(there), batch, steps, seed).ravel()
    flips = np.random.default_rng((seed, 5)).random(len(order)) < 0.5
    return Plan([there[i] for i in order], flips, batch, files.resize, readers)


def write_files(folder: Path, files: Files, seed: int) -> list[str]:
    """`files.count` PNG files of `files.side` × `files.side` RGB pixels: digits, enlarged, with noise,
    so that they compress about as badly as photographs."""
    from PIL import Image

    random = np.random.default_rng((seed, 7))
    digits = data.load(Data(), seed).train_images
    paths = []
    for index in range(files.count):
        small = Image.fromarray(digits[index % len(digits), ..., 0]).resize((files.side, files.side))
        noise = random.integers(0, 64, (files.side, files.side, 3), dtype=np.uint8)
        path = folder / f"{index:06d}.png"
        Image.fromarray((np.asarray(small)[..., None] // 2 + noise).astype(np.uint8)).save(path)
        paths.append(str(path))
    return paths
