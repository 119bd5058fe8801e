"""A user's folder of images, one sub-folder for each class, as resident arrays.

FOLDER/cat/001.jpg  FOLDER/cat/002.png  FOLDER/dog/001.jpg  …
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

import numpy as np

from jobs.contract.catalog import ModelInfo
from jobs.contract.files import litter
from jobs.data.dataset import DataError, Dataset, Images

ENDINGS = (".png", ".jpg", ".jpeg")
LARGEST = 4 << 30  # bytes that every rank holds of it
HELD_OUT = 5  # one image in five


def load(path: str, side: int, model: ModelInfo) -> Dataset:
    """The images below `path`, scaled and cut in the middle to `side` × `side`. Raises DataError.

    Classes are numbered in the order of their folders' names. What is held out is the same in every trial.
    """
    folder = Path(path).expanduser()
    files, labels = _found(folder, model.classes)
    size = len(files) * side * side * model.channels
    if size > LARGEST:
        raise DataError(
            f"{folder}: {len(files)} images of {side} × {side} are {size / 2**30:.1f} GiB for every rank, more than "
            f"{LARGEST >> 30}; take fewer images or a smaller data.side"
        )
    images = np.empty((len(files), side, side, model.channels), np.uint8)
    for image, file in zip(images, files, strict=True):
        image[:] = _decoded(file, side, model.channels)
    order = np.random.RandomState(0).permutation(len(files))
    held_out = len(files) // HELD_OUT
    test, train = order[:held_out], order[held_out:]
    found = np.array(labels, np.int32)
    return Dataset(images[train], found[train], images[test], found[test])


def _found(folder: Path, most: int) -> tuple[list[Path], list[int]]:
    """The image files, and each one's class."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; data.path is a folder with a sub-folder of images for each class")
    try:
        classes = sorted(
            entry
            for entry in folder.iterdir()
            if entry.is_dir() and not entry.name.startswith(".") and not litter(PurePath(entry.name))
        )
        names = {entry: _images(entry) for entry in classes}
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}; data.path must be readable by every rank") from None
    if len(classes) < 2:
        raise DataError(f"{folder}: {len(classes)} sub-folders; it takes one for each class, and two classes at least")
    if len(classes) > most:
        raise DataError(f"{folder}: {len(classes)} sub-folders, and the model has {most} classes; take fewer")
    for entry, there in names.items():
        if not there:
            raise DataError(f"{entry}: no {', '.join(ENDINGS)} files; remove the folder or fill it")
    files = [file for there in names.values() for file in there]
    if len(files) < HELD_OUT:
        raise DataError(f"{folder}: {len(files)} images; one in {HELD_OUT} is held out, so take {HELD_OUT} at least")
    return files, [label for label, there in enumerate(names.values()) for _ in there]


def _images(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    return sorted(path for path in found if not litter(path.relative_to(folder)))


def _decoded(file: Path, side: int, channels: int) -> Images:
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            wanted: Any = image.convert("L" if channels == 1 else "RGB")
        fitted = ImageOps.fit(wanted, (side, side), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: a broken PNG
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{file}: not readable as an image ({reason}); mend or remove it") from None
    return np.asarray(fitted, np.uint8).reshape(side, side, channels)
