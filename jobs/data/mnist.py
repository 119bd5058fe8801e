"""MNIST as its owners give it (mnist.npz, the four IDX files), or from OpenML, checked."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.data.dataset import DataError, Dataset

IMAGE_SHAPE = (28, 28)
GZIP = b"\x1f\x8b"  # how packed data begin (RFC 1952)
CLASSES = 10

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def mnist(path: str | None) -> Dataset:
    if path is None:
        return _openml()
    place = Path(path).expanduser()
    if not place.exists():
        raise DataError(f"{place}: no such file or folder; name mnist.npz or the folder of the four IDX files")
    arrays = _npz(place) if place.is_file() else tuple(_idx(_find(place, name)) for name in IDX_FILES)
    return _checked(arrays, str(place))


def _find(folder: Path, name: str) -> Path:
    """The file of that name, packed or not, in the folder, or below it where torchvision and others put them."""
    dotted = name.replace("-idx", ".idx")
    for place in (".", "raw", "MNIST/raw", "mnist", "MNIST", name):
        for candidate in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
            if (folder / place / candidate).is_file():
                return folder / place / candidate
    packed = sorted(path.name for path in folder.glob("*.zip"))
    cure = f"; unpack {packed[0]} there" if packed else ""
    raise DataError(f"{folder}: {name} (or {name}.gz) is missing; it takes the four files of MNIST{cure}")


def _npz(path: Path) -> tuple[NDArray[Any], ...]:
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(path, allow_pickle=False) as archive:
            absent = [key for key in keys if key not in archive]
            if any("idx3-ubyte" in name for name in archive.files):
                raise DataError(f"{path}: a zip of the IDX files; unpack it, and name the folder they are in")
            if absent:
                raise DataError(f"{path}: no array {absent[0]!r}; mnist.npz holds {', '.join(keys)}")
            return tuple(archive[key] for key in keys)
    except DataError:
        raise
    except Exception as error:  # numpy raises half a dozen kinds on a damaged archive, or on what is none
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: not a readable mnist.npz ({reason}); name that or the IDX files' folder") from None


def _idx(path: Path) -> NDArray[Any]:
    """An IDX file: 0, 0, type (8 = unsigned byte), dimensions, big-endian sizes, then the bytes."""
    try:
        raw = path.read_bytes()
        if raw[:2] == GZIP:  # whatever it is called
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); get it once more") from None
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or not 1 <= raw[3] <= 3:
        raise DataError(f"{path}: not an IDX file of unsigned bytes; fetch the original MNIST files")
    header = 4 + 4 * raw[3]
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(4, header, 4))
    if len(raw) - header != math.prod(shape):
        raise DataError(f"{path}: holds {len(raw)} bytes, its header says {header} + {shape}: truncated or damaged")
    return np.frombuffer(raw[header:], np.uint8).reshape(shape)


def _openml() -> Dataset:
    from sklearn.datasets import fetch_openml

    try:
        images, labels = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False, parser="auto")
    except Exception as error:  # anything from DNS to a changed page
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"data: MNIST could not be fetched from OpenML ({reason}); ranks use no proxy: give data.path"
        ) from None
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
        if images.min() < 0 or images.max() > 255:
            raise DataError(f"{place}: {part} images run from {images.min()} to {images.max()}; 0 to 255 wanted")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= CLASSES:
            raise DataError(f"{place}: {part} labels run from {low} to {high}; 0 to 9 wanted")
    return Dataset(
        x[..., None].astype(np.uint8), y.astype(np.int32), tx[..., None].astype(np.uint8), ty.astype(np.int32)
    )
