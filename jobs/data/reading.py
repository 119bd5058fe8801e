"""Ingest: image files ─▶ batches of tensors, and nothing else; what a framework's input pipeline can do.

Both pipelines read the same samples in the same order and do the same to each: decode, scale to 0…1,
resize bilinearly (half-pixel centres, no antialiasing), flip where the shared random numbers say so,
batch. PNG because it decodes to the same pixels in every library, as JPEG does not.

Where samples come from is the trial's `source`:

    png       one file each, in another order in every epoch
    tfrecord  the same bytes in TFRecord files, one for each reader, read from the front to the end: every
              epoch has the order of the first
    cached    as png in the first epoch, then decoded and resized from memory, in the order of the first
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.contract.files import litter
from jobs.contract.parts import Data, Steps
from jobs.contract.recipe import Files, Reading, Source
from jobs.data import dataset, load
from jobs.data.records import write_records


@dataclass(frozen=True)
class Plan:
    """What is read: `paths[k]` is the file of sample k, flipped where `flips[k]`; all epochs in a row.

    `epoch` is the number of files. `records` are the TFRecord files of source "tfrecord", with whole
    batches in each: batch i is the next one of file i % readers, which starts again after its last.
    """

    source: Source
    paths: list[str]
    flips: NDArray[np.bool_]
    batch: int
    resize: int
    readers: int
    epoch: int
    records: tuple[str, ...]


def plan(reading: Reading, steps: Steps, batch: int, seed: int, folder: Path) -> Plan:
    """The samples of warm-up and measured batches; the files are those in `files.path`, else made in `folder`,
    as TFRecord files are. Raises DataError."""
    files, readers = reading.files, reading.readers
    if files.path is None:
        there = write_files(folder, files, seed)
    else:
        home = Path(files.path).expanduser()
        there = sorted(str(path) for path in home.rglob("*.png") if not litter(path.relative_to(home)))
        if not there:
            raise dataset.DataError(f"files.path: no PNG files in {files.path}")
    count, batches = len(there), steps.warmup + steps.measured
    first = dataset.batch_indices(count, count, 1, seed)[0]  # the order of the first epoch
    records: tuple[str, ...] = ()
    if reading.source == "png":
        order = dataset.batch_indices(count, batch, batches, seed).ravel()
    elif reading.source == "cached":
        if count > steps.warmup * batch:
            raise dataset.DataError(
                f"steps.warmup: {steps.warmup} batches of {batch} do not fill the cache with {count} files; "
                "raise it, or read fewer files"
            )
        order = np.resize(first, batches * batch)
    else:
        whole = first[: count // batch * batch].reshape(-1, batch)[:batches]  # a large folder is not copied whole
        if len(whole) < readers:
            raise dataset.DataError(f"readers: {count} files make fewer batches of {batch} than the {readers} readers")
        shards = [whole[reader::readers] for reader in range(readers)]
        turns = [(shards[i % readers], i // readers) for i in range(batches)]
        order = np.concatenate([shard[turn % len(shard)] for shard, turn in turns])
        records = write_records(folder, [[there[i] for i in shard.ravel()] for shard in shards])
    flips = np.random.default_rng((seed, 5)).random(len(order)) < 0.5
    return Plan(reading.source, [there[i] for i in order], flips, batch, files.resize, readers, count, records)


def write_files(folder: Path, files: Files, seed: int) -> list[str]:
    """`files.count` PNG files of `files.side` × `files.side` RGB pixels: digits, enlarged, with noise,
    so that they compress about as badly as photographs."""
    from PIL import Image

    random = np.random.default_rng((seed, 7))
    digits = load.load(Data(), seed).train_images
    paths = []
    for index in range(files.count):
        small = Image.fromarray(digits[index % len(digits), ..., 0]).resize((files.side, files.side))
        noise = random.integers(0, 64, (files.side, files.side, 3), dtype=np.uint8)
        path = folder / f"{index:06d}.png"
        Image.fromarray((np.asarray(small)[..., None] // 2 + noise).astype(np.uint8)).save(path)
        paths.append(str(path))
    return paths
