"""Decoded images, kept in the user's cache: made once on a machine, then mapped by every rank that wants them.

~/.cache/scaling/images/NAME-SIDE-DIGITS.npy (below $XDG_CACHE_HOME where that is set). The digits are of all that
the content follows from: the files' paths, sizes and times, the size wanted, and what decodes. Whoever finds a file
there trusts it, so it gets its name only when it is whole; what a run that is killed leaves, a `.partial`, goes with
the next one. The folder may be removed whenever no study runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from jobs.contract.files import look_afresh
from jobs.data.dataset import DataError, Images
from jobs.data.decoding import VERSION, decoded
from jobs.data.listing import File, plain
from jobs.rank.scratch import machine

LOOK_SECONDS = 0.2  # how often a process that waits for another one's decoding looks
LEFT_SECONDS = 24 * 3600.0  # nobody writes any more what another machine has not written to for so long


def folder() -> Path:
    """Where decoded images are kept. Raises DataError."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "scaling", "images")
    except RuntimeError:
        raise DataError(
            "no home folder to keep decoded images in; name a place in the variable XDG_CACHE_HOME"
        ) from None


def place(home: Path, files: Sequence[File], side: int, channels: int) -> Path:
    """Where the images `files`, all below `home`, are kept at `side` × `side` pixels."""
    import PIL

    root = home.resolve()
    made = json.dumps([VERSION, PIL.__version__, side, channels, os.fsencode(root).hex()])
    digest = hashlib.sha256(made.encode())
    for file in files:
        inside = os.fsencode(file.path.relative_to(home))
        digest.update(b"%b\0%d\0%d\0" % (inside, file.size, file.changed_ns))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain(root.name))[:40]
    return folder() / f"{name}-{side}-{digest.hexdigest()[:24]}.npy"


def mapped(path: Path, shape: tuple[int, int, int, int]) -> Images:
    """What is kept at `path`, uint8 [n, side, side, channels], if it is `shape`. Raises DataError.

    Its pages are touched, or steps of those frameworks that take the array as it is would wait for the disk.
    """
    try:
        # Copy on write: frameworks warn of arrays that they may not write to, and write to none.
        found = np.load(path, mmap_mode="c", allow_pickle=False)
        if (found.dtype, found.shape) != (np.uint8, shape) or path.stat().st_size != found.offset + found.nbytes:
            raise ValueError(f"{found.dtype}{[*found.shape]} in {path.stat().st_size} bytes, not uint8{[*shape]}")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove it, and it is made anew") from None
    found.max()
    return np.asarray(found)


def decode(path: Path, files: Sequence[File], side: int, channels: int) -> Iterator[int]:
    """See to it that `files` are kept at `path`; yields how many are, after each, or while another process decodes.

    Raises DataError.
    """
    if path.exists():
        return
    lock = path.with_suffix(".lock")
    try:
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        file = _locked(lock)
        while file is None and not path.exists():
            yield 0
            time.sleep(LOOK_SECONDS)
            file = _locked(lock)
        if file is None:
            return
        with file:
            try:
                look_afresh(path.parent)
                if not path.exists():
                    yield from _write(path, files, side, channels)
            finally:  # while it is locked; whoever waits for it sees that it is gone
                lock.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"{path.parent}: decoded images cannot be kept there ({error.strerror or error}); make room or mend it, or "
            "name another place by the variable XDG_CACHE_HOME"
        ) from None


def _write(path: Path, files: Sequence[File], side: int, channels: int) -> Iterator[int]:
    """Decode `files` into a file of our own, which gets the name `path` if none has got it meanwhile.

    The lock saves work and no more: where those of other machines are not seen (BeeGFS, NFS without locks), several
    write at once. One that has its name stays, as it may be mapped elsewhere already.
    """
    mine = f"{path.stem}.{machine()}-"
    for left in path.parent.glob(f"{path.stem}.*.partial"):  # by who was killed
        with suppress(OSError):
            if left.name.startswith(mine) or left.stat().st_mtime < time.time() - LEFT_SECONDS:
                left.unlink()
    partial = path.with_name(f"{mine}{os.urandom(4).hex()}.partial")
    try:
        with partial.open("xb") as file:
            shape = (len(files), side, side, channels)
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for done, each in enumerate(files, 1):
                file.write(decoded(each.path, side, channels).tobytes())
                yield done
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _locked(lock: Path) -> IO[bytes] | None:
    """The file `lock` open and locked, None while another process of this machine has it."""
    file = lock.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        state = os.fstat(file.fileno())
        there = lock.stat()
        if (state.st_dev, state.st_ino) == (there.st_dev, there.st_ino):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass  # another one has it, or has just finished and removed it
    except OSError:
        file.close()
        raise
    file.close()
    return None
