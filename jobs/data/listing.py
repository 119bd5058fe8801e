"""The image files below a folder of the user's, and what else is there: left out, counted, and told why."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from jobs.contract.files import litter
from jobs.data.dataset import DataError

MOST_REASONS = 12  # where every file has an ending of its own
CIRCLE = "links that lead in a circle"


@dataclass(frozen=True)
class File:
    """A file as it was found: what of it tells that its content is the same."""

    path: Path
    size: int
    changed_ns: int


@dataclass
class Listing:
    """Of a folder, files with some `endings`, and how many others were left out for which reason.

    `alive` is called for each: a network file system may take minutes to tell of all.
    """

    folder: Path
    endings: Collection[str]
    alive: Callable[[], object] = lambda: None
    left_out: Counter[str] = field(default_factory=Counter)

    def below(self, folder: Path) -> list[File]:
        """The files at any depth below `folder`, in the order of their paths; links are followed."""
        return sorted(self._walk(folder, frozenset()), key=lambda file: file.path.parts)

    def _walk(self, folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[File]:
        here = folder.stat()
        if (identity := (here.st_dev, here.st_ino)) in above:
            self.left_out[CIRCLE] += 1
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                self.alive()
                path = folder / entry.name
                try:
                    below = entry.is_dir()
                except OSError as error:
                    if error.errno != errno.ELOOP:
                        raise
                    self.left_out[CIRCLE] += 1
                    continue
                if below:
                    if not self.passes_over(path):
                        yield from self._walk(path, above | {identity})
                elif litter(PurePath(entry.name)):
                    self.left_out["files that other programs left there"] += 1
                elif entry.name.startswith("."):
                    self.left_out["hidden files"] += 1
                elif path.suffix.lower() not in self.endings:
                    self.left_out[f"{path.suffix.lower()} files" if path.suffix else "files without an ending"] += 1
                else:
                    state = entry.stat()
                    if entry.is_file():
                        yield File(path, state.st_size, state.st_mtime_ns)
                    else:
                        self.left_out["sockets, pipes or devices"] += 1

    def passes_over(self, folder: Path) -> bool:
        """Whether a folder's name says that it holds nothing of the user's; its images are counted as left out."""
        if folder.name.startswith("."):
            why = "is hidden"
        elif litter(PurePath(folder.name)):
            why = "is a name of what other programs leave behind"
        else:
            return False
        self.leave_out(folder, why)
        return True

    def leave_out(self, folder: Path, why: str) -> None:
        """Count the images in a folder that is not looked into, as far as they can be seen."""
        names = (name for _, _, files in os.walk(folder) for name in files)
        count = sum(PurePath(name).suffix.lower() in self.endings and not litter(PurePath(name)) for name in names)
        if count:
            self.left_out[f"images in {folder.name}/, which {why}"] += count

    def told(self) -> dict[str, int]:
        """What was left out ─▶ how many, the most first; as text that any file can hold."""
        reasons = self.left_out.most_common()
        told = {plain(why): count for why, count in reasons[:MOST_REASONS]}
        others = sum(count for _, count in reasons[MOST_REASONS:])
        return told | ({"files for other reasons": others} if others else {})


@contextmanager
def readable(key: str) -> Iterator[None]:
    """What the file system refuses is a fault of the study's `key`, in one line."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{plain(error.filename)}: {error.strerror}; {key} must be readable by every rank") from None


def plain(text: object) -> str:
    """A name as text; what in it is no UTF-8 becomes a question mark."""
    return os.fsencode(str(text)).decode("utf-8", errors="replace")


def words(told: Mapping[str, Any]) -> str:
    """What was left out, in a line; empty if nothing was."""
    return ", ".join(f"{count:,} {why}" for why, count in told.items())
