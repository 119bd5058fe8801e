"""A folder for the temporary files of one rank, which goes when the rank has ended, however it ended.

TensorFlow leaves a file for each function that it translates, and a rank that is killed leaves all it had made, such
as the images of an ingest trial. Who keeps a rank holds a lock on its folder, and the kernel gives back the locks of
who is killed: a folder whose lock is free is nobody's, and is removed by whoever makes the next one on that machine.
Only there: on many a shared file system another machine's locks are not seen, so a folder's name begins with its
machine's.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from jobs.machine.variables import BEFORE

# Characters of the path by which a rank knows it: sockets are made below it, with 32 more (multiprocessing), and the
# path of a socket has 107 at most (unix(7)).
LONGEST = 75
SHORT = "/tmp"  # where a link to a folder with a longer path is
TRIES = 5
CACHE = "TORCHINDUCTOR_CACHE_DIR"  # by default below TMPDIR, and worth keeping: compiling anew takes half a minute


@dataclass(frozen=True)
class Scratch:
    """`path` is the folder, `lock` its descriptor, `link` a shorter way to it; empty if it is short enough."""

    path: str
    lock: int
    link: str = ""

    def variables(self) -> dict[str, str]:
        """What a rank's environment has for it; what PyTorch compiles goes where it would without it."""
        import getpass

        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # as in a container, for a user without a name
            user = f"uid_{os.getuid()}"
        folder = "torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user)
        own = {"TMPDIR": self.link or self.path, CACHE: os.environ.get(CACHE) or os.path.join(_temporary(), folder)}
        return own | {BEFORE: json.dumps({name: os.environ.get(name) for name in own})}

    def remove(self) -> None:
        _remove(self.path, self.lock)
        with suppress(OSError):
            os.rmdir(os.path.dirname(self.path))  # where no other rank has one
        if self.link:
            with suppress(OSError):
                os.unlink(self.link)
                os.rmdir(os.path.dirname(self.link))


def machine() -> str:
    """How the names begin of the folders whose locks can be seen here: what one kernel's run is called, in a container
    as outside. cluster/ray/rank.py, which is sent by value, has the same."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read(64).replace("-", "")[:12]
    return os.uname().nodename[:20]


def make() -> Scratch | None:
    """A new folder, once those of ranks that nobody keeps any more are removed; None where there can be none."""
    with suppress(OSError):
        for _ in range(TRIES):
            with suppress(FileNotFoundError):  # another process has just removed what was empty, or not yet locked
                return _made(f"{machine()}-{os.urandom(4).hex()}")
    return None


def _made(name: str) -> Scratch | None:
    """Raises OSError, FileNotFoundError where another try may do."""
    if not (home := _home(_temporary())):
        return None
    path = os.path.join(home, name)
    os.mkdir(path, 0o700)
    lock = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.stat(path)
        if len(path) <= LONGEST:
            return Scratch(path, lock)
        if short := _home(SHORT):
            os.symlink(path, link := os.path.join(short, name))
            return Scratch(path, lock, link)
    except OSError:  # of the lock: a network file system
        _remove(path, lock)
        raise
    _remove(path, lock)
    return None


def _home(temporary: str) -> str:
    """The folder of all such folders, without what nobody keeps; empty if others could put things there."""
    home = os.path.join(temporary, f"scaling-{os.getuid()}")
    with suppress(FileExistsError):
        os.mkdir(home, 0o700)
    found = os.lstat(home)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        return ""
    ours = f"{machine()}-"
    for entry in os.listdir(home):
        if not entry.startswith(ours):
            continue
        path = os.path.join(home, entry)
        with suppress(OSError):
            if os.path.islink(path):
                if not os.path.exists(path):
                    os.unlink(path)
                continue
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # it is in use, or there are no locks here
                os.close(lock)
                continue
            _remove(path, lock)
    return home


@contextmanager
def temporary_folder() -> Iterator[str]:
    """As tempfile.TemporaryDirectory, for this process; if it is killed, the folder goes as that of a rank does."""
    if made := make():
        try:
            yield made.path
        finally:
            made.remove()
    else:
        import tempfile

        with tempfile.TemporaryDirectory() as path:
            yield path


def _remove(path: str, lock: int) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


def _temporary() -> str:
    """As tempfile.gettempdir(), which takes longer to import than all of this."""
    given = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return os.path.abspath(next((path for path in given if path and os.access(path, os.W_OK)), "/tmp"))
