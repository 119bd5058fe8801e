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

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.contract.parts import Data, Steps
from jobs.contract.recipe import Files, Reading, Source
from jobs.data import dataset, load, png
from jobs.data.dataset import DataError
from jobs.data.listing import Listing, plain, readable, words
from jobs.data.records import read_records, write_records

BLAME_SECONDS = 60.0  # spent on looking for the file that was at fault


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


def plan(
    reading: Reading, steps: Steps, batch: int, seed: int, folder: Path, alive: Callable[[], object] = lambda: None
) -> tuple[Plan, dict[str, Any] | None]:
    """The samples of warm-up and measured batches, and what was found in the user's folder, if they are from one.

    The files are those in `files.path`, else made in `folder`, as TFRecord files are. Those of the user are not opened
    for it: reading them is what is measured. `alive` is called for each of them. Raises DataError.
    """
    files, told = reading.files, None
    if files.path is None:
        there = write_files(folder, files, seed)
    else:
        there, told = find(files.path, alive)
    order, shards = _order(reading, steps, batch, seed, len(there))
    records = write_records(folder, [[there[i] for i in shard.ravel()] for shard in shards]) if shards else ()
    flips = np.random.default_rng((seed, 5)).random(len(order)) < 0.5
    paths = [there[i] for i in order]
    return Plan(reading.source, paths, flips, batch, files.resize, reading.readers, len(there), records), told


def read_of(reading: Reading, steps: Steps, batch: int, seed: int, count: int) -> set[int]:
    """Which of `count` files are read. Raises DataError where they are too few."""
    return set(_order(reading, steps, batch, seed, count)[0].tolist())


def _order(
    reading: Reading, steps: Steps, batch: int, seed: int, count: int
) -> tuple[NDArray[np.int32], list[NDArray[np.int32]]]:
    """Which of `count` files each sample is, int32 [samples], and those of each TFRecord file, [batches, batch]."""
    readers, batches = reading.readers, steps.warmup + steps.measured
    if reading.source == "png":
        return dataset.batch_indices(count, batch, batches, seed).ravel(), []
    first = dataset.batch_indices(count, count, 1, seed)[0]  # the order of the first epoch
    if reading.source == "cached":
        if count > steps.warmup * batch:
            raise DataError(
                f"steps.warmup: {steps.warmup} batches of {batch} do not fill the cache with {count} files; "
                "raise it, or read fewer files"
            )
        return np.resize(first, batches * batch), []
    whole = first[: count // batch * batch].reshape(-1, batch)[:batches]  # a large folder is not copied whole
    if len(whole) < readers:
        raise DataError(f"readers: {count} files make fewer batches of {batch} than the {readers} readers")
    shards = [whole[reader::readers] for reader in range(readers)]
    turns = [(shards[i % readers], i // readers) for i in range(batches)]
    return np.concatenate([shard[turn % len(shard)] for shard, turn in turns]), shards


def find(path: str, alive: Callable[[], object] = lambda: None) -> tuple[list[str], dict[str, Any]]:
    """The PNG files below a files.path, and what to tell of them; none is opened. Raises DataError."""
    home = Path(path).expanduser()
    if not home.is_dir():
        there = "which is no folder" if home.exists() else "which is not there"
        raise DataError(f"files.path: no PNG files in {plain(home)}, {there}")
    listing = Listing(home, (".png",), alive)
    with readable("files.path"):
        found = sorted(str(file.path) for file in listing.below(home))
    if not found:
        others = words(listing.told())
        raise DataError(f"files.path: no PNG files in {plain(home)}{f' ({others})' if others else ''}")
    return found, {"path": plain(home), "files": len(found), "left_out": listing.told()}


def examine(paths: Iterable[str], alive: Callable[[], object] = lambda: None) -> None:
    """Refuse files that one library cannot read, or reads otherwise than another. Raises DataError."""
    with readable("files.path"):
        for path in paths:
            alive()
            if why := png.fault(Path(path)):
                raise DataError(f"{plain(path)}: {why}")


def blame(plan: Plan, batch: int = 0, alive: Callable[[], object] = lambda: None) -> None:
    """Raises DataError if a file is at fault that a pipeline has failed; which one, not every library says.

    Looked for from `batch` on, near which it has failed, for BLAME_SECONDS; `alive` is called for each.
    """
    from PIL import Image

    until = perf_counter() + BLAME_SECONDS

    def over() -> bool:
        alive()
        return perf_counter() > until

    for record in plan.records:
        for _ in read_records(record):
            if over():
                return
    begin = batch * plan.batch
    for path in dict.fromkeys(plan.paths[begin:] + plan.paths[:begin]):
        if over():
            return
        try:
            with Image.open(path, formats=("PNG",)) as image:
                image.load()
        except Exception as error:  # Pillow's are of many kinds
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise DataError(f"{plain(path)}: not readable as a PNG file ({reason}); mend or remove it") from None


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
