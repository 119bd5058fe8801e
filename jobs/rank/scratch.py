"""A folder for the temporary files of one rank, which goes when the rank has ended, however it ended.

TensorFlow leaves a file for each function that it translates, and a rank that is killed leaves all it had made, such
as the images of an ingest trial. Who keeps a rank holds a lock on its folder, and the kernel gives back the locks of
who is killed: a folder whose lock is free is nobody's, and is removed by whoever makes the next one on that machine.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass

# Characters of its path. Sockets are made below it (multiprocessing's, PyTorch's), whose whole path is 107 at most.
LONGEST = 64
TRIES = 5
CACHE = "TORCHINDUCTOR_CACHE_DIR"  # by default below TMPDIR, and worth keeping: compiling anew takes half a minute


@dataclass(frozen=True)
class Scratch:
    """`path` is the folder, `lock` its descriptor."""

    path: str
    lock: int

    def variables(self) -> dict[str, str]:
        """What a rank's environment has for it; what PyTorch compiles goes where it would without it."""
        import getpass

        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # as in a container, for a user without a name
            user = f"uid_{os.getuid()}"
        folder = "torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user)
        return {"TMPDIR": self.path, CACHE: os.environ.get(CACHE) or os.path.join(_temporary(), folder)}

    def remove(self) -> None:
        _remove(self.path, self.lock)
        with suppress(OSError):
            os.rmdir(os.path.dirname(self.path))  # where no other rank has one


def make() -> Scratch | None:
    """A new folder, once those of ranks that nobody keeps any more are removed; None where there can be none."""
    home = os.path.join(_temporary(), f"scaling-{os.getuid()}")
    path = os.path.join(home, os.urandom(4).hex())
    if len(path) > LONGEST:
        return None
    with suppress(OSError):
        for _ in range(TRIES):
            with suppress(FileExistsError):
                os.mkdir(home, 0o700)
            found = os.lstat(home)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
                return None  # somebody else's, who could put things there
            _sweep(home)
            with suppress(FileNotFoundError):  # another process has just removed it: it was empty or not yet locked
                os.mkdir(path, 0o700)
                lock = os.open(path, os.O_RDONLY)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                except OSError:  # a network file system
                    _remove(path, lock)
                    return None
                if os.path.exists(path):
                    return Scratch(path, lock)
                os.close(lock)
    return None


def _sweep(home: str) -> None:
    for name in os.listdir(home):
        path = os.path.join(home, name)
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # it is in use, or there are no locks here
                os.close(lock)
                continue
            _remove(path, lock)


def _remove(path: str, lock: int) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


def _temporary() -> str:
    """As tempfile.gettempdir(), which takes longer to import than all of this."""
    given = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return next((path for path in given if path and os.access(path, os.W_OK)), "/tmp")
