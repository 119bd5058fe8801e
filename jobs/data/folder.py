"""A user's folder of images, one sub-folder for each class, as resident arrays.

FOLDER/cat/001.jpg  FOLDER/cat/002.png  FOLDER/dog/001.jpg  …      one image in five is held out
FOLDER/train/cat/001.jpg  …  FOLDER/val/cat/002.png  …             those in val are

They are decoded once on each machine (jobs/data/kept.py), not by every rank of every launch.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from jobs.contract.catalog import ModelInfo
from jobs.contract.files import litter
from jobs.contract.parts import Data
from jobs.data import kept
from jobs.data.dataset import DataError, Dataset
from jobs.data.listing import File, Listing, plain, readable

ENDINGS = (".png", ".jpg", ".jpeg")
LARGEST = 4 << 30  # bytes that every rank holds of it
HELD_OUT = 5  # one image in five
TRAINING = ("train", "training")
# What else a part of a data set is called, among other words.
PART = re.compile(r"train|test|valid|hold.?out|eval|fold|split|pred|(?<![a-z])(?:val|dev)(?![a-z])", re.I)
HOLDING_OUT = ("val", "valid", "validation", "dev", "eval", "test", "testing")  # the first of them that is there


class Classes(NamedTuple):
    """The names of classes, the image files, and each one's class."""

    names: list[str]
    files: list[File]
    labels: list[int]


@dataclass(frozen=True)
class Found:
    """What is below a data.path, each image to be `side` × `side` with `channels`.

    `files` are in the order in which they are kept, the first `training` of them to train on. `held_out` says where
    the others are from, `left_out` why other files were not taken ─▶ how many, `doubt` why the classes may be meant
    otherwise.
    """

    folder: Path
    side: int
    channels: int
    classes: list[str]
    files: list[File]
    labels: list[int]
    training: int
    held_out: str
    left_out: dict[str, int]
    doubt: str = ""

    def told(self) -> dict[str, Any]:
        """As plan.json and a rank's report have it."""
        counts = Counter(self.labels)
        return {
            "path": plain(self.folder),
            "images": len(self.files),
            "classes": {plain(name): counts[label] for label, name in enumerate(self.classes)},
            "held_out": len(self.files) - self.training,
            "held_out_from": self.held_out,
            "left_out": self.left_out,
        }

    @cached_property
    def place(self) -> Path:
        """Where the images are kept once they are decoded."""
        return kept.place(self.folder, self.files, self.side, self.channels)

    def decode(self) -> Iterator[int]:
        """Have them decoded; yields how many are, every now and then. Raises DataError."""
        return kept.decode(self.place, self.files, self.side, self.channels)

    def load(self) -> Dataset:
        """The images once they are decoded; their pages are shared by all processes of the machine."""
        images = kept.mapped(self.place, (len(self.files), self.side, self.side, self.channels))
        labels = np.array(self.labels, np.int32)
        cut = self.training
        return Dataset(images[:cut], labels[:cut], images[cut:], labels[cut:])


def find(data: Data, model: ModelInfo, alive: Callable[[], object] = lambda: None) -> Found:
    """The images below data.path, in the size that the model takes; none is opened. Raises DataError.

    `alive` is called for each file. Classes are numbered in the order of their folders' names. What is held out is the
    same in every trial.
    """
    folder, side = Path(str(data.path)).expanduser(), data.side or model.side
    if not folder.is_dir():
        what = "is a file; unpack it" if folder.exists() else "no such folder"
        raise DataError(f"{plain(folder)}: {what}; data.path is a folder with a sub-folder of images for each class")
    listing, doubt = Listing(folder, ENDINGS, alive), ""
    with readable("data.path"):
        top = _sub_folders(listing, folder)
        names = {entry.name.lower(): entry for entry in top}
        train = next((names[name] for name in TRAINING if name in names), None)
        held_out = next((names[name] for name in HOLDING_OUT if name in names), None)
        if train and held_out:
            for other in top:
                if other not in (train, held_out):
                    listing.leave_out(other, f"is neither {plain(train.name)} nor {plain(held_out.name)}")
            found, training = _in_two(listing, train, held_out, model.classes)
            said = f"{plain(held_out.name)}/"
        else:
            doubt = _parts(folder, top)
            found, training = _one_in_five(_classes(listing, folder, top, model.classes), folder)
            said = f"one in {HELD_OUT}"
    size = math.prod((len(found.files), side, side, model.channels))
    if size > LARGEST:
        raise DataError(
            f"{plain(folder)}: {len(found.files)} images of {side} × {side} are {size / 2**30:.1f} GiB for every rank, "
            f"more than {LARGEST >> 30}; take fewer images or a smaller data.side"
        )
    return Found(folder, side, model.channels, *found, training, said, listing.told(), doubt)


def _parts(folder: Path, top: Sequence[Path]) -> str:
    """Why `top` may be parts of a data set and no classes: they have the same sub-folders. Raises DataError where
    their names, or those of the sub-folders, say so too."""
    inside = {entry: _inside(entry) for entry in top}
    by_name = [entry for entry in top if PART.search(entry.name) and len(inside[entry]) > 1]
    for entries in (by_name, top):
        same = set.intersection(*(set(inside[entry]) for entry in entries)) if len(entries) > 1 else set()
        if len(same) < 2:
            continue
        names = sorted(same)
        what = f"{plain(folder)}: {_some([e.name for e in entries])} all have the sub-folders {_some(names)}"
        if by_name:
            first = next((entry for entry in by_name if "train" in entry.name.lower()), by_name[0])
            one = inside[first][names[0]].parent
            raise DataError(
                f"{what}, so they seem to be parts of a data set and no classes; did you mean {plain(one)}? Or make a "
                "folder with links `train` and `val` to two of them, and name that as data.path"
            )
        if sum(PART.search(name) is not None for name in names) > 1:
            raise DataError(f"{what}, which seem to be parts of a data set; put them above: {names[0]}/{top[0].name}/…")
        return f"{what}, and are taken for classes; if they are none, name one of them as data.path"
    return ""


def _inside(folder: Path) -> dict[str, Path]:
    """The sub-folders of a folder by their names, or those of its only one."""
    found = _folders(folder)
    return (_folders(*found.values()) or found) if len(found) == 1 else found


def _folders(folder: Path) -> dict[str, Path]:
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.is_dir(follow_symlinks=False) or (e.is_symlink() and os.path.isdir(e))]
    return {name: folder / name for name in names if not name.startswith(".") and not litter(PurePath(name))}


def _some(names: Sequence[str]) -> str:
    return plain(", ".join(names[:3]) + (", …" if len(names) > 3 else ""))


def _one_in_five(found: Classes, folder: Path) -> tuple[Classes, int]:
    """The images with those that are held out at the end, and how many are not."""
    count = len(found.files)
    if count < HELD_OUT:
        raise DataError(f"{plain(folder)}: {count} images; one in {HELD_OUT} is held out, so take {HELD_OUT} at least")
    order, held_out = np.random.RandomState(0).permutation(count), count // HELD_OUT
    order = np.roll(order, -held_out)
    return Classes(found.names, [found.files[i] for i in order], [found.labels[i] for i in order]), count - held_out


def _in_two(listing: Listing, train: Path, held_out: Path, most: int) -> tuple[Classes, int]:
    """The images of `train`, then those of `held_out`, and how many the first are."""
    instead = f"or name {plain(train)} as data.path"
    first = _classes(listing, train, _sub_folders(listing, train), most)
    try:
        then = _classes(listing, held_out, _sub_folders(listing, held_out), most, least=1)
    except DataError as error:
        raise DataError(f"{error}, {instead}") from None
    if unknown := [name for name in then.names if name not in first.names]:
        raise DataError(
            f"{plain(held_out / unknown[0])}: a class that {plain(train)} does not have; take the same sub-folders in "
            f"both, {instead}"
        )
    labels = [first.names.index(then.names[label]) for label in then.labels]
    return Classes(first.names, first.files + then.files, first.labels + labels), len(first.files)


def _classes(listing: Listing, folder: Path, entries: Sequence[Path], most: int, least: int = 2) -> Classes:
    """Of `entries`, the sub-folders of `folder`, each is a class."""
    if len(entries) < least:
        raise DataError(
            f"{plain(folder)}: {len(entries)} sub-folders; it takes one for each class, and "
            f"{'two classes' if least > 1 else 'one class'} at least{_instead(entries)}"
        )
    if len(entries) > most:
        raise DataError(f"{plain(folder)}: {len(entries)} sub-folders, and the model has {most} classes; take fewer")
    files: list[File] = []
    labels: list[int] = []
    for label, entry in enumerate(entries):
        before = Counter(listing.left_out)
        there = listing.below(entry)
        if not there:
            others = ", ".join(f"{count:,} {why}" for why, count in (listing.left_out - before).most_common())
            said = f" ({plain(others)})" if others else ""
            raise DataError(f"{plain(entry)}: no {', '.join(ENDINGS)} files{said}; remove the folder or fill it")
        files += there
        labels += [label] * len(there)
    return Classes([entry.name for entry in entries], files, labels)


def _instead(entries: Sequence[Path]) -> str:
    """The folder that was meant, where the classes are one deeper."""
    deeper = [entry for entry in entries if sum(path.is_dir() for path in entry.iterdir()) > 1]
    return f"; did you mean {plain(deeper[0])}?" if deeper else ""


def _sub_folders(listing: Listing, folder: Path) -> list[Path]:
    """Those that are not passed over; files that lie beside them are counted as left out."""
    entries = sorted(folder.iterdir())
    beside = sum(not entry.is_dir() and not litter(PurePath(entry.name)) for entry in entries)
    if beside:
        where = f"in {plain(folder.name)}/" if folder != listing.folder else "there"
        listing.left_out[f"files beside the sub-folders {where}"] += beside
    return [entry for entry in entries if entry.is_dir() and not listing.passes_over(entry)]
