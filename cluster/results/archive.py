"""A zip of results from another machine ─▶ a folder: the whole list is checked before a byte is written.

A results folder holds plain files below one folder, so anything else in the list (a path that leads
elsewhere, a link, a device, a name given twice, an encrypted file, a bomb) refuses the archive.
"""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from cluster.study.schema import StudyError
from jobs.contract.files import litter

MOST_FILES = 200_000
MOST_BYTES = 4 << 30  # unpacked: a hundred times ten thousand steps of sixteen ranks
MOST_RATIO = 100  # unpacked to packed; step lines come to about 6
SMALL_BYTES = 16 << 20  # unpacked: below it the ratio does not matter
LONGEST_NAME = 255  # bytes, of one part of a path, as Linux's file systems have it
DEEPEST = 12  # parts of a path
ENCRYPTED = 0x1 | 0x40 | 0x2000  # flag bits of APPNOTE.TXT 4.4.4
NOT_IN_A_PATH = re.compile(r"[\x00-\x1f\x7f\\:]")  # control characters, Windows' separator and drives


def unpack(archive: Path, to: Path) -> None:
    """Unpack the files of the zip `archive` into the folder `to`. Raises StudyError."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            for entry in entries:
                entry.filename = _slashed(entry.filename, entries)
            entries = [entry for entry in entries if not litter(PurePosixPath(entry.filename))]
            if fault := _fault(entries, archive.stat().st_size):
                raise StudyError([f"{archive}: {fault}"])
            for entry in entries:
                if not entry.is_dir():
                    _write(opened, entry, to / entry.filename)
    except OSError as error:
        raise StudyError([f"{archive}: {error.strerror or error}"]) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        if isinstance(error, StudyError):
            raise
        said = " ".join(repr(str(error))[1:-1].split())
        raise StudyError([f"{archive}: is no zip, or a damaged one ({said[:100]}); get it once more"]) from None


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """One file, by our own path and without the entry's permissions; zipfile checks length and CRC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(entry) as source, path.open("xb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _fault(entries: Sequence[zipfile.ZipInfo], packed: int) -> str:
    """Why the archive is refused, in a few words, "" if it is not."""
    if len(entries) > MOST_FILES:
        return f"{len(entries)} files; at most {MOST_FILES} are taken"
    files: set[str] = set()
    folders: set[str] = set()
    for entry in entries:
        if fault := _entry_fault(entry, _slashed(entry.orig_filename, entries)):
            return f"{entry.orig_filename[:100]!r} {fault}; not unpacked"
        name = entry.filename.removesuffix("/")
        if name in files or (name in folders and not entry.is_dir()):
            return f"{name[:100]!r} is in it twice; not unpacked"
        folders.update(str(parent) for parent in PurePosixPath(name).parents)
        (folders if entry.is_dir() else files).add(name)
    if both := files & folders:
        return f"{min(both)[:100]!r} is a file and a folder in it; not unpacked"
    total = sum(entry.file_size for entry in entries)
    if total > MOST_BYTES:
        return f"unpacks to {total} bytes; at most {MOST_BYTES} are taken"
    if total > SMALL_BYTES and total > MOST_RATIO * packed:
        return f"unpacks to {total // max(packed, 1)} times its size, which no results do; not unpacked"
    return ""


def _slashed(name: str, entries: Sequence[zipfile.ZipInfo]) -> str:
    """The name with the separators of a zip's paths: older programs of Windows write their own, and then no other."""
    return name if any("/" in entry.orig_filename for entry in entries) else name.replace("\\", "/")


def _entry_fault(entry: zipfile.ZipInfo, original: str) -> str:
    # An extra field may give a second name, which newer Pythons unpack to.
    for name in (original, entry.filename):
        parts = name.removesuffix("/").split("/")
        if name.startswith("/"):
            return "is an absolute path"
        if ".." in parts:
            return "leads out of the folder"
        odd = NOT_IN_A_PATH.search(name) or "" in parts or "." in parts
        if odd or len(parts) > DEEPEST or _longest(parts) > LONGEST_NAME:
            return "is no path of a results folder"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link" if stat.S_ISLNK(kind) else "is a device, a pipe or a socket"
    return "is encrypted" if entry.flag_bits & ENCRYPTED else ""


def _longest(parts: Sequence[str]) -> int:
    return max(len(part.encode("utf-8", "surrogateescape")) for part in parts)
