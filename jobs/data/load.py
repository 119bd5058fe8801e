"""The data that a trial names ─▶ a Dataset: digits, noise or MNIST. For a folder of images: jobs/data/folder.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from jobs.contract.catalog import MODELS, ModelInfo
from jobs.contract.parts import Data
from jobs.data.dataset import DataError, Dataset


def load(data: Data, seed: int, model: str = "cnn") -> Dataset:
    """The dataset that `data` names, in the size that `model` takes. Raises DataError."""
    if data.kind == "digits":
        return _digits()
    if data.kind == "synthetic":
        return _synthetic(seed, data.side or MODELS[model].side, MODELS[model])
    from jobs.data.mnist import mnist

    return mnist(data.path)


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
