"""The images, the global order of batches, and a rank's slice of it.

The order of samples is a function of (seed, epoch) alone: global batch k holds the same images
whatever the strategy and the number of workers, and rank r takes its slice of it.
"""

from __future__ import annotations

import gzip
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.contract.catalog import MODELS, ModelInfo
from jobs.contract.parts import Data

IMAGE_SHAPE = (28, 28)
CLASSES = 10
Images = NDArray[np.uint8]
Labels = NDArray[np.int32]
Indices = NDArray[np.int32]


class DataError(ValueError):
    """The data cannot be used; the message is one line: where, what, what instead."""


@dataclass(frozen=True)
class Dataset:
    """Images are uint8 [n, side, side, channels] (0 to 255), labels int32 [n] from 0 on."""

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels


def load(data: Data, seed: int, model: str = "cnn") -> Dataset:
    """The dataset that `data` names, in the size that `model` takes. Raises DataError."""
    if data.kind == "digits":
        return _digits()
    if data.kind == "synthetic":
        return _synthetic(seed, data.side or MODELS[model].side, MODELS[model])
    if data.kind == "images":
        from jobs import image_folder

        return image_folder.load(str(data.path), data.side or MODELS[model].side, MODELS[model])
    return _mnist(data.path)


def batch_indices(samples: int, global_batch: int, steps: int, seed: int) -> Indices:
    """int32 [steps, global_batch]: which training images make each global batch.

    One permutation per epoch, drawn from (seed, epoch); batches run on across the ends of epochs.
    """
    if global_batch < 1 or samples < 1:
        raise ValueError(f"samples {samples} and global batch {global_batch} must be at least 1")
    epochs = -(-steps * global_batch // samples)
    order = [np.random.default_rng((seed, epoch)).permutation(samples) for epoch in range(epochs)]
    flat = np.concatenate(order) if order else np.empty(0, np.int64)
    return flat[: steps * global_batch].astype(np.int32).reshape(steps, global_batch)


def rank_slice(indices: Indices, rank: int, world_size: int) -> Indices:
    """The columns of `indices` [steps, global_batch] that are rank's part of each global batch."""
    part = indices.shape[1] // world_size
    return np.ascontiguousarray(indices[:, rank * part : (rank + 1) * part])


def _digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, brought from 8×8 to MNIST's frame: enlarged
    bilinearly to 20×20 with a border of 4. 1,437 train, 360 test, split once and for all.

    Read straight from the file that ships with scikit-learn: importing it costs every rank a second.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("data: the digits ship with scikit-learn, which is not installed here")
    path = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable ({error}); reinstall scikit-learn") from None
    small, labels = table[:, :64].reshape(-1, 8, 8) / 16.0, table[:, 64].astype(np.int32)
    at = np.arange(20) * 7 / 19  # corner on corner, as scipy.ndimage.zoom(order=1) does
    blend = np.maximum(0.0, 1.0 - np.abs(at[:, np.newaxis] - np.arange(8)))  # [20, 8]
    enlarged = blend @ small @ blend.T
    images = np.rint(np.pad(enlarged, ((0, 0), (4, 4), (4, 4))) * 255).astype(np.uint8)[..., np.newaxis]
    order = np.random.RandomState(0).permutation(len(labels))
    train, test = order[:1437], order[1437:]
    return Dataset(images[train], labels[train], images[test], labels[test])


def _synthetic(seed: int, side: int, model: ModelInfo) -> Dataset:
    """Noise: 4,096 + 512 images of the CNN's size; of larger ones 256 + 32, which are 38 MB at 224 × 224."""
    train, test = (4096, 512) if side <= 28 else (256, 32)
    random = np.random.default_rng((seed, side))
    images = random.integers(0, 256, (train + test, side, side, model.channels), dtype=np.uint8)
    labels = random.integers(0, model.classes, len(images)).astype(np.int32)
    return Dataset(images[:train], labels[:train], images[train:], labels[train:])


IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _mnist(path: str | None) -> Dataset:
    if path is None:
        return _openml()
    place = Path(path).expanduser()
    if not place.exists():
        raise DataError(f"{place}: no such file or folder; name mnist.npz or the folder of the four IDX files")
    arrays = _npz(place) if place.is_file() else tuple(_idx(_find(place, name)) for name in IDX_FILES)
    return _checked(arrays, str(place))


def _find(folder: Path, name: str) -> Path:
    for candidate in (name, f"{name}.gz", name.replace("-idx", ".idx")):
        if (folder / candidate).is_file():
            return folder / candidate
    raise DataError(f"{folder}: {name} (or {name}.gz) is missing; it takes the four files of MNIST")


def _npz(path: Path) -> tuple[NDArray[Any], ...]:
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(path, allow_pickle=False) as archive:
            absent = [key for key in keys if key not in archive]
            if absent:
                raise DataError(f"{path}: no array {absent[0]!r}; mnist.npz holds {', '.join(keys)}")
            return tuple(archive[key] for key in keys)
    except DataError:
        raise
    except Exception as error:  # numpy raises half a dozen kinds on a damaged archive
        raise DataError(f"{path}: not a readable mnist.npz ({error})") from None


def _idx(path: Path) -> NDArray[Any]:
    """An IDX file: 0, 0, type (8 = unsigned byte), dimensions, big-endian sizes, then the bytes."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: not readable ({error})") from None
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or not 1 <= raw[3] <= 3:
        raise DataError(f"{path}: not an IDX file of unsigned bytes; fetch the original MNIST files")
    header = 4 + 4 * raw[3]
    shape = tuple(np.frombuffer(raw[4:header], ">u4").astype(int))
    if len(shape) != raw[3] or len(raw) - header != int(np.prod(shape)):
        raise DataError(f"{path}: holds {len(raw) - header} bytes, its header says {shape}: truncated or damaged")
    return np.frombuffer(raw[header:], np.uint8).reshape(shape)


def _openml() -> Dataset:
    from sklearn.datasets import fetch_openml

    try:
        images, labels = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False, parser="auto")
    except Exception as error:  # anything from DNS to a changed page
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"data: MNIST could not be fetched from OpenML ({reason}); give data.path") from None
    x = images.reshape(-1, *IMAGE_SHAPE, 1).astype(np.uint8)
    y = labels.astype(np.int32)
    return Dataset(x[:60000], y[:60000], x[60000:], y[60000:])


def _checked(arrays: tuple[NDArray[Any], ...], place: str) -> Dataset:
    x, y, tx, ty = arrays
    for part, images, labels in (("train", x, y), ("test", tx, ty)):
        if images.ndim != 3 or images.shape[1:] != IMAGE_SHAPE or not np.issubdtype(images.dtype, np.integer):
            raise DataError(f"{place}: {part} images are {images.dtype}{list(images.shape)}; uint8[n, 28, 28] wanted")
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"{place}: {part} labels are {labels.dtype}{list(labels.shape)} for {len(images)} images")
        if len(images) == 0:
            raise DataError(f"{place}: no {part} images")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= CLASSES:
            raise DataError(f"{place}: {part} labels run from {low} to {high}; 0 to 9 wanted")
    return Dataset(
        x[..., None].astype(np.uint8), y.astype(np.int32), tx[..., None].astype(np.uint8), ty.astype(np.int32)
    )
